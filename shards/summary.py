"""A look at a dataset: ``python -m shards inspect DIR`` prints a table and draws a contact sheet.

In: a folder. Out: rows for a table, and a picture: one clip per row, one frame per column.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError
from shards.manifest import Manifest
from shards.reader import ClipTable, read_arrays

_GAP = 2  # pixels between pictures
_PAPER = 255


def split_rows(manifest: Manifest) -> list[tuple[str, str, str, str, str]]:
    """For each split: its name, number of shards, number of samples, size, and the arrays of a sample."""
    rows = []
    for name, info in manifest.splits.items():
        arrays = ", ".join(describe(array, manifest) for array in info.arrays)
        rows.append((name, str(len(info.shards)), f"{info.samples:,}", human_bytes(info.bytes), arrays))
    return rows


def describe(array: str, manifest: Manifest) -> str:
    """An array in a few letters: ``video uint8 T30 C3 H64 W64``."""
    spec = manifest.arrays[array]
    axes = " ".join(
        f"{letter}{'?' if size is None else size}" for letter, size in zip(spec.axes, spec.shape, strict=True)
    )
    return f"{array} {spec.dtype} {axes}".rstrip()


def human_bytes(number: int) -> str:
    """A size with three digits and a unit: ``1.23 GB``."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def contact_sheet(table: ClipTable, *, clips: int, frames: int) -> NDArray[np.uint8]:
    """Clips spread over a split, one per row, with frames spread over each clip.

    Args:
        table: the split.
        clips: rows.
        frames: columns.

    Returns:
        uint8 HWC, C = 3.

    Raises:
        ShardError: the split has no array that could be shown.
    """
    numbers = np.unique(np.linspace(0, len(table) - 1, clips).astype(int))
    rows = [_strip(picture_of(read_arrays(table, int(number)), table), frames) for number in numbers]
    height = max(row.shape[0] for row in rows)
    width = max(row.shape[1] for row in rows)
    sheet = np.full((len(rows) * (height + _GAP) + _GAP, width + 2 * _GAP, 3), _PAPER, dtype=np.uint8)
    for number, row in enumerate(rows):
        top = _GAP + number * (height + _GAP)
        sheet[top : top + row.shape[0], _GAP : _GAP + row.shape[1]] = row
    return sheet


def picture_of(arrays: dict[str, NDArray[Any]], table: ClipTable) -> NDArray[np.uint8]:
    """The frames (or images) of the sample's first array that can be shown: uint8 TCHW with 1 or 3 channels.

    Raises:
        ShardError: there is none.
    """
    for name, spec in table.arrays.items():
        if spec.axes.endswith("HW") and len(spec.axes) in (3, 4):
            low, high = spec.range
            scaled = (arrays[name].astype(np.float32) - low) * (255.0 / max(high - low, 1e-12))
            frames = scaled.clip(0, 255).astype(np.uint8)
            frames_TCHW = frames[:, None] if frames.ndim == 3 else frames
            return frames_TCHW if frames_TCHW.shape[1] == 3 else frames_TCHW[:, :1]
    raise ShardError(f"no array that can be shown as pictures; there are: {', '.join(table.arrays)}")


def save_picture(picture_HWC: NDArray[np.uint8], path: Path) -> None:
    """Write a PNG."""
    from PIL import Image

    Image.fromarray(picture_HWC).save(path)


def _strip(frames_TCHW: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Frames side by side: uint8 HWC."""
    chosen = np.unique(np.linspace(0, len(frames_TCHW) - 1, columns).astype(int))
    tiles = [np.repeat(frames_TCHW[t].transpose(1, 2, 0), 3 // frames_TCHW.shape[1], axis=2) for t in chosen]
    gap = np.full((tiles[0].shape[0], _GAP, 3), _PAPER, dtype=np.uint8)
    return np.concatenate([part for tile in tiles for part in (tile, gap)][:-1], axis=1)
