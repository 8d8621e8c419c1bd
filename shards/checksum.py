"""CRC-32 (the one of zip and PNG) of bytes: fast enough to check every clip on every read.

``isal`` computes it about ten times faster than most builds of zlib; the values are the same, so a dataset written with
one is checked with the other.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    from isal.isal_zlib import crc32 as _crc32
except ImportError:  # no wheel for this machine
    _crc32 = zlib.crc32

crc32: Callable[[Any], int] = _crc32
_BLOCK = 1 << 20


def sha256_of_file(file: Path | int, advance: Callable[[int], None] = lambda _: None) -> str:
    """SHA-256 of a file in hexadecimal, by its path or an open descriptor at its beginning.

    ``advance`` hears the number of bytes of each block.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with open(file, "rb", closefd=not isinstance(file, int)) as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
            advance(len(block))
    return digest.hexdigest()
