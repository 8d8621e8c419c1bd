"""Clips that occur twice in a dataset: within a split, and worse, in two splits.

In: a dataset's folder. Out: :class:`Duplicates`.

    indexes --checksums of stored bytes, shape--> candidates --read, SHA-256 of the values--> groups of equal clips

No video is read but the candidates. Clips that differ in a single bit, or are stored by another encoder, are not found.
A block of digits is read: its pictures are compared one by one.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shards.card.clips import is_block, read_array, shown_array
from shards.checksum import crc32
from shards.folder import Folder
from shards.manifest import Manifest
from shards.opening import open_table
from shards.reader import ClipTable, load_index


@dataclass(frozen=True)
class Place:
    """Where a clip is: its split, the sample's number and key, and its place in a block of pictures, else None."""

    split: str
    sample: int
    key: str
    row: int | None = None

    def __str__(self) -> str:
        return f"{self.split}/{self.key}" + ("" if self.row is None else f"[{self.row}]")


@dataclass(frozen=True)
class Duplicates:
    """Clips that are equal.

    Attributes:
        splits: the splits that were searched.
        groups: each a set of equal clips, two or more, in the order of the dataset.
    """

    splits: tuple[str, ...]
    groups: tuple[tuple[Place, ...], ...]

    def within(self, split: str) -> int:
        """Clips of a split that repeat an earlier one of it."""
        return sum(max(0, _count(group, split) - 1) for group in self.groups)

    def shared(self, one: str, other: str) -> tuple[tuple[Place, ...], ...]:
        """The groups that have clips in both splits."""
        return tuple(group for group in self.groups if _count(group, one) and _count(group, other))

    def leaked(self, one: str, other: str) -> int:
        """Clips of ``other`` that are in ``one`` too."""
        return sum(_count(group, other) for group in self.shared(one, other))


def find_duplicates(
    folder: Folder,
    manifest: Manifest,
    splits: Sequence[str] | None = None,
    on_clip: Callable[[int], None] = lambda _: None,
) -> Duplicates:
    """Search a dataset for equal clips.

    Args:
        folder: the dataset's.
        manifest: the dataset's.
        splits: where to search, default everywhere.
        on_clip: hears 1 after each sample that was looked up.

    Raises:
        DamageError: an index or a candidate is gone or damaged.
        ShardError: there is no such split.
    """
    names = tuple(manifest.splits if splits is None else splits)
    tables = {split: open_table(folder, manifest, split) for split in names}
    places: defaultdict[Hashable, list[Place]] = defaultdict(list)
    for split, table in tables.items():
        for place, checksum in _checksums(folder, manifest, split, table):
            places[checksum].append(place)
            on_clip(1 if not place.row else 0)
    groups: list[tuple[Place, ...]] = []
    for candidates in places.values():
        if len(candidates) > 1:
            groups += _confirmed(candidates, tables)
    return Duplicates(names, tuple(groups))


def _checksums(
    folder: Folder, manifest: Manifest, split: str, table: ClipTable
) -> Iterator[tuple[Place, tuple[str, bytes]]]:
    """Each clip of a split with what equal clips have in common."""
    name = shown_array(table.arrays)
    if name is None:
        return
    if is_block(table.arrays[name]):
        for sample in range(len(table)):
            for row, picture in enumerate(read_array(table, sample, name)):
                yield Place(split, sample, table.key(sample), row), (name, crc32(picture).to_bytes(4, "big"))
        return
    sample = 0
    for info in manifest.split(split).shards:
        index = load_index(folder, info, table.arrays)
        column = index.arrays[name]
        for row, key in enumerate(index.keys.tolist()):
            stored = column.crc[column.piece[row] : column.piece[row + 1]].tobytes()
            digest = hashlib.blake2b(stored, digest_size=16, usedforsecurity=False)
            digest.update(np.append(column.shape[row], column.size[row]).tobytes())
            yield Place(split, sample, key), (name, digest.digest())
            sample += 1


def _confirmed(candidates: Sequence[Place], tables: dict[str, ClipTable]) -> list[tuple[Place, ...]]:
    """The groups of candidates whose values are equal, each with two or more."""
    groups: defaultdict[bytes, list[Place]] = defaultdict(list)
    for place in candidates:
        table = tables[place.split]
        name = shown_array(table.arrays) or ""
        values = read_array(table, place.sample, name)
        clip = values if place.row is None else values[place.row]
        groups[hashlib.sha256(repr(clip.shape).encode() + clip.tobytes()).digest()].append(place)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _count(group: Sequence[Place], split: str) -> int:
    return sum(place.split == split for place in group)
