"""Bytes that are on the disk before anybody is told so: hashed while written, synced, replaced by one rename.

In:  bytes, or a writer such as `torch.save` that wants a file object.
Out: files of known size and SHA-256 that survive a power cut, or an OSError.

All input and output goes through `os` functions on purpose: it is unbuffered, and a test can count and break each call.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import NamedTuple


class FileRecord(NamedTuple):
    """What a file must look like: its length in bytes and the SHA-256 of its content, in hexadecimal."""

    bytes: int
    sha256: str


class HashingFile:
    """A new file, write-only and sequential, hashed on the way; `seal` syncs and closes it.

    `error` keeps the first OSError of a write, because a C++ caller such as torch's zip writer may replace it.
    """

    def __init__(self, path: Path) -> None:
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._hash = hashlib.sha256()
        self._bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of `data`; returns its length in bytes."""
        assert self._fd is not None, "write after seal"
        view = memoryview(data).cast("B")
        try:
            written = 0
            while written < len(view):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            self.error = self.error or error
            raise
        self._hash.update(view)
        self._bytes += len(view)
        return len(view)

    def flush(self) -> None:
        """Nothing is buffered here; `seal` is what makes the bytes durable."""

    def seal(self) -> FileRecord:
        """Wait until the bytes are on the disk, close, and say what they are."""
        assert self._fd is not None, "sealed twice"
        os.fsync(self._fd)
        self.close()
        return FileRecord(self._bytes, self._hash.hexdigest())

    def close(self) -> None:
        """Close without a promise; harmless after `seal`."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)


def write_new(path: Path, data: bytes) -> FileRecord:
    """Create `path` holding `data`, synced. FileExistsError if it is there."""
    file = HashingFile(path)
    try:
        file.write(data)
        return file.seal()
    finally:
        file.close()


def replace_text(path: Path, text: str) -> None:
    """Make `path` hold `text`: a reader sees the old text or the new, never a part."""
    beside = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_new(beside, text.encode())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    fsync_directory(path.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable: without it a rename may be undone by a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def hash_file(path: Path) -> FileRecord:
    """Length and SHA-256 of a file as it is on the disk now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRecord(file.tell(), digest.hexdigest())
