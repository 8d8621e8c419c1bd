"""A sheet of frames with names at its rows and columns: the general form of strips, grids and matrices.

In: cells, each a frame with a border of a colour that says what it is. Out: one picture; several make an animation.

Legend: T frames, H rows, W columns, 3 = RGB; X, Y rows and columns of the finished picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from odevid.pictures import style
from odevid.pictures.gif import save_gif, save_mp4
from odevid.pictures.playing import put_frame
from odevid.pictures.style import Colour, Frames

BORDER = 2  # pixels of coloured border around a frame
GAP = 4  # pixels between borders
BREAK = 16  # pixels between groups of rows
LETTERS = 13
LINE = 20  # pixels of a line of lettering
MARGIN = 10


@dataclass(frozen=True)
class Cell:
    """A frame, uint8 HW3, and the colour around it."""

    frame_HW3: np.ndarray
    border: Colour


Cells = Sequence[Sequence[Cell | None]]


@dataclass(frozen=True)
class Lettering:
    """The words of a sheet.

    Attributes:
        rows: a name per row, written at its left; may be empty words.
        columns: a name per column, written above; none at all leaves the line out.
        title: first line.
        legend: words with the colour of their swatch, second line; none leaves it out.
        bars: words written above a bar of their colour over the columns from the one to before the other; its own line.
        breaks: rows before which there is more space.
    """

    rows: Sequence[str]
    columns: Sequence[str] = ()
    title: str = ""
    legend: Sequence[tuple[str, Colour]] = ()
    bars: Sequence[tuple[str, Colour, int, int]] = ()
    breaks: Collection[int] = ()


def film(frames_TCHW: Frames, num_given: int, after: Colour = style.PREDICTED, scale: int = 1) -> list[Cell]:
    """A video's frames as cells: green borders around the given ones, `after` around those that follow."""
    frames_THW3 = style.to_rgb(torch.as_tensor(frames_TCHW)[None], scale)[0]
    return [Cell(frame, style.GIVEN if t < num_given else after) for t, frame in enumerate(frames_THW3)]


class _Places:
    """Where things are, in pixels."""

    def __init__(self, cells: Cells, words: Lettering) -> None:
        sizes = {cell.frame_HW3.shape for row in cells for cell in row if cell is not None}
        if len(sizes) != 1:
            raise ValueError(f"cells have the sizes {sorted(sizes)}; expected frames HW3 of one size")
        height, width = next(iter(sizes))[:2]
        self.cell_height, self.cell_width = height + 2 * BORDER, width + 2 * BORDER
        self.gutter = MARGIN + max(style.text_width(name, LETTERS) for name in words.rows) + 8
        lines = sum(map(bool, (words.title, words.legend, words.bars, words.columns)))
        self.header = MARGIN + LINE * lines
        self.breaks = sorted(words.breaks)
        legend = sum(_swatch_width(word) for word, _ in words.legend)
        columns = max(map(len, cells))
        self.width = max(
            self.left(columns) - GAP + MARGIN, max(style.text_width(words.title, LETTERS), legend) + 2 * MARGIN
        )
        self.height = self.top(len(cells)) - GAP + MARGIN

    def left(self, column: int) -> int:
        return self.gutter + column * (self.cell_width + GAP)

    def top(self, row: int) -> int:
        broken = sum(at <= row for at in self.breaks if at > 0)
        return self.header + row * (self.cell_height + GAP) + BREAK * broken


def sheet(cells: Cells, words: Lettering) -> np.ndarray:
    """The picture, uint8 (X, Y, 3); a cell that is None stays empty.

    Raises:
        ValueError: cells of several sizes, or no cell, or not as many names as rows or columns.
    """
    columns = {len(row) for row in cells}
    if len(words.rows) != len(cells) or (words.columns and columns != {len(words.columns)}):
        raise ValueError(
            f"{len(cells)} rows of {sorted(columns)} cells, with {len(words.rows)} names of rows and "
            f"{len(words.columns)} of columns"
        )
    places = _Places(cells, words)
    picture = np.array(_written(places, words))
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            if cell is not None:
                put_frame(picture, (places.top(row), places.left(column)), cell.frame_HW3, cell.border, BORDER)
    return picture


def save_sheet(path: Path, cells: Cells, words: Lettering) -> Path:
    """Write `sheet` as PNG; the path."""
    Image.fromarray(sheet(cells, words)).save(path, format="PNG")
    return path


def save_animation(folder: Path, name: str, pictures: Sequence[np.ndarray], fps: float) -> list[Path]:
    """Write pictures of one size as folder/name.gif and folder/name.mp4; both paths."""
    pictures_TXY3 = np.stack(pictures)
    paths = [folder / f"{name}.gif", folder / f"{name}.mp4"]
    writers: tuple[Callable[[Path, np.ndarray, float], None], ...] = (save_gif, save_mp4)
    for path, write in zip(paths, writers, strict=True):
        write(path, pictures_TXY3, fps)
    return paths


def _swatch_width(word: str) -> int:
    return 12 + 5 + style.text_width(word, LETTERS) + 16


def _written(places: _Places, words: Lettering) -> Image.Image:
    """Paper with all that is written on it."""
    image = Image.new("RGB", (places.width, places.height), style.PAPER)
    draw = ImageDraw.Draw(image)
    middle = MARGIN + LINE / 2 - 3
    if words.title:
        style.write(draw, (MARGIN, middle), words.title, LETTERS, style.INK, "lm")
        middle += LINE
    left = MARGIN
    for word, colour in words.legend:
        draw.rectangle((left, middle - 6, left + 11, middle + 5), fill=colour)
        style.write(draw, (left + 17, middle), word, LETTERS, style.INK, "lm")
        left += _swatch_width(word)
    middle += LINE if words.legend else 0
    for word, colour, first, end in words.bars:
        style.write(draw, (places.left(first), middle - 3), word, LETTERS, colour, "lm")
        draw.rectangle((places.left(first), middle + 6, places.left(end) - GAP - 1, middle + 8), fill=colour)
    for column, name in enumerate(words.columns):
        centre = places.left(column) + places.cell_width / 2
        style.write(draw, (centre, places.header - 9), name, LETTERS - 1, style.INK, "mm")
    for row, name in enumerate(words.rows):
        middle = places.top(row) + places.cell_height / 2
        style.write(draw, (places.gutter - 8, middle), name, LETTERS, style.INK, "rm")
    return image
