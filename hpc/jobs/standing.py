"""How a run stands, in a word and in words: running, queued, finished, stopped, failed, cancelled, killed.

In:  `Facts` and `Jobs`. Out: text for `status`, and which job of several tells.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc.jobs.attempts import LOCAL, Attempt, Submission
from hpc.jobs.facts import Facts, Jobs, decisive_job, heard_recently
from hpc.jobs.slurm import JobState
from hpc.stop import StopCause

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING")
FOR_EVER = ("PartitionConfig", "BadConstraints", "PartitionTimeLimit", "PartitionNodeLimit")
"""Reasons to wait that do not go away by themselves."""
ASKS_AGAIN = tuple(cause.label for cause in StopCause if cause.requeue)


def waits_for_ever(state: JobState) -> str:
    """A warning, for a job that never starts as it was asked for; else nothing."""
    hopeless = state.state == "PENDING" and state.reason in FOR_EVER
    return f"waits for ever unless changed: {state.reason}" if hopeless else ""


def told(state: JobState) -> str:
    """A job's state with what belongs to it."""
    if never := waits_for_ever(state):
        return f"{state.state}, {never}"
    reason = f" ({state.reason})" if state.reason not in ("", "None") else ""
    if state.state == "PENDING":
        start = state.expected_start.replace("T", " ")
        return f"PENDING{reason}" + (f", expected to start {start}" if start not in ("", "N/A", "Unknown") else "")
    where = f" on {state.nodes}" if state.nodes else ""
    return f"{state.state}{reason}{where}" + (f", {state.elapsed}" if state.elapsed else "")


def state_of(facts: Facts, jobs: Jobs) -> tuple[str, str]:
    """One word (running, queued, finished, stopped, failed, cancelled, killed, new, silent) and what belongs to it."""
    heard = f"last heard of {facts.ago(facts.heard)} ago" if facts.heard else "never heard of"
    name = present_job(facts, jobs)
    job = jobs.states.get(name)
    if job is not None and job.unfinished:
        words = f"job {name} {told(job)}"
        return ("queued", words) if job.state in WAITING else ("running", f"{words}; {heard}")
    its_own = [attempt for attempt in facts.attempts if attempt.job == name]
    asked = [submission for submission in facts.own.submissions if submission.job == name]
    if asked and not its_own and name != LOCAL:
        return _never_started(name, facts, job, jobs)
    last = next(reversed(its_own or facts.attempts), None)
    if last is None:
        return ("running", "by its journal") if heard_recently(facts) else ("new", "no attempt has begun")
    if last.ended_time is not None:
        return _over(last, facts, jobs)
    if last.job in facts.history.cancelled:
        return "cancelled", f"job {last.job}"
    if job is not None:
        return "killed", f"job {told(job)}"
    if heard_recently(facts):
        return "running", f"it seems: {heard}"
    return "silent", f"{heard}: killed, or hanging"


def present_job(facts: Facts, jobs: Jobs) -> str:
    """The job that is at work, else one that waits, else the decisive one; "" if there was none."""
    unfinished = _unfinished(facts.own.submissions, jobs)
    at_work = [state for state in unfinished if state.state not in WAITING]
    chosen = (at_work or unfinished)[:1]
    return chosen[0].job if chosen else decisive_job(facts.own, facts.progress)


def _unfinished(submissions: Sequence[Submission], jobs: Jobs) -> list[JobState]:
    return [state for s in submissions if (state := jobs.states.get(s.job)) and state.unfinished]


def beside(facts: Facts, jobs: Jobs) -> list[str]:
    """What is queued or at work in the same folder beside what is followed."""
    others = [submission for submission in facts.history.submissions if submission.verb != facts.verb]
    verbs = {submission.job: submission.verb for submission in others}
    return [f"{verbs[state.job]}: job {state.job} {told(state)}" for state in _unfinished(others, jobs)]


def _never_started(name: str, facts: Facts, job: JobState | None, jobs: Jobs) -> tuple[str, str]:
    if name in facts.history.cancelled:
        return "cancelled", f"job {name}, before it began"
    if job is not None:
        return "failed", f"job {name} {told(job)} before its ranks began"
    if jobs.trouble:
        return "submitted", f"job {name}; nothing was heard of it yet, and SLURM says nothing"
    return "failed", f"job {name} is gone from the queue, and its ranks never began: see its log"


def _over(last: Attempt, facts: Facts, jobs: Jobs) -> tuple[str, str]:
    """The last attempt has left in order."""
    ago = f"{facts.ago(last.ended_time)} ago" if last.ended_time else ""
    if last.verb != "train":
        word = {"finished": "finished", "error": "failed"}.get(last.cause, "stopped")
        return word, f"{last.verb} {last.cause}, {ago}"
    if last.cause == "finished":
        return "finished", f"at step {last.ended_step or facts.step:,}, {ago}"
    if facts.folder.diagnosis.is_file():
        return "failed", "given up, see below"
    if last.cause == "error":
        return "failed", ago
    if last.job in facts.history.cancelled:
        return "cancelled", f"{last.cause}, {ago}"
    again = "; its job has asked SLURM to start it again" if jobs.trouble and last.cause in ASKS_AGAIN else ""
    return "stopped", f"{last.cause}, saved, {ago}{again}"
