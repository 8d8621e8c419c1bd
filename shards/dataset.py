"""Clips of tar shards as a source for the loader: order, windows, batches, substitutes for damaged samples.

    positions --order.py--> clip numbers --hash(seed, position)--> windows --ClipTable.read_into--> one array per batch

Everything chosen here is a function of (seed, contents, position): no generator state, no trace of rank or worker.

Axis letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamageError, ShardError
from shards.hashing import mix, uniform_int
from shards.manifest import ArraySpec
from shards.order import Order
from shards.reader import ClipTable
from shards.source import Fetched, Substitution

_DRAW_WINDOW = 0x57494E  # keep the two kinds of draw apart; the values mean nothing
_DRAW_SUBSTITUTE = 0x535542
_MAX_ATTEMPTS = 32


class ShardClips:
    """A :class:`shards.source.ClipSource` over a table of stored clips.

    Args:
        table: the clips of a split.
        num_frames: frames per clip in a batch: a window at a place that depends on (seed, position) in training, the
            first ones in evaluation. None takes whole clips, which must then be equally long.
        max_substitutions: 0 lets a damaged sample end the run. Otherwise another one takes its place and is reported
            in the batch; a :class:`shards.substitution.SubstitutionLedger` counts them against this budget.

    Raises:
        ValueError: ``num_frames`` is less than 1.
    """

    def __init__(self, table: ClipTable, num_frames: int | None, *, max_substitutions: int = 0) -> None:
        if num_frames is not None and num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: a clip needs at least one frame")
        self.fingerprint = table.fingerprint
        self.arrays = {name: _windowed(spec, num_frames) for name, spec in table.arrays.items()}
        self.table = table
        self.num_frames = num_frames
        self._may_substitute = max_substitutions > 0
        self._quarantine: tuple[Substitution, ...] = ()
        self._known_bad: tuple[int, dict[int, str]] | None = None

    def __len__(self) -> int:
        return len(self.table)

    def fetch(self, positions: NDArray[np.int64], seed: int) -> Fetched:
        """Training clips at ``positions`` of the stream of ``seed``.

        Raises:
            DamageError: a sample is damaged and there is no budget for substitutes.
            ShardError: clips are too short or differ in shape, or too many substitutes were damaged too.
        """
        positions = np.asarray(positions, dtype=np.int64)
        clips = Order(seed, self.fingerprint, len(self)).index(positions).tolist()
        windows = mix(seed, positions, _DRAW_WINDOW).tolist()
        batch = _Batch(self.table, self.num_frames, len(clips))
        keys, substitutions = [], []
        for row, (position, clip) in enumerate(zip(positions.tolist(), clips, strict=True)):
            used, substitution = self._fill(batch, row, clip, windows[row], position, seed)
            keys.append(self.table.key(used))
            substitutions += [substitution] if substitution else []
        return Fetched(batch.arrays, keys, substitutions)

    def read(self, indices: Sequence[int]) -> Fetched:
        """Clips ``indices`` of the split, from their first frame on.

        Raises:
            DamageError: a sample is damaged.
            IndexError: there is no such clip.
        """
        batch = _Batch(self.table, self.num_frames, len(indices))
        for row, clip in enumerate(indices):
            if not 0 <= clip < len(self):
                raise IndexError(f"clip {clip} of a split with {len(self)}")
            batch.fill(row, clip, None)
        return Fetched(batch.arrays, [self.table.key(clip) for clip in indices])

    def too_short(self) -> list[str]:
        """Names of the clips that have fewer frames than a window: better found before training than by chance in it.

        Raises:
            DamageError: an index is gone or damaged, and there is no budget for substitutes.
        """
        spec = next((spec for spec in self.table.arrays.values() if spec.has_time), None)
        if spec is None or self.num_frames is None or (spec.shape[0] or 0) >= self.num_frames:
            return []
        return [self.table.key(clip) for clip in range(len(self)) if self._frames(clip) < self.num_frames]

    def _frames(self, clip: int) -> int:
        try:
            shapes = self.table.shapes(clip)
        except DamageError:
            if not self._may_substitute:
                raise
            return sys.maxsize  # another takes its place
        return next(shapes[name][0] for name, spec in self.table.arrays.items() if spec.has_time)

    def quarantine(self, records: Sequence[Substitution]) -> None:
        """Count these samples, and the substitutes tried in vain for them, as damaged without reading them again."""
        self._quarantine = tuple(records)
        self._known_bad = None

    def _fill(
        self, batch: _Batch, row: int, clip: int, window: int, position: int, seed: int
    ) -> tuple[int, Substitution | None]:
        """Fill one row with the clip or its substitute; returns the clip used."""
        known_bad = self._bad_clips(seed)
        reason = known_bad.get(clip, "")
        if not reason:
            try:
                batch.fill(row, clip, window)
                return clip, None
            except DamageError as error:
                if not self._may_substitute:
                    raise
                reason = str(error)
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            other = substitute_clip(seed, position, attempt, len(self))
            if other == clip or other in known_bad:
                continue
            try:
                batch.fill(row, other, window)
            except DamageError:
                continue
            keys = self.table.key(clip), self.table.key(other)
            return other, Substitution(position, *keys, attempt, reason)
        raise ShardError(
            f"position {position}: {_MAX_ATTEMPTS} substitutes for {self.table.key(clip)} are damaged too; {reason}",
            remedy="The dataset is beyond substitution. What is damaged: python -m shards verify DIR",
        )

    def _bad_clips(self, seed: int) -> dict[int, str]:
        """Clips that the quarantine names: at each position the sample itself and the substitutes tried in vain."""
        if self._known_bad is None or self._known_bad[0] != seed:
            order = Order(seed, self.fingerprint, len(self))
            bad: dict[int, str] = {}
            for record in self._quarantine:
                bad[int(order.index(np.array(record.position)))] = record.reason
                for attempt in range(1, record.attempt):
                    bad.setdefault(substitute_clip(seed, record.position, attempt, len(self)), "damaged substitute")
            self._known_bad = (seed, bad)
        return self._known_bad[1]


class DrawnClips:
    """A fixed set of evaluation clips: windows at places that are drawn once, as many as wanted from few long videos.

    Clip i is what training with ``seed`` would see at position i: each video once before any comes again, a window at a
    random place. The same seed and contents give the same clips, for ever.

    Args:
        clips: where the windows come from.
        count: how many.
        seed: of the draw.
    """

    def __init__(self, clips: ShardClips, count: int, seed: int) -> None:
        self.fingerprint = clips.fingerprint
        self.arrays = clips.arrays
        self._clips = clips
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def fetch(self, positions: NDArray[np.int64], seed: int) -> Fetched:
        """Training clips of the same videos, see :meth:`ShardClips.fetch`."""
        return self._clips.fetch(positions, seed)

    def too_short(self) -> list[str]:
        """Names of the videos that have fewer frames than a window, see :meth:`ShardClips.too_short`."""
        return self._clips.too_short()

    def read(self, indices: Sequence[int]) -> Fetched:
        """The clips ``indices`` of the set.

        Raises:
            DamageError: a sample is damaged.
            IndexError: there is no such clip.
        """
        if any(not 0 <= index < self._count for index in indices):
            raise IndexError(f"clips {list(indices)} of {self._count}")
        return self._clips.fetch(np.asarray(indices, dtype=np.int64), self._seed)

    def quarantine(self, records: Sequence[Substitution]) -> None:
        """Count these samples as damaged without reading them again."""
        self._clips.quarantine(records)


def substitute_clip(seed: int, position: int, attempt: int, num_clips: int) -> int:
    """Clip that stands in at a position: a pure function of the arguments, the same on every rank."""
    return int(uniform_int(mix(seed, position, _DRAW_SUBSTITUTE, attempt), num_clips))


class _Batch:
    """Arrays of a batch, made when the first clip shows their shapes, then filled row by row."""

    def __init__(self, table: ClipTable, num_frames: int | None, num_clips: int) -> None:
        self.arrays: dict[str, NDArray[Any]] = {}
        self._table = table
        self._num_frames = num_frames
        self._num_clips = num_clips

    def fill(self, row: int, clip: int, window: int | None) -> None:
        """Read a clip into a row; ``window`` are the random bits that choose its first frame, None for frame 0."""
        shapes = self._table.shapes(clip)
        start, stop = self._window(clip, shapes, window)
        for name, spec in self._table.arrays.items():
            shape = (stop - start, *shapes[name][1:]) if spec.has_time else shapes[name]
            self._table.read_into(clip, name, start if spec.has_time else 0, self._row(name, spec, row, shape, clip))

    def _window(self, clip: int, shapes: Mapping[str, tuple[int, ...]], window: int | None) -> tuple[int, int]:
        length = next((shapes[name][0] for name, spec in self._table.arrays.items() if spec.has_time), 0)
        num_frames = length if self._num_frames is None else self._num_frames
        if length < num_frames:
            problem = f"clip {self._table.key(clip)} has {length} frames, {num_frames} are wanted"
            remedy = (
                f"Ask for fewer, or drop short clips: python -m shards repack DIR --out NEW --min-frames {num_frames}"
            )
            raise ShardError(problem, remedy=remedy)
        start = 0 if window is None else (window >> 32) * (length - num_frames + 1) >> 32  # as hashing.uniform_int
        return start, start + num_frames

    def _row(self, name: str, spec: ArraySpec, row: int, shape: tuple[int, ...], clip: int) -> NDArray[Any]:
        if name not in self.arrays:
            self.arrays[name] = np.empty((self._num_clips, *shape), dtype=spec.dtype)
        array = self.arrays[name]
        if array.shape[1:] != shape:
            problem = (
                f"{name!r} of clip {self._table.key(clip)} has shape {shape}, others in its batch {array.shape[1:]}"
            )
            raise ShardError(problem, remedy="Clips of one batch must be of one size; build the dataset at one size.")
        return array[row, ...]


def _windowed(spec: ArraySpec, num_frames: int | None) -> ArraySpec:
    return replace(spec, shape=(num_frames, *spec.shape[1:])) if spec.has_time and num_frames else spec
