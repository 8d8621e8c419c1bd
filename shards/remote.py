"""Datasets on another machine, or on a slow disk: fetched shard by shard into a cache on this one.

    manifest --at opening--> names, lengths, SHA-256
    a shard --when first touched--> fetched whole, checked against the manifest, kept by cache.py --> open file

Three ways to fetch: http(s), files of a shared file system, and ``pipe:`` commands. A command is run only if the user
wrote it: it comes from the address that the user gave, never from a manifest or an index, and its words must begin with
an allowed prefix, from the command line or from the user's own file, ``~/.config/odevid/pipes.txt`` ($ODEVID_PIPES
names another; one prefix per line). No shell is involved.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shlex
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from shards.atomic import atomic_file, locked
from shards.cache import AUTOMATIC, Store, Wanted, cache_place, open_store
from shards.errors import DamageError, RefusedError, ShardError
from shards.folder import LocalFolder, OpenFile
from shards.manifest import MANIFEST_FILE, Manifest, check_plain_name

_SLOT = "{shard}"
_TRIES = 3
_TIMEOUT_S = 60.0
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


class Fetcher(Protocol):
    """A way to get files of one dataset. Can be pickled."""

    @property
    def location(self) -> str:
        """The dataset's address as the user gave it."""
        ...

    def fetch(self, file: str, sink: BinaryIO) -> None:
        """Write a file's bytes into ``sink``.

        Raises:
            DamageError: there is no such file.
            ShardError: it could not be fetched.
        """
        ...


@dataclass(frozen=True)
class HttpFetcher:
    """Files at an http(s) address: below it, or where it says ``{shard}``."""

    location: str

    def fetch(self, file: str, sink: BinaryIO) -> None:
        """Get one file; network trouble is tried again, a missing file is not."""
        address = self.location if _SLOT in self.location else f"{self.location.rstrip('/')}/{_SLOT}"
        address = address.replace(_SLOT, file)
        for attempt in range(1, _TRIES + 1):
            try:
                sink.seek(0)
                sink.truncate()
                with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
                    _copy(answer, sink)
                return
            except urllib.error.HTTPError as error:
                if error.code in (404, 410):
                    raise DamageError(f"not found (HTTP {error.code})", file=address) from error
                problem = f"HTTP {error.code} {error.reason}"
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                problem = str(error)
            if attempt < _TRIES:
                time.sleep(attempt)
        raise ShardError(f"{problem} ({_TRIES} tries)", file=address, remedy="Check the address and the network.")


@dataclass(frozen=True)
class FileFetcher:
    """Files of a file system that this machine shares with others: in a folder, or where a path says ``{shard}``."""

    location: str

    def fetch(self, file: str, sink: BinaryIO) -> None:
        """Copy one file."""
        folder = Path(urllib.parse.unquote(self.location.removeprefix("file://")))
        path = Path(str(folder).replace(_SLOT, file)) if _SLOT in self.location else folder / file
        try:
            source = path.open("rb")
        except FileNotFoundError as error:
            raise DamageError("not found", file=path) from error
        except OSError as error:
            raise ShardError(f"cannot be opened: {error.strerror}", file=path) from error
        with source:
            while block := _read_block(source, path):
                sink.write(block)


@dataclass(frozen=True)
class PipeFetcher:
    """Files that a command of the user's writes to its standard output.

    Attributes:
        words: the command; in one or more of them ``{shard}`` stands for the file name.
    """

    words: tuple[str, ...]

    @property
    def location(self) -> str:
        """The command as an address."""
        return "pipe:" + shlex.join(self.words).replace(shlex.quote(_SLOT), _SLOT)

    def fetch(self, file: str, sink: BinaryIO) -> None:
        """Run the command for one file."""
        command = [word.replace(_SLOT, file) for word in self.words]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.PIPE, check=False)
        except OSError as error:
            raise ShardError(f"cannot run {shlex.join(command)}: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise ShardError(f"{shlex.join(command)} ended with status {done.returncode}: {said}")


@dataclass(frozen=True)
class CachedFolder:
    """A remote dataset as a :class:`shards.folder.Folder`: its files come into a store when first touched.

    Attributes:
        fetcher: gets the files.
        store: keeps them.
        home: a folder on this machine with the manifest; what lies there already is used as it is.
    """

    fetcher: Fetcher
    store: Store
    home: LocalFolder | None = None

    @property
    def location(self) -> str:
        """The dataset's address."""
        return self.fetcher.location

    def manifest(self) -> Manifest:
        """The manifest, fetched unless it is at home; it says what every other file must be."""
        if self.home is not None:
            return Manifest.load(self.home.root)
        with tempfile.TemporaryFile() as file:
            self.fetcher.fetch(MANIFEST_FILE, file)
            file.seek(0)
            text = file.read().decode(errors="replace")
        return Manifest.from_json(text, file=f"{self.location} {MANIFEST_FILE}")

    def open(self, file: str, num_bytes: int | None, sha256: str) -> OpenFile:
        """Open a file at home or in the store, where it is fetched whole and checked if it is not there yet."""
        if self.home is not None and (self.home.root / file).exists():
            return self.home.open(file, num_bytes, sha256)
        wanted = Wanted(sha256, num_bytes, f"{self.location} {file}")
        return self.store.open(wanted, lambda sink: self.fetcher.fetch(file, sink))

    def expect(self, manifest: Manifest, split: str) -> None:
        """Warn of a split that is larger than the store may be."""
        self.store.expect(manifest.split(split), f"{self.location} {split}")


def open_remote(
    address: str,
    *,
    home: LocalFolder | None,
    cache: Path | None,
    cache_gb: float = AUTOMATIC,
    allow_pipe: Sequence[str],
) -> CachedFolder:
    """The dataset at an http(s) or file address, or behind a ``pipe:`` command.

    Args:
        address: as the user typed it; a plain path with ``{shard}`` in it is a file address too.
        home: folder on this machine that has the manifest, if there is one.
        cache: folder for fetched files; default ``$ODEVID_CACHE`` or ``~/.cache/odevid``.
        cache_gb: how much may be kept there, in GB; see :func:`shards.cache.open_store`.
        allow_pipe: command prefixes allowed on the command line, besides those of the user's file.

    Raises:
        RefusedError: a ``pipe:`` command that is not allowed.
        ShardError: neither an address nor a command, or no place in it for the file name.
    """
    fetcher: Fetcher
    if address.startswith("pipe:"):
        fetcher = PipeFetcher(allowed_command(address.removeprefix("pipe:"), allow_pipe))
    elif address.startswith(("http://", "https://")):
        fetcher = HttpFetcher(address)
    elif address.startswith(("file:///", "/")):
        fetcher = FileFetcher(address)
    else:
        expected = f"http://..., https://..., file:///..., /path/{_SLOT} or pipe:COMMAND with {_SLOT}"
        raise ShardError(f"shards at {address!r}: expected {expected}")
    if home is not None and _SLOT not in address:
        raise ShardError(f"shards at {address!r}: expected {_SLOT} where the file name goes")
    folder = CachedFolder(fetcher, open_store(cache, cache_gb), home)
    told = folder.store.described()
    _log.warning("%s: remote dataset; each shard is fetched whole when first touched, to %s", address, told)
    return folder


def fetch_tar(address: str, *, cache: Path | None) -> Path:
    """A single tar at an http(s) address, fetched whole into the cache unless it is there.

    Without a manifest there is nothing to check it against, nor a digest to name it by: it is said so, and it lies
    beside the store, outside its bound.

    Raises:
        DamageError: there is no such file.
        ShardError: it could not be fetched.
    """
    base, _, file = address.rpartition("/")
    folder = cache_place(cache) / hashlib.sha256(address.encode()).hexdigest()[:16]
    cached = folder / check_plain_name(file, address)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with locked(cached.with_name(f".{cached.name}.lock")):
        if not cached.exists():
            _log.warning("%s: fetched whole to %s, not checked: it has no manifest", address, cached)
            with atomic_file(cached) as sink:
                HttpFetcher(base).fetch(file, sink)
    return cached


def allowed_command(command: str, allow_pipe: Sequence[str]) -> tuple[str, ...]:
    """The words of a ``pipe:`` command, if the user has allowed it.

    Raises:
        RefusedError: its first words are not those of an allowed prefix.
        ShardError: it has no place for the file name.
    """
    words = tuple(shlex.split(command))
    if not any(_SLOT in word for word in words):
        raise ShardError(f"pipe command {command!r} has no {_SLOT} where the file name goes")
    prefixes = [tuple(shlex.split(prefix)) for prefix in (*allow_pipe, *_users_own_prefixes())]
    if not any(prefix and words[: len(prefix)] == prefix for prefix in prefixes):
        known = "; ".join(shlex.join(prefix) for prefix in prefixes) or "none"
        problem = f"pipe command {command!r} is not allowed; allowed beginnings: {known}"
        remedy = f"If you trust it, write its beginning as a line of {_users_file()}, or allow it on the command line."
        raise RefusedError(problem, remedy=remedy)
    return words


def _users_own_prefixes() -> list[str]:
    try:
        lines = _users_file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _users_file() -> Path:
    return Path(os.environ.get("ODEVID_PIPES") or Path.home() / ".config" / "odevid" / "pipes.txt")


def _copy(answer: http.client.HTTPResponse, sink: BinaryIO) -> None:
    while block := answer.read(_BLOCK):
        sink.write(block)
    expected = answer.headers.get("Content-Length")
    if expected is not None and sink.tell() != int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - sink.tell())


def _read_block(source: BinaryIO, path: Path) -> bytes:
    try:
        return source.read(_BLOCK)
    except OSError as error:
        raise ShardError(f"cannot be read: {error.strerror}", file=path) from error
