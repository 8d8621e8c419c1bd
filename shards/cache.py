"""Files fetched from elsewhere, kept on this machine: by their contents, within a bound, for many processes at once.

    SHA-256, length, a way to fetch --Store.open--> an open file

One store for all datasets and addresses, so that the same shard is fetched once whatever it is called:

    CACHE/files/{sha256}             a file: hashed before it took this name
    CACHE/files/.{sha256}.{N}.part   one of N bytes that is being fetched, and is counted as N bytes
    CACHE/files/.{sha256}.lock       held by the process that fetches it
    CACHE/files/.lock                held while files are counted and deleted and while names change

Room is made before a file is fetched: the files that were used least recently are deleted. What else lies in the folder
is neither counted nor touched. A file counts as used when it is opened, which sets its time of change (many file
systems do not keep a time of reading; the file system's own clock is one for all nodes). Who has a file open when it is
deleted reads on. What a killed process leaves half fetched has a lock that nobody holds: the next to fetch deletes it.

What is checked when: SHA-256 once, of what was fetched; the length at every opening (where the manifest does not say
it, SHA-256: indexes, which are small); CRC-32 of everything that a reader reads (reader.py).

A folder on the node's own disk is best. On a network file system the locks must hold between nodes (flock: NFS has it,
Lustre if mounted with it).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shards.atomic import locked, sync_folder
from shards.checksum import sha256_of_file
from shards.errors import DamageError, ShardError, is_disk_full
from shards.folder import OpenFile
from shards.manifest import SplitInfo
from shards.summary import human_bytes

AUTOMATIC = -1.0
SHARE_OF_DISK = 0.8
_FILE = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"\.([0-9a-f]{64})\.(?:(\d+)\.part|lock)")
_POLL_S = (0.01, 0.5)
_PATIENCE_S = 30.0
_KEEP_OPEN_S = 60.0
_PLACE_REMEDY = "or name a folder on a bigger disk: data.cache=/path, or export ODEVID_CACHE=/path"
_log = logging.getLogger(__name__)


def cache_place(given: Path | str | None = None) -> Path:
    """The cache folder: as given, else $ODEVID_CACHE, else ~/.cache/odevid; environment variables in it are expanded.

    Raises:
        ShardError: a variable in it is not set.
    """
    text = str(given) if given else os.environ.get("ODEVID_CACHE") or "~/.cache/odevid"
    place = Path(os.path.expandvars(text)).expanduser()
    if "$" in str(place):
        remedy = "Set it, or name another folder: data.cache=/path, or export ODEVID_CACHE=/path"
        raise ShardError(f"cache folder {text!r}: a variable in it is not set here (found '{place}')", remedy=remedy)
    return place.absolute()


def open_store(cache: Path | str | None, cache_gb: float = AUTOMATIC) -> Store:
    """The store in a cache folder.

    Args:
        cache: the folder; see :func:`cache_place`.
        cache_gb: bound in GB (1e9 bytes). 0: as much as the disk has. Negative: automatic, see :class:`Store`.

    Raises:
        ShardError: a variable in the folder's name is not set.
    """
    return Store(cache_place(cache) / "files", None if cache_gb < 0 else round(cache_gb * 1e9))


@dataclass(frozen=True)
class Wanted:
    """A file by its contents: SHA-256, length in bytes (None: not known), and a name for messages."""

    sha256: str
    num_bytes: int | None
    name: str


@dataclass(frozen=True)
class Usage:
    """What is in a store: complete files from the least to the most recently used, and files being fetched.

    Attributes:
        files: path and length of each.
        fetching: bytes that the files being fetched have or will have.
        room: bytes that the store has or could have on its disk.
    """

    files: tuple[tuple[Path, int], ...]
    fetching: int
    room: int

    @property
    def num_bytes(self) -> int:
        """All that counts towards the bound."""
        return self.fetching + sum(size for _, size in self.files)


@dataclass(frozen=True)
class Store:
    """A bounded folder of files that are named by their SHA-256. Can be pickled; safe for many processes and nodes.

    Attributes:
        folder: for the files of this store alone.
        max_bytes: bound; 0: as much as the disk has. None: 80 % of what the disk has free and the store holds already,
            looked up each time, since a fixed number is too small for one node and too large for the next, and a full
            disk stops whoever else writes there.
    """

    folder: Path
    max_bytes: int | None = None

    def open(self, wanted: Wanted, fetch: Callable[[BinaryIO], None]) -> OpenFile:
        """A file, fetched first if it is not here; once, however many processes ask for it.

        Args:
            wanted: what it is.
            fetch: writes its bytes into a file, from the beginning; may be called again.

        Returns:
            The open file, which stays readable if it is deleted from the store.

        Raises:
            DamageError: what was fetched is not what is wanted.
            ShardError: it could not be fetched, or there is no room for it.
        """
        kept = self._open_kept(wanted)
        if kept is not None:
            return kept
        with self._made(), locked(self.folder / f".{wanted.sha256}.lock"):
            return self._open_kept(wanted) or self._fetch(wanted, fetch)

    def usage(self) -> Usage:
        """What is in the store now."""
        with self._made(), locked(self.folder / ".lock"):
            return self._survey()

    def limit(self, usage: Usage) -> int:
        """The bound in bytes: never more than the disk has."""
        if self.max_bytes is None:
            return int(SHARE_OF_DISK * usage.room)
        return min(self.max_bytes or usage.room, usage.room)

    def shrink(self, num_bytes: int) -> int:
        """Delete the least recently used files until no more than ``num_bytes`` are here; returns the bytes deleted."""
        with self._made(), locked(self.folder / ".lock"):
            usage = self._survey()
            return _delete_oldest(usage, usage.num_bytes - num_bytes)

    def described(self) -> str:
        """Folder and bound in words."""
        bound = human_bytes(self.limit(self.usage()))
        if self.max_bytes is None:
            return f"{self.folder} (at most {bound}, {SHARE_OF_DISK:.0%} of the disk's room; data.cache_gb sets it)"
        what = "at most" if self.max_bytes else "no bound but the disk's,"
        return f"{self.folder} ({what} {bound}; data.cache_gb)"

    def expect(self, split: SplitInfo, name: str) -> None:
        """Warn if a split that will be read in random order is larger than the bound.

        Of N bytes C are here at any time, so a clip's shard is missing with probability 1 - C/N, and then all of the
        shard is fetched for one clip: samples * (1 - C/N) fetches per epoch instead of one for each shard.
        """
        limit = self.limit(self.usage())
        if split.bytes <= limit:
            return
        missing = 1 - limit / split.bytes
        ratio = missing * split.samples / len(split.shards)
        _log.warning(
            "%s holds %s, more than its cache may: %s. In random order about %.0f %% of the clips find their shard "
            "deleted and fetch it whole again: each epoch fetches about %.3g times the dataset. "
            "Set data.cache_gb=%.4g or more, %s",
            *(name, human_bytes(split.bytes), self.described(), 100 * missing, ratio),
            *(1.01 * split.bytes / 1e9, _PLACE_REMEDY),
        )

    @contextlib.contextmanager
    def _made(self) -> Iterator[None]:
        """Make the folder; what goes wrong in it is told with what to type."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            remedy = "Name another folder: data.cache=/path, or export ODEVID_CACHE=/path"
            raise ShardError(f"cannot be used as a cache: {error}", file=self.folder, remedy=remedy) from error

    def _open_kept(self, wanted: Wanted) -> OpenFile | None:
        """The file if it is here and, as far as is looked, sound; notes that it was used."""
        path = self.folder / wanted.sha256
        try:
            file = OpenFile.at(path, wanted.num_bytes, keep_s=_KEEP_OPEN_S)
        except FileNotFoundError:
            return None
        is_unsized = wanted.num_bytes is None
        if file.suspect or (is_unsized and hashlib.sha256(file.read()).hexdigest() != wanted.sha256):
            file.close()
            return None
        with contextlib.suppress(OSError):  # another user's file, or a cache that may only be read
            os.utime(file.descriptor)
        return file

    def _fetch(self, wanted: Wanted, fetch: Callable[[BinaryIO], None]) -> OpenFile:
        """Fetch a file whose lock is held."""
        path = self.folder / wanted.sha256
        part = self.folder / f".{wanted.sha256}.{wanted.num_bytes or 0}.part"
        for left in self.folder.glob(f".{wanted.sha256}.*.part"):
            left.unlink(missing_ok=True)
        if path.exists():
            _log.warning("%s: damaged (%s), fetched again: %s", path, _size_of(path), wanted.name)
            path.unlink(missing_ok=True)
        self._reserve(part, wanted)
        try:
            self._fill(part, wanted, fetch)
            file = OpenFile.at(part, wanted.num_bytes, name=path, keep_s=_KEEP_OPEN_S)
            with locked(self.folder / ".lock"):
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(self.folder)
        if wanted.num_bytes is None:  # its length is known only now
            usage = self.usage()
            self.shrink(self.limit(usage))
        return file

    def _reserve(self, part: Path, wanted: Wanted) -> None:
        """Make room for a file and take it. Waits while what others are fetching leaves none."""
        needed = wanted.num_bytes or 0
        patience, pause = time.monotonic() + _PATIENCE_S, _POLL_S[0]
        while True:
            with locked(self.folder / ".lock"):
                usage = self._survey()
                limit = self.limit(usage)
                if needed > limit:
                    raise self._too_small(wanted.name, needed, usage)
                freed = _delete_oldest(usage, usage.num_bytes + needed - limit)
                if usage.num_bytes - freed + needed <= limit:
                    part.touch()
                    return
            if not usage.fetching:  # the rest may not be deleted: other users' files
                raise self._too_small(wanted.name, needed, usage)
            if time.monotonic() > patience:
                _log.warning("%s: waits for room in %s", wanted.name, self.described())
                patience = float("inf")
            time.sleep(pause)
            pause = min(2 * pause, _POLL_S[1])

    def _fill(self, part: Path, wanted: Wanted, fetch: Callable[[BinaryIO], None]) -> None:
        """Fetch and check; if the disk is full all the same (quota, others' files), delete more and try again."""
        while True:
            try:
                with part.open("w+b") as sink:
                    fetch(sink)
                    sink.flush()
                    os.fsync(sink.fileno())
                break
            except OSError as error:
                if not is_disk_full(error):
                    raise
                part.write_bytes(b"")
                usage = self.usage()
                kept = sum(size for _, size in usage.files)
                if not self.shrink(usage.fetching + max(0, kept - max(1, wanted.num_bytes or 0))):
                    remedy = f"Free space there, {_PLACE_REMEDY}"
                    raise ShardError(f"no room to fetch {wanted.name}", file=self.folder, remedy=remedy) from error
        length, digest = part.stat().st_size, sha256_of_file(part)
        if digest != wanted.sha256:
            known = f"{wanted.num_bytes} bytes, " if wanted.num_bytes is not None else ""
            problem = f"fetched {length} bytes, SHA-256 {digest}; the manifest says {known}SHA-256 {wanted.sha256}"
            raise DamageError(problem, file=wanted.name, remedy="Copy the dataset to that address again.")

    def _survey(self) -> Usage:
        """Count what is here, after deleting what killed processes left half fetched. The store's lock is held."""
        files, fetching, on_disk = [], 0, 0
        abandoned: dict[str, bool] = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                unfinished = _UNFINISHED.fullmatch(entry.name)
                if not unfinished and not _FILE.fullmatch(entry.name):
                    continue
                try:
                    there = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(there.st_mode):
                    continue
                if unfinished and unfinished[1] not in abandoned:
                    abandoned[unfinished[1]] = self._forget_if_abandoned(unfinished[1])
                if unfinished and abandoned[unfinished[1]]:
                    continue
                on_disk += there.st_blocks * 512
                if unfinished:
                    fetching += max(int(unfinished[2] or 0), there.st_size)
                else:
                    files.append((there.st_mtime_ns, Path(entry.path), there.st_size))
        disk = os.statvfs(self.folder)
        ordered = tuple((path, size) for _, path, size in sorted(files))
        return Usage(ordered, fetching, disk.f_bavail * disk.f_frsize + on_disk)

    def _forget_if_abandoned(self, sha256: str) -> bool:
        with locked(self.folder / f".{sha256}.lock", wait=False) as nobody_fetches:
            if nobody_fetches:
                for part in self.folder.glob(f".{sha256}.*.part"):
                    part.unlink(missing_ok=True)
        return nobody_fetches

    def _too_small(self, name: str, needed: int, usage: Usage) -> ShardError:
        problem = f"no room to fetch {name}, {human_bytes(needed)}: the cache may hold {human_bytes(self.limit(usage))}"
        if needed <= usage.room:
            remedy = (
                f"Set data.cache_gb={1.01 * needed / 1e9:.4g} or more (better: the dataset's size), {_PLACE_REMEDY}"
            )
        else:
            remedy = f"The disk has {human_bytes(usage.room)}: free space there, {_PLACE_REMEDY}"
        return ShardError(problem, file=self.folder, remedy=remedy)


def _delete_oldest(usage: Usage, num_bytes: int) -> int:
    """Delete files, the least recently used first, until ``num_bytes`` are freed; returns the bytes freed."""
    freed = 0
    for path, size in usage.files:
        if freed >= num_bytes:
            break
        with contextlib.suppress(PermissionError):  # another user's: it stays and is counted
            path.unlink(missing_ok=True)
            freed += size
    return freed


def _size_of(path: Path) -> str:
    return f"{path.stat().st_size} bytes"
