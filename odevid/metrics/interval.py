"""95 % confidence intervals of a mean over test videos, in the two ways that SRVP's tables were made.

In: one value per video, or one per video and frame. Out: mean and half-width.

Legend: B videos, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Z_95 = 1.96
Values = Tensor | np.ndarray | Sequence[float]


@dataclass(frozen=True)
class Interval:
    """A mean over `count` videos and the half-width of its 95 % interval, in the unit of the values."""

    mean: float
    half_width: float
    count: int

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def __str__(self) -> str:
        """As tables print it: `16.93 ± 0.07`, four decimals for values that stay below one."""
        decimals = 4 if abs(self.mean) < 1 else 2
        return f"{self.mean:.{decimals}f} ± {self.half_width:.{decimals}f}"


def _mean_and_half_width(values: Values, axes: str) -> tuple[Tensor, Tensor, int]:
    """Mean and 1.96 * population std / sqrt(B) over the first axis, float64."""
    values = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if values.ndim != len(axes) or values.numel() == 0:
        raise ValueError(f"values have shape {tuple(values.shape)}; expected axes {axes}, not empty")
    count = values.shape[0]
    return values.mean(dim=0), Z_95 * values.std(dim=0, correction=0) / math.sqrt(count), count


def interval_over_videos(values_B: Values) -> Interval:
    """1.96 * population std over videos / sqrt(number of videos), as the published code computes it.

    It reproduces the intervals of SRVP's camera-ready tables (Franceschi et al., ICML 2020). A value that is not
    finite (the PSNR of an exact match) makes the half-width NaN.

    Raises ValueError when there is no value or more than one axis.
    """
    mean, half_width, count = _mean_and_half_width(values_B, "B")
    return Interval(mean.item(), half_width.item(), count)


def interval_per_frame(values_BT: Values) -> list[Interval]:
    """`interval_over_videos` of each frame: what a curve over time shows as its band.

    Raises ValueError unless values have the axes BT.
    """
    mean_T, half_width_T, count = _mean_and_half_width(values_BT, "BT")
    return [Interval(mean, half, count) for mean, half in zip(mean_T.tolist(), half_width_T.tolist(), strict=True)]


def interval_mean_of_frames(values_BT: Values) -> Interval:
    """Mean over frames of the per-frame half-widths: never narrower than `interval_over_videos` of the frame means.

    The preprint of SRVP prints wider intervals than its code gives; this averaging would explain it, but no source
    says so.

    Raises ValueError unless values have the axes BT.
    """
    frames = interval_per_frame(values_BT)
    return Interval(
        math.fsum(frame.mean for frame in frames) / len(frames),
        math.fsum(frame.half_width for frame in frames) / len(frames),
        frames[0].count,
    )
