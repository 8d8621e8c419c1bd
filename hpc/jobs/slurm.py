"""Questions and orders to SLURM's own commands: what became of a job, cancel it, start it again.

In: job ids (`123`, or `123_4` for an element of an array). Out: what squeue, scontrol and sacct say, as data. No torch,
no submitit import.
"""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

TIMEOUT_S = 60.0
TRIES, PAUSE_S = 30, 10.0
UNKNOWN_JOB = "Invalid job id"
EARLY_S = 90.0
"""SLURM looks at time limits now and then, and sends its warning that much too early."""
T = TypeVar("T")
UNFINISHED = ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESIZING")


class SlurmError(RuntimeError):
    """SLURM does not answer, or refuses; the message is its own."""


@dataclass(frozen=True)
class JobState:
    """A line of squeue (or sacct)."""

    job: str
    state: str
    """Long form, such as RUNNING."""
    reason: str = ""
    """Why it waits, or why it failed."""
    nodes: str = ""
    """Node list in SLURM's short form."""
    elapsed: str = ""
    expected_start: str = ""

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED


def this_job(environ: Mapping[str, str] | None = None) -> str | None:
    """Id of the job that this process is a part of, `A_k` for an element of an array; None outside of jobs.

    Ranks that our own launcher started inside an interactive allocation are none of SLURM's.
    """
    environ = os.environ if environ is None else environ
    if "ODEVID_LAUNCHER" in environ:
        return None
    if array := environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{environ['SLURM_ARRAY_TASK_ID']}"
    return environ.get("SLURM_JOB_ID")


def restarts(environ: Mapping[str, str] | None = None) -> int:
    """How many times SLURM has started this job before."""
    environ = os.environ if environ is None else environ
    if "ODEVID_LAUNCHER" in environ:
        return 0
    return int(environ.get("SLURM_RESTART_COUNT", "0"))


def nodes_of_this_step(environ: Mapping[str, str] | None = None) -> list[str]:
    """Host names of the step that this process is a part of, rank 0's first; empty outside of SLURM's steps."""
    environ = os.environ if environ is None else environ
    if "SLURM_PROCID" not in environ or "ODEVID_LAUNCHER" in environ:
        return []
    return hostnames(environ.get("SLURM_STEP_NODELIST", ""))


def hostnames(nodelist: str) -> list[str]:
    """The names in a list such as `n[1-4]`, which stays as it is if the controller does not answer."""
    if not nodelist:
        return []
    try:
        return ask("scontrol", "show", "hostnames", nodelist).split()
    except SlurmError:
        return [nodelist]


def show_job(job: str) -> dict[str, str]:
    """`scontrol show job` as a dictionary: JobState, Reason, Restarts, PreemptTime ...

    Raises:
        SlurmError: the controller does not answer or does not know the job (any more).
    """
    words = ask("scontrol", "-o", "show", "job", job).split()
    return {name: value for name, _, value in (word.partition("=") for word in words) if value}


def is_at_its_time_limit(job: str, signal_delay_s: float) -> bool:
    """Whether a job that was told to stop is at its end by the clock, not preempted. False if SLURM does not say."""
    try:
        shown = show_job(job)
        left = (datetime.datetime.fromisoformat(shown["EndTime"]) - datetime.datetime.now()).total_seconds()
    except (SlurmError, KeyError, ValueError):
        return False
    return shown.get("PreemptTime", "None") == "None" and left < signal_delay_s + EARLY_S


def job_states(jobs: Sequence[str]) -> dict[str, JobState]:
    """State of each job that SLURM still knows: from squeue, and for those it has forgotten from sacct.

    Raises:
        SlurmError: the controller does not answer.
    """
    found: dict[str, JobState] = {}
    if not jobs:
        return found
    wanted = set(jobs)
    for line in _squeue(jobs).splitlines():
        job, *rest = line.split("|", 5)
        if job in wanted:
            found[job] = JobState(job, *rest)
    return found | _from_sacct(sorted(wanted - found.keys()))


def cancel(jobs: Sequence[str]) -> None:
    """
    Raises:
        SlurmError: scancel's own words.
    """
    ask("scancel", *jobs)


def requeue(job: str) -> None:
    """
    Raises:
        SlurmError: scontrol's own words.
    """
    ask("scontrol", "requeue", job)


def patiently(question: Callable[[], T]) -> T:
    """Ask again while the controller is away: a failover or an update takes minutes.

    Raises:
        SlurmError: it stayed away.
    """
    for _ in range(TRIES - 1):
        try:
            return question()
        except SlurmError as error:
            print(f"SLURM does not answer, asking again in {PAUSE_S:.0f} s: {error}", file=sys.stderr, flush=True)
            time.sleep(PAUSE_S)
    return question()


def ask(*command: str) -> str:
    """Output of one of SLURM's commands.

    Raises:
        SlurmError: it failed, hangs, or is not there.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise SlurmError(f"{' '.join(command)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _squeue(jobs: Sequence[str]) -> str:
    """Its lines on these jobs; nothing on one alone that it does not know (any more), which it calls an error."""
    try:
        return ask("squeue", "-h", "-r", "-a", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T|%r|%N|%M|%S")
    except SlurmError as error:
        if UNKNOWN_JOB in str(error):
            return ""
        raise


def _from_sacct(jobs: Sequence[str]) -> dict[str, JobState]:
    """What accounting remembers; nothing without accounting (then only the controller's memory counts)."""
    if not jobs:
        return {}
    try:
        lines = ask("sacct", "-n", "-X", "-P", "-o", "JobID,State,NodeList,Elapsed", "-j", ",".join(jobs)).splitlines()
    except SlurmError:
        return {}
    found = {}
    for line in lines:
        job, state, nodes, elapsed = [*line.split("|"), "", "", ""][:4]
        if job in jobs:
            found[job] = JobState(job, state.split()[0] if state else "", nodes=nodes, elapsed=elapsed)
    return found
