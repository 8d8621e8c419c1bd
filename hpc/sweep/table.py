"""The table over the elements of a sweep: how each stands, how far it is, how good it is. No torch import.

In:  runs/sweeps/NAME: sweep.json, and each element's attempts, journal and checkpoints. Out: text for people, the best
     element first once all are finished, and table.csv beside sweep.json: the same in full, a column per varied key.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc import config as configs
from hpc.checkpoint.errors import CheckpointError
from hpc.checkpoint.manifest import Manifest
from hpc.config import ConfigError
from hpc.run_folder import RunFolder
from hpc.sweep.states import FINISHED, STATES, Standing, launcher_at_work, standings
from hpc.tracking.journal import Record, journal_files, parse

SWEEP_FILE = "sweep.json"
TABLE_FILE = "table.csv"
EVALUATED = ("psnr", "ssim")
"""Metrics of a validation that the table shows; table.csv has all."""
LONGEST_ERROR = 80


@dataclass
class Row:
    """One element."""

    name: str
    own: dict[str, Any]
    standing: Standing
    step: int | None = None
    steps: int | None = None
    scalars: dict[str, float] = field(default_factory=dict)
    """The last validation's, and the last logged `loss`."""
    metric: str = ""
    """What `best` is measured by."""
    best: float | None = None
    """Of the checkpoints that are kept."""
    left_out: bool = False
    """The sweep's file has it no more."""


def is_sweep(folder: Path) -> bool:
    """Whether the folder is that of a sweep."""
    return (folder / SWEEP_FILE).is_file()


def recorded_elements(sweep: Path) -> dict[str, dict[str, Any]]:
    """What sweep.json says: folder's name -> `own` settings, and whether it is `in_file` still; empty before a sweep.

    Raises:
        ConfigError: sweep.json cannot be read.
    """
    path = sweep / SWEEP_FILE
    if not path.is_file():
        return {}
    try:
        elements: dict[str, dict[str, Any]] = json.loads(path.read_text())["elements"]
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{path} is not what a launch wrote there ({error!r}): remove it, and the next one does"
        ) from error
    return elements


def sweep_table(folder: Path, alone: bool = False) -> str:
    """The table as text; writes table.csv.

    Args:
        folder: of the sweep.
        alone: whether the caller knows that no launcher is running elements here.

    Raises:
        ConfigError: this is not the folder of a sweep.
    """
    if not is_sweep(folder):
        raise ConfigError(f"{folder}: no {SWEEP_FILE} there, so it is not the folder of a sweep (runs/sweeps/NAME)")
    rows = read_rows(folder, not alone and launcher_at_work(folder))
    counts = ", ".join(f"{n} {state}" for state in STATES if (n := sum(row.standing.state == state for row in rows)))
    lines = [f"sweep {folder.name}: {counts}", *_aligned(_columns(rows))]
    if any(row.left_out for row in rows):
        lines.append("* no longer in the sweep's file")
    try:
        _write_csv(folder / TABLE_FILE, rows)
        lines.append(f"in full     {folder / TABLE_FILE}")
    except PermissionError:
        lines.append(f"not written: {folder / TABLE_FILE} (the folder is somebody else's)")
    return "\n".join(lines)


def read_rows(folder: Path, locally_at_work: bool = False) -> list[Row]:
    """A row for each element, in the order of the file; by merit, best first, once all are finished."""
    recorded = recorded_elements(folder)
    runs = [RunFolder(folder / name) for name in recorded]
    rows = [
        _row(run, about, standing)
        for run, about, standing in zip(runs, recorded.values(), standings(runs, locally_at_work), strict=True)
    ]
    if all(row.standing.state == FINISHED for row in rows):
        rows.sort(key=_merit)
    return rows


def _row(run: RunFolder, about: Mapping[str, Any], standing: Standing) -> Row:
    row = Row(run.path.name, about["own"], standing, left_out=not about["in_file"])
    if not run.config.is_file():
        return row
    config = configs.load_file(run.config)
    row.steps, row.metric = config.train.steps, config.eval.best_metric
    latest = newest(run.path, ("train", "eval"))
    row.step = max((record.step for record in latest.values()), default=run.newest_checkpoint())
    row.scalars = dict(latest["eval"].data["scalars"]) if "eval" in latest else {}
    if "train" in latest and "loss" in latest["train"].data["scalars"]:
        row.scalars["loss"] = latest["train"].data["scalars"]["loss"]
    row.best = _best(run, row.metric)
    return row


def newest(run_dir: Path, kinds: Sequence[str]) -> dict[str, Record]:
    """The newest record of each kind that counts still, read from the journal's end; kinds that there are not, not."""
    found: dict[str, Record] = {}
    superseded_after = math.inf
    marks = {kind: f'"kind":"{kind}"'.encode() for kind in (*kinds, "resume")}
    for where, line in _lines_from_the_end(run_dir):
        kind = next((kind for kind, mark in marks.items() if mark in line and kind not in found), None)
        if kind is None:
            continue
        record = parse(line, where)
        if record.kind == "resume":
            start = record.data["from_step"]
            superseded_after = min(superseded_after, -1 if start is None else start)
        elif record.kind == kind and record.step <= superseded_after:
            found[kind] = record
            if len(found) == len(kinds):
                break
    return found


def _lines_from_the_end(run_dir: Path) -> Iterator[tuple[str, bytes]]:
    for path in reversed(journal_files(run_dir)):
        for line in reversed(path.read_bytes().splitlines(keepends=True)):
            if line.endswith(b"\n"):
                yield str(path), line


def _best(run: RunFolder, metric: str) -> float | None:
    """Of the kept checkpoints, whose manifests say what their validation found."""
    values = []
    for path in run.checkpoints.glob("step-*"):
        try:
            value = Manifest.load(path).meta.get("metrics", {}).get(metric)
        except (CheckpointError, OSError):  # damaged, or just being forgotten
            continue
        if value is not None:
            values.append(float(value))
    return max(values, default=None)


def _merit(row: Row) -> tuple[float, float]:
    """Less is better: the best validation first, else the last; where none was made, the loss."""
    value = row.best if row.best is not None else row.scalars.get(row.metric)
    loss = row.scalars.get("loss", math.inf)
    return (
        -value if value is not None and math.isfinite(value) else math.inf,
        loss if math.isfinite(loss) else math.inf,
    )


def _columns(rows: Sequence[Row]) -> list[list[str]]:
    """Header and a line per row, without columns that would be empty."""
    table = [["element", "state", "attempts", "step", "loss", *EVALUATED, "best", "error"]]
    for row in rows:
        total = "?" if row.steps is None else str(row.steps)
        best = f"{row.metric} {_number(row.best)}" if row.best is not None else ""
        table.append(
            [
                row.name + (" *" if row.left_out else ""),
                row.standing.state,
                str(row.standing.attempts or ""),
                f"{row.step or 0}/{total}" if row.steps is not None else "",
                *(_number(row.scalars.get(name)) for name in ("loss", *EVALUATED)),
                best,
                _shortened(row.standing.error),
            ]
        )
    kept = [column for column in range(len(table[0])) if any(line[column] for line in table[1:])]
    return [[line[column] for column in kept] for line in table]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 3] + "..."


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Every value as it is; replaced as a whole, since somebody may be reading it."""
    keys = list(dict.fromkeys(key for row in rows for key in row.own))
    scalars = list(dict.fromkeys(name for row in rows for name in row.scalars))
    partial = path.with_name(path.name + ".tmp")
    with partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        head = ["element", *keys, "state", "attempts", "step", "steps", *scalars, "best_metric", "best", "job", "error"]
        writer.writerow(head)
        for row in rows:
            own = [row.own.get(key, "") for key in keys]
            values = [row.scalars.get(name, "") for name in scalars]
            stands = row.standing
            best = "" if row.best is None else row.best
            progress = [stands.state, stands.attempts, row.step or 0, row.steps or ""]
            writer.writerow([row.name, *own, *progress, *values, row.metric, best, stands.job, stands.error])
    partial.replace(path)
