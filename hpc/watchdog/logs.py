"""Keeps an output file below a limit while others append to it.

In: a file that SLURM or a launcher opened for appending and writes to for weeks. Out: its older half in NAME.1 (a
former one is replaced), the newer half where it was.
"""

from __future__ import annotations

import os
from pathlib import Path

CHUNK = 2**20


def limit(path: Path, max_bytes: int) -> bool:
    """Move the older half to NAME.1 if the file is larger than that; whether it was.

    What grew far beyond the limit loses its beginning: NAME keeps half of `max_bytes`, NAME.1 at most all of them.

    Writers need to have it open for appending. A line that they write in the microseconds between the last look and
    the cut is lost: no system call does better on a shared file system.

    Raises:
        OSError: a folder that cannot be written.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size <= max_bytes:
        return False
    with path.open("r+b") as file:
        middle = _line_after(file.fileno(), size - max_bytes // 2)
        first = _line_after(file.fileno(), middle - max_bytes) if middle > max_bytes else 0
        partial = path.with_name(path.name + ".1.tmp")
        with partial.open("wb") as older:
            for start in range(first, middle, CHUNK):
                older.write(os.pread(file.fileno(), min(CHUNK, middle - start), start))
        partial.replace(path.with_name(path.name + ".1"))
        _cut_head(file.fileno(), middle)
    return True


def _line_after(descriptor: int, position: int) -> int:
    """Where the first line at or behind `position` begins; `position` itself for a line beyond all measure."""
    found = os.pread(descriptor, CHUNK, position).find(b"\n")
    return position + found + 1


def _cut_head(descriptor: int, count: int) -> None:
    """Move all behind the first `count` bytes to the front, with what is appended meanwhile, and shorten the file."""
    length = 0
    while chunk := os.pread(descriptor, CHUNK, count + length):
        length += os.pwrite(descriptor, chunk, length)
    os.ftruncate(descriptor, length)
