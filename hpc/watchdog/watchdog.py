"""A rank's side of the guard against hangs: beats, a timer that dumps its threads, and the start of the observer.

In:  `beat(step, phase)` where the loop goes from one thing to the next. Out: the heartbeat that the observer reads, and
     when the next beat does not come in time RUN/hangs/attempt-0003/rank-2.txt, written by a timer of `faulthandler`:
     a thread in C, which needs neither the GIL nor anything that Python could hold.

A beat costs no system call. The timer is set for a little after the deadline, so that it must be set anew (30 us) only
once in that while.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hpc.watchdog import heartbeat
from hpc.watchdog.heartbeat import Heart
from hpc.watchdog.patience import Patience
from hpc.watchdog.records import DIAGNOSIS, hang_folder, tidy
from hpc.watchdog.spec import DUMP_SIGNAL, SURVIVED, ObserverSpec

if TYPE_CHECKING:
    from hpc.config import WatchdogConfig

BEFORE = ""
"""The phase before the first one."""


class Watchdog:
    """One per rank, for the duration of the block. Without room for its files it warns and does nothing.

    Args:
        attempt: of the run, which names the folder of what is found out.
        log_files: outputs of this node's ranks that the observer keeps below `log_limit_bytes` (0: no limit); only
            those given to local rank 0 count.
        host: how this node is called; else SLURM's name for it, or its own.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        rank: int,
        local_rank: int,
        world_size: int,
        local_world_size: int,
        attempt: int,
        config: WatchdogConfig,
        log_files: Sequence[Path] = (),
        log_limit_bytes: int = 0,
        host: str = "",
    ) -> None:
        self._run_dir, self._attempt, self._config = Path(run_dir).resolve(), attempt, config
        self._rank, self._local_rank = rank, local_rank
        self._patience = Patience(config.factor, config.min_s, config.start_s)
        self._move, self._since = (BEFORE, "start"), time.monotonic()
        self._heart: Heart | None = None
        self._timer_at = -math.inf
        self._dump = -1
        host = host or os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self._spec = ObserverSpec(
            run_dir=str(self._run_dir),
            heartbeats=str(heartbeat.folder_for(self._run_dir, attempt, host)),
            host=host,
            attempt=attempt,
            world_size=world_size,
            local_world_size=local_world_size,
            min_s=config.min_s,
            judges=config.enabled,
            abort=config.abort,
            log_files=[str(path) for path in log_files],
            log_limit_bytes=log_limit_bytes,
        )
        self._slack = self._spec.slack_s

    def __enter__(self) -> Watchdog:
        limits_logs = bool(self._spec.log_files) and self._spec.log_limit_bytes > 0
        if not self._config.enabled and not limits_logs:
            return self
        try:
            self._open()
            if self._local_rank == 0:
                heartbeat.sweep(heartbeat.base_folder())
                _start_observer(self._spec)
        except OSError as error:
            print(f"watchdog of rank {self._rank} switched off: {error}", file=sys.stderr, flush=True)
            self._close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def beat(self, step: int, phase: str) -> None:
        """This rank now begins `phase` at `step`; until the next beat it is in it."""
        if self._heart is None or not self._config.enabled:
            return
        now = time.monotonic()
        self._patience.learn(self._move, now - self._since)
        self._move, self._since = (self._move[1], phase), now
        patience = self._patience.seconds(self._move)
        self._heart.beat(step, phase, now, patience)
        deadline = now + patience
        if not deadline <= self._timer_at <= deadline + self._slack:
            self._set_timer(deadline + self._slack)

    def _set_timer(self, moment: float) -> None:
        """Dump all threads at `moment`, unless it is set anew before."""
        self._timer_at = moment
        faulthandler.dump_traceback_later(max(0.001, moment - time.monotonic()), file=self._dump)

    def _open(self) -> None:
        if self._config.enabled:
            folder = hang_folder(self._run_dir, self._attempt)
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            self._dump = os.open(folder / f"rank-{self._rank}.txt", flags, 0o644)
            signal.signal(DUMP_SIGNAL, signal.SIG_IGN)  # what `unregister` goes back to: one may come late
            faulthandler.register(DUMP_SIGNAL, file=self._dump, all_threads=True)
        patience = self._patience.seconds(self._move) if self._config.enabled else math.inf
        self._since = time.monotonic()
        self._heart = Heart(Path(self._spec.heartbeats), self._rank, 0, "start", patience)
        if self._config.enabled:
            self._set_timer(self._since + patience + self._slack)

    def _close(self) -> None:
        if self._dump >= 0:
            faulthandler.cancel_dump_traceback_later()
        if self._heart is not None:
            with contextlib.suppress(OSError):
                self._heart.close()
            self._heart = None
        if self._dump >= 0:
            faulthandler.unregister(DUMP_SIGNAL)
            os.close(self._dump)
            self._dump = -1
            tidy(self._run_dir, self._attempt, [self._rank])


def read_diagnosis(run_dir: Path, attempt: int) -> str | None:
    """What was found out about a hang of that attempt; None if it had none."""
    path = hang_folder(run_dir, attempt) / DIAGNOSIS
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip() or None
    return None


def _start_observer(spec: ObserverSpec) -> None:
    """A process of its own session, from its first instruction deaf to what a scheduler sends to a job's processes."""
    root = str(Path(__file__).resolve().parents[2])
    environ = dict(os.environ)
    environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [environ.get("PYTHONPATH")])])
    former = signal.pthread_sigmask(signal.SIG_BLOCK, SURVIVED)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hpc.watchdog.observer", spec.to_json()],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environ,
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    process.returncode = 0  # it ends after this process: nobody waits for it, and Popen need not complain
