"""The array of a dataset that can be seen, read one clip at a time.

In: a table of clips. Out: frames, as they are stored or as pictures.

A clip is what one looks at: a sample whose array has axes TCHW, THW, CHW or HW; or, of a sample that is a block of
pictures (axes NHW, the digits of endless Moving MNIST), each picture.

Axis letters: T frames, C channels, H height, W width, N pictures of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.manifest import ArraySpec
from shards.reader import ClipTable

_SHOWABLE = ("TCHW", "THW", "CHW", "NHW", "HW")


def shown_array(arrays: Mapping[str, ArraySpec]) -> str | None:
    """Name of the first array that can be shown as pictures, None if there is none."""
    return next((name for name, spec in arrays.items() if spec.axes in _SHOWABLE), None)


def is_block(spec: ArraySpec) -> bool:
    """Whether a sample is a block of pictures instead of one clip."""
    return spec.axes == "NHW"


def count_clips(table: ClipTable, name: str) -> int:
    """Number of clips in a table: of its samples, or of the pictures in all its blocks."""
    if not is_block(table.arrays[name]):
        return len(table)
    return sum(table.shapes(sample)[name][0] for sample in range(len(table)))


def spread(count: int, wanted: int) -> list[int]:
    """Up to ``wanted`` different numbers of ``0 .. count - 1``, evenly spread from the first to the last."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(wanted, count)).tolist()})


def read_array(table: ClipTable, sample: int, name: str, frames: int | None = None) -> NDArray[Any]:
    """One array of a sample: whole, or of an array with a time axis its first ``frames`` at most.

    Raises:
        DamageError: it is gone or damaged.
    """
    shape = table.shapes(sample)[name]
    if frames is not None and table.arrays[name].has_time:
        shape = (min(frames, shape[0]), *shape[1:])
    array = np.empty(shape, dtype=table.arrays[name].dtype)
    table.read_into(sample, name, 0, array)
    return array


def stored_clips(table: ClipTable, sample: int, name: str, frames: int | None = None) -> Iterator[NDArray[Any]]:
    """The clips of a sample as stored values TCHW: one (its first ``frames`` if given), or each picture of a block.

    Raises:
        DamageError: the sample is gone or damaged.
    """
    axes = table.arrays[name].axes
    array = read_array(table, sample, name, frames)
    if axes == "NHW":
        yield from array[:, None, None]
        return
    yield {"TCHW": array, "THW": array[:, None], "CHW": array[None], "HW": array[None, None]}[axes]


def as_pictures(stored_TCHW: NDArray[Any], spec: ArraySpec) -> NDArray[np.uint8]:
    """Stored values as pictures: uint8 THWC, C = 3, the array's range becoming 0 to 255."""
    if spec.dtype == "uint8" and spec.range == (0.0, 255.0):
        frames_TCHW = stored_TCHW
    else:
        low, high = spec.range
        scaled = (stored_TCHW.astype(np.float32) - low) * (255.0 / max(high - low, 1e-12))
        frames_TCHW = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    num_channels = frames_TCHW.shape[1]
    colours_TCHW = frames_TCHW if num_channels == 3 else np.repeat(frames_TCHW[:, :1], 3, axis=1)
    return np.ascontiguousarray(colours_TCHW.transpose(0, 2, 3, 1))
