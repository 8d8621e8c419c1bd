"""How each element of a sweep stands: what its folder tells, and what SLURM knows of its last job. No torch import.

In:  run folders of elements. Out: one `Standing` each. SLURM is asked once for all, and not about finished ones.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.config import ConfigError
from hpc.jobs.attempts import LOCAL, Attempt, History, Submission, read_history
from hpc.jobs.slurm import JobState, SlurmError, job_states
from hpc.run_folder import RunFolder
from hpc.stop import StopCause

FINISHED, RUNNING, QUEUED = "finished", "running", "queued"
FAILED, STOPPED, MISSING = "failed", "stopped", "missing"
CANCELLED, UNKNOWN = "cancelled", "unknown"

STATES = {
    FINISHED: "its schedule is complete",
    RUNNING: "at work now",
    QUEUED: "its job waits in the queue",
    FAILED: "ended with an error, or was killed",
    STOPPED: "saved and ended before its schedule was complete",
    MISSING: "never started",
    CANCELLED: "ended by a person, and to stay so",
    UNKNOWN: "has a job, and SLURM cannot be asked about it",
}
"""Every state and what it means."""
STARTED_AGAIN = (FAILED, STOPPED, MISSING)
"""States from which the same command starts an element again."""
ACTIVE = (RUNNING, QUEUED, UNKNOWN)
"""States in which an element may be at work: nobody else may touch its folder."""

LOCK = ".lock"
CLOCK_SKEW_S = 60.0
"""Between the clocks of a login node, which notes submissions, and of a compute node."""


@dataclass(frozen=True)
class Standing:
    """How an element stands."""

    state: str
    attempts: int = 0
    error: str = ""
    """Why it failed, in one line."""
    job: str = ""
    """The last job, `A_k`, or `local`."""


def standings(folders: Sequence[RunFolder], locally_at_work: bool = False) -> list[Standing]:
    """One for each folder, in their order.

    Args:
        locally_at_work: whether a launcher on this machine runs elements of the sweep now.
    """
    histories = [read_history(folder.path) for folder in folders]
    jobs = [job for history in histories if (job := _job(history)) != LOCAL and job and not _finished(history)]
    try:
        known: Mapping[str, JobState] | None = job_states(jobs)
    except SlurmError:
        known = None
    pairs = zip(folders, histories, strict=True)
    return [_standing(folder, history, known, locally_at_work) for folder, history in pairs]


def _standing(
    folder: RunFolder, history: History, known: Mapping[str, JobState] | None, locally_at_work: bool
) -> Standing:
    job, attempt, count = _job(history), _last_attempt(history), len(_attempts(history))

    def stands(state: str, error: str = "") -> Standing:
        return Standing(state, count, error, job)

    if _finished(history) or (not job and attempt is None and folder.model.is_file()):
        return stands(FINISHED)
    if not job and attempt is None:
        return stands(MISSING)
    slurm_state = None
    if job and job != LOCAL:
        if known is None:
            return stands(UNKNOWN)
        slurm_state = known.get(job)
        if slurm_state is not None and slurm_state.unfinished:
            return stands(QUEUED if slurm_state.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else RUNNING)
    elif locally_at_work and (attempt is None or attempt.ended_time is None):
        return stands(RUNNING if attempt else QUEUED)
    cancelled = job in history.cancelled or (slurm_state is not None and slurm_state.state.startswith("CANCELLED"))
    if cancelled or folder.stop.exists() or (attempt and attempt.cause == StopCause.STOP_FILE.label):
        return stands(CANCELLED)
    if attempt and attempt.cause in {cause.label for cause in StopCause}:
        return stands(STOPPED)
    return stands(FAILED, _why(folder, history, attempt, slurm_state))


def _why(folder: RunFolder, history: History, attempt: Attempt | None, slurm_state: JobState | None) -> str:
    """The reason of a failure, in one line: that of the rank that knew best."""
    submissions = _submissions(history)
    asked = submissions[-1] if submissions else None
    said = [
        f for f in history.failures if asked is None or (f.job == asked.job and f.time >= asked.time - CLOCK_SKEW_S)
    ]
    if said:
        return _line(min(said, key=lambda failure: (not failure.for_user, failure.time)).error)
    if attempt and attempt.ended_time is not None:
        return _line(attempt.error) or attempt.cause
    if folder.diagnosis.is_file() and (asked is None or folder.diagnosis.stat().st_mtime >= asked.time - CLOCK_SKEW_S):
        return _line(folder.diagnosis.read_text())
    if slurm_state is not None and slurm_state.state != "COMPLETED":
        reason = "" if slurm_state.reason in ("", "None") else f" ({slurm_state.reason})"
        return slurm_state.state + reason
    return "killed: it ended without a word" if attempt else "ended before its first attempt began"


def _line(text: str) -> str:
    return " ".join(text.split())


def _finished(history: History) -> bool:
    """Whether the last attempt of the last job completed the schedule."""
    attempt = _last_attempt(history)
    return attempt is not None and attempt.cause == "finished"


def _last_attempt(history: History) -> Attempt | None:
    """Of the last job; None while that one has not begun."""
    attempts, submissions = _attempts(history), _submissions(history)
    if not attempts or not submissions:
        return attempts[-1] if attempts else None
    last, asked = attempts[-1], submissions[-1]
    begun = last.time >= asked.time if asked.job == LOCAL else last.job == asked.job
    return last if begun else None


def _job(history: History) -> str:
    submissions = _submissions(history)
    return submissions[-1].job if submissions else ""


def _attempts(history: History) -> list[Attempt]:
    return [attempt for attempt in history.attempts if attempt.verb == "train"]


def _submissions(history: History) -> list[Submission]:
    return [submission for submission in history.submissions if submission.verb == "train"]


@contextlib.contextmanager
def only_launcher(sweep: Path) -> Iterator[None]:
    """Held by a launcher that starts elements, and for as long as it runs them on this machine.

    Raises:
        ConfigError: another one is at it.
    """
    with (sweep / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another launcher is starting or running elements of {sweep}: wait for it, or end it; "
                f"python hpc/launch.py status {sweep} tells how far it is"
            ) from error
        yield


def launcher_at_work(sweep: Path) -> bool:
    """Whether some process holds `only_launcher`."""
    if not (sweep / LOCK).is_file():
        return False
    with (sweep / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
