"""Clips of one split of a built dataset, by number, straight from the tars.

    clip number --manifest--> shard, row --index--> offset, shape, checksums --one pread--> the caller's memory

No tar is scanned. Of a raw array only the wanted frames are read, into the array that becomes the batch, with no copy.

Axis letters: T frames; everything else as the manifest's specs say.
"""

from __future__ import annotations

import bisect
import errno
import hashlib
import itertools
import json
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.encoding import EXTENSIONS, decode
from shards.errors import DamageError, ShardError
from shards.folder import Folder, OpenFile
from shards.index import ArrayTable, Index
from shards.manifest import ArraySpec, Manifest, ShardInfo

_REMEDY = (
    "Copy or build the shard again; what else is damaged: python -m shards verify DIR. "
    "To train on meanwhile with another clip in its place: data.max_substitutions=N. "
    "A file of a cache may be deleted: it is fetched again"
)
_OPEN_FILES = 64


class ClipTable(Protocol):
    """Clips of one split by number: what order, windows and batches are built upon. Can be pickled."""

    fingerprint: str
    arrays: dict[str, ArraySpec]

    def __len__(self) -> int:
        """Number of clips."""
        ...

    def key(self, clip: int) -> str:
        """Name of a clip; a stand-in made of shard and row if even the name cannot be read."""
        ...

    def shapes(self, clip: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of each array of a clip, without reading it.

        Raises:
            DamageError: the clip's shard or index is gone or damaged.
        """
        ...

    def meta(self, clip: int) -> dict[str, Any]:
        """What is noted about a clip besides its arrays.

        Raises:
            DamageError: it is gone or damaged.
        """
        ...

    def read_into(self, clip: int, name: str, start: int, out: NDArray[Any]) -> None:
        """Read one array of a clip.

        Args:
            clip: its number.
            name: the array's.
            start: first frame wanted, for an array with a time axis; else 0.
            out: C-contiguous memory of the array's dtype and shape, its time axis as long as the window.

        Raises:
            DamageError: the bytes are gone, or not those that were written.
        """
        ...


class ShardReader:
    """:class:`ClipTable` of a split of a dataset written by writer.py.

    Args:
        folder: where the files are.
        manifest: the dataset's.
        split: name of the split.
        verify: compare the CRC-32 of what is read with the one written; it costs little (tests/bench/RESULTS.md).

    Raises:
        ShardError: there is no such split.

    Not for several threads at once: one that closes a file may pull it from under another.
    """

    def __init__(self, folder: Folder, manifest: Manifest, split: str, *, verify: bool = True) -> None:
        info = manifest.split(split)
        self.fingerprint = manifest.split_fingerprint(split)
        self.arrays = {name: manifest.arrays[name] for name in info.arrays}
        self.shards = info.shards
        self._folder = folder
        self._verify = verify
        self._ends = list(itertools.accumulate(shard.samples for shard in info.shards))
        self._indexes: dict[int, Index] = {}
        self._files: OrderedDict[int, OpenFile] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": OrderedDict()}

    def key(self, clip: int) -> str:
        """Name of a clip."""
        shard, row = self._locate(clip)
        try:
            return str(self._index(shard).keys[row])
        except DamageError:
            return f"{self.shards[shard].file}[{row}]"

    def shapes(self, clip: int) -> dict[str, tuple[int, ...]]:
        """Shape of each array of a clip."""
        shard, row = self._locate(clip)
        return {name: tuple(table.shape[row].tolist()) for name, table in self._index(shard).arrays.items()}

    def meta(self, clip: int) -> dict[str, Any]:
        """What the builder noted about a clip (the "meta" of its .json member).

        Raises:
            DamageError: the member is gone or damaged.
        """
        shard, row = self._locate(clip)
        offset, size, crc = self._index(shard).json[row].tolist()
        data = bytearray(size)
        file = self._read(shard, memoryview(data), offset, f"{self.key(clip)}.json")
        if crc32(data) != crc:
            raise _changed(file.path, f"{self.key(clip)}.json", offset)
        return json.loads(data).get("meta", {})

    def read_into(self, clip: int, name: str, start: int, out: NDArray[Any]) -> None:
        """Read one array of a clip, or a window of its frames, into ``out``."""
        shard, row = self._locate(clip)
        index = self._index(shard)
        table = index.arrays[name]
        member = f"{index.keys[row]}.{name}.{EXTENSIONS[table.kind]}"
        if table.kind == "raw":
            self._read_raw(shard, table, row, member, start, out)
            return
        payload, path = self._read_payload(shard, table, row, member)
        shape = tuple(table.shape[row].tolist())
        try:
            array = decode(payload, table.kind, table.dtype, shape)
        except DamageError as error:
            raise DamageError(str(error), file=path, member=member, offset=int(table.offset[row])) from error
        out[...] = array[start : start + len(out)] if table.axes.startswith("T") else array

    def payload(self, clip: int, name: str) -> bytes:
        """The stored bytes of one array of a clip, checked if the reader verifies.

        Raises:
            DamageError: they are gone, or not those that were written.
        """
        shard, row = self._locate(clip)
        table = self._index(shard).arrays[name]
        member = f"{self.key(clip)}.{name}.{EXTENSIONS[table.kind]}"
        return bytes(self._read_payload(shard, table, row, member)[0])

    def place(self, clip: int) -> tuple[str, int]:
        """File and byte offset at which a clip begins."""
        shard, row = self._locate(clip)
        return self.shards[shard].file, int(self._index(shard).begin[row])

    def close(self) -> None:
        """Close all files; they are opened again when needed."""
        while self._files:
            self._files.popitem()[1].close()

    def _read_raw(self, shard: int, table: ArrayTable, row: int, member: str, start: int, out: NDArray[Any]) -> None:
        target = out.reshape(-1).view(np.uint8).data
        piece = int(table.piece[row])
        num_pieces = 1
        length = len(target)
        if table.axes.startswith("T"):
            piece, num_pieces = piece + start, len(out)
            length //= num_pieces
        offset = int(table.offset[row]) + start * length
        file = self._read(shard, target, offset, member)
        if self._verify or file.suspect:
            expected = table.crc[piece : piece + num_pieces].tolist()
            for number, crc in enumerate(expected):
                if crc32(target[number * length : (number + 1) * length]) != crc:
                    raise _changed(file.path, member, offset + number * length)

    def _read_payload(self, shard: int, table: ArrayTable, row: int, member: str) -> tuple[bytearray, Path]:
        data = bytearray(int(table.size[row]))
        offset = int(table.offset[row])
        file = self._read(shard, memoryview(data), offset, member)
        if (self._verify or file.suspect) and table.kind != "raw" and crc32(data) != table.crcs(row)[0]:
            raise _changed(file.path, member, offset)
        return data, file.path

    def _read(self, shard: int, target: memoryview, offset: int, member: str) -> OpenFile:
        """Fill ``target`` from a shard's tar; returns the file that it was read from."""
        file = self._file(shard)
        try:
            _read_exactly(file, target, offset, member)
        except _StaleError:  # a cache on a network file system, where another node deleted the file
            self._files.pop(shard).close()
            file = self._file(shard)
            _read_exactly(file, target, offset, member)
        return file

    def _locate(self, clip: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, clip)
        return shard, clip - (self._ends[shard] - self.shards[shard].samples)

    def _index(self, shard: int) -> Index:
        if shard not in self._indexes:
            self._indexes[shard] = load_index(self._folder, self.shards[shard], self.arrays)
        return self._indexes[shard]

    def _file(self, shard: int) -> OpenFile:
        file = self._files.get(shard)
        if file is None or file.due < time.monotonic():
            if file is not None:
                self._files.pop(shard).close()
            file = self._open(self.shards[shard])
            self._close_those_over()
            self._files[shard] = file
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        return file

    def _open(self, info: ShardInfo) -> OpenFile:
        try:
            return self._folder.open(info.file, info.bytes, info.sha256)
        except FileNotFoundError as error:
            remedy = "Restore the file or build the dataset again; what is missing: python -m shards verify DIR"
            raise DamageError("the shard is missing", file=error.filename, remedy=remedy) from error
        except OSError as error:
            raise ShardError(f"cannot be opened: {error.strerror}", file=error.filename) from error

    def _close_those_over(self) -> None:
        """Close files of a cache that are due to be opened again, or that were deleted and still take up its disk."""
        for shard in [shard for shard, file in self._files.items() if file.is_over]:
            self._files.pop(shard).close()


def read_arrays(table: ClipTable, clip: int) -> dict[str, NDArray[Any]]:
    """All arrays of a clip, whole.

    Raises:
        DamageError: the clip is gone or damaged.
    """
    arrays = {}
    for name, shape in table.shapes(clip).items():
        arrays[name] = np.empty(shape, dtype=table.arrays[name].dtype)
        table.read_into(clip, name, 0, arrays[name])
    return arrays


def load_index(folder: Folder, info: ShardInfo, specs: Mapping[str, ArraySpec]) -> Index:
    """Read a shard's index and check that it belongs to this shard and is as the manifest says.

    Raises:
        DamageError: it is gone, damaged, or another tar's.
    """
    remedy = f"Make it again from its tar: python -m shards index {folder.location}"
    try:
        with folder.open(info.index_file, None, info.index_sha256) as file:
            path, data = file.path, file.read()
    except FileNotFoundError as error:
        raise DamageError("the index is missing", file=error.filename, remedy=remedy) from error
    if hashlib.sha256(data).hexdigest() != info.index_sha256:
        raise DamageError(f"not the index that was written for {info.file} (SHA-256 differs)", file=path, remedy=remedy)
    index = Index.from_bytes(data, file=path)
    if (index.tar, index.tar_bytes, len(index)) != (info.file, info.bytes, info.samples):
        found = f"{index.tar} of {index.tar_bytes} bytes with {len(index)} samples"
        expected = f"{info.file} of {info.bytes} bytes with {info.samples}"
        raise DamageError(f"an index of another tar: found {found}, expected {expected}", file=path, remedy=remedy)
    for name, spec in specs.items():
        _check_table(index, name, spec, path)
    return index


def _check_table(index: Index, name: str, spec: ArraySpec, path: Path) -> None:
    table = index.arrays.get(name)
    if table is None or table.shape.shape[1] != len(spec.shape) or (table.dtype, table.axes) != (spec.dtype, spec.axes):
        raise DamageError(f"array {name!r} is not as the manifest declares it: {spec}", file=path)
    wrong = np.zeros(len(index), dtype=bool)
    for axis, length in enumerate(spec.shape):
        wrong |= (table.shape[:, axis] != length) if length is not None else (table.shape[:, axis] < 0)
    if table.kind == "raw":
        wrong |= table.size != table.shape.prod(axis=1) * np.dtype(spec.dtype).itemsize
    wrong |= (table.offset < 0) | (table.size < 0) | (table.offset + table.size > index.tar_bytes)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        problem = f"array {name!r} of shape {tuple(table.shape[row].tolist())}, {int(table.size[row])} bytes"
        problem += f"; expected shape {spec.shape} of {spec.dtype} inside the tar's {index.tar_bytes} bytes"
        raise DamageError(problem, file=path, member=str(index.keys[row]), offset=int(table.offset[row]))


class _StaleError(ShardError):
    """The system no longer knows an open file of a network file system."""


def _read_exactly(file: OpenFile, target: memoryview, offset: int, member: str) -> None:
    done = 0
    while done < len(target):
        try:
            num_read = os.preadv(file.descriptor, [target[done:]], offset + done)
        except OSError as error:
            kind = {errno.EIO: DamageError, errno.ESTALE: _StaleError}.get(error.errno or 0, ShardError)
            problem = f"cannot be read: {error.strerror}"
            raise kind(problem, file=file.path, member=member, offset=offset + done) from error
        if num_read == 0:
            problem = f"truncated: the member needs bytes up to {offset + len(target)}, the file ends at {file.length}"
            raise DamageError(problem, file=file.path, member=member, offset=offset, remedy=_REMEDY)
        done += num_read


def _changed(path: Path, member: str, offset: int) -> DamageError:
    problem = "corrupt: the bytes are not those that were written (CRC-32 differs)"
    return DamageError(problem, file=path, member=member, offset=offset, remedy=_REMEDY)
