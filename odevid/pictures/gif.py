"""Animations on disk: GIF (plays anywhere, W&B and README included) and MP4 (small, for long videos).

In: pictures of equal size, 8-bit RGB, such as those of `odevid.pictures.grid`. Out: one file.

Legend: T pictures, X rows, Y columns, 3 = RGB.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from odevid.pictures import style

_PALETTE_SAMPLE = 12  # pictures from which the colours of a GIF are chosen


def _check_pictures(pictures_TXY3: np.ndarray) -> None:
    if pictures_TXY3.ndim != 4 or pictures_TXY3.shape[-1] != 3 or pictures_TXY3.dtype != np.uint8:
        raise ValueError(
            f"pictures have shape {pictures_TXY3.shape} and dtype {pictures_TXY3.dtype}; expected uint8 (T, X, Y, 3)"
        )


def _palette(pictures_TXY3: np.ndarray) -> np.ndarray:
    """Up to 256 colours (N, 3) for all pictures: those of `style` exactly, the rest chosen from the pictures."""
    chosen = np.unique(np.linspace(0, len(pictures_TXY3) - 1, _PALETTE_SAMPLE).round().astype(int))
    montage = Image.fromarray(np.concatenate(pictures_TXY3[chosen]))
    quantised = montage.quantize(256 - len(style.ACCENTS), method=Image.Quantize.MEDIANCUT)
    found = np.array(quantised.getpalette(), dtype=np.uint8).reshape(-1, 3)
    return np.concatenate((np.array(style.ACCENTS, dtype=np.uint8), found))


def _nearest(pictures_TXY3: np.ndarray, palette_N3: np.ndarray) -> np.ndarray:
    """Index of the nearest colour of the palette for every pixel: uint8 (T, X, Y).

    Pillow's own search stops at nearly the nearest, which turns white paper grey.
    """
    codes = pictures_TXY3.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    index_of_code = np.zeros(1 << 24, dtype=np.uint8)
    is_present = np.zeros(1 << 24, dtype=bool)
    is_present[codes] = True
    for some in np.array_split(np.flatnonzero(is_present), 1 + is_present.sum() // 8192):
        colours_K3 = np.stack((some >> 16, (some >> 8) & 255, some & 255), axis=1).astype(np.int32)
        distances_KN = np.square(colours_K3[:, None] - palette_N3[None].astype(np.int32)).sum(axis=-1)
        index_of_code[some] = distances_KN.argmin(axis=1)
    return index_of_code[codes]


def save_gif(path: Path, pictures_TXY3: np.ndarray, fps: float = 8.0) -> None:
    """Write a GIF that repeats for ever.

    One palette serves all pictures, so that still parts do not flicker. A GIF counts time in hundredths of a second:
    `fps` is rounded to that, and above 50 is an error since players then slow down. Pictures that are equal to the one
    before are stored as a longer display of it.

    Raises:
        ValueError: pictures that are not uint8 (T, X, Y, 3), or `fps` outside (0, 50].
    """
    _check_pictures(pictures_TXY3)
    if not 0 < fps <= 50:
        raise ValueError(f"fps={fps}: a GIF shows more than 0 and at most 50 pictures a second; use save_mp4 for more")
    palette_N3 = _palette(pictures_TXY3)
    images = []
    for indices_XY in _nearest(pictures_TXY3, palette_N3):
        images.append(Image.fromarray(indices_XY))
        images[-1].putpalette(palette_N3.tobytes())
    duration_ms = 10 * round(100 / fps)
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=duration_ms, loop=0)


def save_mp4(path: Path, pictures_TXY3: np.ndarray, fps: float = 8.0) -> None:
    """Write an H.264 MP4 that browsers play (4:2:0, so an odd side is extended by one row or column).

    Raises:
        ValueError: pictures that are not uint8 (T, X, Y, 3), or `fps` not positive.
    """
    _check_pictures(pictures_TXY3)
    if fps <= 0:
        raise ValueError(f"fps={fps}: expected a positive number of pictures a second")
    odd_rows, odd_columns = (side % 2 for side in pictures_TXY3.shape[1:3])
    padded = np.pad(pictures_TXY3, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options={"crf": "16"})
        stream.height, stream.width = padded.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in padded:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
