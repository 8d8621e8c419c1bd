"""Datasets on another machine: fetched shard by shard into a cache folder on this one.

    manifest --at opening--> names, lengths, SHA-256
    a shard --when first touched--> fetched whole, checked against the manifest, renamed into the cache --> local path

Two ways to fetch: http(s), and ``pipe:`` commands. A command is run only if the user wrote it: it comes from the
address that the user gave, never from a manifest or an index, and its words must begin with an allowed prefix, from the
command line or from the user's own file, ``~/.config/odevid/pipes.txt`` ($ODEVID_PIPES names another; one prefix per
line). No shell is involved.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from shards.atomic import atomic_file, locked
from shards.checksum import sha256_of_file
from shards.errors import DamageError, RefusedError, ShardError, is_disk_full
from shards.folder import LocalFolder
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
    """A remote dataset as a :class:`shards.folder.Folder`: its files appear in a cache folder when first touched.

    Files are named after their contents, so that two datasets, or two versions of one, never meet.

    Attributes:
        fetcher: gets the files.
        cache: where they go.
        home: a folder on this machine with the manifest; what lies there already is used as it is.
    """

    fetcher: Fetcher
    cache: Path
    home: LocalFolder | None = None

    @property
    def location(self) -> str:
        """The dataset's address."""
        return self.fetcher.location

    def manifest(self) -> Manifest:
        """The manifest, fetched unless it is at home; it says what every other file must be."""
        if self.home is not None:
            return Manifest.load(self.home.root)
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"manifest.{os.getpid()}.{time.monotonic_ns()}.json"
        try:
            with path.open("w+b") as file:
                self.fetcher.fetch(MANIFEST_FILE, file)
            text = path.read_text(encoding="utf-8", errors="replace")
        finally:
            path.unlink(missing_ok=True)
        return Manifest.from_json(text, file=f"{self.location} {MANIFEST_FILE}")

    def path(self, file: str, num_bytes: int | None, sha256: str) -> Path:
        """The file in the cache, fetched whole and checked if it is not there yet; safe for many processes at once."""
        if self.home is not None and (self.home.root / file).exists():
            return self.home.root / file
        self.cache.mkdir(parents=True, exist_ok=True)
        cached = self.cache / f"{sha256[:20]}-{file}"
        if cached.exists():
            return cached
        with locked(cached.with_name(f".{cached.name}.lock")):
            if not cached.exists():
                self._fetch_checked(file, num_bytes, sha256, cached)
        return cached

    def _fetch_checked(self, file: str, num_bytes: int | None, sha256: str, cached: Path) -> None:
        try:
            with atomic_file(cached) as sink:
                self.fetcher.fetch(file, sink)
                sink.flush()
                found = Path(sink.name)
                length, digest = found.stat().st_size, sha256_of_file(found)
                if digest != sha256:
                    expected = f"{num_bytes} bytes, SHA-256 {sha256}" if num_bytes is not None else f"SHA-256 {sha256}"
                    problem = f"fetched {length} bytes, SHA-256 {digest}; the manifest says {expected}"
                    remedy = "Copy the dataset to that address again."
                    raise DamageError(problem, file=f"{self.location} {file}", remedy=remedy)
        except OSError as error:
            if not is_disk_full(error):
                raise
            remedy = "Free space, or name another cache folder: export ODEVID_CACHE=/path"
            raise ShardError(f"no room to fetch {file}", file=self.cache, remedy=remedy) from error


def open_remote(
    address: str, *, home: LocalFolder | None, cache: Path | None, allow_pipe: Sequence[str]
) -> CachedFolder:
    """The dataset at an http(s) address or behind a ``pipe:`` command.

    Args:
        address: as the user typed it.
        home: folder on this machine that has the manifest, if there is one.
        cache: folder for fetched files; default ``$ODEVID_CACHE`` or ``~/.cache/odevid``.
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
    else:
        raise ShardError(f"shards at {address!r}: expected http://..., https://... or pipe:COMMAND with {_SLOT}")
    if home is not None and _SLOT not in address:
        raise ShardError(f"shards at {address!r}: expected {_SLOT} where the file name goes")
    folder = CachedFolder(fetcher, _cache_of(address, cache), home)
    _log.warning("%s: remote dataset; each shard is fetched whole when first touched, to %s", address, folder.cache)
    return folder


def fetch_tar(address: str, *, cache: Path | None) -> Path:
    """A single tar at an http(s) address, fetched whole into the cache unless it is there.

    Without a manifest there is nothing to check it against; it is said so.

    Raises:
        DamageError: there is no such file.
        ShardError: it could not be fetched.
    """
    base, _, file = address.rpartition("/")
    cached = _cache_of(address, cache) / check_plain_name(file, address)
    cached.parent.mkdir(parents=True, exist_ok=True)
    with locked(cached.with_name(f".{cached.name}.lock")):
        if not cached.exists():
            _log.warning("%s: fetched whole to %s, not checked: it has no manifest", address, cached)
            with atomic_file(cached) as sink:
                HttpFetcher(base).fetch(file, sink)
    return cached


def _cache_of(address: str, cache: Path | None) -> Path:
    base = cache or Path(os.environ.get("ODEVID_CACHE") or Path.home() / ".cache" / "odevid")
    return base / hashlib.sha256(address.encode()).hexdigest()[:16]


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
