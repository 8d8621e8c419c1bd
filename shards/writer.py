"""From samples to a dataset folder: plain WebDataset tars, an index beside each, a manifest.

    Sample(key, arrays) --encode--> KEY.video.raw, KEY.json in {split}-000000.tar --> index --> manifest.json (last)

The same samples give the same bytes: members carry no time, user or order of their own. The folder takes its name only
when everything in it is on disk, so a build that fails (full disk, a stop, a bad sample) leaves nothing behind.

Any WebDataset reader can stream the tars. A member KEY.video.raw holds the array's bytes; KEY.json says of each array
its dtype, shape and encoding, and under "meta" whatever the builder wanted to keep about the sample.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.atomic import atomic_folder, write_atomically
from shards.checksum import crc32
from shards.encoding import EXTENSIONS, Encoding, Kind, encode
from shards.errors import ShardError, is_disk_full
from shards.index import Index, MemberPlace, SamplePlace, piece_crcs
from shards.manifest import ArraySpec, Manifest, ShardInfo, SplitInfo

_KEY = re.compile(r"[A-Za-z0-9_=+-]+(/[A-Za-z0-9_=+-]+)*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Sample:
    """One sample to write.

    Attributes:
        key: unique in its split; letters, digits and ``_ - = + /``, no dots (WebDataset cuts names at the first dot).
        arrays: by name, as the dataset's specs declare them; ``video`` is uint8 TCHW.
        meta: anything JSON can hold: class, source file, start frame.
    """

    key: str
    arrays: Mapping[str, NDArray[Any]]
    meta: Mapping[str, Any] = field(default_factory=dict)


class TarWriter:
    """Writes one tar of a dataset and the index beside it.

    Args:
        path: of the tar; ``{split}-000000.tar``.
        specs: the arrays that each of its samples has.
        encoding: how uint8 arrays are stored.
        fps: written into mp4 members for players.
    """

    def __init__(
        self, path: Path, specs: Mapping[str, ArraySpec], *, encoding: Encoding, fps: float | None = None
    ) -> None:
        self._specs = specs
        self._encoding = encoding
        self._fps = fps
        self._keys: set[str] = set()
        self._tar = _Tar(path)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, sample: Sample) -> bytes:
        """Write one sample; returns the digest of its contents (see :class:`ContentDigest`).

        Raises:
            ShardError: its key or arrays are not as declared.
            OSError: as the file system says.
        """
        check_sample(sample, self._specs)
        if sample.key in self._keys:
            raise ShardError(f"key {sample.key!r} occurs twice in {self._tar.path.name}")
        self._keys.add(sample.key)
        payloads = {}
        for name in self._specs:
            payloads[name] = encode(sample.arrays[name], self._kind(name), crf=self._encoding.crf, fps=self._fps)
        self._tar.places.append(self._write(sample, payloads))
        return sample_digest(sample, {} if self._encoding.is_exact else self._inexact(payloads))

    def close(self) -> ShardInfo:
        """End the tar, write its index, flush both to disk; returns what the manifest says of it."""
        num_bytes, sha256 = self._tar.close()
        kinds = {name: self._kind(name) for name in self._specs}
        path = self._tar.path
        index = Index.from_places(path.name, num_bytes, self._tar.places, self._specs, kinds).to_bytes()
        info = ShardInfo(path.name, len(self), num_bytes, sha256, hashlib.sha256(index).hexdigest())
        write_atomically(path.parent / info.index_file, index)
        return info

    def abandon(self) -> None:
        """Close the file after an error; it stays as it is."""
        self._tar.file.close()

    def _inexact(self, payloads: Mapping[str, bytes]) -> dict[str, bytes]:
        return {name: data for name, data in payloads.items() if self._kind(name) == "mp4"}

    def _write(self, sample: Sample, payloads: Mapping[str, bytes]) -> SamplePlace:
        tar = self._tar
        begin = tar.length
        members, about = {}, {}
        for name, spec in self._specs.items():
            kind, shape, data = self._kind(name), sample.arrays[name].shape, payloads[name]
            offset = tar.add(f"{sample.key}.{name}.{EXTENSIONS[kind]}", data)
            members[name] = MemberPlace(offset, len(data), shape, piece_crcs(data, shape, spec, kind))
            about[name] = {"dtype": spec.dtype, "shape": list(shape), "axes": spec.axes, "encoding": kind}
        text = json.dumps(about | ({"meta": dict(sample.meta)} if sample.meta else {})).encode()
        offset = tar.add(f"{sample.key}.json", text)
        return SamplePlace(sample.key, begin, tar.length, members, (offset, len(text), crc32(text)))

    def _kind(self, name: str) -> Kind:
        return self._encoding.kind_for(self._specs[name])


class ShardWriter:
    """Writes one split of a dataset into a folder, shard after shard.

    Args:
        folder: where; it exists.
        split: name of the split, and beginning of its files' names.
        arrays: declarations; the first sample says which of them every sample of the split has.
        encoding: how uint8 arrays are stored.
        samples_per_shard: samples in each tar but the last.
        fps: written into mp4 members for players.

    Raises:
        ShardError: a name cannot be used in a file name.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        arrays: Mapping[str, ArraySpec],
        *,
        encoding: Encoding,
        samples_per_shard: int,
        fps: float | None = None,
    ) -> None:
        check_names(split, arrays)
        if samples_per_shard < 1:
            raise ShardError(f"samples per shard must be at least 1, found {samples_per_shard}")
        self._folder = folder
        self._split = split
        self._arrays = arrays
        self._specs: dict[str, ArraySpec] = {}
        self._encoding = encoding
        self._samples_per_shard = samples_per_shard
        self._fps = fps
        self._keys: set[str] = set()
        self._content = ContentDigest()
        self._shards: list[ShardInfo] = []
        self._tar: TarWriter | None = None

    def add(self, sample: Sample) -> None:
        """Write one sample.

        Raises:
            ShardError: its key or arrays are not as declared.
            OSError: as the file system says.
        """
        if not self._keys:
            self._specs = _specs_of(sample, self._arrays)
        if sample.key in self._keys:
            raise ShardError(f"key {sample.key!r} occurs twice in split {self._split!r}")
        self._keys.add(sample.key)
        if self._tar is None:
            path = self._folder / f"{self._split}-{len(self._shards):06d}.tar"
            self._tar = TarWriter(path, self._specs, encoding=self._encoding, fps=self._fps)
        self._content.add(self._tar.add(sample))
        if len(self._tar) == self._samples_per_shard:
            self._finish_shard()

    def close(self) -> SplitInfo:
        """Finish the last shard and describe the split.

        Raises:
            ShardError: the split has no sample.
        """
        self._finish_shard()
        if not self._shards:
            raise ShardError(f"split {self._split!r} has no samples", remedy="Check the source folder and its options.")
        return SplitInfo(tuple(self._specs), tuple(self._shards), self._content.hexdigest())

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:  # after an error; what was written goes with its folder
            self._tar.abandon()

    def _finish_shard(self) -> None:
        if self._tar is not None:
            tar, self._tar = self._tar, None
            self._shards.append(tar.close())


class ContentDigest:
    """Digest of a split's samples in order, whatever the shard size: of the digests of its samples in turn."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, digest: bytes) -> None:
        """Take in the next sample by its :func:`sample_digest`."""
        self._digest.update(digest)

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._digest.hexdigest()


def sample_digest(sample: Sample, inexact: Mapping[str, bytes]) -> bytes:
    """Digest of one sample's contents: key, metadata, values.

    Exact encodings give the same digest; an inexact one is digested as stored, since other values come out of it.

    Args:
        sample: what was given or read.
        inexact: the stored bytes of the arrays that are not stored exactly.
    """
    one = hashlib.sha256(json.dumps([sample.key, dict(sample.meta)], sort_keys=True).encode())
    for name in sorted(sample.arrays):
        array = sample.arrays[name]
        one.update(json.dumps([name, str(array.dtype), array.shape, name in inexact]).encode())
        one.update(inexact[name] if name in inexact else np.ascontiguousarray(array).data)
    return one.digest()


def check_names(split: str, arrays: Iterable[str]) -> None:
    """Raise ShardError unless a split and its arrays can be named so in files."""
    for name in (split, *arrays):
        if not _NAME.fullmatch(name) or name == "json":
            raise ShardError(f"name {name!r} of a split or array: need letters, digits, underscore, a letter first")


def check_sample(sample: Sample, specs: Mapping[str, ArraySpec]) -> None:
    """Raise ShardError unless a sample's key can be used and its arrays are as declared."""
    if not _KEY.fullmatch(sample.key):
        raise ShardError(f"key {sample.key!r}: need letters, digits and _ - = + /, no dots")
    if set(sample.arrays) != set(specs):
        problem = f"sample {sample.key!r} has arrays {sorted(sample.arrays)}, expected {sorted(specs)}"
        raise ShardError(f"{problem}, as the others of its split")
    for name, spec in specs.items():
        check_array(sample.key, name, sample.arrays[name], spec)
    lengths = {name: len(sample.arrays[name]) for name, spec in specs.items() if spec.has_time}
    if len(set(lengths.values())) > 1:
        raise ShardError(f"arrays of sample {sample.key!r} differ in their number of frames: {lengths}")


def write_dataset(
    out: Path | str,
    name: str,
    splits: Mapping[str, Iterable[Sample]],
    arrays: Mapping[str, ArraySpec],
    *,
    encoding: str = "raw",
    samples_per_shard: int = 1024,
    fps: float | None = None,
    provenance: Mapping[str, Any] | None = None,
    on_sample: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a whole dataset, or nothing.

    Args:
        out: its folder; missing or empty.
        name: short name for the manifest.
        splits: samples of each split. The first sample of a split says which of ``arrays`` the split has.
        arrays: declaration of every array.
        encoding: ``raw``, ``zstd``, ``mp4`` or ``mp4:CRF``, see encoding.py.
        samples_per_shard: samples in a tar; aim at some 100 MB to 1 GB.
        fps: frames per second, None if the frames have no physical rate.
        provenance: kept in the manifest: command, source, generator settings.
        on_sample: hears the split's name after each sample, for a progress bar.

    Returns:
        The manifest, as saved.

    Raises:
        ShardError: a sample is not as declared, the folder is taken, or the disk is full.
    """
    out = Path(out)
    how = Encoding.parse(encoding)
    try:
        with atomic_folder(out) as folder:
            written: dict[str, SplitInfo] = {}
            for split, samples in splits.items():
                writer = ShardWriter(folder, split, arrays, encoding=how, samples_per_shard=samples_per_shard, fps=fps)
                with writer:
                    for sample in samples:
                        writer.add(sample)
                        on_sample(split)
                    written[split] = writer.close()
            manifest = Manifest(name, dict(arrays), fps, encoding, written, dict(provenance or {}))
            manifest.save(folder)
    except OSError as error:
        if not is_disk_full(error):
            raise
        problem = f"no room to write the dataset ({os.strerror(error.errno or errno.ENOSPC)}); nothing was left behind"
        remedy = f"Free space (see: df -h {out.absolute().parent}) or choose another folder, then build again."
        raise ShardError(problem, file=out, remedy=remedy) from error
    return manifest


def check_array(key: str, name: str, array: NDArray[Any], spec: ArraySpec) -> None:
    """Raise ShardError unless an array of sample ``key`` has the dtype, shape and range declared."""
    if not spec.admits(str(array.dtype), array.shape):
        found, expected = f"{array.dtype} {array.shape}", f"{spec.dtype} {spec.shape} (axes {spec.axes})"
        raise ShardError(f"array {name!r} of sample {key!r} is {found}, expected {expected}")
    low, high = spec.range
    if array.size and (spec.dtype, low, high) != ("uint8", 0.0, 255.0):
        smallest, largest = float(array.min()), float(array.max())
        if not (low <= smallest and largest <= high):
            problem = f"array {name!r} of sample {key!r} has values from {smallest:g} to {largest:g}"
            raise ShardError(
                f"{problem}, expected {low:g} to {high:g}", remedy="Correct the data or the declared range."
            )


def _specs_of(sample: Sample, arrays: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    unknown = set(sample.arrays) - set(arrays)
    if unknown:
        raise ShardError(f"sample {sample.key!r} has undeclared arrays {sorted(unknown)}; declared: {sorted(arrays)}")
    return {name: spec for name, spec in arrays.items() if name in sample.arrays}


class _Tar:
    """A tar being written: notes where things lie and digests the bytes on their way to the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("wb")
        self.length = 0
        self.places: list[SamplePlace] = []
        self._digest = hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Append a member; returns the offset of its data."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        self._put(member.tobuf(tarfile.PAX_FORMAT))
        offset = self.length
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))
        return offset

    def close(self) -> tuple[int, str]:
        """End the tar as POSIX asks, flush it to disk; returns its length in bytes and its SHA-256."""
        self._put(bytes(2 * _BLOCK))
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return self.length, self._digest.hexdigest()

    def _put(self, data: bytes) -> None:
        self.file.write(data)
        self._digest.update(data)
        self.length += len(data)
