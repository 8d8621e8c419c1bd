"""A metric frame by frame, with its 95 % interval: several runs or baselines in one plot, and the numbers as CSV.

In: values per video and frame. Out: PNG, CSV.

Legend: B videos, T frames.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from odevid.metrics.interval import Interval, Values, interval_per_frame
from odevid.pictures import style

COLOURS = ("#d63031", "#1f5fbf", "#e08e0b", "#1a9343", "#7b4bb7", "#546070", "#0f9aa8", "#b5651d")


@dataclass(frozen=True)
class Curve:
    """A named curve: the interval of each frame, `first_frame` being the number of the first one (counted from 1)."""

    label: str
    first_frame: int
    intervals: Sequence[Interval]

    @classmethod
    def of(cls, label: str, values_BT: Values, first_frame: int) -> Curve:
        """The curve of a metric's values per video and predicted frame; `first_frame` = conditioning frames + 1."""
        return cls(label, first_frame, interval_per_frame(values_BT))

    @property
    def frames(self) -> list[int]:
        """The number of each frame."""
        return list(range(self.first_frame, self.first_frame + len(self.intervals)))


def save_curves_csv(path: Path, curves: Sequence[Curve]) -> None:
    """Write `curve,frame,mean,half_width,videos`, one line per curve and frame; numbers read back exactly."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("curve", "frame", "mean", "half_width", "videos"))
        for curve in curves:
            for frame, interval in zip(curve.frames, curve.intervals, strict=True):
                writer.writerow((curve.label, frame, repr(interval.mean), repr(interval.half_width), interval.count))


def save_curves_png(path: Path, curves: Sequence[Curve], metric: str, title: str = "") -> None:
    """Plot the curves with their intervals as bands.

    Frames before the earliest prediction, those that the model is given, are shaded green; a curve from frame 1 on,
    beside others that begin later, is of these given frames and predicts nothing. A mean that is not finite (the
    PSNR of exact matches) leaves a gap.

    Args:
        path: PNG to write.
        curves: at least one; their order is that of the legend.
        metric: label of the axis, with its unit: "PSNR (dB)".
        title: above the plot.

    Raises:
        ValueError: no curve.
    """
    if not curves:
        raise ValueError("no curve to plot: give at least one")
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, curve in enumerate(curves):
        colour = COLOURS[index % len(COLOURS)]
        axes.plot(
            curve.frames,
            [interval.mean for interval in curve.intervals],
            color=colour,
            label=curve.label,
            linewidth=1.8,
            marker="o",
            markersize=3,
        )
        lows, highs = [i.low for i in curve.intervals], [i.high for i in curve.intervals]
        axes.fill_between(curve.frames, lows, highs, color=colour, alpha=0.18, linewidth=0)
    _decorate(axes, curves, metric, title)
    figure.savefig(path, format="png")


def _decorate(axes: Axes, curves: Sequence[Curve], metric: str, title: str) -> None:
    """Labels, light grid, legend, and the shaded frames that were given."""
    first = min((curve.first_frame for curve in curves if curve.first_frame > 1), default=1)
    last = max(curve.frames[-1] for curve in curves)
    if first > 1:
        axes.axvspan(0.5, first - 0.5, color=_unit(style.GIVEN), alpha=0.12, linewidth=0)
        axes.text(
            first / 2,
            0.03,
            "given",
            color=_unit(style.GIVEN),
            ha="center",
            va="bottom",
            transform=axes.get_xaxis_transform(),
        )
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("frame")
    axes.set_ylabel(metric)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color=_unit(style.FAINT), linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _unit(colour: style.Colour) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour)
