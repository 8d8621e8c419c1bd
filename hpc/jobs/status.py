"""`status`: where runs stand, for people, in a second on a login node.

In:  what is known of run folders (facts.py, standing.py). Out: text for a terminal of 100 columns: one line per run, or
     everything about one.
"""

from __future__ import annotations

import io
import re
import shlex
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hpc.config import Config, ConfigError, load_file
from hpc.jobs.attempts import LOCAL, Attempt
from hpc.jobs.build_slice import BUILD_FILE
from hpc.jobs.facts import SILENT_S, Facts, Jobs, ask_slurm, gather, in_one_line, life_of
from hpc.jobs.forecast import attempt_costs, eta, format_speed, measure, number_ranges, plan_of, shown, wanted_s
from hpc.jobs.forecast import waits as waits_of
from hpc.jobs.standing import beside, present_job, state_of, told, waits_for_ever
from hpc.run_folder import RunFolder
from hpc.tracking.console import format_duration

WIDTH = 100
INDENT = 12
TO_COPY = ("logs", "next")
ATTEMPTS_SHOWN = 15
RUN_FILES = ("attempts.jsonl", "metrics.jsonl", "checkpoints", "logs")
"""What tells the folder of a run that lost or never got its config.yaml from any other folder."""


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


def _overview(base: Path) -> str:
    paths = _runs_below(base)
    if not paths:
        return f"no runs below {base.resolve()}; start one with: python hpc/launch.py"
    everything = [gather(RunFolder(path), whole=False) for path in paths]
    jobs = ask_slurm([job for facts in everything for job in _may_be_alive(facts)])
    table = _table("run", "state", ">step", ">of", ">", ">steps/s", ">attempts", ">heard of")
    for path, facts in zip(paths, everything, strict=True):
        speed = measure(facts.progress, facts.history)
        share = f"{facts.step / facts.total:.0%}" if facts.total else ""
        table.add_row(
            str(path.relative_to(base)),
            state_of(facts, jobs)[0] if facts.folder.config.is_file() else "half-made",
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
    """A run, if only a half-made one; a folder of runs may have logs, too, and so does a build's."""
    if (path / BUILD_FILE).is_file():
        return False
    if (path / "config.yaml").is_file():
        return True
    return any((path / name).exists() for name in RUN_FILES) and not any(path.glob("*/config.yaml"))


def _may_be_alive(facts: Facts) -> list[str]:
    """Jobs of which it is worth asking SLURM, which may have to look into its data base for one of last month."""
    complete = {attempt.job for attempt in facts.attempts if attempt.cause == "finished"}
    return list(dict.fromkeys(s.job for s in facts.own.submissions if s.job not in complete))


def _one(folder: RunFolder) -> str:
    facts = gather(folder, whole=True)
    jobs = ask_slurm(list(dict.fromkeys(submission.job for submission in facts.history.submissions)))
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
    state, detail = state_of(facts, jobs)
    detail = "; ".join(part for part in (detail, *beside(facts, jobs)) if part)
    share = f" ({facts.step / facts.total:.1%})" if facts.total else ""
    lines = [("state", f"{state}{': ' + detail if detail else ''}")]
    again = f", and {facts.computed_again:,} that were computed again" if facts.computed_again else ""
    lines.append(("step", (f"{facts.step:,} of {facts.total:,}{share}" if facts.total else f"{facts.step:,}") + again))
    speed = measure(facts.progress, facts.history)
    if speed:
        which = f"attempt{'s' if len(speed.attempts) > 1 else ''} {number_ranges(speed.attempts)}"
        ranks = f", {speed.world_size} ranks" if speed.world_size else ""
        lines.append(("speed", f"{format_speed(speed.steps_per_s)} ({which}{ranks})"))
    lines += _end(facts, jobs, state, speed.steps_per_s if speed else 0.0)
    lines.append(("checkpoint", _checkpoint(facts)))
    lines += _troubles(facts)
    lines.append(("logs", _logs(facts, jobs)))
    lines.append(("next", _next(facts, state)))
    return lines


def _end(facts: Facts, jobs: Jobs, state: str, speed: float) -> list[tuple[str, str]]:
    """When the schedule will be done, and how much of the time was training."""
    if state == "finished" or facts.step >= facts.total or not speed:
        return []
    try:
        config = load_file(facts.folder.config)
    except ConfigError as error:
        return [("end", f"unknown: {error}")]
    present = jobs.states.get(present_job(facts, jobs))
    alive = state in ("running", "queued") and not (present and waits_for_ever(present))
    now = facts.now if alive else None
    remaining_s = max(0, facts.total - facts.step) / speed
    lines = [("end", f"{format_duration(remaining_s)} of training to go")]
    if alive:
        total_s = _calendar_s(facts, jobs, config, speed, remaining_s, state)
        when = time.strftime("%a %d %b %H:%M", time.localtime(facts.now + total_s))
        lines = [("end", f"in about {format_duration(total_s)} ({when}): {lines[0][1]}")]
    wanted = wanted_s(facts.own, facts.progress, now)
    if wanted > SILENT_S:
        share = min(1.0, facts.progress.trained_s / wanted)
        lines.append(("", f"{share:.0%} of the {format_duration(wanted)} with a job, waiting included, was training"))
    return lines


def _calendar_s(facts: Facts, jobs: Jobs, config: Config, speed: float, remaining_s: float, state: str) -> float:
    """Seconds until the end as the queue has treated this run so far."""
    progress, present = facts.progress, present_job(facts, jobs)
    current = next((attempt for attempt in reversed(facts.attempts) if attempt.job == present), None)
    until = facts.attempts.index(current) + 1 if current else None  # what came later was refused
    history = replace(facts.own, attempts=facts.attempts[:until])
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
        lines.append(("last error", f"{facts.ago(cause.time)} ago, {cause.who}: {in_one_line(cause.text)}"))
    if hangs := sorted(facts.folder.hangs.glob("attempt-*/diagnosis.txt")):
        number = re.sub(r"\D", "", hangs[-1].parent.name).lstrip("0")
        lines.append(("last hang", f"attempt {number}: {in_one_line(hangs[-1].read_text(errors='replace'))}"))
    if facts.folder.diagnosis.is_file():
        lines.append(("given up", in_one_line(facts.folder.diagnosis.read_text(errors="replace"))))
    return lines


def _logs(facts: Facts, jobs: Jobs) -> str:
    present = present_job(facts, jobs)
    own = next((s.log for s in reversed(facts.own.submissions) if s.job == present), "")
    folder = shown(facts.folder.logs)
    return f"{shown(Path(own))} (others in {folder})" if own else folder


def _next(facts: Facts, state: str) -> str:
    run = shown(facts.folder.path)
    typed = shlex.quote(run)
    if state in ("running", "queued"):
        return f"python hpc/launch.py cancel {typed}"
    if facts.verb != "train":
        return f"python hpc/launch.py {facts.verb} {shlex.quote(f'run={run}')}"
    if state == "finished":
        if facts.folder.is_evaluated:
            return f"evaluated: {run}/evaluation; weights for odevid.load: {run}/model.pt"
        return f"python hpc/launch.py evaluate {shlex.quote(f'run={run}')}"
    return f"python hpc/launch.py resume {typed}"


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
    return told(state) + mark


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
    cause = facts.cause(life_of(attempt))
    if cause is not None and (attempt.ended_time is None or attempt.cause == "error"):
        return f"error: {in_one_line(cause.text, 40)}"
    if attempt.ended_time is not None:
        return attempt.cause or "ended"
    same = [other for other in facts.history.attempts if other.verb == attempt.verb]
    job = jobs.states.get(attempt.job)
    if job is None:
        recent = attempt is same[-1] and facts.now - facts.heard_in(attempt) < SILENT_S
        return "running, it seems" if recent else "killed"
    if attempt is [other for other in same if other.job == attempt.job][-1]:
        if job.state == "RUNNING":
            return "running"
        if not job.unfinished:
            return f"killed ({job.state})"
    return "killed"


def _trouble(jobs: Jobs) -> list[str]:
    return ["", *textwrap.wrap(f"NOTE: {jobs.trouble}", WIDTH)] if jobs.trouble else []


def _half_made(folder: RunFolder) -> str:
    there = ", ".join(sorted(path.name for path in folder.path.iterdir()))
    return (
        f"{folder.path}\nhalf-made: no config.yaml, so nothing can be started from it (there is: {there})\n"
        f"start it anew with {shlex.quote(f'run={folder.path}')} and the experiment it was for, or remove the folder"
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
