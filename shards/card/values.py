"""Mean, standard deviation and extremes of the values of a split, and its clips without content.

In: a table of clips. Out: :class:`Statistics`. One clip is in memory at a time, as float64 a few frames of it.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.card.clips import count_clips, is_block, shown_array, spread, stored_clips
from shards.errors import ShardError
from shards.manifest import ArraySpec
from shards.reader import ClipTable

_VALUES_AT_A_TIME = 1 << 20
DEFAULT_SAMPLE = 512


@dataclass(frozen=True)
class Statistics:
    """What the values of a split are like; one number per channel, the array's declared range becoming [0, 1].

    Attributes:
        array: the array that was read.
        clips: clips that were read.
        of: clips of the split.
        mean: over all pixels of all frames.
        std: standard deviation about that mean, of the same pixels (divided by their number).
        minimum: smallest value.
        maximum: largest value.
        black: clips that read the lowest value of the range everywhere.
        constant: clips of one value everywhere, black ones not counted.
        still: clips of several frames that are all the same, black and constant ones not counted.
    """

    array: str
    clips: int
    of: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    black: int
    constant: int
    still: int


def statistics(
    table: ClipTable, sample: int = DEFAULT_SAMPLE, on_clip: Callable[[int], None] = lambda _: None
) -> Statistics:
    """Read clips that are spread evenly over a split.

    Args:
        table: the split.
        sample: how many samples to read, 0 for all of them.
        on_clip: hears 1 after each.

    Raises:
        DamageError: a clip is gone or damaged.
        ShardError: the split has no array that could be shown as pictures.
    """
    name = shown_array(table.arrays)
    if name is None:
        raise ShardError(f"no array that can be shown as pictures; there are: {', '.join(table.arrays)}")
    spec = table.arrays[name]
    channels: list[_Moments] = []
    kinds = {"black": 0, "constant": 0, "still": 0, "": 0}
    for number in spread(len(table), sample or len(table)):
        for clip_TCHW in stored_clips(table, number, name):
            kinds[_kind(clip_TCHW, spec)] += 1
            channels += [_Moments() for _ in range(clip_TCHW.shape[1] - len(channels))]
            for channel, values_THW in zip(channels, clip_TCHW.swapaxes(0, 1), strict=False):
                channel.add(values_THW, spec.range)
        on_clip(1)
    return Statistics(
        array=name,
        clips=sum(kinds.values()),
        of=count_clips(table, name) if is_block(spec) else len(table),
        mean=tuple(channel.mean for channel in channels),
        std=tuple(channel.std for channel in channels),
        minimum=tuple(channel.minimum for channel in channels),
        maximum=tuple(channel.maximum for channel in channels),
        black=kinds["black"],
        constant=kinds["constant"],
        still=kinds["still"],
    )


def _kind(clip_TCHW: NDArray[Any], spec: ArraySpec) -> str:
    """``black``, ``constant``, ``still``, or empty for a clip with content."""
    if (clip_TCHW == clip_TCHW.flat[0]).all():
        return "black" if clip_TCHW.flat[0] == spec.range[0] else "constant"
    return "still" if len(clip_TCHW) > 1 and (clip_TCHW == clip_TCHW[0]).all() else ""


@dataclass
class _Moments:
    """Mean, summed squared deviation and extremes of values that come in portions.

    Portions are joined by the pairwise update of Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm
    for computing sample variances" (1979).
    """

    count: int = 0
    mean: float = 0.0
    minimum: float = np.inf
    maximum: float = -np.inf
    _squares: float = field(default=0.0)

    def add(self, values: NDArray[Any], value_range: tuple[float, float]) -> None:
        low, high = value_range
        flat = values.reshape(-1)
        for start in range(0, len(flat), _VALUES_AT_A_TIME):
            portion = (flat[start : start + _VALUES_AT_A_TIME].astype(np.float64) - low) / max(high - low, 1e-12)
            total, mean = self.count + len(portion), float(portion.mean())
            apart = mean - self.mean
            self._squares += float(np.square(portion - mean).sum()) + apart**2 * self.count * len(portion) / total
            self.mean += apart * len(portion) / total
            self.count = total
            self.minimum = min(self.minimum, float(portion.min()))
            self.maximum = max(self.maximum, float(portion.max()))

    @property
    def std(self) -> float:
        return float(np.sqrt(self._squares / max(self.count, 1)))
