"""`status`: where runs stand, for people, in a second on a login node.

In:  run folders (attempts.jsonl, journal, checkpoints) and what SLURM says of their jobs, if it is there. Out: text for
     a terminal of 100 columns: one line per run, or everything about one.
"""

from __future__ import annotations

import functools
import io
import itertools
import re
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from hpc.config import Config, ConfigError, load_file
from hpc.jobs import slurm
from hpc.jobs.attempts import LOCAL, Attempt, History, read_history
from hpc.jobs.forecast import (
    attempt_costs,
    end_of,
    eta,
    format_speed,
    measure,
    number_ranges,
    plan_of,
    shown,
    wanted_s,
)
from hpc.jobs.forecast import waits as waits_of
from hpc.jobs.progress import Progress, newest_sign, read_progress
from hpc.jobs.slurm import JobState, SlurmError
from hpc.machine import has_slurm
from hpc.run_folder import RunFolder
from hpc.stop import StopCause
from hpc.tracking.console import format_duration

WIDTH = 100
INDENT = 12
TO_COPY = ("logs", "next")
SILENT_S = 600.0
"""A run of which SLURM says nothing counts as running if it was heard of this recently."""
ATTEMPTS_SHOWN = 15
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "CONFIGURING")
ASKS_AGAIN = tuple(cause.label for cause in StopCause if cause.requeue)
RUN_FILES = ("attempts.jsonl", "metrics.jsonl", "checkpoints", "logs")
"""What tells the folder of a run that lost or never got its config.yaml from any other folder."""

_ECHO = re.compile("by peer|Read error|Broken pipe|communicator was aborted", re.IGNORECASE)
"""What the ranks that are left say when one has died."""
_PLACE = re.compile(r"\[/\S+:\d+\] *")
"""Where in PyTorch's sources a complaint was made."""


@dataclass(frozen=True)
class Complaint:
    """What a rank said of why it ended."""

    time: float
    life: tuple[str, int]
    """Job, and how many times it had been started before: all ranks of an attempt share it."""
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

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for attempt in self.history.attempts if attempt.verb == "train"]

    @property
    def step(self) -> int:
        """Where the run stands: by its journal, or by what its attempts said."""
        known = [a.ended_step or a.training_step or 0 for a in self.attempts[-1:]]
        return max([self.progress.step, *known])

    @property
    def heard(self) -> float | None:
        """When it last gave a sign of life."""
        times = [self.progress.newest.time] if self.progress.newest else []
        times += [end_of(attempt, self.progress) or attempt.time for attempt in self.history.attempts[-1:]]
        return max(times, default=None)

    @property
    def computed_again(self) -> int:
        """Steps of killed attempts that were not saved."""
        known = [(a, self.progress.last.get(a.number)) for a in self.attempts if a.training_step is not None]
        pairs = itertools.pairwise(known)
        return sum(max(0, sign.step - (b.training_step or 0)) for (_, sign), (b, _) in pairs if sign)

    @functools.cached_property
    def complaints(self) -> list[Complaint]:
        history, progress = self.history, self.progress
        lives = {attempt.number: (attempt.job, attempt.restart) for attempt in history.attempts}
        said = [(a.ended_time, lives[a.number], f"attempt {a.number}", a.error) for a in history.attempts if a.error]
        said += [(f.time, (f.job, f.restart), f"rank {f.rank} on {f.node}", f.error) for f in history.failures]
        if sign := progress.error_sign:
            said.append((sign.time, lives.get(sign.attempt, ("", 0)), f"attempt {sign.attempt}", progress.error))
        return [Complaint(then or 0.0, life, who, _PLACE.sub("", text)) for then, life, who, text in said]

    def cause(self, life: tuple[str, int]) -> Complaint | None:
        """The first complaint of an attempt that is not about another rank's end; if all are, the first."""
        own = sorted((c for c in self.complaints if c.life == life), key=lambda complaint: complaint.time)
        return next((complaint for complaint in own if not _ECHO.search(complaint.text)), own[0] if own else None)

    def ago(self, then: float) -> str:
        return format_duration(max(0.0, self.now - then))


@dataclass(frozen=True)
class Jobs:
    """What SLURM says."""

    states: dict[str, JobState]
    trouble: str = ""
    """Why it says nothing."""


def status(run: Path | None, base: Path = Path("runs")) -> str:
    """Where one run stands, or (None) all runs below `base`.

    Raises:
        ConfigError: `run` is no folder of a run, nor one that has runs below it.
    """
    if run is None:
        return _overview(base)
    folder = RunFolder(run)
    if folder.config.is_file():
        return _one(folder)
    if run.is_dir() and _is_run(run):
        return _half_made(folder)
    if run.is_dir() and _runs_below(run):
        return _overview(run)
    raise ConfigError(f"{run}: no run there, nor any below it; `python hpc/launch.py status` lists those below runs/")


# -- all runs ----------------------------------------------------------------------------------------------------------


def _overview(base: Path) -> str:
    paths = _runs_below(base)
    if not paths:
        return f"no runs below {base.resolve()}; start one with: python hpc/launch.py"
    everything = [_gather(RunFolder(path), whole=False) for path in paths]
    jobs = _ask([s.job for facts in everything if _may_be_alive(facts) for s in facts.history.submissions[-2:]])
    table = _table("run", "state", ">step", ">of", ">", ">steps/s", ">attempts", ">heard of")
    for path, facts in zip(paths, everything, strict=True):
        speed = measure(facts.progress, facts.history)
        share = f"{facts.step / facts.total:.0%}" if facts.total else ""
        table.add_row(
            str(path.relative_to(base)),
            _state(facts, jobs)[0] if facts.folder.config.is_file() else "half-made",
            f"{facts.step:,}",
            f"{facts.total:,}" if facts.total else "?",
            share,
            f"{speed.steps_per_s:.3g}" if speed else "",
            str(len(facts.attempts) or ""),
            f"{facts.ago(facts.heard)} ago" if facts.heard else "",
        )
    return _rendered(f"runs below {base}", table, *_trouble(jobs), "more of one: python hpc/launch.py status RUN")


def _runs_below(base: Path) -> list[Path]:
    """Folders of runs at most three levels below (sweeps are folders of runs); half-made ones too."""
    found: list[Path] = []
    level = [base]
    for _ in range(3):
        below = [path for folder in level if folder.is_dir() for path in sorted(folder.iterdir()) if path.is_dir()]
        runs = [path for path in below if _is_run(path)]
        found += runs
        level = [path for path in below if path not in runs]
    return sorted(found)


def _is_run(path: Path) -> bool:
    """A run, if only a half-made one; a folder of runs may have logs, too."""
    if (path / "config.yaml").is_file():
        return True
    return any((path / name).exists() for name in RUN_FILES) and not any(path.glob("*/config.yaml"))


def _may_be_alive(facts: Facts) -> bool:
    """Whether it is worth asking SLURM, which may have to look into its data base for a job of last month."""
    submissions, attempts = facts.history.submissions, facts.history.attempts
    if not submissions or submissions[-1].job == LOCAL:
        return False
    return not (attempts and attempts[-1].job == submissions[-1].job and attempts[-1].cause == "finished")


# -- one run -----------------------------------------------------------------------------------------------------------


def _one(folder: RunFolder) -> str:
    facts = _gather(folder, whole=True)
    jobs = _ask(list(dict.fromkeys(submission.job for submission in facts.history.submissions)))
    parts: list[str | Table] = [shown(folder.path)]
    parts += [_line(name, text) for name, text in _summary(facts, jobs)]
    if facts.history.submissions:
        parts += ["", _job_table(facts, jobs)]
    if facts.history.attempts:
        parts += ["", _attempt_table(facts, jobs)]
    return _rendered(*parts, *_trouble(jobs))


def _line(name: str, text: str) -> str:
    """`name        text`, broken at blanks; not what is there to be copied."""
    if name in TO_COPY:
        return f"{name:<{INDENT}}{text}"
    broken = textwrap.wrap(text, WIDTH - INDENT, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"{name if number == 0 else '':<{INDENT}}{part}" for number, part in enumerate(broken))


def _summary(facts: Facts, jobs: Jobs) -> list[tuple[str, str]]:
    """The lines above the tables."""
    state, detail = _state(facts, jobs)
    share = f" ({facts.step / facts.total:.1%})" if facts.total else ""
    lines = [("state", f"{state}{': ' + detail if detail else ''}")]
    again = f", and {facts.computed_again:,} that were computed again" if facts.computed_again else ""
    lines.append(("step", (f"{facts.step:,} of {facts.total:,}{share}" if facts.total else f"{facts.step:,}") + again))
    speed = measure(facts.progress, facts.history)
    if speed:
        which = f"attempt{'s' if len(speed.attempts) > 1 else ''} {number_ranges(speed.attempts)}"
        ranks = f", {speed.world_size} ranks" if speed.world_size else ""
        lines.append(("speed", f"{format_speed(speed.steps_per_s)} ({which}{ranks})"))
    lines += _end(facts, state, speed.steps_per_s if speed else 0.0)
    lines.append(("checkpoint", _checkpoint(facts)))
    lines += _troubles(facts)
    lines.append(("logs", _logs(facts)))
    lines.append(("next", _next(facts, state)))
    return lines


def _end(facts: Facts, state: str, speed: float) -> list[tuple[str, str]]:
    """When the schedule will be done, and how much of the time was training."""
    if state == "finished" or facts.step >= facts.total or not speed:
        return []
    try:
        config = load_file(facts.folder.config)
    except ConfigError as error:
        return [("end", f"unknown: {error}")]
    alive = state in ("running", "queued")
    now = facts.now if alive else None
    remaining_s = max(0, facts.total - facts.step) / speed
    lines = [("end", f"{format_duration(remaining_s)} of training to go")]
    if alive:
        total_s = _calendar_s(facts, config, speed, remaining_s, state)
        when = time.strftime("%a %d %b %H:%M", time.localtime(facts.now + total_s))
        lines = [("end", f"in about {format_duration(total_s)} ({when}): {lines[0][1]}")]
    wanted = wanted_s(facts.history, facts.progress, now)
    if wanted > SILENT_S:
        share = min(1.0, facts.progress.trained_s / wanted)
        lines.append(("", f"{share:.0%} of the {format_duration(wanted)} with a job, waiting included, was training"))
    return lines


def _calendar_s(facts: Facts, config: Config, speed: float, remaining_s: float, state: str) -> float:
    """Seconds until the end as the queue has treated this run so far."""
    history, progress = facts.history, facts.progress
    current = facts.attempts[-1] if facts.attempts else None
    world_size = current.world_size if current else config.cluster.nodes
    if current is not None and current.job == LOCAL:
        return remaining_s
    try:
        plan = plan_of(config, max(0, facts.total - facts.step), speed, world_size, progress, history)
    except ConfigError:  # jobs of a few minutes; then only what they really did counts
        return remaining_s
    per_job_s, lost_s = attempt_costs(history, progress, plan, facts.now)
    if state == "queued" or current is None:
        return eta(remaining_s, per_job_s, lost_s)
    trained_now = sum(span.seconds for span in progress.spans if span.attempt == current.number)
    return eta(remaining_s, per_job_s, lost_s, left_s=per_job_s - trained_now)


def _checkpoint(facts: Facts) -> str:
    step = facts.folder.newest_checkpoint()
    if step is None:
        return "none yet"
    manifests = facts.folder.checkpoints.glob("step-*/manifest.json")
    newest = max(manifests, key=lambda path: int(path.parent.name.removeprefix("step-")))
    return f"step {step:,}, {facts.ago(newest.stat().st_mtime)} old"


def _troubles(facts: Facts) -> list[tuple[str, str]]:
    """The last error, the last hang, and why it was given up."""
    lines = []
    if facts.complaints:
        newest = max(facts.complaints, key=lambda complaint: complaint.time)
        cause = facts.cause(newest.life) or newest
        lines.append(("last error", f"{facts.ago(cause.time)} ago, {cause.who}: {_short(cause.text)}"))
    if hangs := sorted(facts.folder.hangs.glob("attempt-*/diagnosis.txt")):
        number = re.sub(r"\D", "", hangs[-1].parent.name).lstrip("0")
        lines.append(("last hang", f"attempt {number}: {_short(hangs[-1].read_text(errors='replace'))}"))
    if facts.folder.diagnosis.is_file():
        lines.append(("given up", _short(facts.folder.diagnosis.read_text(errors="replace"))))
    return lines


def _logs(facts: Facts) -> str:
    submissions = facts.history.submissions
    own = submissions[-1].log if submissions else ""
    folder = shown(facts.folder.logs)
    return f"{shown(Path(own))} (others in {folder})" if own else folder


def _next(facts: Facts, state: str) -> str:
    run = shown(facts.folder.path)
    if state == "finished":
        if any(facts.folder.evaluation.glob("*")):
            return f"evaluated: {run}/evaluation; weights for odevid.load: {run}/model.pt"
        return f"python hpc/launch.py evaluate run={run}"
    if state in ("running", "queued"):
        return f"python hpc/launch.py cancel {run}"
    return f"python hpc/launch.py resume {run}"


def _job_table(facts: Facts, jobs: Jobs) -> Table:
    table = _table("job", "verb", "submitted", ">nodes", ">ranks", "state now", title="jobs")
    for submission in facts.history.submissions[-ATTEMPTS_SHOWN:]:
        table.add_row(
            submission.job,
            submission.verb,
            _clock(submission.time),
            str(submission.nodes),
            str(submission.world_size),
            _job_state(submission.job, facts, jobs),
        )
    return table


def _job_state(job: str, facts: Facts, jobs: Jobs) -> str:
    if job == LOCAL:
        return "on this or another machine, without SLURM"
    state = jobs.states.get(job)
    mark = ", cancelled for good" if job in facts.history.cancelled else ""
    if state is None:
        return ("unknown" if jobs.trouble else "over (SLURM has forgotten it)") + mark
    return _told(state) + mark


def _told(state: JobState) -> str:
    """A job's state with what belongs to it."""
    reason = f" ({state.reason})" if state.reason not in ("", "None") else ""
    if state.state == "PENDING":
        start = state.expected_start.replace("T", " ")
        return f"PENDING{reason}" + (f", expected to start {start}" if start not in ("", "N/A", "Unknown") else "")
    where = f" on {state.nodes}" if state.nodes else ""
    return f"{state.state}{reason}{where}" + (f", {state.elapsed}" if state.elapsed else "")


def _attempt_table(facts: Facts, jobs: Jobs) -> Table:
    shown = facts.history.attempts[-ATTEMPTS_SHOWN:]
    left_out = len(facts.history.attempts) - len(shown)
    title = f"attempts ({left_out} earlier ones not shown)" if left_out else "attempts"
    table = _table(">no", "job", "nodes", ">ranks", "started", ">waited", ">from", ">to", "how it ended", title=title)
    waits = waits_of(facts.history, facts.progress)
    for attempt in shown:
        wait = waits[attempt.number]
        last = facts.progress.last.get(attempt.number)
        to = attempt.ended_step if attempt.ended_step is not None else last.step if last else None
        begin = attempt.training_step if attempt.training_step is not None else attempt.checkpoint or 0
        evaluates = attempt.verb != "train"
        table.add_row(
            str(attempt.number),
            attempt.job,
            _node_names(attempt.nodes),
            str(attempt.world_size),
            _clock(attempt.time),
            "" if wait is None else format_duration(wait),
            attempt.verb if evaluates else f"{begin:,}",
            "" if to is None or evaluates else f"{to:,}",
            _how_it_ended(attempt, facts, jobs),
        )
    return table


def _how_it_ended(attempt: Attempt, facts: Facts, jobs: Jobs) -> str:
    cause = facts.cause((attempt.job, attempt.restart)) if attempt.job != LOCAL or attempt.cause == "error" else None
    if cause is not None and (attempt.ended_time is None or attempt.cause == "error"):
        return f"error: {_short(cause.text, 40)}"
    if attempt.ended_time is not None:
        return attempt.cause or "ended"
    if attempt is facts.history.attempts[-1]:
        job = jobs.states.get(attempt.job)
        if job is not None and job.state == "RUNNING":
            return "running"
        if job is None and _recent(facts):
            return "running, it seems"
        if job is not None and not job.unfinished:
            return f"killed ({job.state})"
    return "killed"


# -- what both need ----------------------------------------------------------------------------------------------------


def _gather(folder: RunFolder, whole: bool) -> Facts:
    progress = read_progress(folder.path) if whole else newest_sign(folder.path)
    return Facts(folder, _total_steps(folder), read_history(folder.path), progress, time.time())


def _total_steps(folder: RunFolder) -> int:
    """Of config.yaml, also when it is of another version of the code."""
    try:
        settings = yaml.load(folder.config.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return int(settings["train"]["steps"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 0


def _state(facts: Facts, jobs: Jobs) -> tuple[str, str]:
    """One word (running, queued, finished, stopped, failed, cancelled, killed, new, silent) and what belongs to it."""
    submissions, attempts = facts.history.submissions, facts.history.attempts
    last = attempts[-1] if attempts else None
    heard = f"last heard of {facts.ago(facts.heard)} ago" if facts.heard else "never heard of"
    unfinished = [state for s in submissions if (state := jobs.states.get(s.job)) and state.unfinished]
    if unfinished:
        at_work = [state for state in unfinished if state.state not in WAITING]
        told = f"job {(at_work or unfinished)[0].job} {_told((at_work or unfinished)[0])}"
        return ("running", f"{told}; {heard}") if at_work else ("queued", told)
    job = jobs.states.get(submissions[-1].job) if submissions else None
    if submissions and (last is None or last.time < submissions[-1].time) and submissions[-1].job != LOCAL:
        return _never_started(submissions[-1].job, facts, job, jobs)
    if last is None:
        return ("running", "by its journal") if _recent(facts) else ("new", "no attempt has begun")
    if last.ended_time is not None:
        return _over(last, facts, jobs)
    if last.job in facts.history.cancelled:
        return "cancelled", f"job {last.job}"
    if job is not None:
        return "killed", f"job {_told(job)}"
    if _recent(facts):
        return "running", f"it seems: {heard}"
    return "silent", f"{heard}: killed, or hanging"


def _never_started(name: str, facts: Facts, job: JobState | None, jobs: Jobs) -> tuple[str, str]:
    if name in facts.history.cancelled:
        return "cancelled", f"job {name}, before it began"
    if job is not None:
        return "failed", f"job {name} {_told(job)} before its ranks began"
    if jobs.trouble:
        return "submitted", f"job {name}; nothing was heard of it yet, and SLURM says nothing"
    return "failed", f"job {name} is gone from the queue, and its ranks never began: see its log"


def _over(last: Attempt, facts: Facts, jobs: Jobs) -> tuple[str, str]:
    """The last attempt has left in order."""
    ago = f"{facts.ago(last.ended_time)} ago" if last.ended_time else ""
    if last.verb != "train":
        trained = [attempt for attempt in facts.attempts if attempt.cause == "finished"]
        return ("finished" if trained else "stopped"), f"{last.verb} {last.cause}, {ago}"
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


def _recent(facts: Facts) -> bool:
    return facts.heard is not None and facts.now - facts.heard < SILENT_S


def _ask(jobs: Sequence[str]) -> Jobs:
    """The states of those jobs that are SLURM's."""
    wanted = [job for job in jobs if job != LOCAL]
    if not wanted:
        return Jobs({})
    if not has_slurm():
        return Jobs({}, "there is no SLURM on this machine: what its jobs do now is not known here")
    try:
        return Jobs(slurm.job_states(wanted))
    except SlurmError as error:
        return Jobs({}, f"SLURM does not answer, what its jobs do now is not known: {_short(str(error))}")


def _trouble(jobs: Jobs) -> list[str]:
    return ["", *textwrap.wrap(f"NOTE: {jobs.trouble}", WIDTH)] if jobs.trouble else []


def _half_made(folder: RunFolder) -> str:
    there = ", ".join(sorted(path.name for path in folder.path.iterdir()))
    return (
        f"{folder.path}\nhalf-made: no config.yaml, so nothing can be started from it (there is: {there})\n"
        f"start it anew with run={folder.path} and the experiment it was for, or remove the folder"
    )


def _table(*columns: str, title: str = "") -> Table:
    """A plain table; `>` before a name sets the column to the right. The first and the last may be cut, or folded."""
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left", header_style="", title_style="")
    for index, name in enumerate(columns):
        right = name.startswith(">")
        last = index == len(columns) - 1 and not right
        table.add_column(name.lstrip(">"), justify="right" if right else "left", no_wrap=not last, overflow="fold")
    return table


def _rendered(*parts: str | Table) -> str:
    """As it stands in a terminal. Plain lines are not broken: they hold paths to copy."""
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            out.write(part + "\n")
        else:
            console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _clock(then: float) -> str:
    return time.strftime("%d %b %H:%M", time.localtime(then))


def _short(text: str, length: int = 300) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 3] + "..."


def _node_names(names: Sequence[str]) -> str:
    """`n1`, `n[1-4]`, or the first of several and how many more."""
    if len(names) <= 1:
        return "".join(names)
    split = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    matches = [match for match in split if match]
    if len(matches) == len(names) and len({match[1] for match in matches}) == 1:
        numbers = number_ranges(sorted({int(match[2]) for match in matches})).replace(" ", "")
        if len({len(match[2]) for match in matches}) == 1 and len(numbers) < 12 and not matches[0][2].startswith("0"):
            return f"{matches[0][1]}[{numbers}]"
    return f"{names[0]} +{len(names) - 1}"
