"""How much there is in each split, from the manifest and the indexes: nothing is read but shapes.

In: a manifest's entry of a split and its table. Out: :class:`Sizes`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass

import numpy as np

from shards.manifest import SplitInfo
from shards.reader import ClipTable


@dataclass(frozen=True)
class Sizes:
    """Amounts of one split.

    Attributes:
        samples: number of them.
        shards: tar files.
        frames: how many clips have how many frames; empty where no array has a time axis.
        stored_bytes: length of the tar files.
        raw_bytes: length of all arrays before encoding.
    """

    samples: int
    shards: int
    frames: dict[int, int]
    stored_bytes: int
    raw_bytes: int

    @property
    def total_frames(self) -> int:
        """Frames of all clips."""
        return sum(length * count for length, count in self.frames.items())

    @property
    def spread_of_frames(self) -> tuple[int, float, int] | None:
        """Smallest, median and largest number of frames in a clip; None without a time axis."""
        if not self.frames:
            return None
        lengths = sorted(Counter(self.frames).elements())
        return lengths[0], statistics.median(lengths), lengths[-1]


def sizes(info: SplitInfo, table: ClipTable) -> Sizes:
    """Count a split.

    Args:
        info: the manifest's entry.
        table: the same split, opened.

    Raises:
        DamageError: an index is gone or damaged.
    """
    timed = next((name for name, spec in table.arrays.items() if spec.has_time), None)
    frames: Counter[int] = Counter()
    raw_bytes = 0
    for clip in range(len(table)):
        shapes = table.shapes(clip)
        raw_bytes += sum(math.prod(shapes[name]) * np.dtype(spec.dtype).itemsize for name, spec in table.arrays.items())
        if timed is not None:
            frames[shapes[timed][0]] += 1
    return Sizes(len(table), len(info.shards), dict(sorted(frames.items())), info.bytes, raw_bytes)
