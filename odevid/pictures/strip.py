"""A strip over time: the true frames of a video in one row, predictions below, time from left to right.

In: conditioning frames, true future, predicted futures. Out: one picture (PNG).

Legend: B videos, T frames, C channels, H rows, W columns, 3 = RGB; X, Y rows and columns of the finished picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from odevid.pictures import style
from odevid.pictures.style import Frames

BORDER = 2  # pixels of coloured border around a frame
GAP = 3  # pixels between borders
BETWEEN_VIDEOS = 14
HEADER = 40
LETTERS = 13
MARGIN = 10


@dataclass(frozen=True)
class _Layout:
    """Where things are, in pixels; `cell_*` with borders."""

    cell_height: int
    cell_width: int
    gutter: int
    rows_per_video: int
    num_videos: int
    num_columns: int

    @property
    def width(self) -> int:
        return self.left(self.num_columns) - GAP + MARGIN

    @property
    def height(self) -> int:
        return self.top(self.num_videos - 1, self.rows_per_video) - GAP + MARGIN

    def left(self, column: int) -> int:
        return self.gutter + column * (self.cell_width + GAP)

    def top(self, video: int, row: int) -> int:
        video_height = self.rows_per_video * (self.cell_height + GAP) + BETWEEN_VIDEOS
        return HEADER + video * video_height + row * (self.cell_height + GAP)


def save_strip(
    path: Path, context: Frames, truth: Frames, predictions: Mapping[str, Frames], scale: int = 1, max_columns: int = 15
) -> None:
    """Write the strip as PNG. Arguments as for `strip`."""
    Image.fromarray(strip(context, truth, predictions, scale, max_columns)).save(path, format="PNG")


def strip(
    context: Frames, truth: Frames, predictions: Mapping[str, Frames], scale: int = 1, max_columns: int = 15
) -> np.ndarray:
    """One picture of several videos over time: for each video truth on top, predictions below.

    Conditioning frames stand in the row of the truth, with a green border under a bar "given"; the predictions begin
    after them, with red borders. Frames are numbered from 1.

    Args:
        context: BTCHW conditioning frames, uint8 or float in [0, 1], grey or RGB.
        truth: BTCHW true future.
        predictions: name of row -> BTCHW predicted future.
        scale: enlargement, whole number.
        max_columns: of longer videos so many frames are shown, evenly spaced, first and last among them.

    Returns:
        uint8 (X, Y, 3).

    Raises:
        ValueError: shapes that do not fit.
    """
    style.check_predictions(context, truth, predictions)
    given = style.to_rgb(context, scale)
    futures = {"truth": truth, **predictions}
    videos = [np.concatenate((given, style.to_rgb(future, scale)), axis=1) for future in futures.values()]
    num_videos, num_frames, height, width = videos[0].shape[:4]
    times = np.unique(np.linspace(0, num_frames - 1, max_columns).round().astype(int))
    gutter = MARGIN + max(style.text_width(name, LETTERS) for name in futures) + 8
    layout = _Layout(height + 2 * BORDER, width + 2 * BORDER, gutter, len(futures), num_videos, len(times))
    num_given = given.shape[1]
    picture = np.array(_lettering(layout, list(futures), times, num_given))
    for row, frames in enumerate(videos):
        for column, t in enumerate(times):
            if row > 0 and t < num_given:
                continue
            colour = style.GIVEN if t < num_given else style.TRUTH if row == 0 else style.PREDICTED
            for video in range(num_videos):
                top, left = layout.top(video, row), layout.left(column)
                picture[top : top + layout.cell_height, left : left + layout.cell_width] = colour
                inside = slice(top + BORDER, top + BORDER + height), slice(left + BORDER, left + BORDER + width)
                picture[inside] = frames[video, t]
    return picture


def _lettering(layout: _Layout, names: list[str], times: np.ndarray, num_given: int) -> Image.Image:
    """Paper with the names of the rows, the numbers of the frames, and the bars "given" and "predicted"."""
    image = Image.new("RGB", (layout.width, layout.height), style.PAPER)
    draw = ImageDraw.Draw(image)
    shown_given = int((times < num_given).sum())
    for word, colour, first, end in (
        ("given", style.GIVEN, 0, shown_given),
        ("predicted", style.PREDICTED, shown_given, layout.num_columns),
    ):
        if first < end:
            draw.rectangle((layout.left(first), 20, layout.left(end) - GAP - 1, 22), fill=colour)
            style.write(draw, (layout.left(first), 11), word, LETTERS, colour, "lm")
    for column, t in enumerate(times):
        middle = layout.left(column) + layout.cell_width / 2
        style.write(draw, (middle, HEADER - 9), str(t + 1), LETTERS - 2, style.INK, "mm")
    for video in range(layout.num_videos):
        for row, name in enumerate(names):
            middle = layout.top(video, row) + layout.cell_height / 2
            style.write(draw, (layout.gutter - 8, middle), name, LETTERS, style.INK, "rm")
    return image
