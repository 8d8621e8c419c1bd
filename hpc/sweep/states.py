"""How each element of a sweep stands: what its folder tells, and what SLURM knows of its jobs. No torch import.

In:  run folders of elements. Out: one `Standing` each. SLURM is asked once for all, and not about finished jobs. Only
     training counts: a person may evaluate an element at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.config import ConfigError
from hpc.jobs.attempts import LOCAL, Attempt, Failure, History, read_history
from hpc.jobs.facts import decisive_job, is_echo, only
from hpc.jobs.progress import newest_sign
from hpc.jobs.slurm import JobState, SlurmError, job_states
from hpc.jobs.standing import WAITING, waits_for_ever
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
    """Why it failed, or will never start, in one line."""
    job: str = ""
    """`A_k` or `local`: the one at work, else one that waits, else the one that tells how it stands."""
    unfinished: tuple[str, ...] = ()
    """All its jobs that are queued or at work, or may be if SLURM does not answer."""


def standings(folders: Sequence[RunFolder], locally_at_work: bool = False) -> list[Standing]:
    """One for each folder, in their order.

    Args:
        locally_at_work: whether a launcher on this machine runs elements of the sweep now.
    """
    histories = [read_history(folder.path) for folder in folders]
    jobs = [job for history in histories for job in open_jobs(history)]
    try:
        known: Mapping[str, JobState] | None = job_states(jobs)
    except SlurmError:
        known = None
    pairs = zip(folders, histories, strict=True)
    return [_standing(folder, history, known, locally_at_work) for folder, history in pairs]


def _standing(
    folder: RunFolder, history: History, known: Mapping[str, JobState] | None, locally_at_work: bool
) -> Standing:
    trained = only(history, "train")
    count = len(trained.attempts)
    unfinished = [state for job in open_jobs(history) if (state := (known or {}).get(job)) and state.unfinished]
    if unfinished:
        first = min(unfinished, key=lambda state: state.state in WAITING)
        jobs = tuple(state.job for state in unfinished)
        return Standing(QUEUED if first.state in WAITING else RUNNING, count, waits_for_ever(first), first.job, jobs)
    job = _decisive_job(folder, trained)
    attempt = _last_attempt(trained, job)

    def stands(state: str, error: str = "") -> Standing:
        return Standing(state, count, error, job)

    if attempt is not None and attempt.cause == "finished":
        return stands(FINISHED)
    if not job:
        return stands(FINISHED if folder.model.is_file() else MISSING)
    slurm_state = None
    if job != LOCAL:
        if known is None:
            return Standing(UNKNOWN, count, "", job, tuple(open_jobs(history)))
        slurm_state = known.get(job)
    elif locally_at_work and (attempt is None or attempt.ended_time is None):
        return stands(RUNNING if attempt else QUEUED)
    cancelled = job in history.cancelled or (slurm_state is not None and slurm_state.state.startswith("CANCELLED"))
    if cancelled or folder.stop.exists() or (attempt and attempt.cause == StopCause.STOP_FILE.label):
        return stands(CANCELLED)
    if attempt and attempt.cause in {cause.label for cause in StopCause}:
        return stands(STOPPED)
    return stands(FAILED, _why(folder, history, job, attempt, slurm_state))


def _why(folder: RunFolder, history: History, job: str, attempt: Attempt | None, slurm_state: JobState | None) -> str:
    """The reason of a failure, in one line: that of the rank that knew best."""
    since = _asked(only(history, "train"), job) - CLOCK_SKEW_S
    if said := _said(history, job, attempt, since):
        return _line(min(said, key=lambda failure: (not failure.for_user, is_echo(failure.error), failure.time)).error)
    if attempt and attempt.ended_time is not None:
        return _line(attempt.error) or attempt.cause
    if folder.diagnosis.is_file() and folder.diagnosis.stat().st_mtime >= since:
        return _line(folder.diagnosis.read_text())
    if slurm_state is not None and slurm_state.state != "COMPLETED":
        reason = "" if slurm_state.reason in ("", "None") else f" ({slurm_state.reason})"
        return slurm_state.state + reason
    return "killed: it ended without a word" if attempt else "ended before its first attempt began"


def _said(history: History, job: str, attempt: Attempt | None, since: float) -> list[Failure]:
    """What the ranks of the job's last life had to say; an evaluation on this machine is the same job by its name."""
    begun = [a.time for a in history.attempts if a.job == job and a.verb != "train"]
    begun += [s.time for s in history.submissions if s.job == job and s.verb != "train"]
    until = min((then for then in begun if then > since + CLOCK_SKEW_S), default=math.inf)
    said = [failure for failure in history.failures if failure.job == job and since <= failure.time < until]
    last = max([attempt.restart if attempt else 0, *(failure.restart for failure in said)])
    return [failure for failure in said if failure.restart == last]


def _line(text: str) -> str:
    return " ".join(text.split())


def open_jobs(history: History) -> list[str]:
    """SLURM's jobs that trained, or were to, and of which it is not known that they have completed the schedule."""
    trained = only(history, "train")
    complete = {attempt.job for attempt in trained.attempts if attempt.cause == "finished"}
    jobs = [s.job for s in trained.submissions] + [a.job for a in trained.attempts]
    return list(dict.fromkeys(job for job in jobs if job not in (LOCAL, *complete)))


def _decisive_job(folder: RunFolder, trained: History) -> str:
    """The journal is looked at only where jobs may have overlapped."""
    several = len({submission.job for submission in trained.submissions}) > 1
    return decisive_job(trained, newest_sign(folder.path) if several else None)


def _last_attempt(trained: History, job: str) -> Attempt | None:
    """Of that job; None while it has not begun."""
    last = next((attempt for attempt in reversed(trained.attempts) if attempt.job == job), None)
    begun = last is not None and (job != LOCAL or last.time >= _asked(trained, job))
    return last if begun else None


def _asked(trained: History, job: str) -> float:
    """When somebody asked for that job, the last time; 0: not known."""
    return max((submission.time for submission in trained.submissions if submission.job == job), default=0.0)


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
                f"python hpc/launch.py status {shlex.quote(str(sweep))} tells how far it is"
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
