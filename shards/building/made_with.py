"""What a dataset was made with: the code that chooses pixels, and the libraries that decode and resize.

Two processes that build one dataset must agree on it, and the manifest keeps it: other versions may give other pixels.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_LIBRARIES = ("av", "numpy", "pillow", "zstandard")
_PACKAGE = Path(__file__).resolve().parent


def made_with() -> dict[str, str]:
    """Digest of this package's own code, and versions of the libraries."""
    return {"code": code_digest()} | {name: _version(name) for name in _LIBRARIES}


def code_digest() -> str:
    """Digest of what decides which samples there are and what is in them: this folder, the encoding and the writer."""
    files = [*sorted(_PACKAGE.glob("*.py")), _PACKAGE.parent / "encoding.py", _PACKAGE.parent / "writer.py"]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
