"""Score a model on a split: every clip and sample exactly once, shared out over the ranks, at any world size alike.

In: a predictor, a clip source, a `Protocol`, `Scorers`. Out: on every rank the `Evaluation` of all clips. A clip's
samples come from generator(seed, clip), so they depend neither on its batch mates nor on the rank that draws them. The
given frames are encoded once for all samples, what a metric needs of the true frames is computed once, and memory is
that of a few samples, whatever their number. Finished batches are kept in a `PartStore`, if there is one.

Legend: N samples, B clips, T predicted frames, C channels, H rows, W columns, D features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpc.config import ConfigError
from hpc.data import to_unit_range
from hpc.distributed import World
from hpc.evaluation.once import at_halved_step, baselines, change_of_psnr, generators, rebuilt, score_rebuilt
from hpc.evaluation.parts import (
    Chosen,
    ClipPart,
    ClipScores,
    PartStore,
    Picture,
    PicturePart,
    by_clip,
    join,
)
from hpc.evaluation.protocol import Protocol, Share, share_of
from hpc.evaluation.scorers import Scorers, features_of
from hpc.evaluation.scores import (
    CENTROID,
    MODEL,
    RECONSTRUCTION,
    REPEAT,
    SINGLE,
    STEP_HALVED,
    VELOCITY,
    Cost,
    scalar_name,
)
from odevid.metrics.best_of import PSNR, BestOf
from odevid.metrics.centroid import centroid_error
from odevid.metrics.interval import Interval, interval_mean_of_frames, interval_over_videos
from odevid.model import VideoModel, evaluating
from shards.source import ClipSource


@dataclass
class Evaluation:
    """What was found, over all clips."""

    protocol: Protocol
    scorers: Scorers
    clips: list[ClipScores]
    cost: Cost
    pictures: list[Picture] = field(default_factory=list)

    def curves(self, method: str, metric: str) -> Tensor:
        """Values (clips, frames of the method), float64."""
        return torch.stack([clip.curves[method][metric].double() for clip in self.clips])

    def interval(self, method: str, metric: str) -> Interval:
        """Mean over clips of the mean over time, with its 95 % interval over clips."""
        return interval_over_videos(self.curves(method, metric).mean(dim=1))

    def interval_of_frames(self, method: str, metric: str) -> Interval:
        """The same mean, with the mean over time of each frame's interval."""
        return interval_mean_of_frames(self.curves(method, metric))

    def methods(self, metric: str) -> list[str]:
        return [method for method, curves in self.clips[0].curves.items() if metric in curves]

    def median_centroid_error(self, method: str, first_frames: int = 5) -> float:
        """Median over clips and the method's first frames of the distance of the centroids (pixels)."""
        errors = self.curves(method, CENTROID)[:, :first_frames].flatten()
        return float(errors[~errors.isnan()].quantile(0.5))

    def scalars(self) -> dict[str, float]:
        """What a metrics line keeps."""
        found: dict[str, float] = {}
        for metric in self.scorers.metrics:
            found[metric.name] = self.interval(MODEL, metric.name).mean
            found[f"{metric.name}_ci95"] = self.interval(MODEL, metric.name).half_width
            for method in (SINGLE, REPEAT, RECONSTRUCTION):
                if method in self.methods(metric.name):
                    found[scalar_name(method, metric.name)] = self.interval(method, metric.name).mean
        if self.protocol.halved:
            found[scalar_name(STEP_HALVED, PSNR.name)] = self.interval(STEP_HALVED, PSNR.name).mean
        if self.protocol.centroid:
            for method in (SINGLE, REPEAT, VELOCITY, RECONSTRUCTION):
                if method in self.methods(CENTROID):
                    found[scalar_name(method, CENTROID)] = self.median_centroid_error(method)
        return found


class EvaluationStopped(Exception):
    """The ranks agreed to stop before the evaluation was complete."""


@dataclass(frozen=True)
class Watch:
    """What an evaluation tells and asks while it works."""

    stopping: Callable[[], bool] = lambda: False
    """Agreed by all ranks (collective); asked once per round of batches."""
    beat: Callable[[], None] = lambda: None
    """Called after every few samples: this rank is alive."""
    progress: Callable[[int, int], None] = lambda _done, _total: None
    """Told how many clips x samples of this rank are done, of how many."""


@torch.no_grad()
def evaluate(
    model: VideoModel,
    source: ClipSource,
    protocol: Protocol,
    world: World,
    *,
    autocast: Callable[[], Any],
    scorers: Scorers | None = None,
    score_real: bool = True,
    watch: Watch | None = None,
    store: PartStore | None = None,
) -> Evaluation:
    """Score `model` on the first `protocol.num_clips` clips. Collective.

    Args:
        autocast: makes the context that forward passes run in (the run's precision).
        scorers: PSNR and SSIM if none are given.
        score_real: compute the features of the true videos, which FVD wants unless their statistics are known.
        store: where finished batches are kept, and where this evaluation goes on if it was stopped before.

    Raises:
        EvaluationStopped: `watch.stopping` said so.
    """
    work = _Work(model, source, protocol, world.device, scorers or Scorers(), score_real, watch or Watch())
    done = world.on_rank_0(lambda: store.read(protocol.samples) if store else [])
    scored = {part.index for part in done}
    left = [index for index in range(protocol.num_clips) if index not in scored]
    share = share_of(protocol, left, world.rank, world.size)
    parts: list[ClipPart] = []
    with evaluating(model):
        for number in range(world.all_max([len(share.batches)])[0]):
            if work.watch.stopping():
                raise EvaluationStopped
            if number < len(share.batches):
                with autocast():
                    found = work.score(share.batches[number], share, len(parts) * share.num_samples)
                parts += found
                if store is not None:
                    store.keep(found)
    every = [*done, *(part for of_rank in world.gather(parts) for part in of_rank)]
    joined = [join(of_clip, work.scorers.higher_is_better) for of_clip in by_clip(every).values()]
    return Evaluation(
        protocol,
        work.scorers,
        [scores for scores, _ in joined],
        Cost(
            sum(part.wall_s for part in every),
            sum(part.cpu_s for part in every),
            world.size,
            device_name(world.device),
            protocol.num_clips * protocol.samples,
        ),
        [picture for _, picture in joined if picture is not None],
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads a rank"


@dataclass(frozen=True)
class _Work:
    """Scores batches of clips on one rank."""

    model: VideoModel
    source: ClipSource
    protocol: Protocol
    device: torch.device
    scorers: Scorers
    score_real: bool
    watch: Watch

    def score(self, indices: list[int], share: Share, done: int) -> list[ClipPart]:
        """This rank's samples of some clips. `done` of its work was done before."""
        wall, cpu = time.perf_counter(), time.process_time()
        fetched = self.source.read(indices)
        video_BTCHW = to_unit_range({"video": torch.from_numpy(fetched.arrays["video"])}, self.device)["video"]
        video_BTCHW = video_BTCHW[:, : self.protocol.num_frames]
        seen = self._look_at(video_BTCHW, indices, fetched.keys, share, done)
        once: dict[str, dict[str, Tensor]] = {}
        if share.first_sample == 0:
            once = self._once(video_BTCHW, indices, fetched.keys, seen)
            if self.scorers.features is not None and self.score_real:
                seen.real_BD = features_of(self.scorers.features, video_BTCHW)
        wall, cpu = (
            (now - then) / len(indices) for now, then in ((time.perf_counter(), wall), (time.process_time(), cpu))
        )
        return [
            ClipPart(
                index=index,
                key=fetched.keys[row],
                first_sample=share.first_sample,
                num_samples=share.num_samples,
                best=_chosen(seen.best, row, share.first_sample),
                sums={name: curves_BT[row].cpu() for name, curves_BT in seen.sums().items()},
                once={
                    method: {name: curves_BT[row].cpu() for name, curves_BT in curves.items()}
                    for method, curves in once.items()
                },
                wall_s=wall,
                cpu_s=cpu,
                real_D=None if seen.real_BD is None else seen.real_BD[row],
                generated={sample: features_BD[row] for sample, features_BD in seen.generated.items()},
                picture=self._picture(video_BTCHW, seen, row) if index < self.protocol.pictures else None,
            )
            for row, index in enumerate(indices)
        ]

    def _look_at(self, video_BTCHW: Tensor, indices: list[int], keys: Sequence[str], share: Share, done: int) -> _Seen:
        """Draw this rank's samples, a few at a time, and keep what is to be known of them."""
        protocol, features = self.protocol, self.scorers.features
        context, target = video_BTCHW[:, : protocol.num_context], video_BTCHW[:, protocol.num_context :]
        pictured = any(index < protocol.pictures for index in indices)
        seen = _Seen(BestOf(self.scorers.metrics, target, keep_frames=pictured))
        for frames_NBTCHW in self._sampled(context, indices, share):
            clamped = _in_range(frames_NBTCHW, keys)
            first = share.first_sample + seen.best.num_samples
            seen.best.update(clamped)
            if protocol.halved and first == 0:
                seen.first_BTCHW = clamped[0].clone()
            if protocol.centroid:
                errors_BT = centroid_error(clamped, target).double().sum(dim=0)
                seen.centroids_BT = errors_BT if seen.centroids_BT is None else seen.centroids_BT + errors_BT
            for sample, frames_BTCHW in enumerate(clamped, start=first):
                if pictured and sample < protocol.random_samples:
                    seen.random[sample] = _to_uint8(frames_BTCHW)
                if features is not None and sample < protocol.fvd_sets:
                    seen.generated[sample] = features_of(features, torch.cat((context, frames_BTCHW), dim=1))
            self.watch.beat()
            self.watch.progress(done + len(indices) * seen.best.num_samples, share.work)
        return seen

    def _sampled(self, context: Tensor, indices: list[int], share: Share) -> Iterator[Tensor]:
        protocol = self.protocol
        return self.model.predict_chunks(
            context,
            n_future=protocol.n_future,
            n_samples=share.num_samples,
            chunk=protocol.samples_at_once(len(indices)),
            generator=generators(protocol, indices),
            substeps=protocol.substeps,
            first_sample=share.first_sample,
        )

    def _once(
        self, video_BTCHW: Tensor, indices: list[int], keys: Sequence[str], seen: _Seen
    ) -> dict[str, dict[str, Tensor]]:
        """method -> metric -> curves BT of what is found once per clip."""
        protocol = self.protocol
        context, target = video_BTCHW[:, : protocol.num_context], video_BTCHW[:, protocol.num_context :]
        found = baselines(context, target, protocol, seen.best)
        if protocol.given:
            seen.rebuilt_BTCHW = _in_range(rebuilt(self.model, context, protocol, indices), keys)
            found[RECONSTRUCTION] = score_rebuilt(
                seen.rebuilt_BTCHW, context, self.scorers.metrics, centroid=protocol.centroid
            )
            self.watch.beat()
        if protocol.halved:
            assert seen.first_BTCHW is not None
            finer_BTCHW = _in_range(at_halved_step(self.model, context, protocol, indices), keys)
            found[STEP_HALVED] = change_of_psnr(finer_BTCHW, seen.first_BTCHW, target)
            self.watch.beat()
        return found

    def _picture(self, video_BTCHW: Tensor, seen: _Seen, row: int) -> PicturePart:
        """Best and worst by the first metric, which is PSNR unless eval.metrics says otherwise."""
        metric = self.scorers.metrics[0]
        best, worst = seen.best.best[metric.name], seen.best.worst[metric.name]
        assert best.frames_BTCHW is not None and worst.frames_BTCHW is not None
        sign = 1 if metric.higher_is_better else -1
        return PicturePart(
            _to_uint8(video_BTCHW[row]),
            sign * float(best.values_B[row]),
            _to_uint8(best.frames_BTCHW[row]),
            sign * float(worst.values_B[row]),
            _to_uint8(worst.frames_BTCHW[row]),
            {sample: frames_BTCHW[row] for sample, frames_BTCHW in seen.random.items()},
            None if seen.rebuilt_BTCHW is None else _to_uint8(seen.rebuilt_BTCHW[row]),
        )


@dataclass
class _Seen:
    """What is known of the samples of a batch."""

    best: BestOf
    centroids_BT: Tensor | None = None
    """Sum over samples."""
    random: dict[int, Tensor] = field(default_factory=dict)
    """sample -> uint8 BTCHW"""
    generated: dict[int, Tensor] = field(default_factory=dict)
    """sample -> features BD"""
    real_BD: Tensor | None = None
    first_BTCHW: Tensor | None = None
    """The first sample, if it is to be compared."""
    rebuilt_BTCHW: Tensor | None = None
    """The given frames as the first sample shows them."""

    def sums(self) -> dict[str, Tensor]:
        """metric -> sum over the samples of its curves BT."""
        totals = self.best.totals
        return totals if self.centroids_BT is None else {**totals, CENTROID: self.centroids_BT}


def _in_range(frames: Tensor, keys: Sequence[str]) -> Tensor:
    """Frames NBTCHW or BTCHW as float32 in [0, 1].

    Raises:
        ConfigError: a model that does not predict numbers.
    """
    clamped = frames.float().clamp(0, 1)
    broken_B = clamped.isnan().flatten(-4).any(dim=-1).view(-1, len(keys)).any(dim=0)
    if broken_B.any():
        first = keys[int(broken_B.nonzero()[0])]
        raise ConfigError(
            f"the model predicts NaN for {int(broken_B.sum())} of {len(keys)} clips (first: {first}): its training "
            "diverged; evaluate weights from before that: eval.checkpoint=best, or a run with a lower optimizer.lr"
        )
    return clamped


def _chosen(best: BestOf, row: int, first_sample: int) -> dict[str, Chosen]:
    return {
        name: Chosen(
            float(selection.values_B[row]), first_sample + int(selection.samples_B[row]), selection.curves_BT[row].cpu()
        )
        for name, selection in best.best.items()
    }


def _to_uint8(frames: Tensor) -> Tensor:
    return (frames * 255).round().to("cpu", torch.uint8)
