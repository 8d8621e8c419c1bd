"""Where each sample lies in a tar: ``{split}-000000.index.npz`` beside ``{split}-000000.tar``.

In: a tar, or the places that a writer noted. Out: a table, one row per sample, with which a reader goes straight to the
bytes it wants and can tell whether they are those that were written.

The file is a plain .npz (read with ``allow_pickle=False``). N samples, A an array's name, D its number of axes:

    header          JSON: format, version, tar file, its length, and per array its dtype, axes and encoding
    keys            N names
    begin, end      int64 N: first and last byte + 1 of the sample in the tar, headers included
    json            int64 N, 3: offset, length, CRC-32 of the sample's .json member
    A.offset        int64 N: first byte of the array's data
    A.size          int64 N: its length in bytes
    A.shape         int64 N, D
    A.crc           uint32: CRC-32 of each piece of all samples in turn. A raw array with a time axis has one piece per
                    frame, so that a window is checked by reading only its frames; any other member is one piece
    A.piece         int64 N + 1: row i's pieces are A.crc[A.piece[i] : A.piece[i + 1]]
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.checksum import crc32
from shards.encoding import Kind
from shards.errors import DamageError
from shards.manifest import ArraySpec

FORMAT = "odevid-index"
VERSION = 1


@dataclass(frozen=True)
class MemberPlace:
    """One array of one sample in a tar: where its bytes are, its shape, and the CRC-32 of each of its pieces."""

    offset: int
    size: int
    shape: tuple[int, ...]
    crcs: tuple[int, ...]


@dataclass(frozen=True)
class SamplePlace:
    """One sample in a tar: the bytes it covers (``begin`` to ``end``), its arrays, and its .json member."""

    key: str
    begin: int
    end: int
    arrays: dict[str, MemberPlace]
    json: tuple[int, int, int]


@dataclass(frozen=True)
class ArrayTable:
    """One array of all samples of a tar; columns as described at the head of this file."""

    dtype: str
    axes: str
    kind: Kind
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    shape: NDArray[np.int64]
    crc: NDArray[np.uint32]
    piece: NDArray[np.int64]

    def crcs(self, row: int) -> list[int]:
        """CRC-32 of each piece of one sample."""
        return self.crc[self.piece[row] : self.piece[row + 1]].tolist()


@dataclass(frozen=True)
class Index:
    """Table of one tar."""

    tar: str
    tar_bytes: int
    keys: NDArray[np.str_]
    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    json: NDArray[np.int64]
    arrays: dict[str, ArrayTable]

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def from_places(
        cls,
        tar: str,
        tar_bytes: int,
        places: list[SamplePlace],
        specs: Mapping[str, ArraySpec],
        kinds: Mapping[str, Kind],
    ) -> Index:
        """Table of the samples of a tar, in their order there."""
        return cls(
            tar=tar,
            tar_bytes=tar_bytes,
            keys=np.array([place.key for place in places], dtype=np.str_),
            begin=_column([place.begin for place in places]),
            end=_column([place.end for place in places]),
            json=_column([place.json for place in places]),
            arrays={name: _array_table([p.arrays[name] for p in places], specs[name], kinds[name]) for name in specs},
        )

    def to_bytes(self) -> bytes:
        """The index file: the same table gives the same bytes."""
        columns: dict[str, Any] = {"keys": self.keys, "begin": self.begin, "end": self.end, "json": self.json}
        arrays = {}
        for name, table in self.arrays.items():
            arrays[name] = {"dtype": table.dtype, "axes": table.axes, "kind": table.kind}
            for column in ("offset", "size", "shape", "crc", "piece"):
                columns[f"{name}.{column}"] = getattr(table, column)
        header = {"format": FORMAT, "version": VERSION, "tar": self.tar, "tar_bytes": self.tar_bytes, "arrays": arrays}
        file = io.BytesIO()
        np.savez(file, header=np.array(json.dumps(header)), **columns)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, *, file: object) -> Index:
        """Read an index file; nothing in it is unpickled.

        Args:
            data: the file's bytes.
            file: named in errors.

        Raises:
            DamageError: it is not a complete index.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as columns:
                header = json.loads(str(columns["header"]))
                if (header["format"], header["version"]) != (FORMAT, VERSION):
                    raise ValueError(f"format {header['format']}, version {header['version']}")
                index = cls(
                    tar=header["tar"],
                    tar_bytes=int(header["tar_bytes"]),
                    keys=columns["keys"],
                    begin=columns["begin"],
                    end=columns["end"],
                    json=columns["json"],
                    arrays={name: _table_from(columns, name, about) for name, about in header["arrays"].items()},
                )
            index._check_lengths()
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            remedy = "Make it again from its tar: python -m shards index DIR"
            raise DamageError(f"not a readable index: {error}", file=file, remedy=remedy) from error
        return index

    def _check_lengths(self) -> None:
        lengths = [len(self.begin), len(self.end), len(self.json)]
        for table in self.arrays.values():
            lengths += [len(table.offset), len(table.size), len(table.shape), len(table.piece) - 1]
            if len(table.crc) != table.piece[-1]:
                raise ValueError("checksums do not fit the samples")
        if any(length != len(self.keys) for length in lengths):
            raise ValueError(f"columns of {sorted(set(lengths))} rows for {len(self.keys)} keys")


def piece_crcs(data: bytes | memoryview, shape: tuple[int, ...], spec: ArraySpec, kind: Kind) -> tuple[int, ...]:
    """CRC-32 of each piece of a member: of each frame if it is raw with a time axis, else of the whole."""
    if kind != "raw" or not spec.has_time:
        return (crc32(data),)
    length = len(data) // max(shape[0], 1)
    view = memoryview(data)
    return tuple(crc32(view[frame * length : (frame + 1) * length]) for frame in range(shape[0]))


def _column(values: list[Any]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _array_table(places: list[MemberPlace], spec: ArraySpec, kind: Kind) -> ArrayTable:
    counts = [len(place.crcs) for place in places]
    return ArrayTable(
        dtype=spec.dtype,
        axes=spec.axes,
        kind=kind,
        offset=_column([place.offset for place in places]),
        size=_column([place.size for place in places]),
        shape=_column([place.shape for place in places]).reshape(len(places), len(spec.axes)),
        crc=np.array([crc for place in places for crc in place.crcs], dtype=np.uint32),
        piece=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def _table_from(columns: Any, name: str, about: Mapping[str, str]) -> ArrayTable:
    kind = about["kind"]
    if kind not in ("raw", "zstd", "mp4"):
        raise ValueError(f"encoding {kind!r}")
    named = {column: columns[f"{name}.{column}"] for column in ("offset", "size", "shape", "crc", "piece")}
    return ArrayTable(dtype=about["dtype"], axes=about["axes"], kind=kind, **named)  # type: ignore[arg-type]
