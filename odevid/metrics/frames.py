"""What every metric asks of the frames that it is given.

In: tensors of frames. Out: nothing, or an error that says what was found, what was expected and what to type.
`check_frames` and `check_pair` look at shapes and cost nothing; `check_unit_range` reads every value once, which the
functions of `odevid.metrics` do and the references prepared for many samples do not.

Legend: T time, C channels, H rows, W columns; `...` any leading axes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ROUNDING = 1e-3  # what half precision may add to 1
OVERSHOOT = 0.1  # of a model without a sigmoid, say
BYTE = 255 * (1 + ROUNDING)


def check_frames(name: str, frames: Tensor) -> None:
    """Refuse what is not float frames `...TCHW`.

    Raises TypeError for what is no tensor and for integer frames (metrics are defined on [0, 1]), and ValueError for
    fewer than 4 axes.
    """
    if not isinstance(frames, Tensor):
        kind = f"{type(frames).__module__}.{type(frames).__qualname__}"
        raise TypeError(f"{name} is {kind}; expected a tensor: write torch.as_tensor({name})")
    if not torch.is_floating_point(frames):
        raise TypeError(
            f"{name} has dtype {frames.dtype}; expected floats in [0, 1]: for uint8 frames write {name}.float() / 255"
        )
    if frames.ndim < 4:
        raise ValueError(
            f"{name} has shape {tuple(frames.shape)}; expected axes ...TCHW (time, channels, rows, columns)"
        )


def check_pair(prediction: Tensor, target: Tensor) -> None:
    """Refuse predictions and targets whose frames differ, or whose leading axes do not broadcast (samples against one
    target do).

    Raises TypeError or ValueError, naming both shapes.
    """
    check_frames("prediction", prediction)
    check_frames("target", target)
    if prediction.shape[-4:] != target.shape[-4:]:
        raise ValueError(
            f"prediction has frames TCHW {tuple(prediction.shape[-4:])}, target has {tuple(target.shape[-4:])}; "
            "these must be equal"
        )
    try:
        torch.broadcast_shapes(prediction.shape[:-4], target.shape[:-4])
    except RuntimeError as error:
        raise ValueError(
            f"prediction has shape {tuple(prediction.shape)}, target has {tuple(target.shape)}: their axes before TCHW "
            "do not broadcast; expected as many videos in both, such as NBTCHW samples against a BTCHW target"
        ) from error


def check_unit_range(name: str, frames: Tensor) -> None:
    """Refuse frames with NaN or with values outside [0, 1] by more than `ROUNDING`.

    Raises ValueError with the values found and, where they look like [0, 255], [-1, 1] or a little overshoot, with what
    brings them to [0, 1].
    """
    if not frames.numel():
        raise ValueError(f"{name} has shape {tuple(frames.shape)}: it holds no pixel")
    low, high = (bound.item() for bound in frames.aminmax())
    if math.isnan(low):
        broken = frames.isnan()
        first = tuple(broken.flatten(-3).any(dim=-1).nonzero()[0].tolist())
        raise ValueError(
            f"{name} holds {int(broken.sum())} NaN of {frames.numel()} values; the first broken frame is "
            f"{name}[{', '.join(map(str, first))}]"
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        remedy = ""
        if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
            remedy = f": a little beyond? Write {name}.clamp(0, 1)"
        elif low >= 0 and high <= BYTE:
            remedy = f": levels of 8 bits? Write {name} / 255"
        elif low >= -1 - ROUNDING and high <= 1 + ROUNDING:
            remedy = f": frames in [-1, 1]? Write ({name} + 1) / 2"
        raise ValueError(f"{name} has values in [{low:.4g}, {high:.4g}]; expected [0, 1]{remedy}")


def check_scored(prediction: Tensor, target: Tensor) -> None:
    """`check_pair`, then `check_unit_range` of both: what a plain function checks. Raises as these do."""
    check_pair(prediction, target)
    check_unit_range("prediction", prediction)
    check_unit_range("target", target)
