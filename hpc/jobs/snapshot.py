"""The code of a run, kept with it: what was submitted is what runs, even if the tree is edited while the job waits.

In: the packages this process was imported from. Out: RUN/code/DIGEST/, a copy of them named by its content, from which
every rank of the job imports. The same code again is the same folder.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from hpc.version import VERSION_FILE, code_version

PACKAGES = ("hpc", "odevid", "shards", "configs")
SUFFIXES = (".py", ".yaml", ".typed", ".j2", ".css")


def code_root() -> Path:
    """Folder that holds the packages of this process."""
    return Path(__file__).resolve().parents[2]


def keep_code(shelf: Path) -> Path:
    """Copy the code of this process to `shelf`/DIGEST and return that folder; nothing to do if it is there."""
    files = _files()
    kept = shelf / _digest(files)
    if kept.is_dir():
        return kept
    shelf.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".copying-", dir=shelf))
    try:
        beside.chmod(0o755)
        for name, content in files.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(content)
        (beside / VERSION_FILE).write_text(code_version() + "\n")
        _publish(beside, kept)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return kept


def code_digest() -> str:
    """Name of the folder that `keep_code` would make."""
    return _digest(_files())


def _files() -> dict[Path, bytes]:
    return {path.relative_to(code_root()): path.read_bytes() for name in PACKAGES for path in _sources(name)}


def _digest(files: dict[Path, bytes]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def _sources(package: str) -> list[Path]:
    return [path for path in (code_root() / package).rglob("*") if path.suffix in SUFFIXES and path.is_file()]


def _publish(beside: Path, kept: Path) -> None:
    """One rename; another launcher may have been faster with the same content."""
    try:
        beside.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise
