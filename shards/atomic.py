"""Files and folders that exist either complete or not at all.

In: bytes, or a block of code that writes. Out: the file or folder under its final name, on disk.
Everything goes to a temporary name beside the final one, is flushed to disk, and takes the final name in one rename.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shards.errors import ShardError


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it becomes ``path`` when the block ends well, else it is removed.

    Raises:
        OSError: as the file system says, for instance a full disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file in one atomic step."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well, else is removed.

    Only one process at a time may do this for a given ``out``; what a killed one left behind is removed first.

    Raises:
        ShardError: ``out`` exists and is not empty, or another process is at it.
        OSError: as the file system says, for instance a full disk.
    """
    out = out.absolute()
    building = out.with_name(f".{out.name}.building")
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(out.with_name(f".{out.name}.lock"), wait=False) as got_it:
        if not got_it:
            raise ShardError("another process is building this folder", file=out, remedy="Wait for it to end.")
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ShardError("already exists and is not empty", file=out, remedy="Delete it, or choose another folder.")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            sync_folder(building)
            building.replace(out)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        sync_folder(out.parent)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file ``path`` against other processes; the system frees it when a process dies.

    Args:
        path: made if missing, removed again by its holder at the end.
        wait: wait until it is free; else yield False at once if it is not.
    """
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        if _is_same_file(descriptor, path):
            break
        os.close(descriptor)  # its holder removed it while we waited: lock the new one
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
