"""Contact sheet of a split: one clip per row, one moment per column, time from left to right.

In: a table of clips. Out: one picture. A split of single pictures becomes a grid of them.

Axis letters: T frames, H height, W width, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from shards.card import style
from shards.card.clips import as_pictures, is_block, shown_array, spread, stored_clips
from shards.card.notes import classes_of
from shards.errors import ShardError
from shards.reader import ClipTable

_AIM = 112  # pixels of the longer side of a frame
_WIDEST_NAME = 180
_HEADER = 28


@dataclass(frozen=True)
class Row:
    """One row of the sheet: its name, a second line under it, its pictures THWC, and the number of each in its clip."""

    name: str
    line: str
    pictures: Sequence[NDArray[np.uint8]]
    numbers: tuple[int, ...]


def contact_sheet(table: ClipTable, title: str, *, clips: int = 8, frames: int = 10) -> Image.Image:
    """Clips spread evenly over a split, one per row, with frames spread evenly over each clip.

    Args:
        table: the split.
        title: above the sheet.
        clips: rows.
        frames: columns.

    Raises:
        DamageError: a clip is gone or damaged.
        ShardError: the split has no array that could be shown.
    """
    name = shown_array(table.arrays)
    if name is None:
        raise ShardError(f"no array that can be shown as pictures; there are: {', '.join(table.arrays)}")
    if is_block(table.arrays[name]):
        rows = _rows_of_blocks(table, name, clips, frames)
    else:
        rows = [_row_of_clip(table, number, name, frames) for number in spread(len(table), clips)]
    return _draw(rows, title)


def _row_of_clip(table: ClipTable, number: int, name: str, frames: int) -> Row:
    (stored_TCHW,) = stored_clips(table, number, name)
    chosen = spread(len(stored_TCHW), frames)
    pictures = as_pictures(stored_TCHW[chosen], table.arrays[name])
    classes = ", ".join(classes_of(table.meta(number)))
    return Row(table.key(number), classes, list(pictures), tuple(chosen))


def _rows_of_blocks(table: ClipTable, name: str, rows: int, columns: int) -> list[Row]:
    """Pictures spread over all blocks, in rows."""
    lengths = [table.shapes(sample)[name][0] for sample in range(len(table))]
    firsts = np.concatenate([[0], np.cumsum(lengths)])
    wanted = spread(int(firsts[-1]), rows * columns)
    pictures = []
    for sample in range(len(table)):
        here = [place - int(firsts[sample]) for place in wanted if firsts[sample] <= place < firsts[sample + 1]]
        if here:
            stored = list(stored_clips(table, sample, name))
            pictures += [as_pictures(stored[place], table.arrays[name])[0] for place in here]
    starts = range(0, len(pictures), columns)
    return [Row(f"{wanted[start]:,} …", "", pictures[start : start + columns], ()) for start in starts]


def _draw(rows: Sequence[Row], title: str) -> Image.Image:
    shapes = [picture.shape for row in rows for picture in row.pictures]
    height, width = style.cell_size(max(shape[0] for shape in shapes), max(shape[1] for shape in shapes), _AIM)
    names = [text for row in rows for text in (row.name, row.line)]
    gutter = style.MARGIN + min(_WIDEST_NAME, max(map(style.text_width, names))) + style.MARGIN
    columns = max(len(row.pictures) for row in rows)
    same_moments = len({row.numbers for row in rows}) == 1 and len(rows[0].numbers) > 1
    top = style.MARGIN + _HEADER + (style.LETTERS + style.GAP if same_moments else 0)
    total = gutter + columns * (width + style.GAP) - style.GAP + style.MARGIN
    sheet = Image.new(
        "RGB",
        (max(total, style.text_width(title, 16) + 2 * style.MARGIN), top + len(rows) * (height + style.GAP) + 8),
        style.PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    style.write(draw, (style.MARGIN, style.MARGIN + 8), title, size=16)
    if same_moments:
        for column, number in enumerate(rows[0].numbers):
            middle = (gutter + column * (width + style.GAP) + width / 2, top - style.LETTERS / 2 - style.GAP)
            style.write(draw, middle, f"{number + 1}", size=11, fill=style.QUIET, anchor="mm")
        style.write(draw, (style.MARGIN, top - style.LETTERS / 2 - style.GAP), "frame", size=11, fill=style.QUIET)
    for place, row in enumerate(rows):
        y = top + place * (height + style.GAP)
        _write_name(draw, row, y + height / 2, gutter - 2 * style.MARGIN, with_length=not same_moments)
        for column, picture in enumerate(row.pictures):
            x = gutter + column * (width + style.GAP)
            sheet.paste(Image.fromarray(style.fitted(picture, height, width)), (x, y))
    return sheet


def _write_name(draw: ImageDraw.ImageDraw, row: Row, middle: float, width: int, *, with_length: bool) -> None:
    """The name of a row, its class under it and, where rows show other moments, the last frame's number."""
    lines = [(row.name, style.INK), (row.line, style.QUIET)]
    if with_length and len(row.numbers) > 1:
        lines.append((f"frames 1 to {row.numbers[-1] + 1:,}", style.QUIET))
    lines = [line for line in lines if line[0]]
    y = middle - (len(lines) - 1) * 9
    for text, colour in lines:
        style.write(draw, (style.MARGIN, y), style.shortened(text, width), fill=colour)
        y += 18
