"""What is known of a run: its folder, its history, its journal, and what SLURM says of its jobs.

In:  a run folder. Out: `Facts` and `Jobs`, from which `standing` and `status` draw their words.
"""

from __future__ import annotations

import functools
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import yaml

from hpc.jobs import slurm
from hpc.jobs.attempts import LOCAL, Attempt, History, read_history
from hpc.jobs.forecast import end_of
from hpc.jobs.progress import Progress, newest_sign, read_progress
from hpc.jobs.slurm import JobState, SlurmError
from hpc.machine import has_slurm
from hpc.run_folder import RunFolder
from hpc.tracking.console import format_duration

SILENT_S = 600.0
"""A run of which SLURM says nothing counts as running if it was heard of this recently."""
_ECHO = re.compile(
    "by peer|Read error|Broken pipe|Socket closed|socket was closed|remote process exited|ncclRemoteError"
    "|communicator was aborted|got 0 bytes",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\[/\S+:\d+\] *")
"""Where in PyTorch's sources a complaint was made."""


@dataclass(frozen=True)
class Complaint:
    """What a rank said of why it ended."""

    time: float
    life: tuple[str, int]
    """Job, and how many times it had been started before (`life_of`): all ranks of an attempt share it."""
    who: str
    text: str


@dataclass
class Facts:
    """What is known of a run."""

    folder: RunFolder
    total: int
    """Steps of its schedule; 0: not known."""
    history: History
    progress: Progress
    now: float

    @functools.cached_property
    def verb(self) -> str:
        """What is followed: the training; in a folder where nothing was trained, what was asked for last."""
        asked = [a.verb for a in self.history.attempts] + [s.verb for s in self.history.submissions]
        return "train" if "train" in asked or not asked else asked[-1]

    @functools.cached_property
    def own(self) -> History:
        """The history without evaluations, which come and go beside the training."""
        return only(self.history, self.verb)

    @property
    def attempts(self) -> list[Attempt]:
        return self.own.attempts

    @property
    def step(self) -> int:
        """Where the run stands: by its journal, or by what its attempts said."""
        known = [a.ended_step or a.training_step or 0 for a in self.attempts[-1:]]
        return max([self.progress.step, *known])

    @property
    def heard(self) -> float | None:
        """When it last gave a sign of life."""
        times = [self.progress.newest.time] if self.progress.newest else []
        times += [self.heard_in(attempt) for attempt in self.attempts]
        return max(times, default=None)

    def heard_in(self, attempt: Attempt) -> float:
        """When that attempt last gave a sign of life."""
        return end_of(attempt, self.progress) or attempt.time

    @property
    def computed_again(self) -> int:
        """Steps of killed attempts that were not saved."""
        known = [(a, self.progress.last.get(a.number)) for a in self.attempts if a.training_step is not None]
        pairs = itertools.pairwise(known)
        return sum(max(0, sign.step - (b.training_step or 0)) for (_, sign), (b, _) in pairs if sign)

    @functools.cached_property
    def complaints(self) -> list[Complaint]:
        history, progress = self.history, self.progress
        lives = {attempt.number: life_of(attempt) for attempt in history.attempts}
        said = [(a.ended_time, lives[a.number], f"attempt {a.number}", a.error) for a in history.attempts if a.error]
        for f in history.failures:
            begun = [a for a in history.attempts if a.job == f.job == LOCAL and a.time <= f.time]
            life = life_of(begun[-1]) if begun else (f.job, f.restart)
            said.append((f.time, life, f"rank {f.rank} on {f.node}", f.error))
        if sign := progress.error_sign:
            said.append((sign.time, lives.get(sign.attempt, ("", 0)), f"attempt {sign.attempt}", progress.error))
        return [Complaint(then or 0.0, life, who, _PLACE.sub("", text)) for then, life, who, text in said]

    def cause(self, life: tuple[str, int]) -> Complaint | None:
        """The first complaint of an attempt that is not about another rank's end; if all are, the first."""
        own = sorted((c for c in self.complaints if c.life == life), key=lambda complaint: complaint.time)
        return next((complaint for complaint in own if not is_echo(complaint.text)), own[0] if own else None)

    def ago(self, then: float) -> str:
        return format_duration(max(0.0, self.now - then))


@dataclass(frozen=True)
class Jobs:
    """What SLURM says."""

    states: dict[str, JobState]
    trouble: str = ""
    """Why it says nothing."""


def only(history: History, verb: str) -> History:
    """What was asked for and done with this verb."""
    return replace(
        history,
        submissions=[submission for submission in history.submissions if submission.verb == verb],
        attempts=[attempt for attempt in history.attempts if attempt.verb == verb],
    )


def decisive_job(history: History, progress: Progress | None = None) -> str:
    """Of jobs that are over, the one whose end tells how things stand: the one that was heard of last; "" for none.

    Mostly that is the last one submitted. One that was refused because another was at work is not, once that has ended.

    Args:
        history: of one verb.
    """
    heard: dict[str, float] = {}
    signs = [(submission.job, submission.time) for submission in history.submissions]
    signs += [(attempt.job, end_of(attempt, progress) or attempt.time) for attempt in history.attempts]
    for job, then in signs:
        heard[job] = max(then, heard.get(job, then))
    signs = [(f.job, f.time) for f in history.failures if f.job in heard and f.job != LOCAL]
    for job, then in signs:
        heard[job] = max(then, heard[job])
    return max(reversed(heard), key=lambda job: heard[job], default="")


def life_of(attempt: Attempt) -> tuple[str, int]:
    """Tells attempts apart. On this machine all jobs have the same name."""
    return attempt.job, attempt.number if attempt.job == LOCAL else attempt.restart


def is_echo(error: str) -> bool:
    """Whether a rank only says that another one is gone."""
    return _ECHO.search(error) is not None


def gather(folder: RunFolder, whole: bool) -> Facts:
    progress = read_progress(folder.path) if whole else newest_sign(folder.path)
    return Facts(folder, _total_steps(folder), read_history(folder.path), progress, time.time())


def _total_steps(folder: RunFolder) -> int:
    """Of config.yaml, also when it is of another version of the code."""
    try:
        settings = yaml.load(folder.config.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return int(settings["train"]["steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 0


def heard_recently(facts: Facts) -> bool:
    return facts.heard is not None and facts.now - facts.heard < SILENT_S


def ask_slurm(jobs: Sequence[str]) -> Jobs:
    """The states of those jobs that are SLURM's."""
    wanted = [job for job in jobs if job != LOCAL]
    if not wanted:
        return Jobs({})
    if not has_slurm():
        return Jobs({}, "there is no SLURM on this machine: what its jobs do now is not known here")
    try:
        return Jobs(slurm.job_states(wanted))
    except SlurmError as error:
        return Jobs({}, f"SLURM does not answer, what its jobs do now is not known: {in_one_line(str(error))}")


def in_one_line(text: str, length: int = 300) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."
