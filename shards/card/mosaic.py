"""A mosaic of clips that play side by side, as a GIF.

In: clips as pictures, a name for each. Out: a GIF of bounded size that repeats for ever.

A clip that is shorter than the mosaic rests on its last frame. A GIF counts time in hundredths of a second and players
slow down above 50 pictures a second, so that faster clips are shown with frames left out, at their own speed.

Axis letters: T frames, H height, W width, C = 3 colours; X, Y rows and columns of the finished picture.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.card import style

MAX_BYTES = 3_000_000
MAX_FRAMES = 90
DEFAULT_FPS = 10.0  # of clips without a rate
_FASTEST = 50.0
_AIM = 128  # pixels of the longer side of a frame
_HEADER = 34
_PALETTE_SAMPLE = 12  # pictures from which the colours are chosen
_ACCENTS = (style.INK, style.QUIET, style.FAINT, style.PAPER)


@dataclass(frozen=True)
class MosaicClip:
    """A clip of the mosaic: uint8 THWC, and what is written under it."""

    pictures_THWC: NDArray[np.uint8]
    label: str = ""


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels. ``rows`` x ``columns`` cells of ``height`` x ``width``, ``line`` pixels of label."""

    rows: int
    columns: int
    height: int
    width: int
    line: int

    @classmethod
    def of(cls, clips: Sequence[MosaicClip], aim: int) -> _Layout:
        columns = math.ceil(math.sqrt(len(clips)))
        shapes = [clip.pictures_THWC.shape for clip in clips]
        height, width = style.cell_size(max(shape[1] for shape in shapes), max(shape[2] for shape in shapes), aim)
        line = style.LETTERS + 6 if any(clip.label for clip in clips) else 0
        return cls(math.ceil(len(clips) / columns), columns, height, width, line)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the mosaic."""
        across = self.columns * (self.width + style.GAP) - style.GAP
        down = self.rows * (self.height + self.line + style.GAP) - style.GAP
        return across + 2 * style.MARGIN, _HEADER + down + style.MARGIN

    def corner(self, number: int) -> tuple[int, int]:
        """Row and column of the first pixel of a clip."""
        row, column = divmod(number, self.columns)
        top = _HEADER + row * (self.height + self.line + style.GAP)
        return top, style.MARGIN + column * (self.width + style.GAP)


def mosaic(clips: Sequence[MosaicClip], title: str, fps: float | None, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The GIF of a grid of clips.

    Args:
        clips: at least one.
        title: above the grid.
        fps: frames per second of the clips; None shows ten a second.
        max_bytes: smaller frames, then fewer, until the file is no larger.

    Returns:
        The bytes of the file.
    """
    rate = fps or DEFAULT_FPS
    stride = math.ceil(rate / _FASTEST)
    duration_ms = 10 * round(100 * stride / rate)
    wanted = min(MAX_FRAMES * stride, max(len(clip.pictures_THWC) for clip in clips))
    aim = _AIM
    while True:
        layout = _Layout.of(clips, aim)
        moments = list(range(0, wanted, stride))
        data = _gif([_picture(clips, layout, title, t, wanted) for t in moments], duration_ms)
        if len(data) <= max_bytes or (aim <= 32 and len(moments) <= 2):
            return data
        if aim > 64:
            aim = 64
        elif wanted > 24 * stride:
            wanted = max(24 * stride, int(wanted * max_bytes / len(data)))
        elif aim > 32:
            aim = 32
        else:
            wanted = max(2, wanted // 2)


def reduced(pictures_THWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures no larger than a mosaic shows them, so that a mosaic of large videos does not fill the memory."""
    height, width = pictures_THWC.shape[1:3]
    if max(height, width) <= _AIM:
        return pictures_THWC
    size = style.cell_size(height, width, _AIM)
    return np.stack([style.fitted(picture_HWC, *size) for picture_HWC in pictures_THWC])


def _picture(clips: Sequence[MosaicClip], layout: _Layout, title: str, t: int, length: int) -> NDArray[np.uint8]:
    """The mosaic at frame ``t``: uint8 XYC."""
    image = Image.new("RGB", layout.size, style.PAPER)
    draw = ImageDraw.Draw(image)
    left, right = style.MARGIN, layout.size[0] - style.MARGIN
    count = f"{t + 1} / {length}"
    room = right - left - style.text_width(count) - style.MARGIN
    style.write(draw, (left, 13), style.shortened(title, room))
    style.write(draw, (right, 13), count, fill=style.QUIET, anchor="rm")
    draw.rectangle((left, 24, right - 1, 26), fill=style.FAINT)
    draw.rectangle((left, 24, left + round((right - left) * (t + 1) / length) - 1, 26), fill=style.QUIET)
    for number, clip in enumerate(clips):
        top, x = layout.corner(number)
        middle = (x + layout.width / 2, top + layout.height + layout.line / 2)
        label = style.shortened(clip.label, layout.width, 12)
        style.write(draw, middle, label, size=12, anchor="mm")
        frame_HWC = clip.pictures_THWC[min(t, len(clip.pictures_THWC) - 1)]
        image.paste(Image.fromarray(style.fitted(frame_HWC, layout.height, layout.width)), (x, top))
    return np.asarray(image)


def _gif(pictures: Sequence[NDArray[np.uint8]], duration_ms: int) -> bytes:
    """Encode with one palette for all pictures, so that still parts do not flicker."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, _PALETTE_SAMPLE).round().astype(int))
    montage = Image.fromarray(np.concatenate([pictures[place] for place in chosen]))
    found = montage.quantize(256 - len(_ACCENTS), method=Image.Quantize.MEDIANCUT).getpalette()
    palette_N3 = np.concatenate([np.array(_ACCENTS), np.array(found).reshape(-1, 3)]).astype(np.uint8)
    nearest = _nearest(pictures, palette_N3)
    images = []
    for picture_XYC in pictures:
        images.append(Image.fromarray(nearest[_codes(picture_XYC)]))
        images[-1].putpalette(palette_N3.tobytes())
    file = io.BytesIO()
    images[0].save(file, format="GIF", save_all=True, append_images=images[1:], duration=duration_ms, loop=0)
    return file.getvalue()


def _codes(picture_XYC: NDArray[np.uint8]) -> NDArray[np.int32]:
    """A number for each pixel's colour, to six bits per channel: what a palette can show of it."""
    return (picture_XYC >> 2).astype(np.int32) @ np.array([1 << 12, 1 << 6, 1], dtype=np.int32)


def _nearest(pictures: Sequence[NDArray[np.uint8]], palette_N3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For every code that occurs, the index of the nearest colour of the palette; that of an accent is exact."""
    occurs = np.zeros(1 << 18, dtype=bool)
    for picture_XYC in pictures:
        occurs[_codes(picture_XYC)] = True
    nearest = np.zeros(1 << 18, dtype=np.uint8)
    present = np.flatnonzero(occurs)
    for some_K in np.array_split(present, 1 + len(present) // 8192):
        colours_K3 = np.stack([some_K >> 12, (some_K >> 6) & 63, some_K & 63], axis=1) * 4 + 2
        apart_KN3 = colours_K3[:, None].astype(np.int32) - palette_N3[None].astype(np.int32)
        nearest[some_K] = np.square(apart_KN3).sum(axis=-1).argmin(axis=1)
    nearest[_codes(np.array(_ACCENTS, dtype=np.uint8))] = np.arange(len(_ACCENTS))
    return nearest
