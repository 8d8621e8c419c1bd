"""The way of what moves in a video, in one picture: each moment in its own colour, brightest on top.

In: frames over time. Out: a picture whose colours tell the time, as SRVP's figure 11 tells it by shades of grey.

Legend: T frames, C channels, H rows, W columns, 3 = RGB.
"""

from __future__ import annotations

import matplotlib
import numpy as np
import torch

from odevid.pictures import style
from odevid.pictures.style import Colour, Frames

BACKGROUND = 0.35  # of the brightness of what stands still
GAIN = 2.0  # of what moves on a background that is not black: people and arms are seldom white on black
BLACK = 0.1  # mean of the median over time below which a video is taken to have a black background


def time_colours(count: int) -> np.ndarray:
    """Colours T3 in [0, 1] of `count` moments, first to last: blue, green, yellow, red."""
    return np.asarray(matplotlib.colormaps["turbo"](np.linspace(0.12, 0.9, count)))[:, :3]


def moments(num_frames: int, at_most: int) -> np.ndarray:
    """Evenly spaced frames, first and last among them."""
    return np.unique(np.linspace(0, num_frames - 1, min(at_most, num_frames)).round().astype(int))


def trajectory_image(frames_TCHW: Frames, at_most: int = 8, scale: int = 1) -> np.ndarray:
    """One uint8 picture (H * scale, W * scale, 3) of a video.

    What differs from the background is shown in the colour of its moment: of several moments that of the largest
    value, of equal ones the latest.
    The background is black where the video is dark, else the median over time, shown as a dim grey, and differences
    from it are doubled.

    Args:
        frames_TCHW: uint8, or float in [0, 1].
        at_most: so many moments, evenly spaced, so that what moves does not cover itself.
        scale: enlargement, whole number.

    Raises:
        ValueError: frames that cannot be shown.
    """
    frames = torch.as_tensor(frames_TCHW)
    grey_THW = style.to_rgb(frames[None])[0].astype(np.float32).mean(axis=-1) / 255
    still_HW = np.median(grey_THW, axis=0)
    is_dark = still_HW.mean() < BLACK
    still_HW = np.zeros_like(still_HW) if is_dark else still_HW
    chosen = moments(len(grey_THW), at_most)
    moved_THW = np.abs(grey_THW[chosen] - still_HW) * (1.0 if is_dark else GAIN)
    latest_HW = len(chosen) - 1 - moved_THW[::-1].argmax(axis=0)
    tinted_HW3 = moved_THW.max(axis=0)[..., None] * time_colours(len(chosen))[latest_HW]
    picture = np.clip(tinted_HW3 + BACKGROUND * still_HW[..., None], 0, 1)
    return np.rint(picture * 255).astype(np.uint8).repeat(scale, axis=0).repeat(scale, axis=1)


def time_legend(num_frames: int, at_most: int = 8) -> list[tuple[str, Colour]]:
    """Words and colours for the legend: the number (from 1) of each shown frame."""
    chosen = moments(num_frames, at_most)
    colours = np.rint(time_colours(len(chosen)) * 255).astype(int)
    names = [f"frame {chosen[0] + 1}", *(str(frame + 1) for frame in chosen[1:])]
    return [(name, (int(red), int(green), int(blue))) for name, (red, green, blue) in zip(names, colours, strict=True)]
