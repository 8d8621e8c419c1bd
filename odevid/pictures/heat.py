"""A map of values as colours from black over violet and orange to yellow.

In: values of pixels, from 0 up. Out: a picture, and its scale for a legend.

Legend: H rows, W columns, 3 = RGB.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import torch

from odevid.pictures.style import Colour

MAP = "inferno"
LEVELS = 5


def heat(values_HW: np.ndarray | torch.Tensor, top: float, scale: int = 1) -> np.ndarray:
    """uint8 (H * scale, W * scale, 3): 0 is black, `top` and more the brightest.

    Raises:
        ValueError: values that are not finite, or other than two axes.
    """
    values = torch.as_tensor(values_HW).detach().cpu().double().numpy()
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"a map has two axes of finite values; got shape {values.shape}")
    return _colours(values / top if top > 0 else values).repeat(scale, axis=0).repeat(scale, axis=1)


def heat_legend(top: float, what: str = "") -> list[tuple[str, Colour]]:
    """Evenly spaced values with their colours, the first after `what` they are."""
    parts = np.linspace(0, 1, LEVELS)
    colours = _colours(parts)
    return [
        (f"{what} {part * top:.2g}" if part == 0 and what else f"{part * top:.2g}", (int(red), int(green), int(blue)))
        for part, (red, green, blue) in zip(parts, colours, strict=True)
    ]


def _colours(unit: np.ndarray) -> np.ndarray:
    """uint8 `...3` of values in [0, 1]."""
    return np.rint(255 * np.asarray(matplotlib.colormaps[MAP](np.clip(unit, 0, 1)))[..., :3]).astype(np.uint8)
