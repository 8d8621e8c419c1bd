"""What a built dataset says about itself: ``DIR/manifest.json``.

In: the facts that the writer gathered. Out: the same facts, checked, for readers, launchers and people.
Pure Python, so that a login node can read it at once.

    DIR/manifest.json                what is here: arrays, splits, shards, checksums, provenance, fingerprint
    DIR/train-000000.tar             a plain WebDataset tar
    DIR/train-000000.index.npz       where each sample lies in it (see index.py)

Axis letters: B batch, T frames, N samples, C channels, H height, W width.
A manifest is data: nothing in it is ever run, and the file names in it may not leave the dataset's folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import RefusedError, ShardError

MANIFEST_FILE = "manifest.json"
FORMAT = "odevid-shards"
VERSION = 1
DTYPES = ("uint8", "int16", "int32", "int64", "float32", "float64")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ArraySpec:
    """One named array of a sample.

    Attributes:
        dtype: numpy name of the element type, one of ``DTYPES``.
        axes: one letter per axis. A leading ``T`` is the time axis: such arrays are cut into windows of frames.
        shape: length of each axis; None where samples differ.
        range: smallest and largest value that may occur; a uint8 video has (0, 255) and is scaled to [0, 1] by it.
    """

    dtype: str
    axes: str
    shape: tuple[int | None, ...]
    range: tuple[float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "range", (float(self.range[0]), float(self.range[1])))
        if self.dtype not in DTYPES:
            raise ShardError(f"array dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if len(self.axes) != len(self.shape):
            raise ShardError(f"axes {self.axes!r} name {len(self.axes)} axes, shape {self.shape} has {len(self.shape)}")
        if not self.range[0] <= self.range[1]:
            raise ShardError(f"array range {self.range} is empty: the smallest value comes first")

    @property
    def has_time(self) -> bool:
        """Whether the first axis is time, in frames."""
        return self.axes.startswith("T")

    def admits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Whether an array of this dtype and shape is as declared."""
        fits = all(want is None or want == have for want, have in zip(self.shape, shape, strict=False))
        return dtype == self.dtype and len(shape) == len(self.shape) and fits


def video_spec(
    num_frames: int | None = None, channels: int | None = None, height: int | None = None, width: int | None = None
) -> ArraySpec:
    """The usual array of a clip: uint8 TCHW with values 0 to 255; None where clips differ."""
    return ArraySpec("uint8", "TCHW", (num_frames, channels, height, width), (0.0, 255.0))


@dataclass(frozen=True)
class ShardInfo:
    """One tar file: its name in the dataset's folder, number of samples, length in bytes, checksums."""

    file: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str

    @property
    def index_file(self) -> str:
        """Name of the index that lies beside the tar."""
        return self.file.removesuffix(".tar") + ".index.npz"


@dataclass(frozen=True)
class SplitInfo:
    """One split: the arrays each of its samples has, its shards in order, and a digest of its contents.

    ``content`` depends on the samples (keys, shapes, values, order), not on shard size or on a lossless encoding.
    """

    arrays: tuple[str, ...]
    shards: tuple[ShardInfo, ...]
    content: str

    @property
    def samples(self) -> int:
        """Number of samples in the split."""
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Length of all its tar files."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """A dataset's description.

    Attributes:
        name: short name, such as ``kth-64``.
        arrays: every named array that occurs in a split.
        fps: frames per second, None where the dataset has no physical rate.
        encoding: how uint8 arrays are stored, see encoding.py.
        splits: by name, in the order they were written.
        provenance: free-form JSON: command, source, generator settings. Never acted upon by the reader of shards.
    """

    name: str
    arrays: dict[str, ArraySpec]
    fps: float | None
    encoding: str
    splits: dict[str, SplitInfo]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Digest of the contents of all splits: equal for two datasets with the same samples, however sharded."""
        return _digest({"arrays": _specs_as_json(self.arrays), "fps": self.fps, "splits": self._contents()})

    def split_fingerprint(self, split: str) -> str:
        """Digest of one split's contents; the order of training is derived from it.

        Raises:
            ShardError: there is no such split.
        """
        info = self.split(split)
        specs = {name: self.arrays[name] for name in info.arrays}
        return _digest({"arrays": _specs_as_json(specs), "content": info.content})

    def split(self, split: str) -> SplitInfo:
        """The named split.

        Raises:
            ShardError: there is no such split.
        """
        if split not in self.splits:
            problem = f"dataset {self.name!r} has no split {split!r}; it has: {', '.join(self.splits)}"
            raise ShardError(problem, remedy="Name one of them, or build the dataset with that split.")
        return self.splits[split]

    def _contents(self) -> dict[str, str]:
        return {name: info.content for name, info in self.splits.items()}

    def to_json(self) -> str:
        """The text of ``manifest.json``: the same dataset gives the same bytes."""
        head = {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint}
        return json.dumps(head | asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, *, file: object = MANIFEST_FILE) -> Manifest:
        """Read and check the text of a manifest.

        Args:
            text: JSON.
            file: named in errors.

        Raises:
            ShardError: not JSON, another format or version, missing fields, or a fingerprint that does not fit.
            RefusedError: a shard name that is not a plain file name (a path, an address or a ``pipe:`` command).
        """
        try:
            raw = json.loads(text)
        except json.JSONDecodeError as error:
            raise ShardError(f"not valid JSON: {error}", file=file, remedy="Build the dataset again.") from error
        _check_header(raw, file)
        try:
            manifest = cls(
                name=str(raw["name"]),
                arrays={name: ArraySpec(**spec) for name, spec in raw["arrays"].items()},
                fps=raw["fps"],
                encoding=str(raw["encoding"]),
                splits={name: _split_from_json(info) for name, info in raw["splits"].items()},
                provenance=raw["provenance"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ShardError(f"incomplete manifest: {error!r}", file=file, remedy="Build the dataset again.") from error
        manifest._check_names(file)
        if raw["fingerprint"] != manifest.fingerprint:
            problem = f"fingerprint {raw['fingerprint']} is not that of the contents listed, {manifest.fingerprint}"
            raise ShardError(problem, file=file, remedy="The manifest was edited or mixed up; build the dataset again.")
        return manifest

    def _check_names(self, file: object) -> None:
        for info in self.splits.values():
            for shard in info.shards:
                check_plain_name(shard.file, file)
            unknown = [name for name in info.arrays if name not in self.arrays]
            if unknown:
                raise ShardError(f"a split has undeclared arrays {unknown}", file=file)

    @classmethod
    def load(cls, root: Path | str) -> Manifest:
        """Read ``root/manifest.json``.

        Raises:
            ShardError: there is none, or it is not valid (see :meth:`from_json`).
        """
        path = Path(root) / MANIFEST_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            remedy = "Build a dataset there: python -m shards build --help"
            raise ShardError("no such file, so no dataset here", file=path, remedy=remedy) from error
        return cls.from_json(text, file=path)

    def save(self, root: Path | str) -> Path:
        """Write ``root/manifest.json`` in one atomic step and return its path."""
        from shards.atomic import write_atomically

        path = Path(root) / MANIFEST_FILE
        write_atomically(path, self.to_json().encode())
        return path


def check_plain_name(name: str, file: object) -> str:
    """Return ``name`` if it can only mean a file directly in the dataset's folder.

    Raises:
        RefusedError: it holds a path, an address, a ``pipe:`` command or an unusual character.
    """
    if not _PLAIN_NAME.fullmatch(name):
        problem = f"shard name {name!r} is not a plain file name (letters, digits, dot, dash, underscore)"
        remedy = "A manifest may name neither paths nor addresses nor commands. Build the dataset again."
        raise RefusedError(problem, file=file, remedy=remedy)
    return name


def _check_header(raw: Any, file: object) -> None:
    found = (raw.get("format"), raw.get("version")) if isinstance(raw, dict) else (None, None)
    if found != (FORMAT, VERSION):
        remedy = "Build the dataset again with this version: python -m shards build --help"
        raise ShardError(f"found format, version {found}, expected {(FORMAT, VERSION)}", file=file, remedy=remedy)


def _split_from_json(raw: Mapping[str, Any]) -> SplitInfo:
    shards = tuple(ShardInfo(**shard) for shard in raw["shards"])
    return SplitInfo(arrays=tuple(raw["arrays"]), shards=shards, content=raw["content"])


def _specs_as_json(arrays: Mapping[str, ArraySpec]) -> dict[str, Any]:
    return {name: asdict(spec) for name, spec in sorted(arrays.items())}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
