"""Where the light of a frame is: intensity centroids, and how far predicted ones are from true ones.

In: float frames. Out: (row, column) in pixels, and distances in pixels. For one bright object on black this says
whether motion is predicted, which PSNR hardly does. Several objects have one common centroid.

Legend: T time, C channels, H rows, W columns, 2 = (row, column); `...` any leading axes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from odevid.metrics.frames import check_frames, check_pair

EMPTY = 1e-3
"""A frame whose pixel values sum to less than this many fully lit pixels has no centroid."""


def intensity_centroid(frames: Tensor) -> Tensor:
    """Centroid of intensity of each frame, channels summed.

    Args:
        frames: `...TCHW` float, not negative.

    Returns:
        `...T2`: (row, column) in pixels, the centre of the first pixel being (0, 0); NaN for an empty frame (`EMPTY`).
    """
    check_frames("frames", frames)
    light = frames.sum(dim=-3)
    rows = torch.arange(light.shape[-2], device=light.device, dtype=light.dtype)
    columns = torch.arange(light.shape[-1], device=light.device, dtype=light.dtype)
    total = light.sum(dim=(-2, -1))
    moments = torch.stack(((light.sum(dim=-1) * rows).sum(dim=-1), (light.sum(dim=-2) * columns).sum(dim=-1)), dim=-1)
    total = torch.where(total < EMPTY, torch.nan, total)
    return moments / total.unsqueeze(-1)


def centroid_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Distance between predicted and true centroid of each frame.

    A true frame that is empty has nothing to be found: NaN. A predicted frame that is empty where the true one is not
    counts as the diagonal of the frame, so that predicting nothing is never better than predicting something.

    Args:
        prediction: `...TCHW` float, not negative.
        target: `...TCHW`, same frames; leading axes broadcast.

    Returns:
        `...T`, pixels.
    """
    check_pair(prediction, target)
    expected = intensity_centroid(target)
    distance = (intensity_centroid(prediction) - expected).norm(dim=-1)
    diagonal = math.hypot(prediction.shape[-2], prediction.shape[-1])
    missed = distance.isnan() & ~expected.isnan().any(dim=-1)
    return torch.where(missed, diagonal, distance)


def median_centroid_error(prediction: Tensor, target: Tensor) -> float:
    """Median of `centroid_error` over every frame given, empty true frames left out (pixels).

    The median of an even number of distances is the mean of the two in the middle.

    Raises ValueError when every true frame is empty.
    """
    errors = centroid_error(prediction, target).flatten()
    errors = errors[~errors.isnan()]
    if errors.numel() == 0:
        raise ValueError(
            f"every true frame of target {tuple(target.shape)} is empty: there is no centroid to compare with"
        )
    return float(np.median(errors.double().cpu().numpy()))
