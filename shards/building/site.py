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
from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, Manifest

_SETTINGS = "build.json"


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
    """The place of a build of ``out``."""

    out: Path

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
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(error, self.out) from error
        if not os.access(self.out.parent, os.W_OK | os.X_OK):
            raise unwritable(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), self.out)
        if self.out.exists() and not (self.out / MANIFEST_FILE).is_file() and not _is_empty(self.out):
            raise _taken(self.out)

    def built(self, settings: Mapping[str, Any]) -> Manifest | None:
        """The manifest of OUT if it was built already with these settings, None if there is nothing.

        Raises:
            ShardError: something else is there.
        """
        if not self.out.exists() or _is_empty(self.out):
            return None
        if (self.out / MANIFEST_FILE).is_file():
            manifest = Manifest.load(self.out)
            if manifest.provenance.get("settings") == settings.get("settings") and manifest.name == settings["name"]:
                return manifest
        raise _taken(self.out)

    @contextmanager
    def joined(self, settings: Mapping[str, Any], part_of: Slice) -> Iterator[Manifest | None]:
        """Take part in the build, alone or as a slice of it; yields the manifest if it is complete already.

        Raises:
            ShardError: another process builds here, or this build was begun with other settings.
        """
        own = self._lock_of(part_of)
        with self.alone():
            manifest = self.built(settings)
            if manifest is None:
                self._refuse_others(part_of, own)
                self._settle(settings)
                lock = locked(own, wait=False)
                got_it = lock.__enter__()
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

    def _sweep(self) -> None:
        """Remove what dead processes of this machine have left."""
        for folder in self.folder.glob(f".{socket.gethostname()}.*.tmp"):
            if not Path(f"/proc/{folder.name.split('.')[-2]}").exists():
                shutil.rmtree(folder, ignore_errors=True)

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


def unwritable(error: OSError, out: Path) -> ShardError:
    """An error of the file system, for a person."""
    remedy = "Choose another --out, or have its permissions changed."
    return ShardError(f"cannot be written: {error.strerror or error}", file=error.filename or out, remedy=remedy)


def _taken(out: Path) -> ShardError:
    remedy = "Delete it, or choose another folder with --out."
    return ShardError("already exists and is not this dataset", file=out, remedy=remedy)


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
