"""One flag for everything that asks a run to stop. Handlers only raise it; the ranks agree on it at a step boundary.

In: SIGUSR2 (SLURM's warning through submitit), SIGTERM, Ctrl-C, the wall-clock budget, a STOP file in the run folder.
Out: a `StopCause` that all ranks share, and what it leads to. Nothing collective happens in a handler, no torch here.

    cause       under SLURM                          elsewhere
    PREEMPT     save, rank 0 requeues                save, exit 0
    WALLTIME    save, rank 0 requeues                save, exit 0
    TERMINATE   save, ask for nothing, wait to end   save, exit 0
    INTERRUPT   save, exit 0                         save, exit 0 (a second Ctrl-C ends it at once)
    STOP_FILE   save, exit 0                         save, exit 0
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

STOP_FILE = "STOP"
FILE_POLL_S = 1.0


class StopCause(IntEnum):
    """Why a run stops. Where ranks saw different causes the largest wins: a wish not to come back beats a requeue."""

    PREEMPT = 1
    WALLTIME = 2
    INTERRUPT = 3
    STOP_FILE = 4
    TERMINATE = 5

    @property
    def requeue(self) -> bool:
        """Under SLURM, rank 0 asks for the job to be queued again."""
        return self in (StopCause.PREEMPT, StopCause.WALLTIME)

    @property
    def wait_under_slurm(self) -> bool:
        """SLURM ends the job itself: it requeues a preempted one, and a cancelled one stays dead."""
        return self is StopCause.TERMINATE


SIGNALS = {
    signal.SIGUSR2: StopCause.PREEMPT,
    signal.SIGTERM: StopCause.TERMINATE,
    signal.SIGINT: StopCause.INTERRUPT,
}


class StopFlag:
    """Raised by signals, time or a file; read once per step.

    Args:
        run_dir: where a STOP file counts.
        budget_s: seconds of this process after which it stops; 0: no budget.
    """

    def __init__(self, run_dir: Path, budget_s: float = 0.0) -> None:
        self._file = run_dir / STOP_FILE
        self._deadline = time.monotonic() + budget_s if budget_s else None
        self._code = 0
        self._former: dict[int, Any] = {}
        self._next_poll = 0.0

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopFlag]:
        """Take the signals over for the duration of the block. Install before slow imports: a signal may come early."""
        for number in SIGNALS:
            self._former[number] = signal.signal(number, self._handle)
        try:
            yield self
        finally:
            for number, handler in self._former.items():
                signal.signal(number, handler)

    def former_handler(self, number: int) -> Any:
        """What handled the signal before: submitit's requeueing handler, for rank 0 to call after the save."""
        return self._former.get(number)

    def local_code(self) -> int:
        """What this rank knows: 0, or the largest cause's number. Cheap enough for every step."""
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            self._raise(StopCause.WALLTIME)
        if now >= self._next_poll:
            self._next_poll = now + FILE_POLL_S
            if self._file.exists():
                self._raise(StopCause.STOP_FILE)
        return self._code

    @staticmethod
    def decode(code: int) -> StopCause | None:
        """The cause behind the ranks' largest code."""
        return StopCause(code) if code else None

    def agree(self, all_max: Callable[[int], int]) -> StopCause | None:
        """The cause all ranks agree on. Collective through `all_max`."""
        return self.decode(all_max(self.local_code()))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        cause = SIGNALS[signal.Signals(number)]
        if cause is StopCause.INTERRUPT and self._code == StopCause.INTERRUPT:
            raise KeyboardInterrupt
        self._raise(cause)

    def _raise(self, cause: StopCause) -> None:
        self._code = max(self._code, int(cause))
