"""What pictures of a film have in common: a header with a bar of time, and frames in coloured borders.

In: a picture without them. Out: the picture with them.

Legend: H rows, W columns, 3 = RGB of a frame; X, Y rows and columns of a finished picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from odevid.pictures import style
from odevid.pictures.style import Colour

LETTERS = 13
BORDER = 3  # pixels of coloured border around a frame


@dataclass(frozen=True)
class Moment:
    """A picture's place in the film, counted in pictures from 0: the first `given` of `total` show what was given."""

    number: int
    given: int
    total: int

    @property
    def is_given(self) -> bool:
        return self.number < self.given


def with_header(paper: Image.Image, sides: tuple[int, int], words: tuple[str, str], moment: Moment) -> Image.Image:
    """A copy of `paper` with words at both sides and below them the bar of time: green as far as was given, then red.

    Args:
        sides: first and last column of the header.
        words: at the left, in the colour of the moment, and at the right.
    """
    image, (left, right) = paper.copy(), sides
    draw = ImageDraw.Draw(image)
    colour = style.GIVEN if moment.is_given else style.PREDICTED
    style.write(draw, (left, 14), words[0], LETTERS + 2, colour, "lm")
    style.write(draw, (right, 14), words[1], LETTERS, style.INK, "rm")
    step, seen = (right - left) / moment.total, moment.number + 1
    draw.rectangle((left, 28, right - 1, 31), fill=style.FAINT)
    draw.rectangle((left, 28, left + step * min(seen, moment.given) - 1, 31), fill=style.GIVEN)
    if not moment.is_given:
        draw.rectangle((left + step * moment.given, 28, left + step * seen - 1, 31), fill=style.PREDICTED)
    return image


def put_frame(
    picture_XY3: np.ndarray, corner: tuple[int, int], frame_HW3: np.ndarray, colour: Colour, border: int = BORDER
) -> None:
    """Put a frame with a border of `colour` into the picture; `corner` is the border's first row and column."""
    (top, left), (height, width) = corner, frame_HW3.shape[:2]
    picture_XY3[top : top + height + 2 * border, left : left + width + 2 * border] = colour
    picture_XY3[top + border : top + border + height, left + border : left + border + width] = frame_HW3
