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
from odevid.pictures.playing import BORDER, LETTERS, Moment, put_frame, with_header
from odevid.pictures.style import Frames

GAP = 5  # pixels between borders
HEADER = 40
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


def video_grid(
    context: Frames, truth: Frames, predictions: Mapping[str, Frames], scale: int = 2, rebuilt: Frames | None = None
) -> np.ndarray:
    """Pictures of a grid of videos, truth on top, conditioning frames first.

    While the conditioning frames play, every frame has a green border and the header says "given"; after that
    predictions have a red border under the header "predicted", the truth a slate one. A bar shows the time.

    Args:
        context: BTCHW conditioning frames, uint8 or float in [0, 1], grey or RGB.
        truth: BTCHW true future.
        predictions: name of row (such as "best", "worst", "random") -> BTCHW predicted future.
        scale: enlargement, whole number.
        rebuilt: BTCHW conditioning frames as the model shows them: they play, with a red border, in the rows of the
            predictions instead of the conditioning frames.

    Returns:
        uint8 (T, X, Y, 3), T = conditioning + future frames.

    Raises:
        ValueError: shapes that do not fit.
    """
    style.check_predictions(context, truth, predictions, rebuilt)
    given = style.to_rgb(context, scale)
    begins = given if rebuilt is None else style.to_rgb(rebuilt, scale)
    futures = {"truth": truth, **predictions}
    videos = [
        np.concatenate((begins if row else given, style.to_rgb(future, scale)), axis=1)
        for row, future in enumerate(futures.values())
    ]
    gutter = MARGIN + max(style.text_width(name, LETTERS) for name in futures) + 8
    layout = _Layout(given.shape[2], given.shape[3], gutter, len(futures), given.shape[0])
    background = _background(layout, list(futures))
    num_given, num_frames = given.shape[1], videos[0].shape[1]
    pictures = []
    for t in range(num_frames):
        moment = Moment(t, num_given, num_frames)
        words = "given" if moment.is_given else "predicted", f"{t + 1} / {num_frames}"
        picture = np.array(with_header(background, (gutter, layout.width - MARGIN), words, moment))
        for row, video in enumerate(videos):
            is_given = moment.is_given and (row == 0 or rebuilt is None)
            colour = style.GIVEN if is_given else style.TRUTH if row == 0 else style.PREDICTED
            for column in range(layout.num_columns):
                put_frame(picture, layout.corner(row, column), video[column, t], colour)
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
