"""Predictions that need no model: what a trained model must beat.

In: conditioning frames, float in [0, 1]. Out: as many future frames as asked for, same layout.

Legend: B videos, T frames, C channels, H rows, W columns, 2 = (row, column).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from odevid.metrics.centroid import intensity_centroid


def repeat_last_frame(context_BTCHW: Tensor, n_future: int) -> Tensor:
    """The last conditioning frame, `n_future` times: frames_BTCHW."""
    return context_BTCHW[:, -1:].repeat(1, n_future, 1, 1, 1)


def extrapolate_centroid(context_BTCHW: Tensor, n_future: int) -> Tensor:
    """Centroid of the future at constant velocity: last + n (last - previous), n = 1 ... n_future.

    No reflection at walls. A video whose last two frames are not both lit has velocity 0.

    Returns:
        centroids_BT2: (row, column) in pixels; NaN where the last frame is empty.

    Raises:
        ValueError: fewer than two conditioning frames.
    """
    last_B2 = intensity_centroid(context_BTCHW[:, -1:])[:, 0]
    return last_B2[:, None] + _displacements(context_BTCHW, n_future)


def constant_velocity(context_BTCHW: Tensor, n_future: int) -> Tensor:
    """The last frame moved on as a whole at the velocity of its centroid.

    Frame n is the last frame translated by n (last centroid - previous centroid), bilinearly between pixels. What
    leaves the picture is lost, what comes in is black: nothing is reflected. Exact for one object in free flight.

    Returns:
        frames_BTCHW.

    Raises:
        ValueError: fewer than two conditioning frames.
    """
    steps_BT2 = _displacements(context_BTCHW, n_future)
    height, width = context_BTCHW.shape[-2:]
    rows_BTHH = _shift_matrix(steps_BT2[..., 0], height)
    columns_BTWW = _shift_matrix(steps_BT2[..., 1], width)
    return rows_BTHH[:, :, None] @ context_BTCHW[:, -1:] @ columns_BTWW[:, :, None].mT


def _displacements(context_BTCHW: Tensor, n_future: int) -> Tensor:
    """n times the velocity of the centroid, n = 1 ... n_future: BT2, pixels."""
    if context_BTCHW.shape[1] < 2:
        raise ValueError(
            f"context has shape {tuple(context_BTCHW.shape)} (BTCHW); a velocity needs at least 2 conditioning frames"
        )
    centroids_BT2 = intensity_centroid(context_BTCHW[:, -2:])
    velocity_B2 = (centroids_BT2[:, 1] - centroids_BT2[:, 0]).nan_to_num(nan=0.0)
    steps_T = torch.arange(1, n_future + 1, device=velocity_B2.device, dtype=velocity_B2.dtype)
    return steps_T[None, :, None] * velocity_B2[:, None]


def _shift_matrix(shift: Tensor, size: int) -> Tensor:
    """Linear interpolation as a matrix (..., size, size): entry (i, j) is what pixel j gives to pixel i = j + shift."""
    pixels = torch.arange(size, device=shift.device, dtype=shift.dtype)
    return (1 - (pixels[:, None] - pixels[None, :] - shift[..., None, None]).abs()).clamp(min=0)


def training_mean_frame(batches: Iterable[Tensor]) -> Tensor:
    """Mean over all videos and frames of a training set given as batches BTCHW: frame_CHW, float32.

    Summed in float64; a uint8 batch is scaled to [0, 1].

    Raises ValueError when there is no batch.
    """
    total_CHW: Tensor | None = None
    count = 0
    for batch_BTCHW in batches:
        scale = 1 if torch.is_floating_point(batch_BTCHW) else 255
        batch_sum_CHW = batch_BTCHW.sum(dim=(0, 1), dtype=torch.float64) / scale
        total_CHW = batch_sum_CHW if total_CHW is None else total_CHW + batch_sum_CHW
        count += batch_BTCHW.shape[0] * batch_BTCHW.shape[1]
    if total_CHW is None:
        raise ValueError("the mean frame of a training set needs at least one batch of videos; none was given")
    return (total_CHW / count).float()


def repeat_mean_frame(context_BTCHW: Tensor, n_future: int, mean_CHW: Tensor) -> Tensor:
    """The training set's mean frame as prediction for every video and frame: frames_BTCHW.

    Raises ValueError when its shape is not that of the conditioning frames.
    """
    if mean_CHW.shape != context_BTCHW.shape[2:]:
        raise ValueError(
            f"the mean frame has shape CHW {tuple(mean_CHW.shape)}; "
            f"the conditioning frames have {tuple(context_BTCHW.shape[2:])}"
        )
    return mean_CHW.to(context_BTCHW).repeat(context_BTCHW.shape[0], n_future, 1, 1, 1)
