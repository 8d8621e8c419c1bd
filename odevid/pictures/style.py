"""The look of all pictures: colours, lettering, and frames made ready to be pasted.

In: frames as arrays. Out: 8-bit RGB. Green is what the model was given, red is what it predicted, slate is the truth,
blue is what it predicted between the times of the data.

Legend: B videos, T frames, C channels, H rows, W columns, 3 = RGB; X, Y rows and columns of a finished picture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from PIL import ImageDraw, ImageFont

Frames = np.ndarray | torch.Tensor
Colour = tuple[int, int, int]

GIVEN: Colour = (26, 147, 67)
PREDICTED: Colour = (214, 48, 49)
TRUTH: Colour = (84, 96, 112)
BETWEEN: Colour = (31, 95, 191)
INK: Colour = (36, 41, 47)
FAINT: Colour = (208, 213, 219)
PAPER: Colour = (255, 255, 255)
ACCENTS = (GIVEN, PREDICTED, TRUTH, BETWEEN, INK, FAINT, PAPER)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The face that comes with Pillow, `size` pixels high."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Pixels that `text` takes."""
    return int(np.ceil(font(size).getlength(text)))


def write(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, fill: Colour, anchor: str) -> None:
    """Write `text` at a point; `anchor` as in Pillow ("lm" = left middle, "mm" = centre, ...)."""
    draw.text(at, text, fill=fill, font=font(size), anchor=anchor)


def to_rgb(frames_BTCHW: Frames, scale: int = 1) -> np.ndarray:
    """Frames as 8-bit RGB, every pixel enlarged to `scale` x `scale` of the same colour.

    Args:
        frames_BTCHW: uint8, or float in [0, 1] (values outside are cut, the rest rounded); C is 1 (grey) or 3 (RGB).
        scale: whole number.

    Returns:
        uint8 (B, T, H * scale, W * scale, 3).

    Raises:
        ValueError: other axes, channels or types, or values that are not finite.
    """
    frames = frames_BTCHW.detach().cpu().numpy() if isinstance(frames_BTCHW, torch.Tensor) else np.asarray(frames_BTCHW)
    if frames.ndim != 5 or frames.shape[2] not in (1, 3):
        raise ValueError(f"frames have shape {frames.shape}; expected axes BTCHW with 1 (grey) or 3 (RGB) channels")
    if np.issubdtype(frames.dtype, np.floating):
        if not np.isfinite(frames).all():
            raise ValueError("frames hold NaN or infinite values: they cannot be shown")
        frames = np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
    elif frames.dtype != np.uint8:
        raise ValueError(f"frames have dtype {frames.dtype}; expected uint8 or float in [0, 1]")
    frames = np.moveaxis(frames, 2, -1).repeat(scale, axis=2).repeat(scale, axis=3)
    return np.broadcast_to(frames, (*frames.shape[:-1], 3))


def check_predictions(
    context: Frames, truth: Frames, predictions: Mapping[str, Frames], rebuilt: Frames | None = None
) -> None:
    """Refuse futures (BTCHW) that do not fit together or to their conditioning frames, and other rebuilt ones.

    Raises ValueError naming the row and both shapes.
    """
    if tuple(context.shape[:1] + context.shape[2:]) != tuple(truth.shape[:1] + truth.shape[2:]):
        raise ValueError(
            f"context has shape {tuple(context.shape)}, truth {tuple(truth.shape)}; expected equal BTCHW except for T"
        )
    if rebuilt is not None and tuple(rebuilt.shape) != tuple(context.shape):
        raise ValueError(f"rebuilt has shape {tuple(rebuilt.shape)}, context {tuple(context.shape)}; expected the same")
    for name, frames in predictions.items():
        if tuple(frames.shape) != tuple(truth.shape):
            raise ValueError(
                f"row {name!r} has shape {tuple(frames.shape)}, truth {tuple(truth.shape)}; expected the same"
            )
