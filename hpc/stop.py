"""Stopping: every reason to stop raises one flag, and the ranks agree on it at a step boundary.

In:  signals, a wall-clock budget, a file named STOP in the run folder.
Out: `StopCause` or None, the same on every rank; what to do after the save stands in the cause.

    signal / clock / file --> StopFlag.local_cause() --agree (all-reduce max)--> the same StopCause everywhere
        --> everybody saves --> `cause.under_slurm` or `cause.elsewhere`: requeue, wait to be ended, or exit

Nothing happens inside a signal handler but setting the flag: a collective call or a save there would find the other
ranks elsewhere. Nothing here needs torch, so that the handlers can be installed before the slow imports: a SIGUSR2
that comes earlier ends the process.
"""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

STOP_FILE = "STOP"


class AfterSave(enum.Enum):
    """What a rank does once the state is saved."""

    REQUEUE = "requeue"
    """Rank 0 asks SLURM to requeue the job; all wait to be ended."""
    WAIT = "wait"
    """Ask for nothing and wait to be ended: SLURM requeues a preempted job by itself; a cancelled one stays dead."""
    EXIT = "exit"
    """End with `StopCause.exit_code`; the same command goes on from here later."""


class StopCause(enum.Enum):
    """Why a run stops, and what follows. If ranks see different causes, the one of highest `priority` counts.

    A person's wish to end a run outranks a machine's to go on later: a cancelled job must not come back. So does
    SIGTERM, which under SLURM may be a cancellation.
    """

    #             label        priority  under SLURM         elsewhere       exit code elsewhere
    WALLTIME = ("walltime", 1, AfterSave.REQUEUE, AfterSave.EXIT, 0)
    PREEMPT = ("preempt", 2, AfterSave.REQUEUE, AfterSave.EXIT, 0)
    STOP_FILE = ("stop-file", 3, AfterSave.EXIT, AfterSave.EXIT, 0)
    INTERRUPT = ("interrupt", 4, AfterSave.EXIT, AfterSave.EXIT, 130)
    TERMINATE = ("terminate", 5, AfterSave.WAIT, AfterSave.EXIT, 0)

    def __init__(self, label: str, priority: int, under_slurm: AfterSave, elsewhere: AfterSave, exit_code: int) -> None:
        self.label = label
        self.priority = priority
        self.under_slurm = under_slurm
        self.elsewhere = elsewhere
        self.exit_code = exit_code

    @property
    def requeue(self) -> bool:
        """Whether the run asks to be started again by itself."""
        return self.under_slurm is AfterSave.REQUEUE


SIGNALS = {
    signal.SIGUSR2: StopCause.PREEMPT,
    signal.SIGTERM: StopCause.TERMINATE,
    signal.SIGINT: StopCause.INTERRUPT,
}
"""Which signal raises the flag with which cause."""


class StopFlag:
    """What this rank has noticed so far.

    Args:
        run_dir: where rank 0 looks for the STOP file, if anywhere. Until somebody removes it, the run stays stopped.
        rank: of this process.
        budget_s: seconds from now after which the run stops by itself with cause `walltime`; None means never.
        clock: seconds, monotonic.
    """

    LOOK_EVERY_S = 1.0
    """The STOP file may lie on a slow shared file system: rank 0 looks at most this often, other ranks never."""

    def __init__(
        self,
        run_dir: Path | None,
        rank: int,
        budget_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stop_file = Path(run_dir) / STOP_FILE if run_dir is not None and rank == 0 else None
        self._clock = clock
        self._deadline = None if budget_s is None else clock() + budget_s
        self._next_look = clock()
        self._noticed: StopCause | None = None
        self._former: dict[int, Any] = {}
        self._shielded = False
        self._interrupts = 0

    @contextlib.contextmanager
    def install(self) -> Iterator[StopFlag]:
        """Take over SIGUSR2, SIGTERM and SIGINT; give them back at the end. Main thread only.

        Child processes forked meanwhile inherit handlers that do nothing for them: end such workers by SIGKILL.
        """
        try:
            for number in SIGNALS:
                self._former[number] = signal.signal(number, self._on_signal)
            yield self
        finally:
            for taken, handler in self._former.items():
                signal.signal(taken, handler if handler is not None else signal.SIG_DFL)

    def local_cause(self) -> StopCause | None:
        """What this rank knows, of highest priority. Cheap: meant for every step."""
        if self._deadline is not None and self._clock() >= self._deadline:
            self._notice(StopCause.WALLTIME)
        if self._stop_file is not None and self._clock() >= self._next_look:
            self._next_look = self._clock() + self.LOOK_EVERY_S
            if os.path.lexists(self._stop_file):
                self._notice(StopCause.STOP_FILE)
        return self._noticed

    def agree(self, all_reduce_max: Callable[[int], int]) -> StopCause | None:
        """The cause that all ranks act on. Collective: every rank calls it at the same step.

        `all_reduce_max` returns the greatest of the ranks' whole numbers, on every rank.
        """
        return decode(all_reduce_max(encode(self.local_cause())))

    @contextlib.contextmanager
    def shield(self) -> Iterator[None]:
        """While saving: a second Ctrl-C waits until the block is done and raises KeyboardInterrupt then."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _notice(self, cause: StopCause) -> None:
        if self._noticed is None or cause.priority > self._noticed.priority:
            self._noticed = cause

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        cause = SIGNALS[signal.Signals(number)]
        self._notice(cause)
        if cause is StopCause.INTERRUPT:
            self._interrupts += 1
            if self._interrupts > 1 and not self._shielded:
                raise KeyboardInterrupt


def encode(cause: StopCause | None) -> int:
    """A cause as a number whose maximum over the ranks is the one that counts; 0 for none."""
    return 0 if cause is None else cause.priority


def decode(code: int) -> StopCause | None:
    """The cause of a number made by `encode`. Raises KeyError for any other."""
    return {encode(cause): cause for cause in (None, *StopCause)}[code]
