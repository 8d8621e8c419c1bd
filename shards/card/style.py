"""The look of a card's pictures: colours, lettering, and how much a frame is enlarged.

The same face and colours as those of the pictures of predictions.

Axis letters: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK = (36, 41, 47)
QUIET = (84, 96, 112)
FAINT = (208, 213, 219)
PAPER = (255, 255, 255)
SERIES = ("#1f5fbf", "#e08e0b", "#1a9343", "#d63031", "#7b4bb7", "#546070")  # one colour for each split
LETTERS = 13  # pixels
MARGIN = 12
GAP = 4  # between frames


def font(size: int = LETTERS) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The face that comes with Pillow, ``size`` pixels high."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int = LETTERS) -> int:
    """Pixels that ``text`` takes."""
    return int(np.ceil(font(size).getlength(text)))


def shortened(text: str, width: int, size: int = LETTERS) -> str:
    """``text``, or its beginning with an ellipsis, in at most ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def write(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    *,
    size: int = LETTERS,
    fill: tuple[int, int, int] = INK,
    anchor: str = "lm",
) -> None:
    """Write at a point; ``anchor`` as in Pillow: ``lm`` left middle, ``mm`` centre, ``rm`` right middle."""
    draw.text(at, text, fill=fill, font=font(size), anchor=anchor)


def cell_size(height: int, width: int, aim: int) -> tuple[int, int]:
    """Height and width at which a frame is shown: about ``aim`` pixels for the longer side.

    Small frames are enlarged by a whole number, so that every pixel stays a sharp square; large ones are reduced.
    """
    longer = max(height, width)
    if longer <= aim:
        scale = max(1, int(aim / longer + 0.5))
        return height * scale, width * scale
    return max(1, round(height * aim / longer)), max(1, round(width * aim / longer))


def fitted(frame_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A frame within ``height`` x ``width``: enlarged by a whole number or reduced, on paper if it does not fill it."""
    rows, columns = frame_HWC.shape[:2]
    scale = min(height / rows, width / columns)
    if scale >= 1:
        enlarged = frame_HWC.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    else:
        size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
        enlarged = np.asarray(Image.fromarray(frame_HWC).resize(size, Image.Resampling.BOX))
    if enlarged.shape[:2] == (height, width):
        return enlarged
    cell = np.full((height, width, 3), PAPER, dtype=np.uint8)
    top, left = (height - enlarged.shape[0]) // 2, (width - enlarged.shape[1]) // 2
    cell[top : top + enlarged.shape[0], left : left + enlarged.shape[1]] = enlarged
    return cell
