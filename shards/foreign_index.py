"""The index of a tar that somebody else wrote: made by one scan, kept as JSON, made again when the tar changes.

    a.tar --headers, one decoding of every clip--> ForeignIndex --kept--> a.tar.index.json

Members are grouped into samples as webdataset does: adjacent members whose names agree up to the first dot of the last
path component. Names in a tar are only ever names: nothing is extracted, so ``../x`` reaches nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards.atomic import locked, write_atomically
from shards.checksum import crc32
from shards.errors import DamageError, ShardError
from shards.foreign_decode import ARRAYS, IMAGES, VIDEOS, Member, choose_members, decode_clip

PICKLES = frozenset({"pkl", "pickle", "pyd", "pt", "pth", "joblib", "dill", "cloudpickle"})
_FORMAT = ["odevid-foreign-index", 1]
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForeignClip:
    """One clip in a tar: its key, its member or members, its shape TCHW; or why it cannot be read (``damage``)."""

    key: str
    members: tuple[Member, ...]
    shape: tuple[int, ...]
    damage: str = ""


@dataclass(frozen=True)
class ForeignIndex:
    """What one scan of a tar found.

    Attributes:
        tar_bytes: length of the tar then.
        tar_mtime_ns: its time of change then; with the length it tells a tar that was replaced.
        clips: in the tar's order.
        pickles: names of members that are never loaded.
    """

    tar_bytes: int
    tar_mtime_ns: int
    clips: tuple[ForeignClip, ...]
    pickles: tuple[str, ...]

    def to_json(self) -> str:
        """The text of an index file."""
        return json.dumps({"format": _FORMAT} | asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ForeignIndex:
        """Read an index file.

        Raises:
            ValueError, KeyError, TypeError: it is not one.
        """
        raw = json.loads(text)
        if raw.pop("format") != _FORMAT:
            raise ValueError("another format")
        clips = []
        for clip in raw.pop("clips"):
            members = tuple(Member(**member) for member in clip["members"])
            clips.append(ForeignClip(clip["key"], members, tuple(clip["shape"]), clip["damage"]))
        return cls(clips=tuple(clips), pickles=tuple(raw.pop("pickles")), **raw)


def index_tar(
    tar: Path, *, cache: Path | None = None, again: bool = False, on_clip: Callable[[str], None] = lambda _: None
) -> ForeignIndex:
    """The index of a foreign tar: read if it is there and the tar unchanged, else made and kept.

    Args:
        tar: an uncompressed tar.
        cache: folder for the index; default beside the tar.
        again: make it even if it is there.
        on_clip: hears each clip's key while it is made.

    Raises:
        ShardError: not a tar, no clips in it, or the index cannot be kept.
    """
    kept = _index_path(tar, cache)
    index = None if again else _read_index(tar, kept)
    if index is None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with locked(kept.with_name(f".{kept.name}.lock")):
                index = None if again else _read_index(tar, kept)
                if index is None:
                    index = scan_tar(tar, on_clip)
                    write_atomically(kept, index.to_json().encode())
        except OSError as error:
            remedy = "Name a folder for it: python -m shards index TAR --cache DIR"
            raise ShardError(f"cannot keep the index: {error.strerror}", file=kept, remedy=remedy) from error
    if not index.clips:
        expected = ", ".join(sorted(VIDEOS | ARRAYS | IMAGES))
        pickles = f"; pickles are never loaded: {', '.join(index.pickles[:5])}" if index.pickles else ""
        raise ShardError(f"no clips in this tar (no member ending in {expected}){pickles}", file=tar)
    return index


def scan_tar(tar: Path, on_clip: Callable[[str], None] = lambda _: None) -> ForeignIndex:
    """Read a whole tar once: decode every clip for its shape, note where it lies and its checksums.

    A clip that cannot be decoded is kept with the reason, and is an error when it is read.

    Raises:
        DamageError: the tar is truncated.
        ShardError: it is not an uncompressed tar.
    """
    clips: list[ForeignClip] = []
    pickles: list[str] = []
    with tar.open("rb") as file:
        status = os.fstat(file.fileno())
        for key, members in _samples(tar, file):
            pickles += [member.name for member in members if member.extension in PICKLES]
            chosen = choose_members(members)
            if chosen:
                clips.append(_scan_clip(file.fileno(), key, chosen))
                on_clip(key)
    if pickles:
        named = ", ".join(pickles[:5]) + (", ..." if len(pickles) > 5 else "")
        _log.warning("%s: %d pickled members are never loaded: %s", tar, len(pickles), named)
    return ForeignIndex(status.st_size, status.st_mtime_ns, tuple(clips), tuple(pickles))


def _samples(tar: Path, file: Any) -> Iterator[tuple[str, list[Member]]]:
    """Adjacent members with the same key, as webdataset groups them."""
    key: str | None = None
    members: list[Member] = []
    for member in _regular_members(tar, file):
        match = _NAME.fullmatch(member.name)
        if match is None:
            continue
        if match[1] != key:
            if key is not None:
                yield key, members
            key, members = match[1], []
        members.append(member)
    if key is not None:
        yield key, members


def _regular_members(tar: Path, file: Any) -> Iterator[Member]:
    remedy = "It must be an uncompressed tar; unpack .tar.gz with gunzip first."
    name, end = None, 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as opened:
            for info in opened:
                name, end = info.name, info.offset_data + info.size
                if info.isreg():
                    yield Member(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise DamageError(f"not a readable tar: {error}", file=tar, member=name, offset=end, remedy=remedy) from error
    length = os.fstat(file.fileno()).st_size
    mark = os.pread(file.fileno(), tarfile.BLOCKSIZE, -(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    if mark != bytes(tarfile.BLOCKSIZE):
        problem = f"truncated: the tar ends at {length} bytes without its end mark"
        raise DamageError(problem, file=tar, member=name, offset=end, remedy="Copy the tar again.")


def _scan_clip(descriptor: int, key: str, members: Sequence[Member]) -> ForeignClip:
    payloads = [os.pread(descriptor, member.size, member.offset) for member in members]
    checked = tuple(Member(m.name, m.offset, m.size, crc32(data)) for m, data in zip(members, payloads, strict=True))
    try:
        shape = decode_clip(members, payloads).shape
    except DamageError as error:
        return ForeignClip(key, checked, (), str(error))
    return ForeignClip(key, checked, tuple(shape))


def _index_path(tar: Path, cache: Path | None) -> Path:
    if cache is None:
        return tar.with_name(tar.name + ".index.json")
    return cache / f"{hashlib.sha256(str(tar.absolute()).encode()).hexdigest()[:16]}-{tar.name}.index.json"


def _read_index(tar: Path, kept: Path) -> ForeignIndex | None:
    """The index that is kept, None if there is none or it is not of the tar as it is now."""
    try:
        status = tar.stat()
    except FileNotFoundError as error:
        raise ShardError("no such file", file=tar) from error
    try:
        index = ForeignIndex.from_json(kept.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return index if (index.tar_bytes, index.tar_mtime_ns) == (status.st_size, status.st_mtime_ns) else None
