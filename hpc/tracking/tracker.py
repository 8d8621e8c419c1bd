"""Everything a run tells, in one place: the journal first, then its W&B mirror and the console.

In:  scalars, events and videos of the loop. Out: records of these kinds in RUN/metrics.jsonl,

    resume  an attempt goes on at `step`: what was written before for later steps is superseded
    start   an attempt begins at `step`: `about` (ranks, plan, code version) and the whole `config`
    train   `scalars`, means over the steps since the last one
    eval    `scalars` of a validation, and its `cost`: clips, samples of each, seconds
    event   `name` and `details`: bad_step, updates_lost, substitution, save_failed, wandb_lost, stopped, error ...
    video   `name` and `path`, relative to the run folder

and the same in W&B and on the terminal. Rank 0 writes and prints; on other ranks every method does nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from hpc.config import LogConfig
from hpc.tracking.console import Display, Report, silent
from hpc.tracking.journal import Journal, Record
from hpc.tracking.mirror import Mirror
from hpc.tracking.offline_limit import limit_offline_folders

SPOKEN = 4
"""Items of a list that are said aloud; the journal has all."""


class Tracker:
    """Use as a context manager; an exception that passes through is recorded as the event "error".

    Args:
        run_dir: the run's folder; it exists.
        attempt: number of this start of the run, counted from 1.
        log: how often, how much, where to.
        config: the whole resolved configuration, for the record.
        total_steps: end of the schedule.
    """

    def __init__(
        self, run_dir: Path, attempt: int, log: LogConfig, config: dict[str, Any], *, rank: int, total_steps: int
    ) -> None:
        self.attempt, self.rank = attempt, rank
        self._dir, self._log, self._config, self._total = run_dir, log, config, total_steps
        self._step = 0
        self._journal: Journal | None = None
        self._display: Display | None = None
        self._mirror: Mirror | None = None

    def __enter__(self) -> Tracker:
        if self.rank == 0:
            self._display = Display(self._total)
            self._journal = Journal(self._dir, self.attempt, rotate_bytes=self._log.max_file_mb * 2**20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is None or self._display is None:
            return
        try:
            if error is not None:
                details = {"type": type(error).__name__, "message": str(error)}
                self.event("error", self._step, details, warn=True)
            if self._mirror is not None:
                self._mirror.finish(failed=error is not None)
        finally:
            self._journal.close()
            self._display.close()

    def start(self, step: int, about: Mapping[str, Any]) -> None:
        """This attempt begins at `step`: what earlier ones wrote for later steps is superseded from now on."""
        if self._journal is None or self._display is None:
            return
        self._display.start(step)
        if self._journal.records_before:
            self._journal.resume(step or None)
        record = self._write("start", step, {"about": dict(about), "config": self._config})
        if self._journal.repaired_bytes:
            details = {"bytes": self._journal.repaired_bytes}
            self.event("journal_repaired", step, details, warn=True)
        if self._log.wandb != "disabled":
            self._make_room(step)
            self._mirror = Mirror(self._dir, self._log, self._display.say, self._lost_wandb)
            self._mirror.send(record)

    def _make_room(self, step: int) -> None:
        limit = self._log.max_wandb_mb
        if limit and (removed := limit_offline_folders(self._dir / "wandb", limit * 2**20)):
            details = {"removed": removed, "why": f"log.max_wandb_mb={limit}; hpc.tracking sync makes the whole run"}
            self.event("wandb_folders_removed", step, details, warn=True)

    def log(self, kind: str, step: int, scalars: Mapping[str, float], cost: Mapping[str, float] | None = None) -> None:
        """Scalars of kind "train" or "eval"; a validation also says what it cost."""
        if self._display is None:
            return
        data: dict[str, Any] = {"scalars": {name: float(value) for name, value in scalars.items()}}
        self._write(kind, step, data | ({"cost": dict(cost)} if cost else {}))
        if kind == "train":
            self._display.train(step, scalars)
        else:
            self._display.evaluated(step, scalars, cost or {})

    def event(self, name: str, step: int, details: Mapping[str, Any], warn: bool = False) -> None:
        """Something that happened; with `warn` also said loudly."""
        if self._display is None:
            return
        self._write("event", step, {"name": name, "details": dict(details)})
        if warn:
            said = ", ".join(f"{key}: {_spoken(value)}" for key, value in details.items())
            self._display.warn(f"step {step}: {name}: {said}")

    def video(self, step: int, name: str, path: Path) -> None:
        """A GIF or MP4 below the run folder."""
        if self._display is None:
            return
        with contextlib.suppress(ValueError):
            path = path.resolve().relative_to(self._dir.resolve())
        self._write("video", step, {"name": name, "path": str(path)})

    def progress(self, name: str) -> Report:
        """A display for a piece of work inside the run: call it with (done, total)."""
        return silent if self._display is None else self._display.progress(name)

    def _lost_wandb(self, message: str) -> None:
        self.event("wandb_lost", self._step, {"message": message}, warn=True)

    def _write(self, kind: str, step: int, data: dict[str, Any]) -> Record:
        assert self._journal is not None
        self._step = max(self._step, step)
        record = self._journal.append(kind, step, data)
        if self._mirror is not None:
            self._mirror.send(record)
        return record


def _spoken(value: Any) -> str:
    """A value for the terminal; of a long list its beginning."""
    if not isinstance(value, list):
        return str(value)
    rest = f" ... ({len(value)})" if len(value) > SPOKEN else ""
    return "; ".join(map(str, value[:SPOKEN])) + rest
