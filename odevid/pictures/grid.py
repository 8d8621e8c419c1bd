"""A grid of videos that play side by side: one row for the truth, one for each kind of prediction, one column a video.

In: conditioning frames, true future, predicted futures. Out: the pictures of an animation, for `odevid.pictures.gif`.

Legend: B videos, T frames, C channels, H rows, W columns, 3 = RGB; X, Y rows and columns of a finished picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from odevid.pictures import style
from odevid.pictures.style import Colour, Frames

BORDER = 3  # pixels of coloured border around a frame
GAP = 5  # pixels between borders
HEADER = 40
LETTERS = 13
MARGIN = 10


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels."""

    cell_height: int
    cell_width: int
    gutter: int
    num_rows: int
    num_columns: int

    @property
    def height(self) -> int:
        return HEADER + self.num_rows * (self.cell_height + 2 * BORDER + GAP) - GAP + MARGIN

    @property
    def width(self) -> int:
        return self.gutter + self.num_columns * (self.cell_width + 2 * BORDER + GAP) - GAP + MARGIN

    def corner(self, row: int, column: int) -> tuple[int, int]:
        """Row and column of the first pixel of a cell's border."""
        return (
            HEADER + row * (self.cell_height + 2 * BORDER + GAP),
            self.gutter + column * (self.cell_width + 2 * BORDER + GAP),
        )


def video_grid(context: Frames, truth: Frames, predictions: Mapping[str, Frames], scale: int = 2) -> np.ndarray:
    """Pictures of a grid of videos, truth on top, conditioning frames first.

    While the conditioning frames play, every frame has a green border and the header says "given"; after that
    predictions have a red border under the header "predicted", the truth a slate one. A bar shows the time.

    Args:
        context: BTCHW conditioning frames, uint8 or float in [0, 1], grey or RGB.
        truth: BTCHW true future.
        predictions: name of row (such as "best", "worst", "random") -> BTCHW predicted future.
        scale: enlargement, whole number.

    Returns:
        uint8 (T, X, Y, 3), T = conditioning + future frames.

    Raises:
        ValueError: shapes that do not fit.
    """
    style.check_predictions(context, truth, predictions)
    given = style.to_rgb(context, scale)
    futures = {"truth": truth, **predictions}
    videos = [np.concatenate((given, style.to_rgb(future, scale)), axis=1) for future in futures.values()]
    gutter = MARGIN + max(style.text_width(name, LETTERS) for name in futures) + 8
    layout = _Layout(given.shape[2], given.shape[3], gutter, len(futures), given.shape[0])
    background = _background(layout, list(futures))
    num_given, num_frames = given.shape[1], videos[0].shape[1]
    pictures = []
    for t in range(num_frames):
        picture = np.array(_with_header(background, layout, t, num_given, num_frames))
        for row, video in enumerate(videos):
            colour = style.GIVEN if t < num_given else style.TRUTH if row == 0 else style.PREDICTED
            for column in range(layout.num_columns):
                _paste(picture, layout.corner(row, column), video[column, t], colour)
        pictures.append(picture)
    return np.stack(pictures)


def _background(layout: _Layout, names: list[str]) -> Image.Image:
    """What stays the same: paper and the names of the rows."""
    image = Image.new("RGB", (layout.width, layout.height), style.PAPER)
    draw = ImageDraw.Draw(image)
    for row, name in enumerate(names):
        middle = layout.corner(row, 0)[0] + BORDER + layout.cell_height / 2
        style.write(draw, (layout.gutter - 8, middle), name, LETTERS, style.INK, "rm")
    return image


def _with_header(background: Image.Image, layout: _Layout, t: int, num_given: int, num_frames: int) -> Image.Image:
    """A copy of the background with "given" or "predicted", the number of the frame, and the bar of time."""
    image = background.copy()
    draw = ImageDraw.Draw(image)
    left, right = layout.gutter, layout.width - MARGIN
    is_given = t < num_given
    word, colour = ("given", style.GIVEN) if is_given else ("predicted", style.PREDICTED)
    style.write(draw, (left, 14), word, LETTERS + 2, colour, "lm")
    style.write(draw, (right, 14), f"{t + 1} / {num_frames}", LETTERS, style.INK, "rm")
    step = (right - left) / num_frames
    draw.rectangle((left, 28, right - 1, 31), fill=style.FAINT)
    draw.rectangle((left, 28, left + step * min(t + 1, num_given) - 1, 31), fill=style.GIVEN)
    if not is_given:
        draw.rectangle((left + step * num_given, 28, left + step * (t + 1) - 1, 31), fill=style.PREDICTED)
    return image


def _paste(picture: np.ndarray, corner: tuple[int, int], frame_HW3: np.ndarray, colour: Colour) -> None:
    """Put a frame with a border of `colour` into `picture`."""
    (top, left), (height, width) = corner, frame_HW3.shape[:2]
    picture[top : top + height + 2 * BORDER, left : left + width + 2 * BORDER] = colour
    picture[top + BORDER : top + BORDER + height, left + BORDER : left + BORDER + width] = frame_HW3
