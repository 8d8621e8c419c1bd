"""The verb `evaluate`: a run's checkpoint on its test split, on any number of ranks, without DeepSpeed.

In: a run folder. Out: RUN/evaluation/ with table, curves, pictures and every score (RUN/evaluation/substeps-N/ for each
of eval.substeps); the table on the terminal; the same in the run's W&B. An evaluation that is stopped goes on where it
was when it is started again.

eval.split names another split, whose results go to RUN/evaluation/split-NAME/. Whatever the split, clip i is read by
its number and from its first frame on: of stored training videos these are not the windows that training drew from
them, but their beginnings; of digits that move for ever it is clip i of one fixed stream, which no training seed draws.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.data import ensure_dataset, open_split, refuse_short_clips
from hpc.distributed import World
from hpc.evaluation.evaluate import Evaluation, EvaluationStopped, Watch, evaluate
from hpc.evaluation.parts import PartStore
from hpc.evaluation.protocol import Protocol, protocol_of
from hpc.evaluation.results import format_table, move_former, table_rows, write_results
from hpc.evaluation.scorers import FRECHET_CACHE, Scorers, fvd_scores, scorers_for
from hpc.evaluation.scores import FvdScores, read_scores
from hpc.export import load_predictor
from hpc.run_folder import SPLIT, RunFolder
from hpc.stop import StopCause, StopFlag
from hpc.tracking.console import progress_bar
from hpc.version import code_version
from hpc.watchdog.watchdog import Watchdog
from odevid.metrics.frechet import Moments
from odevid.metrics.fvd import FrechetVideoDistance
from odevid.model import VideoModel
from shards.moving_mnist import MovingMnistClips
from shards.source import ClipSource


def evaluate_run(
    config: Config, folder: RunFolder, world: World, stop: StopFlag, watchdog: Watchdog
) -> tuple[int, StopCause | None]:
    """Collective. Returns the step of the evaluated weights and why it stopped early, if it did."""
    model, step = load_predictor(config, folder, world)
    _refuse_substeps(config, model, world.device)
    world.on_rank_0(lambda: ensure_dataset(config.data))
    settings = config.eval
    source = open_split(config.data, settings.split, settings.test_num_frames, folder.allowed_pipes())
    world.on_rank_0(lambda: _refuse_clips(config, source))
    usual = protocol_of(
        *(config, source, "eval.test_clips", settings.test_clips, settings.test_num_frames, settings.test_samples),
        split=settings.split,
    )
    scorers = scorers_for(settings, usual, world)
    if scorers.features is not None:
        usual = replace(usual, fvd_sets=min(settings.fvd_sets, usual.samples))
    causes: list[StopCause] = []
    watch = Watch(
        stopping=_collect(stop, world, causes, lambda: watchdog.beat(step, "validate")),
        beat=lambda: watchdog.beat(step, "validate"),
    )
    time_steps: list[int | None] = [*settings.substeps] or [None]
    for substeps in time_steps:
        of_split = folder.evaluation if settings.split == "test" else folder.evaluation / f"{SPLIT}{settings.split}"
        where = of_split if substeps is None else of_split / f"substeps-{substeps}"
        test = _Test(config, folder, model, step, source, usual.at(substeps), scorers, where)
        try:
            test.run(world, watch)
        except EvaluationStopped:
            return step, causes[0]
        world.barrier()
    return step, None


def _refuse_clips(config: Config, source: ClipSource) -> None:
    """
    Raises:
        ConfigError: all of clips that have no end, or stored clips of training or validation that are too short.
    """
    settings = config.eval
    if isinstance(source, MovingMnistClips) and not settings.test_clips:
        raise ConfigError(
            f"eval.split={settings.split} is made as it is read and has no end: say how many clips, for example "
            "eval.test_clips=256"
        )
    if settings.split != "test":
        refuse_short_clips(config.data, source, settings.split, f"eval.test_num_frames={settings.test_num_frames}")


def _refuse_substeps(config: Config, model: VideoModel, device: torch.device) -> None:
    """
    Raises:
        ConfigError: eval.substeps that the model cannot make.
    """
    channels, height, width = config.model.frame_shape
    given_BTCHW = torch.zeros(1, config.model.nt_cond, channels, height, width, device=device)
    for substeps in config.eval.substeps:
        try:
            model.predict(given_BTCHW, n_future=1, substeps=substeps)
        except ValueError as error:
            raise ConfigError(f"eval.substeps={config.eval.substeps}: {error}") from error


def _collect(stop: StopFlag, world: World, causes: list[StopCause], beat: Callable[[], None]) -> Callable[[], bool]:
    def stopping() -> bool:
        beat()
        cause = stop.agree(lambda code: world.all_max([code])[0])
        causes.extend([cause] if cause else [])
        return cause is not None

    return stopping


class _Test:
    """One evaluation of one set of weights."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        model: VideoModel,
        step: int,
        source: ClipSource,
        protocol: Protocol,
        scorers: Scorers,
        where: Path,
    ) -> None:
        self.config, self.folder, self.model, self.step = config, folder, model, step
        self.source, self.protocol, self.scorers, self.where = source, protocol, scorers, where
        self.distance = FrechetVideoDistance(scorers.features) if scorers.features else None

    def run(self, world: World, watch: Watch) -> None:
        """Collective: score, and on rank 0 write and tell."""
        real_is_known = world.on_rank_0(self._prepare)
        if self.protocol.substeps and world.on_rank_0(self._is_done):
            return
        store = PartStore(self.where, self._identity(f"real is known: {real_is_known}"))
        if world.rank == 0:
            self._announce(store)
        with progress_bar("evaluate", enabled=world.rank == 0) as progress:
            found = evaluate(
                self.model,
                self.source,
                self.protocol,
                world,
                autocast=lambda: torch.autocast(
                    world.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
                ),
                scorers=self.scorers,
                score_real=not real_is_known,
                watch=replace(watch, progress=progress),
                store=store,
            )
        if world.rank == 0:
            self._report(found)
            store.clear()

    def _prepare(self) -> bool:
        """Whether the statistics of the true videos are known. Rank 0 only.

        Raises:
            ConfigError: the results cannot be written, which is to be known before the hours begin.
        """
        try:
            self.where.mkdir(parents=True, exist_ok=True)
            probe = self.where / ".can-be-written"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise ConfigError(
                f"{self.where} cannot be written ({error}): mend that, or copy the run elsewhere"
            ) from error
        return self._load_real()

    def _is_done(self) -> bool:
        """Whether these very scores are there: of several time steps, a stop may have come after the first ones."""
        try:
            done = read_scores(self.where).about.get("identity") == self._identity()
        except (ConfigError, KeyError, TypeError, ValueError):
            return False
        if done:
            print(f"{self.where} has these scores; to compute them again: rm -r {shlex.quote(str(self.where))}")
        return done

    def _announce(self, store: PartStore) -> None:
        """N and what it means, before the hours begin."""
        protocol = self.protocol
        names = [metric.name for metric in self.scorers.metrics] + (["fvd"] if self.distance else [])
        print(
            f"step {self.step}: {protocol.num_clips} of {protocol.clips_of_split} {protocol.split} clips x "
            f"{protocol.samples} samples x {protocol.n_future} frames"
            + (f", {protocol.substeps} solver steps a frame" if protocol.substeps else "")
            + (", the given frames rebuilt" if protocol.given else "")
            + (f", one sample at {protocol.halved} solver steps a frame" if protocol.halved else "")
            + f"; {', '.join(names)}"
        )
        for name, why in self.scorers.absent.items():
            print(f"NOT COMPUTED: {name}: {why}")
        for other in store.others():
            print(f"NOTE: {other} holds parts of an evaluation of other weights or another protocol that was stopped")

    def _load_real(self) -> bool:
        """Whether the statistics of the true videos are known from an earlier evaluation."""
        if self.distance is None:
            return False
        try:
            return self.distance.load_real(FRECHET_CACHE.expanduser(), self._real_name())
        except (OSError, ValueError) as error:
            print(f"NOTE: statistics of the true videos are computed anew: {error}")
            return False

    def _real_name(self) -> str:
        protocol = self.protocol
        return f"{self.source.fingerprint} {protocol.split} {protocol.num_clips} x {protocol.num_frames} frames"

    def _identity(self, *more: str) -> str:
        """A digest of everything that the scores of a clip depend on, and of more."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        protocol = {**asdict(self.protocol), "batch": 0, "chunk": 0}
        names = [metric.name for metric in self.scorers.metrics]
        words = [protocol, names, self.config.train.precision, self.source.fingerprint, code_version(), *more]
        digest.update(json.dumps(words).encode())
        return digest.hexdigest()

    def _report(self, found: Evaluation) -> None:
        fvd = self._fvd(found)
        about: dict[str, object] = {
            "step": self.step,
            "config": configs.to_dict(self.config),
            "code": code_version(),
            "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "data": self.source.fingerprint,
            "torch": torch.__version__,
            "identity": self._identity(),
        }
        protocol = {**asdict(self.protocol), "metrics": [metric.name for metric in self.scorers.metrics]}
        if former := move_former(self.where, self.step, protocol):
            print(f"the former evaluation, of other weights or another protocol, is now in {former}")
        scores = write_results(found, self.where, about, fvd)
        rebuilt = f" (rebuilt: 1 to {self.protocol.num_context})" if self.protocol.given else ""
        frames = f"frames {self.protocol.num_context + 1} to {self.protocol.num_frames}{rebuilt}"
        print(f"\n{self.protocol.split}: {frames}; ± is 95 % over the clips")
        print(format_table(table_rows(scores)))
        print(
            f"{found.cost.scored} clips x samples in {found.cost.wall_s:.1f} s on {found.cost.ranks} ranks "
            f"({found.cost.device}): {found.cost.s_per_video_and_sample:.4g} s of a rank each"
        )
        for name, path in scores.files.items():
            print(f"{name:12} {self.where / path}")
        if self.config.log.wandb != "disabled":
            from hpc.tracking.evaluation_mirror import mirror_evaluation

            mirror_evaluation(self.folder, self.config, scores, self.where)

    def _fvd(self, found: Evaluation) -> FvdScores | None:
        if self.distance is None:
            return None
        if self.distance.real is None:
            features_ND = torch.stack([clip.real_D for clip in found.clips if clip.real_D is not None])
            real = Moments.of(features_ND)
            try:
                self.distance.set_real(real, FRECHET_CACHE.expanduser(), self._real_name())
            except (OSError, ValueError) as error:
                print(f"NOTE: statistics of the true videos are not kept for the next evaluation: {error}")
                self.distance.set_real(real)
        assert self.distance.real is not None
        sets = [
            torch.stack([clip.generated[number] for clip in found.clips]) for number in range(self.protocol.fvd_sets)
        ]
        scores, warnings = fvd_scores(self.distance.real, torch.stack(sets))
        for warning in warnings:
            print(f"NOTE: {warning}")
        return scores
