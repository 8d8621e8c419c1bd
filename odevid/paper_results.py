"""Numbers of the papers' result tables, to stand beside ours.

In: `paper_results.yaml`, beside this module. Out: one `PaperResult` per number, with where it was read. A number that
nobody could read is not there: it is never estimated or taken from a figure.

The file is a list of tables. Each has the keys `paper`, `table`, `dataset`, `source`, `rows` and, where they say
something, `experiment` and `note`; a row is a method and its numbers by metric: `Ours: {psnr: 29.69, fvd: 222 ± 3}`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

FILE = "paper_results.yaml"
METRICS = {
    "psnr": "dB, higher is better",
    "ssim": "higher is better",
    "lpips": "AlexNet, v0.1; lower is better",
    "fvd": "lower is better",
    "mse": "squared units of the data, lower is better; the note says over what it is averaged or summed",
    "inception_score": "C3D on UCF101, higher is better",
    "fid": "Frechet distance of C3D's features on UCF101, lower is better; not comparable with FVD",
}
"""What a number may measure."""

_NEEDED = ("paper", "table", "dataset", "source", "rows")
_OPTIONAL = ("experiment", "note")
_NUMBER = re.compile(r"(?P<value>-?\d+(\.\d+)?(e-?\d+)?)( ± (?P<half>\d+(\.\d+)?))?")


@dataclass(frozen=True)
class PaperResult:
    """One number of one table.

    Attributes:
        paper: short name and version ("SRVP, preprint April 2020").
        table: which table, as the source names it.
        dataset: what was predicted.
        experiment: the file of configs/experiment that repeats it, without .yaml; "" where there is none.
        method: row of the table ("Ours", "Ours - MLP", "SVG").
        metric: one of `METRICS`.
        value: the number, as printed.
        half_width: of the 95 % interval, as printed; None where it is not known.
        note: what one must know to compare: frames, samples, units. May be "".
        source: where the number was read.
    """

    paper: str
    table: str
    dataset: str
    experiment: str
    method: str
    metric: str
    value: float
    half_width: float | None
    note: str
    source: str


@functools.cache
def _all() -> tuple[PaperResult, ...]:
    text = resources.files("odevid").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(parse(yaml.safe_load(text)))


def load() -> list[PaperResult]:
    """Every number, in the order of the file. Raises ValueError as `parse` does."""
    return list(_all())


def for_experiment(name: str) -> list[PaperResult]:
    """The numbers that an experiment of configs/experiment repeats, such as "srvp_kth"; none for another name."""
    return [result for result in _all() if name and result.experiment == name]


def parse(tables: Any) -> list[PaperResult]:
    """Results from the tables of the file.

    Raises ValueError, naming the entry, for a key or a metric that is unknown, a key that is missing or empty (above
    all the source), a value that is no number, and a number that is given twice.
    """
    if not isinstance(tables, list):
        raise ValueError(f"{FILE}: found {type(tables).__name__}; expected a list of tables")
    results = [result for index, table in enumerate(tables) for result in _of_table(index, table)]
    seen: set[tuple[str, ...]] = set()
    for result in results:
        key = (result.paper, result.table, result.dataset, result.method, result.metric)
        if key in seen:
            raise ValueError(f"{FILE}: given twice: {', '.join(key)}")
        seen.add(key)
    return results


def _of_table(index: int, table: Any) -> list[PaperResult]:
    entry = f"{FILE}, entry {index + 1}"
    if not isinstance(table, Mapping):
        raise ValueError(f"{entry}: found {type(table).__name__}; expected keys {', '.join(_NEEDED)}")
    entry += f" ({table.get('paper', 'no paper')}, {table.get('table', 'no table')}, {table.get('dataset', '')})"
    if unknown := [str(key) for key in table if key not in (*_NEEDED, *_OPTIONAL)]:
        raise ValueError(f"{entry}: unknown key {unknown[0]}; expected {', '.join((*_NEEDED, *_OPTIONAL))}")
    if missing := [key for key in _NEEDED if not table.get(key)]:
        raise ValueError(f"{entry}: no {missing[0]}")
    texts = {key: table.get(key, "") for key in (*_NEEDED, *_OPTIONAL) if key != "rows"}
    if wrong := [key for key, text in texts.items() if not isinstance(text, str)]:
        raise ValueError(f"{entry}: {wrong[0]} is {texts[wrong[0]]!r}; expected text")
    texts = {key: " ".join(text.split()) for key, text in texts.items()}
    return [
        PaperResult(method=method, metric=metric, value=value, half_width=half_width, **texts)
        for method, metric, value, half_width in _of_rows(entry, table["rows"])
    ]


def _of_rows(entry: str, rows: Any) -> list[tuple[str, str, float, float | None]]:
    if not isinstance(rows, Mapping) or not all(isinstance(row, Mapping) and row for row in rows.values()):
        raise ValueError(f"{entry}: rows must be methods, each with its numbers by metric")
    found = []
    for method, row in rows.items():
        for metric, printed in row.items():
            if metric not in METRICS:
                raise ValueError(f"{entry}: {method} has unknown metric {metric}; expected {', '.join(METRICS)}")
            match = _NUMBER.fullmatch(str(printed))
            if match is None or isinstance(printed, bool) or not math.isfinite(float(match["value"])):
                raise ValueError(f"{entry}: {method}, {metric} is {printed!r}; expected 29.69 or 29.69 ± 0.32")
            half_width = None if match["half"] is None else float(match["half"])
            found.append((str(method), metric, float(match["value"]), half_width))
    return found
