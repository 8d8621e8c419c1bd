"""How a digit moves over many samples: for each time step a histogram of (dx, dy), the true one above the predicted.

In: `MotionExample`s, one for each initial state. Out: PNG. As figures 3 and 4 of the supplement of E. Denton and
R. Fergus, "Stochastic Video Generation with a Learned Prior" (ICML 2018), where the true one is below.

Legend: T steps, Y, X bins of dy, dx, from -reach to reach. Lengths in bins: a panel has 2 reach + 1 of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from odevid.pictures import style

MOST_GIVEN, MOST_PREDICTED = 3, 20
"""Steps shown; of more the last ones that were given, and predicted ones evenly spaced."""

_DPI = 150
_PIXELS_PER_BIN = 6
_GAP = 1.5
_HEAD, _FOOT, _LEFT, _RIGHT = 16.0, 6.0, 24.0, 22.0  # bins around the panels of an example
_NOTE = 9.0  # bins of the lines at the bottom
_NARROWEST = 125.0
_BAR = 5.0  # height of a bar that means all
_LEAST = 1e-3  # share with the palest colour
_LETTERS = 7.0  # points


@dataclass(frozen=True)
class MotionExample:
    """An initial state.

    Attributes:
        label: what it is, for the line above its panels.
        true_TYX: shares of moves at each step from frame 1 to frame 2 on, the given frames included.
        predicted_TYX: the same of the steps after the given frames.
        bounced_T: share of the true trajectories that meet a wall in each step.
    """

    label: str
    true_TYX: NDArray[np.float64]
    predicted_TYX: NDArray[np.float64]
    bounced_T: NDArray[np.float64]


def save_motion(path: Path, examples: Sequence[MotionExample], num_given: int) -> None:
    """Write the figure: for each example a row of true and one of predicted panels, one scale of colours for all.

    Columns are numbered by the frame (from 1) that a move leads to; green: both frames were given.

    Raises:
        ValueError: no example, or steps that do not fit together.
    """
    if not examples:
        raise ValueError("no example of motion to draw: give at least one")
    for example in examples:
        _check(example, num_given)
    shown = _shown_steps(len(examples[0].true_TYX), num_given - 1)
    side = examples[0].true_TYX.shape[-1]
    width = max(_NARROWEST, _LEFT + len(shown) * (side + _GAP) + _RIGHT)
    height = _HEAD + 2 * side + _GAP + _FOOT
    total = height * len(examples) + _NOTE
    to_inches = _PIXELS_PER_BIN / _DPI
    figure = Figure(figsize=(width * to_inches, total * to_inches), dpi=_DPI)
    FigureCanvasAgg(figure)
    colours, scale = _colours(), LogNorm(_LEAST, 1.0)
    for row, example in enumerate(examples):
        axes = figure.add_axes((0, 1 - height * (row + 1) / total, 1, height / total))
        axes.set_xlim(-_LEFT, width - _LEFT)
        axes.set_ylim(height - _HEAD, -_HEAD)
        axes.axis("off")
        _draw(axes, example, shown, num_given, colours, scale)
    bar_left = (_LEFT + len(shown) * (side + _GAP) + 4) / width
    _colour_bar(figure, (bar_left, 1 - (_HEAD + 2 * side + _GAP) / total, 2 / width, 2 * side / total), colours, scale)
    notes = (
        "moves from the frame before, in pixels; dy grows downwards; green: both frames were given",
        "bars: share of the true trajectories that bounce on the way to this frame",
    )
    for line, text in enumerate(notes):
        place = _LEFT / width, (_NOTE - 3 - 4 * line) / total
        figure.text(*place, text, fontsize=_LETTERS, color=_unit(style.INK), va="center")
    figure.savefig(path, format="png")


def _colour_bar(figure: Figure, place: tuple[float, float, float, float], colours: Colormap, scale: LogNorm) -> None:
    """What the colours mean."""
    bar = figure.add_axes(place)
    figure.colorbar(ScalarMappable(scale, colours), cax=bar)
    bar.set_yticks([0.001, 0.01, 0.1, 1], ["0.1 %", "1 %", "10 %", "100 %"], fontsize=_LETTERS)
    bar.set_title("share\nof moves", fontsize=_LETTERS, loc="left")


def _draw(
    axes: Axes, example: MotionExample, shown: Sequence[int], num_given: int, colours: Colormap, scale: LogNorm
) -> None:
    """The panels of one example, their frames, numbers and bars."""
    side, ink = example.true_TYX.shape[-1], _unit(style.INK)
    low = side + _GAP  # of the predicted panels
    for column, step in enumerate(shown):
        left, is_given = column * (side + _GAP), step < num_given - 1
        _panel(axes, example.true_TYX[step], left, 0.0, style.GIVEN if is_given else style.TRUTH, colours, scale)
        if not is_given:
            predicted = example.predicted_TYX[step - num_given + 1]
            _panel(axes, predicted, left, low, style.PREDICTED, colours, scale)
        colour = _unit(style.GIVEN) if is_given else ink
        axes.text(left + side / 2, -1.8, str(step + 2), fontsize=_LETTERS, color=colour, ha="center", va="center")
        bounced = _BAR * float(example.bounced_T[step])
        axes.add_patch(Rectangle((left, -3.6 - bounced), side, bounced, color=_unit(style.TRUTH), alpha=0.6, lw=0))
        axes.plot((left, left + side), (-3.6, -3.6), color=_unit(style.FAINT), linewidth=0.6)
    axes.text(0, -_HEAD + 2.6, example.label, fontsize=_LETTERS + 1, color=ink, ha="left", va="center")
    for name, y in (("bounces", -3.6 - _BAR / 2), ("frame", -1.8), ("true", side / 2), ("predicted", low + side / 2)):
        axes.text(-8.5, y, name, fontsize=_LETTERS, color=ink, ha="right", va="center")
    _ticks(axes, side, low, first=len([step for step in shown if step < num_given - 1]))


def _panel(
    axes: Axes,
    share_YX: NDArray[np.float64],
    left: float,
    top: float,
    border: style.Colour,
    colours: Colormap,
    scale: LogNorm,
) -> None:
    """One histogram with its frame and a cross at rest."""
    side = len(share_YX)
    pixels = colours(scale(np.clip(share_YX, _LEAST, 1.0)))
    pixels[share_YX <= 0] = (1, 1, 1, 1)
    axes.imshow(pixels, extent=(left, left + side, top + side, top), interpolation="nearest", aspect="auto")
    middle = left + side / 2, top + side / 2
    axes.plot(*middle, marker="+", color=_unit(style.TRUTH), markersize=3, markeredgewidth=0.5)
    axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=_unit(border), linewidth=1.2))


def _ticks(axes: Axes, side: int, low: float, first: int) -> None:
    """Numbers at the true panel on the left (dy) and below the first predicted one (dx)."""
    reach, ink, left = side // 2, _unit(style.INK), first * (side + _GAP)
    for value in (-reach, 0, reach):
        place = value + side / 2
        axes.text(-0.8, place, str(value), fontsize=_LETTERS - 1.5, color=ink, ha="right", va="center")
        spot = left + place, low + side + 1.8
        axes.text(*spot, str(value), fontsize=_LETTERS - 1.5, color=ink, ha="center", va="center")
    axes.text(-4.4, side / 2, "dy", fontsize=_LETTERS - 1.5, color=ink, ha="right", va="center")
    axes.text(left + side + 1.2, low + side + 1.8, "dx", fontsize=_LETTERS - 1.5, color=ink, va="center")


def _check(example: MotionExample, num_given: int) -> None:
    steps, predicted = len(example.true_TYX), len(example.predicted_TYX)
    if predicted != steps - num_given + 1 or len(example.bounced_T) != steps:
        raise ValueError(
            f"{steps} true steps and {num_given} given frames leave {steps - num_given + 1} predicted steps; "
            f"found {predicted}, and {len(example.bounced_T)} shares of bounces"
        )


def _shown_steps(steps: int, steps_given: int) -> list[int]:
    """Which steps get a column."""
    given = range(max(0, steps_given - MOST_GIVEN), steps_given)
    count = min(MOST_PREDICTED, steps - steps_given)
    return [*given, *np.linspace(steps_given, steps - 1, count).round().astype(int).tolist()]


def _colours() -> Colormap:
    """White paper to dark blue."""
    return LinearSegmentedColormap.from_list("moves", ("#e8eef7", "#7fb2e5", "#1f5fbf", "#0b1f4b"))


def _unit(colour: style.Colour) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour)
