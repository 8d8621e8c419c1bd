"""The training loop: fetch, step, observe, maybe evaluate, maybe save, maybe stop.

In: a run folder with its config, a `World`. Out: checkpoints, journal, pictures, an exported model, and an `Outcome`
that says whether the schedule is finished or why it stopped. The loop knows recipes, not models.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.data import (
    dataset_root,
    is_remote,
    open_split,
    open_validation,
    refuse_short_clips,
    to_unit_range,
)
from hpc.distributed import World, peak_memory_bytes
from hpc.evaluation.evaluate import Evaluation, EvaluationStopped, Watch, evaluate
from hpc.evaluation.protocol import protocol_of
from hpc.evaluation.results import write_validation_pictures
from hpc.guard import Guard
from hpc.health.preflight import preflight
from hpc.identity import first_change
from hpc.jobs.attempts import note_training
from hpc.plan import plan_batches
from hpc.recipes import MicroBatch, StepResult, build_recipe
from hpc.run_folder import RunFolder
from hpc.saving import Saver
from hpc.schedule import lr_factor
from hpc.stop import StopCause, StopFlag, decode, encode
from hpc.tracking.meters import Meters, over_ranks
from hpc.tracking.tracker import Tracker
from hpc.version import code_version
from hpc.watchdog.watchdog import Watchdog, read_diagnosis
from shards.loader import Batch, Loader
from shards.source import ClipSource, Substitution
from shards.substitution import SubstitutionLedger

STATE_FORMAT = 1


@dataclass(frozen=True)
class Outcome:
    step: int
    cause: StopCause | None
    """None: the schedule is finished."""


def train(config: Config, folder: RunFolder, world: World, stop: StopFlag, attempt: int, watchdog: Watchdog) -> Outcome:
    """Train until the schedule ends or the ranks agree to stop. Collective."""
    with Trainer(config, folder, world, stop, attempt, watchdog) as trainer:
        return trainer.run()


class Trainer:
    def __init__(
        self, config: Config, folder: RunFolder, world: World, stop: StopFlag, attempt: int, watchdog: Watchdog
    ) -> None:
        self.config, self.folder, self.world, self.stop = config, folder, world, stop
        self.attempt, self.watchdog = attempt, watchdog
        self.plan = plan_batches(
            config.train.global_batch, world.size, config.train.micro_batch, config.train.batchnorm_group
        )
        _set_determinism(config, world)
        self.recipe = build_recipe(config, self.plan, world)
        limits = config.train.max_bad_steps, config.train.spike_factor
        self.guards = {name: Guard(*limits) for name in self.recipe.engines}
        self.last_step_was_bad = False
        self.told_bad: set[str] = set()
        self.ledger = SubstitutionLedger(config.data.max_substitutions)
        self.meters = Meters(world.device)
        self.trained_on: str | None = None
        self.step = 0
        self.samples_consumed = 0
        self.validated_step = 0
        self.best: float | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Trainer:
        with contextlib.ExitStack() as exits:  # closes what is open if the next thing fails
            self._open(exits)
            self._exits = exits.pop_all()
        return self

    def _open(self, exits: contextlib.ExitStack) -> None:
        """Journal, state, data: in this order, so that whatever goes wrong is in the journal."""
        tracker = Tracker(
            self.folder.path,
            self.attempt,
            self.config.log,
            configs.to_dict(self.config),
            rank=self.world.rank,
            total_steps=self.config.train.steps,
        )
        self.tracker = exits.enter_context(tracker)
        self.saver = Saver(self.config, self.folder, self.tracker)
        self._resume()
        self.tracker.start(self.step, self._about())
        self._preflight()
        allow = self.folder.allowed_pipes()
        source = open_split(self.config.data, "train", self.config.data.num_frames, allow)
        self._check_data(source)
        self._refuse_short(source, "train", f"data.num_frames={self.config.data.num_frames}")
        source.quarantine(self.ledger.records)
        self.loader = exits.enter_context(
            Loader(
                source,
                seed=self.config.seed,
                global_batch=self.plan.global_batch,
                micro_batch=self.plan.micro_batch,
                rank=self.world.rank,
                world_size=self.world.size,
                workers=self.config.data.workers,
                prefetch=self.config.data.prefetch,
                pin_memory=self.world.device.type == "cuda",
            )
        )
        settings = self.config.eval
        if settings.every:
            self.validation = open_validation(self.config.data, settings, allow)
            self.protocol = protocol_of(
                self.config,
                self.validation,
                "eval.clips",
                settings.clips,
                settings.num_frames,
                settings.samples,
                "valid",
            )
            self._refuse_short(self.validation, "valid", f"eval.num_frames={settings.num_frames}")
            self.world.on_rank_0(lambda: self.validation.read([0]).keys)  # damage is an error now, not later

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def _about(self) -> dict[str, Any]:
        ranks = self.world.ranks
        master = f"{ranks.master_addr}:{ranks.master_port}"
        return {"world_size": self.world.size, "plan": str(self.plan), "code": code_version(), "master": master}

    def _preflight(self) -> None:
        """What the nodes are like goes to the journal, and how the last attempt hung, if it did."""
        hang = read_diagnosis(self.folder.path, self.attempt - 1) if self.world.rank == 0 else None
        if hang is not None:
            self.tracker.event("hang", self.step, {"attempt": self.attempt - 1, "diagnosis": hang}, warn=True)
        root = dataset_root(self.config.data)
        report = preflight(self.world, self.folder.path, None if is_remote(root) else root)
        self.tracker.event("preflight", self.step, report.journal())

    def _beat(self, phase: str) -> None:
        self.watchdog.beat(self.step, phase)

    def _check_data(self, source: ClipSource) -> None:
        """A resumed run must go on with the data it was trained on: the order of the samples depends on it."""
        self.data_fingerprint = source.fingerprint
        if self.trained_on not in (None, source.fingerprint):
            raise ConfigError(
                f"{self.config.data.root} holds other data (fingerprint {source.fingerprint[:12]}) than this run was "
                f"trained on ({str(self.trained_on)[:12]}): put that back, or start anew with train.resume=never"
            )

    def _refuse_short(self, source: ClipSource, split: str, option: str) -> None:
        self.world.on_rank_0(lambda: refuse_short_clips(self.config.data, source, split, option))

    def run(self) -> Outcome:
        batches = self.loader.batches(self.samples_consumed)
        began = self.step
        while True:
            if self._due_validation() and not self._validate():
                return self._end(self._agreed_cause())
            if self.step >= self.config.train.steps:
                return self._end(None)
            if cause := self._agreed_cause():
                return self._end(cause)
            fetched = self._fetch(batches)
            result = self._advance(fetched)
            self._observe(result, fetched)
            if self.step == began + 1 and self.world.rank == 0:
                note_training(self.folder.path, self.attempt, began)

    # -- one step --------------------------------------------------------------------------------------------------

    def _fetch(self, batches: Iterator[Batch]) -> list[Batch]:
        """The micro-batches of the next optimiser step, still on the host."""
        self._beat("fetch")
        fetched = []
        for _ in range(self.plan.accumulation):
            with self.meters.waiting():
                fetched.append(next(batches))
            self._note_substitutions(fetched[-1].substitutions)
        return fetched

    def _on_device(self, fetched: list[Batch]) -> Iterator[MicroBatch]:
        """One after the other: only the micro-batch at work takes the device's memory."""
        for accumulated, batch in enumerate(fetched):
            arrays = to_unit_range(batch.arrays, self.world.device)
            yield MicroBatch(arrays, self.plan.rows(self.world.rank, accumulated))

    def _advance(self, fetched: list[Batch]) -> StepResult:
        self._beat("step")
        self.recipe.set_lr(lr_factor(self.config.optimizer, self.step, self.config.train.steps))
        result = self.recipe.step(self._on_device(fetched), self.step)
        self.step += 1
        self.samples_consumed += self.plan.global_batch
        return result

    def _observe(self, result: StepResult, fetched: list[Batch]) -> None:
        norms = {f"grad_norm/{name}": update.grad_norm for name, update in result.updates.items()}
        verdicts = {name: self.guards[name].inspect(update.grad_norm) for name, update in result.updates.items()}
        self.last_step_was_bad = any(verdicts.values())
        for name, reason in verdicts.items():
            if reason:
                self._report_bad_step(name, reason, fetched)
        frames = self.plan.global_batch * self.config.data.num_frames
        self.meters.update(result.terms, norms, frames)
        if self.step % self.config.log.every == 0 or self.step == self.config.train.steps:
            self._log()

    def _log(self) -> None:
        """One line of the journal: means and maxima since the last one, over all ranks."""
        parts = self.world.gather(self.meters.collect())
        scalars = {name: over_ranks(name, [part[name] for part in parts]) for name in parts[0]}
        scalars["data_wait_share_max"] = max(part["data_wait_share"] for part in parts)
        scalars["lr"] = self.config.optimizer.lr * lr_factor(
            self.config.optimizer, self.step - 1, self.config.train.steps
        )
        scalars["memory_gib"] = max(self.world.gather(peak_memory_bytes(self.world.device))) / 2**30
        scalars["samples_consumed"] = self.samples_consumed
        scalars["bad_steps"] = sum(guard.bad_steps for guard in self.guards.values())
        scalars["substitutions"] = len(self.ledger.records)
        self.tracker.log("train", self.step, scalars)

    def _report_bad_step(self, engine: str, reason: str, fetched: list[Batch]) -> None:
        mine = [key for batch in fetched for key in batch.keys], self.recipe.trouble
        parts = self.world.gather(mine)
        keys = [key for part, _ in parts for key in part]
        trouble = list(dict.fromkeys(told for _, told in parts if told))
        details = {"engine": engine, "reason": reason, **({"trouble": trouble} if trouble else {}), "keys": keys}
        self.tracker.event("bad_step", self.step, details, warn=self._is_new(f"{engine}: {reason} {trouble}"))
        self.guards[engine].check_budget(self.step, reason, keys, trouble)

    def _is_new(self, text: str) -> bool:
        """Whether a text was not told by this attempt yet; one with other numbers is the same."""
        words = re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "#", text)
        new = words not in self.told_bad
        self.told_bad.add(words)
        return new

    def _note_substitutions(self, mine: list[Substitution]) -> None:
        """Put the substitutes of all ranks into every rank's ledger, so that a resume replays them anywhere."""
        if not self.config.data.max_substitutions:
            return
        if not self.world.all_max([len(mine)])[0]:
            return
        for record in [record for part in self.world.gather(mine) for record in part]:
            self.ledger.add(record)
            self.tracker.event("substitution", self.step + 1, record.to_dict())

    # -- evaluate --------------------------------------------------------------------------------------------------

    def _due_validation(self) -> bool:
        every = self.config.eval.every
        return bool(every) and self.step % every == 0 and self.validated_step != self.step

    def _validate(self) -> bool:
        """False when the ranks agreed to stop before it was complete; it is then made up for after the resume."""
        try:
            found = evaluate(
                self.recipe.predictor,  # type: ignore[arg-type]
                self.validation,
                self.protocol,
                self.world,
                autocast=next(iter(self.recipe.engines.values())).autocast,
                watch=Watch(
                    self._stopping_validation, lambda: self._beat("validate"), self.tracker.progress("validation")
                ),
            )
        except EvaluationStopped:
            return False
        self.validated_step = self.step
        self._record_validation(found)
        return True

    def _stopping_validation(self) -> bool:
        self._beat("validate")
        return self.stop.agree(self._all_max) is not None

    def _record_validation(self, found: Evaluation) -> None:
        scalars = found.scalars()
        cost = {"clips": len(found.clips), "samples": found.protocol.samples, "wall_s": round(found.cost.wall_s, 3)}
        self.tracker.log("eval", self.step, scalars, cost)
        if self.world.rank == 0:
            for name, path in write_validation_pictures(found, self.folder.pictures, self.step).items():
                self.tracker.video(self.step, name, path)
        value = scalars[self.config.eval.best_metric]
        if math.isfinite(value) and (self.best is None or value > self.best):
            self.best = value
            if self.config.checkpoint.keep_best:
                self._save({self.config.eval.best_metric: value})

    # -- save and stop ---------------------------------------------------------------------------------------------

    def _agreed_cause(self) -> StopCause | None:
        """Save if it is time, and ask the ranks whether to stop: one small collective per step.

        Raises:
            CheckpointWriteError: the disk has refused every save for checkpoint.give_up_minutes.
        """
        self._beat("agree")
        self.saver.tell(self.step)
        decides = self.world.rank == 0
        due = decides and not self.last_step_was_bad and self.saver.due(self.step)  # the ruined must not oust the good
        lost = decides and self.saver.disk_is_lost
        due_anywhere, code, lost_anywhere = self.world.all_max([int(due), encode(self.stop.local_cause()), int(lost)])
        if lost_anywhere:
            raise self.saver.lost_error()
        if due_anywhere:
            self._save({})
        return decode(code)

    def _save(self, metrics: dict[str, float]) -> None:
        """Gather the state at this step boundary and hand it to rank 0's writer thread. Collective."""
        self._beat("save")
        begun = time.monotonic()
        self.saver.save(self.step, self._state(), metrics, begun)

    def _end(self, cause: StopCause | None) -> Outcome:
        """Save what is not saved, wait until it is durable, say goodbye.

        Raises:
            CheckpointWriteError: it cannot be saved, and nobody will start this run again by itself.
        """
        self._beat("leave")
        with self.stop.shield():
            saved = self.saver.saved_step == self.step and self._durable()
            if not saved:
                self._save({})
                saved = self._durable()
            if cause is None and self.world.rank == 0:
                self._export()
        if cause is None:
            self._tell_loss_of_updates()
        self.tracker.event(
            "finished" if cause is None else "stopped", self.step, {"cause": cause.label if cause else "schedule"}
        )
        self.world.barrier()
        if not saved and not (cause and cause.requeue):
            raise self.saver.unsaved_error(self.step)
        return Outcome(self.step, cause)

    def _tell_loss_of_updates(self) -> None:
        """A schedule may be finished though nothing was learnt."""
        for engine, guard in self.guards.items():
            if said := guard.loss_of_updates:
                self.tracker.event("updates_lost", self.step, {"engine": engine, "message": said}, warn=True)

    def _durable(self) -> bool:
        """Wait for the write in flight; whether it succeeded. Collective."""
        done = self.saver.finish(self.step)
        return not self.world.all_max([int(not done)])[0]

    def _export(self) -> None:
        from odevid import save_model

        predictor: Any = self.recipe.predictor
        save_model(self.folder.model, predictor.config, predictor.state_dict())

    def _state(self) -> dict[str, Any]:
        return {
            "format": STATE_FORMAT,
            "step": self.step,
            "samples_consumed": self.samples_consumed,
            "engines": {name: engine.state() for name, engine in self.recipe.engines.items()},
            "substitutions": self.ledger.state_dict(),
            "guards": {name: guard.state() for name, guard in self.guards.items()},
            "data": self.data_fingerprint,
            "validated_step": self.validated_step,
            "best": self.best,
            "config": configs.to_dict(self.config),
            "code_version": code_version(),
        }

    def _resume(self) -> None:
        """Continue from the newest complete checkpoint that rank 0 finds, if the config lets us. Collective."""
        chosen = self.world.on_rank_0(lambda: self.saver.store.select(self.config.train.resume))  # type: ignore[arg-type]
        if chosen is None:
            return
        state = self.saver.store.read(chosen)
        if change := first_change(state["config"], configs.to_dict(self.config)):
            raise ConfigError(
                f"{change.key}={change.after}, but the checkpoint of step {chosen.step} was made with {change.before}: "
                f"two launches have asked for different runs in {self.folder.path}; give one of them another run="
            )
        for name, engine in self.recipe.engines.items():
            engine.load_state(state["engines"][name])
        self.step, self.samples_consumed = state["step"], state["samples_consumed"]
        self.validated_step, self.best = state["validated_step"], state["best"]
        for name, guard in self.guards.items():
            guard.load_state(state["guards"][name])
        self.trained_on = state["data"]
        self.ledger.load_state_dict(state["substitutions"])
        self.saver.saved_step = self.step

    def _all_max(self, code: int) -> int:
        return self.world.all_max([code])[0]


def _set_determinism(config: Config, world: World) -> None:
    torch.manual_seed(config.seed)
    if world.device.type == "cuda":
        if config.train.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.backends.cudnn.benchmark = not config.train.deterministic
        torch.use_deterministic_algorithms(config.train.deterministic)
