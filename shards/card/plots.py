"""Histograms of a card: how many clips of each class, how many of each length, split by split.

In: counts. Out: matplotlib figures; nothing needs a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shards.card import style
from shards.card.notes import all_classes

_NAMED_CLASSES = 30  # more are shown by size instead of by name
_BINS = 40


def plot_classes(path: Path, classes: Mapping[str, Mapping[str, int]]) -> None:
    """Write a PNG of the class histogram.

    Args:
        path: the file.
        classes: split -> class -> how often; splits without classes are left out.
    """
    counted = {split: counts for split, counts in classes.items() if counts}
    names = all_classes(counted)
    if len(names) <= _NAMED_CLASSES:
        figure, axes = _figure(1.2 + 0.28 * len(names) * max(1.0, 0.55 * len(counted)))
        _bars_by_name(axes[0], counted, names)
    else:
        figure, axes = _figure(2.2 * len(counted), panels=len(counted))
        for panel, (split, counts), colour in zip(axes, counted.items(), _colours(len(counted)), strict=True):
            _bars_by_size(panel, split, counts, len(names), colour)
    figure.savefig(path, format="png")


def plot_lengths(path: Path, frames: Mapping[str, Mapping[int, int]]) -> None:
    """Write a PNG of how many clips have how many frames.

    Args:
        path: the file.
        frames: split -> number of frames -> clips; splits without a time axis are left out.
    """
    timed = {split: counts for split, counts in frames.items() if counts}
    figure, axes = _figure(1.7 * len(timed) + 0.5, panels=len(timed), share_x=True)
    shortest, longest = (pick(length for counts in timed.values() for length in counts) for pick in (min, max))
    bins = min(_BINS, longest - shortest + 1)
    step = int(np.ceil((longest - shortest + 1) / bins))
    edges = np.arange(shortest, longest + step + 1, step) - 0.5
    for panel, (split, counts), colour in zip(axes, timed.items(), _colours(len(timed)), strict=True):
        panel.hist(list(counts), bins=edges.tolist(), weights=list(counts.values()), color=colour)
        panel.set_title(f"{split}: {sum(counts.values()):,} clips", loc="left", fontsize=10)
        panel.set_ylabel("clips")
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[-1].set_xlabel("frames in a clip" + (f" (bars of {step})" if step > 1 else ""))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path, format="png")


def _bars_by_name(axes: Axes, classes: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> None:
    thickness = 0.8 / len(classes)
    for place, ((split, counts), colour) in enumerate(zip(classes.items(), _colours(len(classes)), strict=True)):
        at = np.arange(len(names)) + (place - (len(classes) - 1) / 2) * thickness
        bars = axes.barh(at, [counts.get(name, 0) for name in names], thickness * 0.92, color=colour, label=split)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=7)
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("how many")
    axes.grid(visible=False, axis="y")
    axes.figure.legend(loc="outside upper left", ncols=6, frameon=False, fontsize=9)


def _bars_by_size(axes: Axes, split: str, counts: Mapping[str, int], num_classes: int, colour: str) -> None:
    ordered = sorted(counts.items(), key=lambda pair: -pair[1])
    axes.bar(range(len(ordered)), [count for _, count in ordered], 1.0, color=colour)
    (most, high), (least, low) = ordered[0], ordered[-1]
    title = f"{split}: {len(counts)} of {num_classes} classes, {_short(most)} {high:,} … {_short(least)} {low:,}"
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlim(-0.5, num_classes - 0.5)
    axes.set_xlabel("classes by size")
    axes.set_ylabel("clips")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _figure(height: float, *, panels: int = 1, share_x: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels above each other, ``height`` in inches."""
    figure = Figure(figsize=(7.5, max(2.2, height)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(panels, 1, squeeze=False, sharex=share_x)[:, 0])
    for panel in axes:
        panel.grid(color=[value / 255 for value in style.FAINT], linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _colours(count: int) -> list[str]:
    return [style.SERIES[place % len(style.SERIES)] for place in range(count)]


def _short(name: str) -> str:
    return name if len(name) <= 28 else name[:27] + "…"
