"""How many jobs the rest of a schedule takes, and when it will be done, from what was measured in the run.

In:  the journal (speed, length of saves) and attempts.jsonl (start-ups, waiting in the queue). Out: `JobPlan`, and the
     seconds until the end, for `--dry-run` and `status`.

An attempt costs more than its training: it waits in the queue, starts up, saves, and what a killed one had not saved is
computed again. `lost_per_attempt_s` is all of that together: calendar time in which the run wanted to train, less the
training that the present weights are made of.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.jobs.attempts import LOCAL, Attempt, History, read_history
from hpc.jobs.progress import Progress, read_progress
from hpc.run_folder import RunFolder
from hpc.tracking.console import format_duration

ASSUMED_OVERHEAD_S = 120.0
ASSUMED_SAVE_S = 30.0
EARLY_SIGNAL_S = 60.0
"""SLURM looks at time limits now and then: its signal comes up to this much before the delay asked for."""
ENOUGH_ATTEMPTS = 3
"""So many attempts that are over tell more than the time limit about how long one lasts."""
RELATIVES = 20
"""Runs beside a new one that are looked at for a measured speed."""


@dataclass(frozen=True)
class JobPlan:
    """The jobs that `steps` take."""

    steps: int
    steps_per_s: float
    time_min: int
    signal_delay_s: float
    overhead_s: float
    save_s: float
    nodes: int
    gpus_per_node: int
    source: str = ""
    """Where the speed was measured."""

    @property
    def training_s(self) -> float:
        return self.steps / self.steps_per_s

    @property
    def per_job_s(self) -> float:
        """Training in a job of full length."""
        return 60 * self.time_min - self.warning_s - self.overhead_s - self.save_s

    @property
    def warning_s(self) -> float:
        """So long before its time limit a job is told to save."""
        return self.signal_delay_s + EARLY_SIGNAL_S

    @property
    def jobs(self) -> int:
        return math.ceil(self.training_s / self.per_job_s)

    @property
    def node_hours(self) -> int:
        """Rounded up."""
        return math.ceil(self.nodes * self.total_s() / 3600)

    @property
    def gpu_hours(self) -> int:
        return self.node_hours * self.gpus_per_node

    def total_s(self, wait_s: float = 0.0) -> float:
        """From the submission to the end, when each job waits that long in the queue."""
        return self.training_s + self.jobs * (self.overhead_s + self.save_s + wait_s)

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        gpus = f", {self.gpu_hours:,} GPU-hours" if self.gpus_per_node else ""
        return (
            f"{self.steps:,} steps at {format_speed(self.steps_per_s)}{source} = "
            f"{format_duration(self.training_s)} of training;\n"
            f"jobs of {_limit(self.time_min)} (minus {self.warning_s:.0f} s warning, {self.overhead_s:.0f} s start-up, "
            f"{self.save_s:.0f} s save): {self.jobs:,} job{'s' if self.jobs != 1 else ''}, "
            f"{self.node_hours:,} node-hours{gpus}"
        )


@dataclass(frozen=True)
class Speed:
    """A measured speed."""

    steps_per_s: float
    attempts: list[int]
    world_size: int | None
    """Ranks of those attempts; None: not known."""


def job_plan(
    remaining_steps: int,
    steps_per_s: float,
    time_min: int,
    signal_delay_s: float,
    overhead_s: float,
    save_s: float,
    nodes: int,
    gpus_per_node: int,
    source: str = "",
) -> JobPlan:
    """
    Raises:
        ConfigError: no speed, or jobs too short to train in.
    """
    if not (math.isfinite(steps_per_s) and steps_per_s > 0):
        raise ConfigError(f"--steps-per-s {steps_per_s:g}: expected a positive number of steps per second")
    plan = JobPlan(
        remaining_steps, steps_per_s, time_min, signal_delay_s, overhead_s, save_s, nodes, gpus_per_node, source
    )
    if plan.per_job_s <= 0:
        raise ConfigError(
            f"jobs of {_limit(time_min)} leave no time to train: {plan.warning_s:.0f} s warning before the time limit, "
            f"{overhead_s:.0f} s start-up, {save_s:.0f} s save; ask for more with --time, or for a later warning with "
            "cluster.signal_delay_s="
        )
    return plan


def measure(progress: Progress, history: History, world_size: int | None = None) -> Speed | None:
    """The speed on `world_size` ranks; if that was never tried (or is None), on as many as trained last."""
    sizes = {attempt.number: attempt.world_size for attempt in history.attempts}
    trained = [span.attempt for span in progress.spans] or ([progress.newest.attempt] if progress.newest else [])
    if world_size is None or world_size not in {sizes.get(number) for number in trained}:
        world_size = sizes.get(trained[-1]) if trained else None
    same = None if world_size is None else [number for number, size in sizes.items() if size == world_size]
    found = progress.speed(same)
    return Speed(*found, world_size) if found else None


def overhead_s(history: History) -> float | None:
    """Seconds from an attempt's start to its first step: the median of those that came so far; None: none did."""
    lasted = [a.training_time - a.time for a in history.attempts if a.training_time and a.training_time >= a.time]
    return statistics.median(lasted[-10:]) if lasted else None


def queue_wait_s(history: History, progress: Progress | None = None) -> float | None:
    """Median of what this run's jobs waited in the queue; None: not known."""
    waited = [seconds for seconds in waits(history, progress).values() if seconds is not None]
    return statistics.median(waited) if waited else None


def waits(history: History, progress: Progress | None = None) -> dict[int, float | None]:
    """What each attempt waited in the queue. None: it was in none, or nobody knows.

    A job waits from its submission on (though not while another job of this run was at work), and after a requeue from
    the end of its former attempt on; of a killed one that is the last line in the journal, if `progress` is given.
    """
    submitted = {submission.job: submission.time for submission in history.submissions}
    found: dict[int, float | None] = {}
    last_of_job: dict[str, float | None] = {}
    last_end = 0.0
    for attempt in history.attempts:
        since: float | None
        if attempt.job in last_of_job:
            since = last_of_job[attempt.job]
        else:
            since = max(submitted[attempt.job], last_end) if attempt.job in submitted else None
        known = since is not None and attempt.job != LOCAL
        found[attempt.number] = max(0.0, attempt.time - since) if known and since is not None else None
        end = end_of(attempt, progress)
        last_of_job[attempt.job] = end
        last_end = max(last_end, end or 0.0)
    return found


def end_of(attempt: Attempt, progress: Progress | None) -> float | None:
    """When an attempt left, or was last heard of; never before it began. None: it left no sign."""
    sign = progress.last.get(attempt.number) if progress else None
    times = [time for time in (attempt.ended_time, attempt.training_time, sign.time if sign else None) if time]
    if attempt.ended_time is None and sign is None:
        return None
    return max(attempt.time, *times)


def wanted_s(history: History, progress: Progress, now: float | None) -> float:
    """Calendar time in which the run trained, started up or waited for SLURM; not while nobody had asked for a job.

    Args:
        now: the present, if a job is running or queued; None: none is.
    """
    stretches = []
    jobs: dict[str, tuple[float, float]] = {s.job: (s.time, s.time) for s in history.submissions if s.job != LOCAL}
    for attempt in history.attempts:
        end = end_of(attempt, progress) or attempt.time
        if attempt.job == LOCAL:  # every launch on this machine has this id
            stretches.append((attempt.time, end))
        else:
            begin, latest = jobs.get(attempt.job, (attempt.time, end))
            jobs[attempt.job] = (min(begin, attempt.time), max(latest, end))
    stretches += jobs.values()
    if now is not None and stretches:
        begin, end = max(stretches)
        stretches[stretches.index((begin, end))] = (begin, max(end, now))
    return _union(stretches)


def eta(remaining_s: float, per_job_s: float, lost_per_attempt_s: float, left_s: float = 0.0) -> float:
    """Calendar seconds until the schedule is done.

    Args:
        remaining_s: training still to do.
        per_job_s: training that an attempt brings.
        lost_per_attempt_s: everything else that it costs.
        left_s: training that the running attempt will still bring; 0: none runs.
    """
    further = max(0.0, remaining_s - max(0.0, left_s))
    return max(0.0, remaining_s) + math.ceil(further / per_job_s) * max(0.0, lost_per_attempt_s)


def attempt_costs(history: History, progress: Progress, plan: JobPlan, now: float | None) -> tuple[float, float]:
    """What an attempt of this run brings in training, and what else it costs, for `eta`: `(per_job_s, lost_s)`.

    As it really went, once `ENOUGH_ATTEMPTS` are over; before that, as the time limit and the waiting so far say.
    """
    over = [attempt for attempt in history.attempts if attempt.verb == "train"]
    over = over[:-1] if now is not None else over
    if len(over) >= ENOUGH_ATTEMPTS:
        lasted = sum(span.seconds for span in progress.spans if span.attempt <= over[-1].number)
        spent = wanted_s(History(history.submissions, over), progress, None)
        if lasted > 0:
            return lasted / len(over), max(0.0, spent - lasted) / len(over)
    waited = queue_wait_s(history, progress) or 0.0
    return plan.per_job_s, waited + plan.overhead_s + plan.save_s


@dataclass(frozen=True)
class Evidence:
    """A run that has trained, and what it tells about the schedule of this or of another run."""

    run: Path
    progress: Progress
    history: History
    speed: Speed


def schedule(config: Config, folder: RunFolder, world_size: int, steps_per_s: float = 0.0) -> str:
    """The jobs that the rest of the schedule takes, as text for people.

    Args:
        folder: of a run that has trained, or of a new one; then runs of the same model beside it are looked at.
        steps_per_s: what to assume instead of what was measured.
    """
    done = min(config.train.steps, folder.newest_checkpoint() or 0)
    begun = f"{done:,} of {config.train.steps:,} steps are done and saved\n" if done else ""
    if done == config.train.steps:
        return begun + "nothing is left to train"
    evidence = next(_evidence(config, folder, world_size), None)
    if steps_per_s:
        source = "assumed"
    elif evidence is None:
        return begun + _speed_unknown(config)
    else:
        source, steps_per_s = _source(evidence, world_size), evidence.speed.steps_per_s
    progress, history = (evidence.progress, evidence.history) if evidence else (Progress(), History())
    try:
        plan = plan_of(config, config.train.steps - done, steps_per_s, world_size, progress, history, source)
    except ConfigError as error:
        return f"{begun}WARNING: {error}"
    return f"{begun}{plan};\n{_with_queue(plan, evidence, folder)}" + _assumptions(plan, progress, history)


def plan_of(
    config: Config,
    remaining_steps: int,
    steps_per_s: float,
    world_size: int,
    progress: Progress,
    history: History,
    source: str = "",
) -> JobPlan:
    """The plan with start-up and save as they were measured, or else assumed."""
    cluster = config.cluster
    started = overhead_s(history)
    return job_plan(
        remaining_steps,
        steps_per_s,
        cluster.time_min,
        cluster.signal_delay_s,
        ASSUMED_OVERHEAD_S if started is None else started,
        statistics.median(progress.save_s[-50:]) if progress.save_s else ASSUMED_SAVE_S,
        cluster.nodes,
        world_size // cluster.nodes if cluster.gpus_per_node else 0,
        source,
    )


def format_speed(steps_per_s: float) -> str:
    return f"{steps_per_s:,.0f} steps/s" if steps_per_s >= 100 else f"{steps_per_s:.3g} steps/s"


def number_ranges(numbers: Sequence[int]) -> str:
    """`3-7, 9` of sorted numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _evidence(config: Config, folder: RunFolder, world_size: int) -> Iterator[Evidence]:
    """The run itself, then runs beside it whose steps are as long as its own, the newest first."""
    beside = [path for path in folder.path.parent.glob("*/config.yaml") if path.parent != folder.path]
    newest_first = sorted(beside, key=lambda path: path.parent.name, reverse=True)
    wanted = _what_a_step_is(config)
    for run in [folder.path, *(path.parent for path in islice(newest_first, RELATIVES))]:
        progress, history = read_progress(run), read_history(run)
        speed = measure(progress, history, world_size)
        if speed is None or (run != folder.path and speed.world_size != world_size):
            continue
        try:
            if run == folder.path or _what_a_step_is(configs.load_file(run / "config.yaml")) == wanted:
                yield Evidence(run, progress, history, speed)
        except ConfigError:  # of another version of the code
            continue


def _what_a_step_is(config: Config) -> list[Any]:
    train, data = config.train, config.data
    return [
        config.model,
        train.recipe,
        train.global_batch,
        train.precision,
        train.zero_stage,
        data.name,
        data.num_frames,
    ]


def _source(evidence: Evidence, world_size: int) -> str:
    speed = evidence.speed
    plural = "s" if len(speed.attempts) > 1 else ""
    other = f", on {speed.world_size} ranks, not {world_size}" if speed.world_size not in (None, world_size) else ""
    return f"measured in {shown(evidence.run)}, attempt{plural} {number_ranges(speed.attempts)}{other}"


def _with_queue(plan: JobPlan, evidence: Evidence | None, folder: RunFolder) -> str:
    wait = queue_wait_s(evidence.history, evidence.progress) if evidence else None
    if evidence is None or wait is None:
        return f"without any waiting in the queue: about {format_duration(plan.total_s())}"
    whose = "this run" if evidence.run == folder.path else shown(evidence.run)
    return (
        f"with the queue of {whose} (median wait {format_duration(wait)}): about {format_duration(plan.total_s(wait))}"
    )


def _assumptions(plan: JobPlan, progress: Progress, history: History) -> str:
    """What in the plan is no measurement, and what in it will not work."""
    assumed = [] if overhead_s(history) is not None else ["start-up"]
    assumed += [] if progress.save_s else ["save"]
    notes = [f"{' and '.join(assumed)} assumed: no run like this one has trained yet"] if assumed else []
    if plan.save_s > plan.signal_delay_s:
        notes.append(
            f"WARNING: a save takes {plan.save_s:.0f} s, but the job is warned only {plan.signal_delay_s:.0f} s before "
            f"its time limit: say cluster.signal_delay_s={math.ceil(2 * plan.save_s)}"
        )
    return "".join(f"\n({note})" if not note.startswith("WARNING") else f"\n{note}" for note in notes)


def _speed_unknown(config: Config) -> str:
    return (
        f"how many jobs of {_limit(config.cluster.time_min)} it takes is not known: no run like this one has trained "
        "here yet.\nSay --steps-per-s 10 to assume a speed, or run=DIR of a run that has trained a few minutes"
    )


def shown(path: Path) -> str:
    """As it is typed from where the user is."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _limit(minutes: int) -> str:
    """`24h`, `90m`, `36h 30m`."""
    hours, rest = divmod(minutes, 60)
    return f"{minutes}m" if minutes < 120 and rest else f"{hours}h {rest:02d}m" if rest else f"{hours}h"


def _union(stretches: list[tuple[float, float]]) -> float:
    """Length of what intervals cover together."""
    total, covered = 0.0, -math.inf
    for begin, end in sorted(stretches):
        total += max(0.0, end - max(begin, covered))
        covered = max(covered, end)
    return total
