"""Curves of training from the journal: loss and its terms, validation, learning rate, speed, with interruptions.

In: the surviving records of runs. Out: one PNG with a panel per quantity, all runs in it, as bytes; no torch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from hpc.report.facts import RunFacts

MAX_POINTS = 800
"""Of a curve; neighbouring lines of the journal are averaged until there are no more (of maxima the largest counts)."""
MAX_PANELS = 18
LOG_SCALE_FROM = 200.0
"""Largest / smallest value above which a positive quantity is drawn on a logarithmic axis."""
COLUMNS = 3
COLOURS = ("#1f5fbf", "#d63031", "#1a9343", "#e08e0b", "#7b4bb7", "#546070", "#0f9aa8", "#b5651d")
NOT_DRAWN = ("step_s", "data_wait_share", "data_wait_share_max", "memory_gib", "samples_consumed")
"""Of train records; bad_steps and substitutions are drawn when they are not zero."""
COUNTERS = ("bad_steps", "substitutions")
MAXIMUM = "_max"
"""How the name of a term ends that is a maximum, as hpc.tracking.meters says."""
VALIDATIONS = ("psnr", "ssim", "psnr_reconstruction", "psnr_step_halved_change")
"""Of eval records."""
LABELS = {
    "train/loss": "loss",
    "train/lr": "learning rate",
    "train/frames_per_s": "frames/s",
    "eval/psnr": "validation PSNR (dB)",
    "eval/ssim": "validation SSIM",
    "eval/psnr_reconstruction": "validation PSNR, given frames (dB)",
    "eval/psnr_step_halved_change": "validation PSNR change, half step (dB)",
}


@dataclass(frozen=True)
class Series:
    """One quantity of one run over steps."""

    steps: list[int]
    values: list[float]
    """Finite ones."""
    per_point: int
    """Lines of the journal that a point is the mean, or the maximum, of."""
    not_finite: int
    """Lines left out because they were NaN or infinite."""


@dataclass(frozen=True)
class Interruption:
    """Where the surviving curve goes from one attempt over to the next."""

    step: int
    cause: str
    """How the attempt before it ended."""


def series_of(run: RunFacts) -> dict[str, Series]:
    """Name ("train/loss", "eval/psnr") -> curve, of what is worth a panel."""
    raw: dict[str, list[tuple[int, float]]] = {}
    for record in run.records:
        if record.kind in ("train", "eval"):
            for name, value in _scalars(record.data):
                raw.setdefault(f"{record.kind}/{name}", []).append((record.step, value))
    drawn = {name: _thinned(points, name.endswith(MAXIMUM)) for name, points in raw.items() if _is_drawn(name)}
    counters = [f"train/{name}" for name in COUNTERS]
    return {name: found for name, found in drawn.items() if name not in counters or any(found.values)}


def _scalars(data: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    scalars = data.get("scalars")
    for name, value in scalars.items() if isinstance(scalars, Mapping) else ():
        if isinstance(value, int | float):
            yield str(name), float(value)


def _is_drawn(name: str) -> bool:
    kind, _, rest = name.partition("/")
    return rest in VALIDATIONS if kind == "eval" else rest not in NOT_DRAWN


def _thinned(points: Sequence[tuple[int, float]], is_maximum: bool) -> Series:
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    each = max(1, math.ceil(len(finite) / MAX_POINTS))
    groups = [finite[start : start + each] for start in range(0, len(finite), each)]
    return Series(
        steps=[group[-1][0] for group in groups],
        values=[_point([value for _, value in group], is_maximum) for group in groups],
        per_point=each,
        not_finite=len(points) - len(finite),
    )


def _point(values: Sequence[float], is_maximum: bool) -> float:
    return max(values) if is_maximum else math.fsum(values) / len(values)


def interruptions(run: RunFacts) -> list[Interruption]:
    """Of the training, after its first step."""
    attempts = run.life.attempts
    return [
        Interruption(after.training_step, before.cause or "killed")
        for before, after in zip(attempts, islice(attempts, 1, None), strict=False)
        if after.training_step
    ]


def in_order(names: Sequence[str]) -> list[str]:
    """Loss and its terms, gradients, validation, learning rate, speed."""

    def rank(name: str) -> int:
        kind, _, rest = name.partition("/")
        if name == "train/loss":
            return 0
        if kind == "eval":
            return 3
        if rest in ("lr", "frames_per_s", *COUNTERS):
            return 4 + ("lr", "frames_per_s", *COUNTERS).index(rest)
        return 2 if "/" in rest else 1

    return sorted(dict.fromkeys(names), key=rank)[:MAX_PANELS]


def training_png(runs: Sequence[RunFacts]) -> bytes | None:
    """The panels; None where no run has a curve."""
    curves = [series_of(run) for run in runs]
    names = in_order([name for found in curves for name in found if found[name].values])
    if not names:
        return None
    columns = min(COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(10.4, 2.15 * rows + (0.35 if len(runs) > 1 else 0)), dpi=144, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for index, name in enumerate(names):
        _panel(panels[index // columns][index % columns], name, runs, [found.get(name) for found in curves])
    for index in range(len(names), rows * columns):
        panels[index // columns][index % columns].set_axis_off()
    if len(runs) > 1:
        handles = [Line2D([], [], color=_colour(index), label=run.name) for index, run in enumerate(runs)]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(4, len(runs)), frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _panel(axes: Axes, name: str, runs: Sequence[RunFacts], curves: Sequence[Series | None]) -> None:
    values = [value for curve in curves if curve for value in curve.values]
    for index, (run, curve) in enumerate(zip(runs, curves, strict=True)):
        for stop in interruptions(run):
            colour = _colour(index) if len(runs) > 1 else "#8a929c"
            axes.axvline(stop.step, color=colour, linewidth=0.7, linestyle=":", zorder=1)
        if curve and curve.values:
            few = len(curve.values) < 30
            axes.plot(
                curve.steps,
                curve.values,
                color=_colour(index),
                linewidth=1.2,
                marker="o" if few else None,
                markersize=2.5,
                zorder=2,
            )
    if min(values) > 0 and max(values) / min(values) > LOG_SCALE_FROM:
        axes.set_yscale("log")
    axes.set_title(LABELS.get(name, name.partition("/")[2]), loc="left", fontsize=9)
    axes.tick_params(labelsize=7.5, length=2.5, colors="#444c56")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e3e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8bfc7")
