"""`--wait`: shows a job's log as it grows, and what becomes of the job, until it is finished for good.

In:  a job's id and the log of its rank 0. Out: the log on stdout, a line starting with `--` for every change of state,
     and 0 if the job COMPLETED.

A job that is requeued goes on in the same log, and is not finished however it is called meanwhile. SLURM's controller
may be away: the log is followed all the same. Ctrl-C ends the following, never the job.
"""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hpc.jobs import slurm
from hpc.jobs.slurm import JobState, SlurmError

STATE_EVERY = 5
"""SLURM is asked at every so-many-th look at the log: all users share its controller."""
PASSING = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "STOPPED", "REVOKED", "SPECIAL_EXIT")
"""States in which SLURM may still queue the job again; they count once they have lasted `SETTLE_S`."""
SETTLE_S = 60.0
MEMORY = 256
"""Bytes before the place read last by which a log that was cut is recognised."""


class Tail:
    """Reads what is added to a file that may not be there yet, and that may be cut meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._before = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read(self) -> str:
        """What is new. After a cut: what follows the text read last, if that is still there; else all that is there."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, self._place - len(self._before)))
                if size < self._place or file.read(len(self._before)) != self._before:
                    file.seek(0)
                    self._place = self._find(file.read())
                file.seek(self._place)
                added = file.read()
        except FileNotFoundError:
            return ""
        self._place += len(added)
        self._before = (self._before + added)[-MEMORY:]
        return self._decoder.decode(added)

    def _find(self, content: bytes) -> int:
        found = content.rfind(self._before)
        if found >= 0:
            return found + len(self._before)
        self._before = b""
        self._decoder.reset()
        return 0


def follow(job: str, log: Path, poll_s: float = 2.0) -> int:
    """Show the log until the job is finished for good; 0 if it COMPLETED, 130 after Ctrl-C, else 1."""
    try:
        return _follow(job, log, poll_s)
    except KeyboardInterrupt:
        _say(f"stopped following; job {job} goes on. Follow it again: tail -F {log}    cancel it: scancel {job}")
        return 130


def _follow(job: str, log: Path, poll_s: float) -> int:
    tail, watch = Tail(log), Watch(job, _say)
    looks = 0
    while True:
        final = watch.look() if looks % STATE_EVERY == 0 else None
        sys.stdout.write(tail.read())
        sys.stdout.flush()
        if final is not None:
            time.sleep(poll_s)  # a shared file system may show the last lines later
            sys.stdout.write(tail.read())
            _say(f"job {job} is finished: {final}" + ("" if log.exists() else f"; it never wrote {log}"))
            return 0 if final == "COMPLETED" else 1
        looks += 1
        time.sleep(poll_s)


class Watch:
    """What becomes of a job, one look at a time.

    Args:
        say: called with a line for people whenever something has changed.
    """

    def __init__(self, job: str, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._job, self._say, self._clock = job, say, clock
        self._shown = ""
        self._last: str | None = None
        self._since = clock()

    def look(self) -> str | None:
        """The state in which it is finished for good; None: it is not, or SLURM does not answer."""
        try:
            state = slurm.job_states([self._job]).get(self._job)
        except SlurmError as error:
            self._show(f"SLURM does not answer, following the log all the same: {error}")
            return None
        if state is None:
            return self._forgotten()
        if state.state != self._last:
            self._last, self._since = state.state, self._clock()
        self._show(f"job {self._job}: {describe(state)}")
        if state.unfinished or (state.state in PASSING and self._clock() - self._since < SETTLE_S):
            return None
        return state.state

    def _forgotten(self) -> str | None:
        """SLURM does not know the job: not yet, or not any more."""
        if self._last != "":
            self._last, self._since = "", self._clock()
            return None
        return "unknown: SLURM has forgotten it" if self._clock() - self._since >= SETTLE_S else None

    def _show(self, line: str) -> None:
        if line != self._shown:
            self._shown = line
            self._say(line)


def describe(state: JobState) -> str:
    """A state in words: `queued (Priority)`, `running on n[1-4]`."""
    reason = f" ({state.reason})" if state.reason not in ("", "None") else ""
    if state.state == "PENDING":
        start = state.expected_start.replace("T", " ")
        return f"queued{reason}" + (f", expected to start {start}" if start not in ("", "N/A", "Unknown") else "")
    if state.state == "RUNNING":
        return f"running on {state.nodes}"
    return f"{state.state}{reason}"


def _say(line: str) -> None:
    print(f"-- {time.strftime('%d %b %H:%M:%S')} {line}", flush=True)
