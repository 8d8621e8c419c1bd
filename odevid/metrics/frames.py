"""What every metric asks of the frames that it is given.

In: two tensors of frames. Out: nothing, or an error that says what was found and what was expected.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-3  # what half precision may add to 1


def check_frames(name: str, frames: Tensor) -> None:
    """Refuse what is not float frames `...TCHW`.

    Raises TypeError for integer frames (metrics are defined on [0, 1]) and ValueError for fewer than 4 axes.
    """
    if not torch.is_floating_point(frames):
        raise TypeError(
            f"{name} has dtype {frames.dtype}; expected floats in [0, 1]: for uint8 frames write {name}.float() / 255"
        )
    if frames.ndim < 4:
        raise ValueError(
            f"{name} has shape {tuple(frames.shape)}; expected axes ...TCHW (time, channels, rows, columns)"
        )


def check_pair(prediction: Tensor, target: Tensor) -> None:
    """Refuse predictions and targets whose frames differ; leading axes may broadcast (samples against one target).

    Raises TypeError or ValueError, naming both shapes.
    """
    check_frames("prediction", prediction)
    check_frames("target", target)
    if prediction.shape[-4:] != target.shape[-4:]:
        raise ValueError(
            f"prediction has frames TCHW {tuple(prediction.shape[-4:])}, target has {tuple(target.shape[-4:])}; "
            "these must be equal"
        )


def check_unit_range(name: str, frames: Tensor) -> None:
    """Refuse frames with NaN or with values outside [0, 1] by more than `ROUNDING`.

    Raises ValueError, naming the values found.
    """
    if not frames.numel():
        raise ValueError(f"{name} has shape {tuple(frames.shape)}: it holds no pixel")
    low, high = (bound.item() for bound in frames.aminmax())
    if math.isnan(low):
        raise ValueError(f"{name} holds {int(frames.isnan().sum())} NaN of {frames.numel()} values")
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ValueError(f"{name} has values in [{low:.4g}, {high:.4g}]; expected [0, 1]")
