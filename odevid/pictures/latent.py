"""Latent trajectories in the plane: one line per trajectory, time as colour, the given part marked.

In: projected points. Out: PNG with a panel per projection.

Legend: N samples, B clips, T times, 2 the plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from odevid.pictures import style
from odevid.pictures.curves import COLOURS
from odevid.studies.projection import Projection

TIME = "viridis"
APART = 0.1  # of the plane's extent: samples that begin nearer to each other share one name


def save_latent_png(
    path: Path, projections: Sequence[Projection], shape_NBT: tuple[int, int, int], num_given: int, names: Sequence[str]
) -> Path:
    """Draw the projections of the same states side by side.

    Args:
        projections: each of N * B * T points, in that order of axes.
        shape_NBT: samples, clips, times (one per frame from the first on).
        num_given: the first times that are of given frames.
        names: of the clips; written where their samples begin.

    Raises:
        ValueError: no projection, or not N * B * T points.
    """
    if not projections:
        raise ValueError("no projection to draw")
    for projection in projections:
        if len(projection.points_P2) != np.prod(shape_NBT):
            raise ValueError(f"{len(projection.points_P2)} points of {projection.method} are not N * B * T {shape_NBT}")
    figure = Figure(figsize=(5.2 * len(projections) + 0.9, 5.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    num_frames = shape_NBT[2]
    norm = BoundaryNorm(np.arange(num_frames + 1) + 0.5, 256)
    panels = []
    for index, projection in enumerate(projections):
        axes = figure.add_subplot(1, len(projections), index + 1)
        points_NBT2 = projection.points_P2.numpy().reshape(*shape_NBT, 2)
        _draw(axes, points_NBT2, num_given, names, norm)
        _label(axes, projection)
        panels.append(axes)
    bar = figure.colorbar(ScalarMappable(norm, TIME), ax=panels, label="frame", pad=0.01)
    bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(handles=_legend(), loc="outside lower left", ncols=2, frameon=False)
    figure.savefig(path, format="png")
    return path


def _draw(axes: Axes, points_NBT2: np.ndarray, num_given: int, names: Sequence[str], norm: BoundaryNorm) -> None:
    """Lines and points of all trajectories; longer ones have smaller points."""
    num_frames = points_NBT2.shape[2]
    frames, smaller = np.arange(1, num_frames + 1), min(1.0, 20 / num_frames)
    parts = ((slice(0, num_given), "s", style.GIVEN), (slice(num_given, None), "o", style.PREDICTED))
    for clip in range(len(names)):
        colour = COLOURS[clip % len(COLOURS)]
        for points_T2 in points_NBT2[:, clip]:
            axes.plot(points_T2[:, 0], points_T2[:, 1], color=colour, linewidth=0.9, alpha=0.55, zorder=1)
            for part, marker, edge in parts:
                axes.scatter(
                    points_T2[part, 0],
                    points_T2[part, 1],
                    c=frames[part],
                    cmap=TIME,
                    norm=norm,
                    marker=marker,
                    s=(26 if marker == "s" else 18) * smaller,
                    edgecolors=[tuple(value / 255 for value in edge)],
                    linewidths=0.8 * smaller,
                    zorder=2,
                )
    _write_names(axes, points_NBT2[:, :, 0], names, APART * np.ptp(points_NBT2, axis=(0, 1, 2)))


def _write_names(axes: Axes, starts_NB2: np.ndarray, names: Sequence[str], apart_2: np.ndarray) -> None:
    """Each clip's name where its samples begin, once for those that begin at one place."""
    for clip, name in enumerate(names):
        named: list[np.ndarray] = []
        for start_2 in starts_NB2[:, clip]:
            if any((np.abs(start_2 - other_2) <= apart_2).all() for other_2 in named):
                continue
            named.append(start_2)
            axes.annotate(
                name,
                start_2,
                xytext=(6, 6),
                textcoords="offset points",
                fontsize=9,
                fontweight="bold",
                color=COLOURS[clip % len(COLOURS)],
                path_effects=[withStroke(linewidth=2.5, foreground="white")],
                zorder=3,
            )


def _label(axes: Axes, projection: Projection) -> None:
    title = projection.method + (f" ({projection.settings})" if projection.settings else "")
    axes.set_title(title, loc="left", fontsize=11)
    if projection.shares:
        first, second = projection.shares
        axes.set_xlabel(f"component 1 ({first:.0%} of the variance)")
        axes.set_ylabel(f"component 2 ({second:.0%} of the variance)")
    else:  # distances alone mean something, and only near ones
        axes.set_xticks([])
        axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(0.08)


def _legend() -> list[Line2D]:
    """What squares and circles are."""
    looks = (("s", style.GIVEN, "inferred from given frames"), ("o", style.PREDICTED, "predicted"))
    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markerfacecolor="white",
            markeredgecolor=tuple(value / 255 for value in edge),
            label=label,
        )
        for marker, edge, label in looks
    ]
