"""Bilinear resizing as TensorFlow 1 did it (`tf.image.resize_bilinear`, `align_corners=False`).

In: frames of any size. Out: frames of the size asked for, which are shifted up and to the left against every later
library: published FVD was computed on such frames.

Legend: H, W rows and columns given; `...` any leading axes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _resize_axis(frames: Tensor, size: int, axis: int) -> Tensor:
    """One axis: the value at position i * (given / size), between the two pixels around it."""
    given = frames.shape[axis]
    position = torch.arange(size, dtype=torch.float64) * given / size
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=given - 1)
    shape = [1] * frames.ndim
    shape[axis] = size
    weight = (position - lower).to(frames.device, frames.dtype).reshape(shape)
    low = frames.index_select(axis, lower.to(frames.device))
    high = frames.index_select(axis, upper.to(frames.device))
    return torch.lerp(low, high, weight)


def resize_bilinear_tf1(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize `...HW` to `height` x `width`.

    Pixel i of the result lies at i * (given / wanted) of the frames: no half-pixel centres, no antialiasing when frames
    shrink, the last pixel repeated beyond the edge (TensorFlow 1.x, kernel ResizeBilinear with its legacy scaler).

    Args:
        frames: `...HW`, float.
        height, width: pixels of the result.

    Returns:
        `...` x height x width, in the dtype of the frames.

    Raises:
        TypeError: frames that are not float.
        ValueError: a size below 1.
    """
    if not torch.is_floating_point(frames):
        raise TypeError(f"frames have dtype {frames.dtype}; expected floats")
    if min(height, width, *frames.shape[-2:]) < 1:
        raise ValueError(f"frames {tuple(frames.shape)} cannot be resized to {height}x{width}")
    return _resize_axis(_resize_axis(frames, height, frames.ndim - 2), width, frames.ndim - 1)
