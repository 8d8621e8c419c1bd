"""What a run took: hours of its ranks, speed, and what an evaluation costs per video and sample.

In: attempts and journal of a run, cost of its evaluation. Out: a table, and how each attempt went.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from hpc.jobs.attempts import Attempt
from hpc.jobs.forecast import end_of, format_speed, measure
from hpc.report import numbers
from hpc.report.blocks import Block, Cell, Paragraph, Row, Table
from hpc.report.facts import RunFacts
from hpc.tracking.console import format_duration

GPU_NAMES = re.compile("nvidia|geforce|tesla|quadro|instinct|radeon|gpu", re.IGNORECASE)
SHOWN = 40
"""Attempts in the table, the newest ones."""


def device_names(run: RunFacts) -> list[str]:
    """Of the ranks, as the check before each attempt found them."""
    return list(
        dict.fromkeys(str(name) for event in run.events("preflight") for name in _as_list(event.get("devices")))
    )


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def hour_unit(run: RunFacts) -> str:
    """What an hour of a rank is: of a GPU, or of a process on CPU cores."""
    names = device_names(run)
    if names:
        return "GPU-hours" if any(GPU_NAMES.search(name) for name in names) else "CPU-rank-hours"
    return "CPU-rank-hours" if run.setting("cluster.gpus_per_node") == 0 else "rank-hours"


def rank_hours(run: RunFacts, verb: str) -> float:
    """Of all attempts, start-up included; one that was killed counts until its last sign of life."""
    attempts = [attempt for attempt in run.life.history.attempts if attempt.verb == verb]
    return sum(_lasted_s(run, attempt) * attempt.world_size for attempt in attempts) / 3600


def _lasted_s(run: RunFacts, attempt: Attempt) -> float:
    return max(0.0, (end_of(attempt, run.life.progress) or attempt.time) - attempt.time)


def costs(runs: Sequence[RunFacts]) -> list[Block]:
    """One line per run, then its attempts."""
    header = [Cell(text) for text in ("", "training", "speed", "steps", "evaluation", "per video and sample")]
    rows = [_row(run) for run in runs]
    notes = [
        "Training: hours of all ranks together over all attempts, start-up, validation and saving included. "
        "Speed: while training, validations and saves included. "
        "Per video and sample: seconds of one rank (wall clock x ranks / videos / samples), metrics included."
    ]
    blocks: list[Block] = [Table(header, rows, notes, name="costs")]
    for run in runs:
        blocks += _attempts(run, len(runs) > 1)
    return blocks


def _row(run: RunFacts) -> Row:
    speed = measure(run.life.progress, run.life.history)
    trained = any(attempt.verb == "train" for attempt in run.life.history.attempts)
    again = f"{run.life.computed_again:,} of them twice" if run.life.computed_again else ""
    hours = Cell(_hours(rank_hours(run, "train"), run)) if trained else Cell("no attempts.jsonl", missing=True)
    cells = [
        Cell(run.name, ", ".join(device_names(run))),
        hours,
        Cell(format_speed(speed.steps_per_s)) if speed else Cell("not measured", missing=True),
        Cell(f"{run.life.step:,}", again),
    ]
    if run.evaluation is None:
        return Row([*cells, Cell(run.no_scores_word, missing=True), Cell("–", missing=True)])
    scores = run.evaluation.scores
    cost, clips = scores.cost, int(scores.protocol.get("num_clips", 0))
    measured = cost.scored > 0 and cost.wall_s > 0
    shape = f"{clips:,} videos x {run.evaluation.samples:,} samples"
    where = f"{cost.ranks} rank{'s' * (cost.ranks > 1)}, {cost.device}"
    return Row(
        [
            *cells,
            _seconds(cost.wall_s, where, measured),
            _seconds(cost.s_per_video_and_sample if measured else 0.0, shape, measured),
        ]
    )


def _seconds(seconds: float, small: str, measured: bool) -> Cell:
    if not measured:
        return Cell("not measured", small, missing=True)
    return Cell(numbers.seconds(seconds) if seconds < 60 else format_duration(seconds), small)


def _hours(hours: float, run: RunFacts) -> str:
    digits = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
    return f"{digits} {hour_unit(run)}"


def _attempts(run: RunFacts, several: bool) -> list[Block]:
    attempts = run.life.history.attempts
    title = f"Attempts of {run.name}" if several else "Attempts"
    if not attempts:
        return [Paragraph(f"{title}: no attempts.jsonl, so nobody knows when it ran and where.", "missing")]
    shown = attempts[-SHOWN:]
    notes = [f"{len(attempts) - len(shown)} earlier ones are not shown."] if len(shown) < len(attempts) else []
    header = [Cell(text) for text in (title, "how it ended", "job", "nodes", "ranks", "from step", "to step", "lasted")]
    return [Table(header, [_attempt_row(run, attempt) for attempt in shown], notes, text_columns=4, name="attempts")]


def _attempt_row(run: RunFacts, attempt: Attempt) -> Row:
    last = run.life.progress.last.get(attempt.number)
    end = attempt.ended_step if attempt.ended_step is not None else last.step if last else None
    begin = attempt.training_step if attempt.training_step is not None else attempt.checkpoint
    trains = attempt.verb == "train"
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(attempt.time))
    nodes = ", ".join(attempt.nodes[:2]) + (f" + {len(attempt.nodes) - 2}" if len(attempt.nodes) > 2 else "")
    lasted = format_duration(_lasted_s(run, attempt))
    return Row(
        [
            Cell(f"{attempt.number}: {attempt.verb}, {started}"),
            Cell(how_it_ended(run, attempt)),
            Cell(attempt.job),
            Cell(nodes),
            Cell(str(attempt.world_size)),
            Cell(f"{begin:,}" if trains and begin is not None else ""),
            Cell(f"{end:,}" if trains and end is not None else ""),
            Cell(lasted),
        ]
    )


def how_it_ended(run: RunFacts, attempt: Attempt) -> str:
    """Its own word, or that it left none."""
    if attempt.cause == "error" or attempt.error:
        return f"error: {attempt.error.splitlines()[0][:90]}" if attempt.error else "error"
    if attempt.ended_time is not None:
        return attempt.cause or "ended"
    newest = run.life.history.attempts[-1] is attempt
    return "running" if newest and run.state[0] == "running" else "killed: it left no word of its end"
