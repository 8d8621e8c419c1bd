"""When a run saves, and what becomes of it: the loop's side of the checkpoints.

In:  steps, states gathered at a step boundary. Out: checkpoints written in the background by rank 0, events in the
     journal (saved, save_failed, signal_delay_too_short), and the knowledge of when a disk is lost for good.

A save that the disk refuses is a loud warning, not the end: training goes on, the older checkpoints are intact. Only
after checkpoint.give_up_minutes of it does the run stop. Nothing here is collective; other ranks than 0 only remember
which step was saved last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from hpc.checkpoint.errors import CheckpointWriteError
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.writer import BackgroundWriter, Written
from hpc.config import Config
from hpc.jobs.slurm import this_job
from hpc.run_folder import RunFolder
from hpc.tracking.tracker import Tracker


class Saver:
    """
    Attributes:
        store: the run's checkpoints, to resume from.
        saved_step: step of the newest save that was begun (or resumed from); -1: none.
    """

    def __init__(self, config: Config, folder: RunFolder, tracker: Tracker) -> None:
        self._config, self._folder, self._tracker = config, folder, tracker
        self.store = CheckpointStore(
            folder.checkpoints,
            keep_last=config.checkpoint.keep_last,
            keep_best=config.checkpoint.keep_best,
            milestone_every=config.checkpoint.milestone_every,
            best_metric=config.eval.best_metric,
        )
        self._writer = BackgroundWriter(self.store)
        self.saved_step = -1
        self._last_save = time.monotonic()
        self._refused_since: float | None = None
        self._stalled_s: dict[int, float] = {}
        self._warned_of_delay = False

    def due(self, step: int) -> bool:
        """Whether it is time to save at this step, by the steps or by the clock."""
        settings = self._config.checkpoint
        if step == 0:
            return False
        by_step = settings.every and step % settings.every == 0 and self.saved_step != step
        by_time = settings.every_minutes and time.monotonic() - self._last_save > 60 * settings.every_minutes
        return bool(by_step or by_time)

    def save(self, step: int, state: dict[str, Any], metrics: dict[str, float], begun: float) -> None:
        """Hand a gathered state to the writer (rank 0; the others take note of the step).

        Args:
            begun: when the loop stopped for this save, by the monotonic clock.
        """
        self.saved_step, self._last_save = step, time.monotonic()
        if self._tracker.rank == 0:
            meta = {"metrics": metrics, "attempt": self._tracker.attempt, "code_version": state["code_version"]}
            with self._forgiving(step):
                self._writer.submit(step, state, meta)
            self._stalled_s[step] = time.monotonic() - begun

    def tell(self, step: int) -> None:
        """Note what has become durable; warn if a stop would not leave time for a save. Never blocks."""
        written: list[Written] = []
        with self._forgiving(step):
            written = self._writer.news()
        for save in written:
            self._refused_since = None
            stalled_s = self._stalled_s.pop(save.step, 0.0)
            self._tracker.event("saved", save.step, {"seconds": save.seconds, "stalled_s": stalled_s})
            self._check_delay(step, save.seconds + stalled_s)

    def finish(self, step: int) -> bool:
        """Wait for the write in flight; whether it succeeded."""
        failed = True
        with self._forgiving(step):
            failed = not self._writer.wait()
        self.tell(step)
        return not failed

    @property
    def disk_is_lost(self) -> bool:
        """Whether every save was refused for longer than anybody wants to go on without."""
        patience = 60 * self._config.checkpoint.give_up_minutes
        return bool(patience) and self._refused_since is not None and time.monotonic() - self._refused_since > patience

    def lost_error(self) -> CheckpointWriteError:
        return CheckpointWriteError(
            f"no checkpoint could be written for {self._config.checkpoint.give_up_minutes:g} minutes (save_failed "
            f"above; checkpoint.give_up_minutes): make room in {self._folder.checkpoints}, then go on with "
            f"python hpc/launch.py resume {self._folder.path}"
        )

    def unsaved_error(self, step: int) -> CheckpointWriteError:
        return CheckpointWriteError(
            f"the run ends at step {step}, but its state could not be saved (save_failed above): free space "
            f"in {self._folder.checkpoints} and start it again with python hpc/launch.py resume {self._folder.path}"
        )

    def _check_delay(self, step: int, needed: float) -> None:
        given = self._config.cluster.signal_delay_s
        if this_job() is None or needed <= given or self._warned_of_delay:
            return
        self._warned_of_delay = True
        advice = f"a save takes {needed:.0f} s, SLURM warns {given} s before the end: --signal-delay-s must be more"
        self._tracker.event("signal_delay_too_short", step, {"advice": advice}, warn=True)

    @contextlib.contextmanager
    def _forgiving(self, step: int) -> Iterator[None]:
        try:
            yield
        except CheckpointWriteError as error:
            self._refused_since = self._refused_since or time.monotonic()
            self._tracker.event("save_failed", step, {"error": str(error)}, warn=True)
