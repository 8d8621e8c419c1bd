"""The life of a run in the queue: RUN/attempts.jsonl, one line per event, written by launchers and by rank 0.

In:  what happens to a run's jobs. Out: its submissions and attempts, for people (`status`), for the forecast, and for
     the guard against a run that is started again and again without getting anywhere.

    submitted  a person's wish: a job was queued (or ranks were started here)
    cancelled  a person's wish: this job must not come back
    started    rank 0 of an attempt has begun; an attempt is one life of the processes, a requeued job has several
    training   that attempt has read its state and takes its first step next
    ended      it has left in order (saved), or rank 0 said why it failed; a killed one has no such line
    failed     a rank says why it ends: rank 0 may not know

Every event holds `time` (seconds since 1970). One line is one `write` to a file opened for appending. Where the disk
refuses it, a beginning is an error; the rest is a warning, since it must not end what has come so far.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

ATTEMPTS_FILE = "attempts.jsonl"
LOCAL = "local"
"""Instead of a job's id, for ranks that SLURM did not start."""


@dataclass(frozen=True)
class Submission:
    """A job that a person asked for."""

    time: float
    verb: str
    job: str
    """SLURM's id, `A_k` for an element of an array, `local` for ranks on this machine."""
    nodes: int
    world_size: int
    log: str
    """Rank 0's output."""
    code: str
    """Folder of the code that it runs."""


@dataclass(frozen=True)
class Attempt:
    """One life of a run's processes."""

    number: int
    verb: str
    time: float
    job: str
    restart: int
    """How many times SLURM had started this job before."""
    nodes: list[str]
    """Host names, the first is that of rank 0."""
    world_size: int
    checkpoint: int | None
    """Step of the newest checkpoint at its start; None: there was none."""
    training_time: float | None = None
    """When it took its first step; None: it never came so far."""
    training_step: int | None = None
    """The step it went on from."""
    ended_time: float | None = None
    """None: it still runs, or it was killed."""
    ended_step: int | None = None
    cause: str = ""
    """finished, the label of a StopCause, or error."""
    error: str = ""

    @property
    def made_room(self) -> bool:
        """Whether it left for a more important job before it came to anything."""
        return self.cause == "preempt" and (self.training_step is None or self.verb != "train")


@dataclass(frozen=True)
class Failure:
    """What a rank that failed had to say."""

    time: float
    job: str
    restart: int
    rank: int
    node: str
    for_user: bool
    """Only a person can mend it: trying again would not help."""
    error: str


@dataclass
class History:
    """Everything that attempts.jsonl says."""

    submissions: list[Submission] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Ids of jobs that must not come back."""
    _fresh_from: dict[str, int] = field(default_factory=dict)
    """By verb: how many attempts there were when a person last asked for it."""

    def next_number(self) -> int:
        return max((attempt.number for attempt in self.attempts), default=0) + 1

    def without_progress(self, checkpoint: int | None, verb: str = "train") -> list[Attempt]:
        """The latest attempts that began where the run still stands, since a person last asked for a job.

        Those that were preempted before they came to anything do not count: that is the queue's doing, not the run's.

        Args:
            checkpoint: step of the newest checkpoint now.
        """
        idle: list[Attempt] = []
        for attempt in reversed(self.attempts[self._fresh_from.get(verb, 0) :]):
            if attempt.verb != verb or attempt.made_room:
                continue
            if attempt.checkpoint != checkpoint:
                break
            idle.append(attempt)
        return idle[::-1]


def note_submission(run_dir: Path, submission: Submission) -> None:
    _append(run_dir, "submitted", asdict(submission))


def note_cancelled(run_dir: Path, jobs: Sequence[str]) -> None:
    _append(run_dir, "cancelled", {"time": time.time(), "jobs": list(jobs)})


def note_start(run_dir: Path, attempt: Attempt) -> None:
    begun = {name: value for name, value in asdict(attempt).items() if name not in _LATER}
    _append(run_dir, "started", begun)


def note_training(run_dir: Path, number: int, step: int) -> None:
    _try_to_append(run_dir, "training", {"number": number, "training_time": time.time(), "training_step": step})


def note_end(run_dir: Path, number: int, step: int | None, cause: str, error: str = "") -> None:
    ended = {"number": number, "ended_time": time.time(), "ended_step": step, "cause": cause, "error": error}
    _try_to_append(run_dir, "ended", ended)


def note_failure(run_dir: Path, failure: Failure) -> None:
    _try_to_append(run_dir, "failed", asdict(failure))


def read_history(run_dir: Path) -> History:
    """What is known; empty for a folder without attempts. A line cut short, or none of ours, is passed over."""
    path = Path(run_dir) / ATTEMPTS_FILE
    history = History()
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):  # cut short, or not ours
            event: dict[str, Any] = json.loads(line)
            _take(history, event.pop("event"), event)
    return history


_LATER = ("training_time", "training_step", "ended_time", "ended_step", "cause", "error")


def _take(history: History, kind: str, event: dict[str, Any]) -> None:
    if kind == "submitted":
        history.submissions.append(Submission(**_known(Submission, event)))
        history._fresh_from[history.submissions[-1].verb] = len(history.attempts)
    elif kind == "failed":
        history.failures.append(Failure(**_known(Failure, event)))
    elif kind == "cancelled":
        history.cancelled |= set(event["jobs"])
    elif kind == "started":
        history.attempts.append(Attempt(**_known(Attempt, event)))
    else:
        number = event.pop("number")
        for index, attempt in enumerate(history.attempts):
            if attempt.number == number:
                history.attempts[index] = replace(attempt, **_known(Attempt, event))


def _known(kind: type, event: dict[str, Any]) -> dict[str, Any]:
    """Without fields that a later version of the code may have added."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in event.items() if name in names}


def _try_to_append(run_dir: Path, event: str, data: dict[str, Any]) -> None:
    try:
        _append(run_dir, event, data)
    except OSError as error:
        print(f"WARNING: not noted in {run_dir}/{ATTEMPTS_FILE}: {event} ({error})", file=sys.stderr, flush=True)


def _append(run_dir: Path, event: str, data: dict[str, Any]) -> None:
    path = Path(run_dir) / ATTEMPTS_FILE
    line = (json.dumps({"event": event, **data}) + "\n").encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a kill cut the last line short
            line = b"\n" + line
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
