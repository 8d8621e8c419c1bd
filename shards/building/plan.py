"""What is to be built: the words that builders and the engine share.

A builder turns its options and the raw folder into a :class:`BuildPlan`; the engine (run.py) cuts the plan into parts
and has worker processes make their samples.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shards.errors import ShardError
from shards.manifest import ArraySpec
from shards.writer import Sample

if TYPE_CHECKING:
    from shards.building.video import Probe

DEFAULT_SHARD_MB = 256
_MIN_SHARD_BYTES = 16 << 20
_AIM_PARTS = 64


@dataclass(frozen=True)
class Item:
    """One source file and what to take of it. Can be pickled.

    Attributes:
        key: unique in its split, usually the sample's own key; named in messages.
        source: the file; its length and time stamp belong to the item's identity when a build is continued.
        args: plain JSON values for :class:`Make`.
        num_samples: how many samples it is expected to give.
        num_bytes: how many bytes of arrays they are expected to hold.
    """

    key: str
    source: Path
    args: Mapping[str, Any]
    num_samples: int
    num_bytes: int


@dataclass(frozen=True)
class Notice:
    """Something to tell about a source that was used: ``kind`` in a few words, ``detail`` in a line."""

    kind: str
    detail: str


class BadSource(ShardError):
    """A source that cannot be used.

    Args:
        kind: in a few words, the same for all sources with this trouble: ``unreadable``, ``truncated``, ``too short``.
        detail: what was found and what was expected.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type[BadSource], tuple[str, str]]:
        return type(self), (self.kind, self.detail)


class Make(Protocol):
    """How an item becomes samples. Can be pickled; runs in worker processes."""

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        """The samples of an item, with notices among them.

        Raises:
            BadSource: the source cannot be used.
        """
        ...


class Survey(Protocol):
    """Lengths of videos, which some plans depend upon."""

    def __call__(self, files: Sequence[Path]) -> dict[Path, int | BadSource]:
        """Number of decoded frames of each file; for one that cannot be decoded, why."""
        ...

    def probes(self, files: Sequence[Path]) -> dict[Path, Probe | BadSource]:
        """What the container of each file announces; for one that cannot be opened, why."""
        ...


@dataclass(frozen=True)
class BuildPlan:
    """A dataset to be.

    Attributes:
        name: for the manifest, such as ``kth-64``.
        arrays: declarations; every sample of every split has all of them.
        fps: frames per second, None where the clips have no common rate.
        splits: the items of each split in their order.
        make: turns an item into samples.
        provenance: JSON for the manifest: builder, settings, where decisions come from.
        notes: lines that a person must see: what is missing, what was inferred.
        raw: folder of the sources (set by the engine), which are known by their paths in it, wherever it lies.
    """

    name: str
    arrays: dict[str, ArraySpec]
    fps: float | None
    splits: dict[str, tuple[Item, ...]]
    make: Make
    provenance: dict[str, Any]
    notes: tuple[str, ...] = field(default=())
    raw: Path | None = None

    @property
    def num_bytes(self) -> int:
        """Expected bytes of all arrays, not encoded."""
        return sum(item.num_bytes for items in self.splits.values() for item in items)

    @property
    def num_samples(self) -> int:
        """Expected number of samples."""
        return sum(item.num_samples for items in self.splits.values() for item in items)


@dataclass(frozen=True)
class Part:
    """A slice of a split's items that becomes one tar.

    Attributes:
        split: its split.
        number: of the tar within the split.
        items: in order.
    """

    split: str
    number: int
    items: tuple[Item, ...]

    @property
    def tar(self) -> str:
        """Name of its tar."""
        return f"{self.split}-{self.number:06d}.tar"

    @property
    def num_bytes(self) -> int:
        """Expected bytes of its arrays."""
        return sum(item.num_bytes for item in self.items)

    def identity(self, plan: BuildPlan) -> str:
        """Digest of the items, of their sources' lengths and time stamps, and of the form of the arrays."""
        form = [[name, spec.dtype, spec.axes, spec.shape] for name, spec in plan.arrays.items()]
        rows = [[item.key, dict(item.args), *_state_of(item.source, plan.raw)] for item in self.items]
        return hashlib.sha256(json.dumps([form, rows], sort_keys=True).encode()).hexdigest()


def cut_into_parts(plan: BuildPlan, shard_mb: int | None = None) -> list[Part]:
    """The parts of a plan: consecutive items up to about ``shard_mb`` megabytes each.

    Args:
        plan: what is to be built.
        shard_mb: aim for the size of a tar before encoding; None takes 256 MB, or less where that gives the workers
            less than 64 parts to share, but at least 16 MB.
    """
    aim = (
        (shard_mb << 20)
        if shard_mb
        else min(DEFAULT_SHARD_MB << 20, max(_MIN_SHARD_BYTES, plan.num_bytes // _AIM_PARTS))
    )
    parts: list[Part] = []
    for split, items in plan.splits.items():
        begin, size = 0, 0
        for end, item in enumerate(items, start=1):
            size += item.num_bytes
            if size >= aim or end == len(items):
                parts.append(Part(split, sum(part.split == split for part in parts), items[begin:end]))
                begin, size = end, 0
    return parts


def name_of(source: Path, raw: Path | None) -> str:
    """A source by its path in the raw folder; by its whole path if it lies elsewhere."""
    if raw is None:
        return str(source)
    path = os.path.relpath(source.absolute(), raw.absolute())
    return str(source.absolute()) if path.startswith("..") else path


def printable(path: Path | str) -> str:
    """A path for messages: bytes that are no UTF-8 are replaced."""
    return os.fsencode(path).decode("utf-8", "replace")


def sources_digest(plan: BuildPlan) -> str:
    """Digest of names and lengths of all sources, and of what is taken of each."""
    digest = hashlib.sha256()
    for split, items in plan.splits.items():
        for item in items:
            row = [split, item.key, dict(item.args), *_state_of(item.source, plan.raw)[:2]]
            digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def _state_of(source: Path, raw: Path | None) -> tuple[str, int, int]:
    name = name_of(source, raw)
    try:
        state = source.stat()
    except OSError:
        return name, -1, -1
    return name, state.st_size, state.st_mtime_ns
