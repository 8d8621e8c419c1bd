"""Metrics against the time step of the solver: SRVP's tables 7 to 9 as a picture.

In: means with intervals. Out: PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from odevid.pictures.curves import COLOURS


@dataclass(frozen=True)
class StepScore:
    """A metric at `substeps` solver steps per frame; `half_width` of its 95 % interval, None without."""

    substeps: int
    mean: float
    half_width: float | None


def save_steps_png(path: Path, scores: Mapping[str, Sequence[StepScore]], own: int, title: str = "") -> Path:
    """A panel per metric, the step sizes 1, 1/2, ... from left to right, the model's own marked by a dashed line.

    Args:
        scores: label of the axis ("PSNR (dB)") -> its scores; at least one each.
        own: solver steps per frame in training.

    Raises:
        ValueError: nothing to draw.
    """
    if not scores or not all(scores.values()):
        raise ValueError("no scores over step sizes to plot")
    figure = Figure(figsize=(0.8 + 2.9 * len(scores), 3.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for index, (label, points) in enumerate(scores.items()):
        axes = figure.add_subplot(1, len(scores), index + 1)
        steps = [point.substeps for point in points]
        axes.errorbar(
            steps,
            [point.mean for point in points],
            yerr=[point.half_width or 0.0 for point in points],
            color=COLOURS[index % len(COLOURS)],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.6,
        )
        axes.axvline(own, color="#546070", linestyle="--", linewidth=1)
        axes.set_xticks(steps, [step_name(step) for step in steps])
        axes.set_xlim(min(*steps, own) - 0.5, max(*steps, own) + 0.5)
        axes.set_xlabel("time step (frames)")
        axes.set_ylabel(label)
        axes.grid(color="#d0d5db", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(path, format="png")
    return path


def step_name(substeps: int) -> str:
    """1, 1/2, 1/3 ... of a frame."""
    return "1" if substeps == 1 else f"1/{substeps}"
