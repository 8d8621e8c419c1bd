"""How much the sampled futures of a video differ from one another, beside how far they are from what came.

In: samples of one clip. Out: distances per frame, and the standard deviation of every pixel.

Axes: N samples, T frames, C channels, H height, W width; `...` whatever one sample's frames or features have.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Distance = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Spread:
    """Distances of a clip's samples, per frame."""

    between_T: Tensor
    """Mean over all pairs of samples."""
    to_truth_T: Tensor
    """Mean over samples of their distance from the truth."""


def pixel_rms(a_TCHW: Tensor, b_TCHW: Tensor) -> Tensor:
    """Root of the mean squared difference over pixels and channels, per frame `...T`; leading axes broadcast."""
    return (a_TCHW - b_TCHW).square().mean(dim=(-3, -2, -1)).sqrt()


def spread(samples: Tensor, truth: Tensor, distance: Distance = pixel_rms) -> Spread:
    """How far `samples` (N...) are from each other and from `truth` (the same without N).

    Args:
        distance: of two tensors, per frame (last axis T); frames with `pixel_rms`, features with
            `odevid.metrics.lpips.LPIPS.distance`.

    Raises:
        ValueError: fewer than two samples, or a truth of another shape.
    """
    if len(samples) < 2:
        raise ValueError(f"{len(samples)} samples have no distance from each other; give at least 2")
    if samples.shape[1:] != truth.shape:
        raise ValueError(f"samples have shape {tuple(samples.shape)}, the truth {tuple(truth.shape)}; expected N of it")
    sums = [distance(samples[first + 1 :], samples[first]).sum(dim=0) for first in range(len(samples) - 1)]
    pairs = len(samples) * (len(samples) - 1) / 2
    return Spread(torch.stack(sums).sum(dim=0) / pairs, distance(samples, truth).mean(dim=0))


def deviation(samples_NTCHW: Tensor) -> Tensor:
    """Standard deviation over samples of each pixel, unbiased variance, root mean square over channels: THW.

    Raises:
        ValueError: fewer than two samples.
    """
    if len(samples_NTCHW) < 2:
        raise ValueError(f"{len(samples_NTCHW)} samples have no deviation; give at least 2")
    return samples_NTCHW.var(dim=0, correction=1).mean(dim=1).sqrt()
