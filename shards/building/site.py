"""Where a build grows: ``.OUT.parts`` beside OUT, which it becomes when it is complete.

It survives an interruption, so that the same command goes on where it was. Several processes may build in it at a time
if they are slices of one build; any other second process is refused.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.atomic import locked, write_atomically
from shards.errors import ShardError, is_disk_full
from shards.manifest import MANIFEST_FILE, Manifest

AT_WORK = "at-work.json"
"""In a worker's folder: tar, split and key of the item that it is making."""
_SETTINGS = "build.json"
_DEADLY = "deadly.json"
STATE_FILES = (_SETTINGS, _DEADLY)
"""In the folder of parts, beside the notes: what only the build needs."""


@dataclass(frozen=True)
class Slice:
    """One of several processes that share a build out: ``number`` of ``count``, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Slice:
        """From ``3/8``.

        Raises:
            ShardError: anything else.
        """
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise ShardError(f"--slice {text}: expected NUMBER/COUNT such as 3/8, from 1/8 to 8/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def owns(self, part: int) -> bool:
        """Whether the part of this place in the list of all parts is this slice's."""
        return part % self.count == self.number - 1


@dataclass(frozen=True)
class Site:
    """The place of a build of ``out``, which is its real path: a link would be replaced, not what it leads to."""

    out: Path

    @classmethod
    def of(cls, out: Path) -> Site:
        """The place of a build of what ``out`` leads to."""
        return cls(Path(os.path.realpath(out)))

    @property
    def folder(self) -> Path:
        """Where parts are kept until all are there."""
        return self.out.with_name(f".{self.out.name}.parts")

    @property
    def lengths(self) -> Path:
        """Where surveyed lengths of videos are kept."""
        return self.out.with_name(f".{self.out.name}.lengths.json")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one process of all slices at a time."""
        with locked(self.out.with_name(f".{self.out.name}.lock")):
            yield

    def reach(self) -> None:
        """See, before any work, that OUT is not taken by something else and that its parent can be written.

        Raises:
            ShardError: it is, or it cannot.
        """
        parent = existing_parent(self.out)
        if not parent.is_dir():
            raise unwritable(NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(parent)), self.out)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise unwritable(PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(parent)), self.out)
        if os.path.ismount(self.out):
            name = self.out / "NAME"
            raise ShardError("is a mount point, which cannot be renamed", file=self.out, remedy=f"Give --out {name}.")
        if self.out.exists() and not (self.out / MANIFEST_FILE).is_file() and not _is_empty(self.out):
            raise _taken(self.out)

    def built(self, settings: Mapping[str, Any], sources: str) -> Manifest | None:
        """The manifest of OUT if it is this very build's, None if there is nothing.

        Args:
            settings: of the build.
            sources: their digest.

        Raises:
            ShardError: something else is there.
        """
        if not self.out.exists() or _is_empty(self.out):
            return None
        if not (self.out / MANIFEST_FILE).is_file():
            raise _taken(self.out)
        manifest = Manifest.load(self.out)
        elsewhere = {"name": manifest.name, "encoding": manifest.encoding}
        found = {**elsewhere, "settings": manifest.provenance.get("settings"), **manifest.provenance.get("build", {})}
        differing = list(_differences(found, {"sources": sources, **settings}))
        if differing:
            self.lengths.unlink(missing_ok=True)  # the survey of a build that shall not be
            problem = f"already holds {manifest.name}, built otherwise: {differing[0]}"
            raise ShardError(problem, file=self.out, remedy="Delete it, or choose another folder with --out.")
        return manifest

    @contextmanager
    def joined(self, settings: Mapping[str, Any], sources: str, part_of: Slice) -> Iterator[Manifest | None]:
        """Take part in the build, alone or as a slice of it; yields the manifest if it is complete already.

        Raises:
            ShardError: another process builds here, or this build was begun with other settings.
        """
        own = self._lock_of(part_of)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        with self.alone():
            manifest = self.built(settings, sources)
            if manifest is None:
                self._refuse_others(part_of, own)
                self._settle(settings)
                lock = locked(own, wait=False)
                got_it = lock.__enter__()
            else:
                self._drop_free_locks()
        if manifest is not None:
            yield manifest
            return
        try:
            if not got_it:
                raise _occupied(self.out, own)
            own.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
            self._sweep()
            yield None
        finally:
            self._sweep()
            lock.__exit__(None, None, None)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of this process's own, gone at the end of the block; of a killed process, when a build goes on."""
        folder = self.folder / f".{socket.gethostname()}.{os.getpid()}.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def take_suspects(self) -> set[tuple[str, str, str]]:
        """Tar, split and key of the items that dead workers of this machine were at; what they left is removed."""
        found = set()
        for folder in self._left_by_the_dead():
            if (at_work := folder / AT_WORK).exists() and (text := at_work.read_text()):
                tar, split, key = json.loads(text)
                found.add((tar, split, key))
            shutil.rmtree(folder, ignore_errors=True)
        return found

    def deadly(self) -> frozenset[tuple[str, str]]:
        """Split and key of items that have killed their workers."""
        path = self.folder / _DEADLY
        rows = json.loads(path.read_text()) if path.exists() else []
        return frozenset((split, key) for split, key in rows)

    def add_deadly(self, split: str, key: str) -> None:
        """Note that an item kills its worker, also alone."""
        rows = sorted([*self.deadly(), (split, key)])
        write_atomically(self.folder / _DEADLY, json.dumps(rows).encode())

    def _sweep(self) -> None:
        for folder in self._left_by_the_dead():
            shutil.rmtree(folder, ignore_errors=True)

    def _left_by_the_dead(self) -> list[Path]:
        """Scratch folders of processes of this machine that are no more."""
        mine = self.folder.glob(f".{socket.gethostname()}.*.tmp")
        return [folder for folder in mine if not Path(f"/proc/{folder.name.split('.')[-2]}").exists()]

    def _drop_free_locks(self) -> None:
        """Remove the locks of killed slices."""
        for lock in self.out.parent.glob(f".{self.out.name}.slice-*-of-*.lock"):
            with locked(lock, wait=False):
                pass

    def _lock_of(self, part_of: Slice) -> Path:
        return self.out.with_name(f".{self.out.name}.slice-{part_of.number}-of-{part_of.count}.lock")

    def _refuse_others(self, part_of: Slice, own: Path) -> None:
        for other in sorted(self.out.parent.glob(f".{self.out.name}.slice-*-of-*.lock")):
            is_sibling = other != own and other.name.endswith(f"-of-{part_of.count}.lock")
            if is_sibling:
                continue
            with locked(other, wait=False) as free:  # frees what a killed process left, too
                if not free:
                    raise _occupied(self.out, other)

    def _settle(self, settings: Mapping[str, Any]) -> None:
        """Begin the folder, or see that it was begun with the same settings."""
        text = json.dumps(settings, indent=1, sort_keys=True)
        path = self.folder / _SETTINGS
        self.folder.mkdir(exist_ok=True)
        if not path.exists():
            write_atomically(path, text.encode())
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        now = json.loads(text)
        if before != now:
            differing = ", ".join(_differences(before, now))
            problem = f"a build of {self.out.name} was begun with other options: {differing}"
            remedy = f"Give those again to go on with it, or delete {self.folder} to begin anew."
            raise ShardError(problem, file=self.folder, remedy=remedy)


def explained(error: OSError, out: Path) -> ShardError:
    """An error of the file system while a build writes, for a person."""
    if is_disk_full(error):
        problem = f"no room to go on ({os.strerror(error.errno or errno.ENOSPC)}); complete shards are kept"
        remedy = f"Free space (see: df -h {existing_parent(out)}) and run the same command again."
        return ShardError(problem, file=out, remedy=remedy)
    return unwritable(error, out)


def unwritable(error: OSError, out: Path) -> ShardError:
    """A place that refuses to be written, for a person."""
    remedy = "Choose another --out, or have its permissions changed."
    return ShardError(f"cannot be written: {error.strerror or error}", file=error.filename or out, remedy=remedy)


def _taken(out: Path) -> ShardError:
    remedy = "Delete it, or choose another folder with --out."
    return ShardError("already exists and is not this dataset", file=out, remedy=remedy)


def existing_parent(path: Path) -> Path:
    """The nearest folder (or what is in its place) above a path that exists."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {before!r}, is {now!r}"


def _occupied(out: Path, lock: Path) -> ShardError:
    try:
        who = lock.read_text(encoding="utf-8") or "another process"
    except FileNotFoundError:
        who = "another process"
    return ShardError(f"{who} is building this folder", file=out, remedy="Wait for it to end, or choose another --out.")
