"""Drawing small pictures onto frames.

In: pictures, and for every frame where the corner of each goes. Out: uint8 videos; overlaps add up, 255 at most.

Axes: B videos, T frames, D pictures (digits) per video, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

_PORTION = 1 << 18  # bytes of pictures pasted at a time: copies that stay in the cache are seven times faster


def draw_sprites(sprites_BDHW: NDArray[np.uint8], corner_BTD2: NDArray[np.int64], frame_size: int) -> NDArray[np.uint8]:
    """Videos of pictures on black.

    Args:
        sprites_BDHW: the pictures, the same in every frame.
        corner_BTD2: row and column of each picture's first pixel; the picture must lie within the frame.
        frame_size: side of the square frame, in pixels.

    Returns:
        uint8 BTHW, as if the pictures were added in floating point, cut at 255 and truncated to integers.

    Raises:
        ValueError: a picture would leave the frame.
    """
    num_videos, num_sprites, height, width = sprites_BDHW.shape
    num_frames = corner_BTD2.shape[1]
    room = np.array([frame_size - height, frame_size - width])
    if corner_BTD2.size and ((corner_BTD2 < 0) | (corner_BTD2 > room)).any():
        low, high = corner_BTD2.min(axis=(0, 1, 2)), corner_BTD2.max(axis=(0, 1, 2))
        raise ValueError(f"corners must lie in [0, 0] .. {room.tolist()}, found {low.tolist()} .. {high.tolist()}")
    # A picture's rows, spread at the distance of the frame's rows, are one run of pixels in the flat video.
    spread = np.zeros((num_videos, num_sprites, height, frame_size), dtype=np.uint8)
    spread[..., :width] = sprites_BDHW
    run_BDR = spread.reshape(num_videos, num_sprites, -1)[..., : (height - 1) * frame_size + width]
    pixels = np.zeros(num_videos * num_frames * frame_size**2, dtype=np.uint8)
    run_at = sliding_window_view(pixels, run_BDR.shape[-1], writeable=True)
    start_BTD = corner_BTD2 @ np.array([frame_size, 1])
    start_BTD += np.arange(num_videos * num_frames).reshape(num_videos, num_frames, 1) * frame_size**2
    portion = max(1, _PORTION // (num_frames * run_BDR.shape[-1]))
    for first in range(0, num_videos, portion):
        some = slice(first, first + portion)
        for sprite in range(num_sprites):
            _add_clipped(run_at, start_BTD[some, :, sprite], run_BDR[some, None, sprite])
    return pixels.reshape(num_videos, num_frames, frame_size, frame_size)


def _add_clipped(run_at: NDArray[np.uint8], start_BT: NDArray[np.int64], run_BTR: NDArray[np.uint8]) -> None:
    """Add runs of pixels to those that begin at ``start_BT``, 255 at most. No two may overlap."""
    below_BTR = run_at[start_BT]
    run_at[start_BT] = below_BTR + np.minimum(run_BTR, ~below_BTR)  # ~x is 255 - x
