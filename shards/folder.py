"""Where a dataset's files are, and how a reader gets them as local files.

open_folder("data/kth")                       a folder on this machine
open_folder("https://host/kth")               fetched shard by shard, see remote.py
open_folder("pipe:ssh host cat kth/{shard}")  fetched by a command that the user has allowed, see remote.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, Manifest

_REMOTE = ("http:", "https:", "pipe:")


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

    def path(self, file: str, num_bytes: int | None, sha256: str) -> Path:
        """A local path of one of the manifest's files, fetched first if need be.

        Args:
            file: plain name.
            num_bytes: its length according to the manifest, None if that is not known.
            sha256: its digest according to the manifest.

        Raises:
            DamageError: it is gone, or (when fetched) not what the manifest says.
            ShardError: it could not be fetched.
        """
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

    def path(self, file: str, num_bytes: int | None, sha256: str) -> Path:  # noqa: ARG002 - checked by the reader
        """The path of a file of the folder, whether it exists or not."""
        return self.root / file


@dataclass(frozen=True)
class SingleTar:
    """One tar without a manifest, here or at an http(s) address."""

    location: str

    def manifest(self) -> None:
        """There is none."""

    def path(self, file: str, num_bytes: int | None, sha256: str) -> Path:  # noqa: ARG002 - as the protocol has it
        """No manifest names any file here."""
        raise ShardError("a single tar has no files of a manifest", file=self.location)


def open_folder(
    root: Path | str,
    *,
    shard_url: str | None = None,
    cache: Path | None = None,
    allow_pipe: Sequence[str] = (),
) -> Folder:
    """The folder that ``root`` names.

    Args:
        root: a path, an http(s) address, or a ``pipe:`` command with ``{shard}`` where the file name goes.
        shard_url: where the tars are, if not beside the manifest: an address or command with ``{shard}`` in it.
            It is the user's word; a manifest cannot name one.
        cache: where fetched shards are kept; default ``$ODEVID_CACHE`` or ``~/.cache/odevid``.
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
        return open_remote(shard_url or text, home=home, cache=cache, allow_pipe=allow_pipe)
    return LocalFolder(Path(root))
