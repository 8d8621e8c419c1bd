"""Where a dataset's files are, and how a reader gets them as local files.

open_folder("data/kth")                       a folder on this machine
open_folder("https://host/kth")               fetched shard by shard, see remote.py
open_folder("file:///lustre/kth")             copied shard by shard to this machine's own disk, see remote.py
open_folder("pipe:ssh host cat kth/{shard}")  fetched by a command that the user has allowed, see remote.py
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, Manifest

_REMOTE = ("http:", "https:", "file:", "pipe:")


@dataclass(frozen=True)
class OpenFile:
    """A file open for reading; it can be read even if it is deleted meanwhile.

    Attributes:
        path: where it lay, for messages.
        descriptor: of the open file.
        length: in bytes, when it was opened.
        suspect: its length is not the one that was written.
        due: time (of ``time.monotonic``) from which it should be opened again to be read on; inf: never. Opening it
            tells a cache that it is in use, and lets go of one that was deleted to make room.
    """

    path: Path
    descriptor: int
    length: int
    suspect: bool
    due: float = math.inf

    @classmethod
    def at(cls, path: Path, num_bytes: int | None, *, name: Path | None = None, keep_s: float = math.inf) -> OpenFile:
        """Open a file.

        Args:
            path: where it is.
            num_bytes: the length it should have; None if that is not known.
            name: the path for messages, if it is another one.
            keep_s: seconds from now to ``due``.

        Raises:
            OSError: as the system says.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        length = os.fstat(descriptor).st_size
        suspect = num_bytes is not None and length != num_bytes
        return cls(name or path, descriptor, length, suspect, time.monotonic() + keep_s)

    @property
    def is_over(self) -> bool:
        """Whether it belongs to a cache, and is due or was deleted to make room."""
        return self.due < math.inf and (self.due < time.monotonic() or os.fstat(self.descriptor).st_nlink == 0)

    def read(self) -> bytes:
        """All its bytes.

        Raises:
            OSError: as the system says.
        """
        with open(self.descriptor, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Folder(Protocol):
    """A dataset's folder. Can be pickled."""

    @property
    def location(self) -> str:
        """The folder as a person would name it; used in messages."""
        ...

    def manifest(self) -> Manifest | None:
        """The manifest, or None if the folder is there without one.

        Raises:
            ShardError: there is a manifest that is not valid, or no such folder.
        """
        ...

    def open(self, file: str, num_bytes: int | None, sha256: str) -> OpenFile:
        """Open one of the manifest's files, fetched first if need be.

        Args:
            file: plain name.
            num_bytes: its length according to the manifest, None if that is not known.
            sha256: its digest according to the manifest.

        Raises:
            FileNotFoundError: it is gone.
            DamageError: it was fetched, and is not what the manifest says.
            ShardError: it could not be fetched.
        """
        ...

    def expect(self, manifest: Manifest, split: str) -> None:
        """Hear that a split is going to be read in random order, and say so if that will go badly."""
        ...


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine. Files are given as they are; whoever reads them checks them."""

    root: Path

    @property
    def location(self) -> str:
        """The path."""
        return str(self.root)

    def manifest(self) -> Manifest | None:
        """The manifest, None if there is none."""
        if self.root.is_dir() and not (self.root / MANIFEST_FILE).exists():
            return None
        return Manifest.load(self.root)

    def open(self, file: str, num_bytes: int | None, sha256: str) -> OpenFile:  # noqa: ARG002 - checked by the reader
        """Open a file of the folder."""
        return OpenFile.at(self.root / file, num_bytes)

    def expect(self, manifest: Manifest, split: str) -> None:
        """Any order will do."""


@dataclass(frozen=True)
class SingleTar:
    """One tar without a manifest, here or at an http(s) address."""

    location: str

    def manifest(self) -> None:
        """There is none."""

    def open(self, file: str, num_bytes: int | None, sha256: str) -> OpenFile:  # noqa: ARG002 - as the protocol has it
        """No manifest names any file here."""
        raise ShardError("a single tar has no files of a manifest", file=self.location)

    def expect(self, manifest: Manifest, split: str) -> None:
        """Any order will do."""


def open_folder(
    root: Path | str,
    *,
    shard_url: str | None = None,
    cache: Path | None = None,
    cache_gb: float = -1.0,
    allow_pipe: Sequence[str] = (),
) -> Folder:
    """The folder that ``root`` names.

    Args:
        root: a path, an http(s) or file address, or a ``pipe:`` command with ``{shard}`` where the file name goes.
        shard_url: where the tars are, if not beside the manifest: an address, path or command with ``{shard}`` in it.
            It is the user's word; a manifest cannot name one.
        cache: where fetched shards are kept; default ``$ODEVID_CACHE`` or ``~/.cache/odevid``.
        cache_gb: how much may be kept there, in GB; 0: as much as the disk has; negative: see cache.py.
        allow_pipe: command prefixes that the user allows on the command line, besides those of the user's own file.

    Raises:
        RefusedError: a ``pipe:`` command that the user has not allowed.
        ShardError: ``shard_url`` has no ``{shard}``, or is neither an address nor a command.
    """
    text = str(root)
    if text.endswith(".tar"):
        return SingleTar(text)
    if shard_url or text.startswith(_REMOTE):
        from shards.remote import open_remote

        home = None if text.startswith(_REMOTE) else LocalFolder(Path(root))
        return open_remote(shard_url or text, home=home, cache=cache, cache_gb=cache_gb, allow_pipe=allow_pipe)
    return LocalFolder(Path(root))
