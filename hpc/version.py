"""Which code is running: package version, git commit and whether the tree was edited.

A copy of the code (hpc/jobs/snapshot.py) says in a file beside its packages what it was copied from.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

VERSION = "0.1.0"
VERSION_FILE = "CODE_VERSION"


@functools.cache
def code_version() -> str:
    """`0.1.0+abc1234` in a git checkout, with `.dirty` for an edited one; `0.1.0` elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if (root / VERSION_FILE).is_file():
        return (root / VERSION_FILE).read_text().strip()
    if not (root / ".git").exists():
        return VERSION
    commit = _git(root, "rev-parse", "--short", "HEAD")
    if commit is None:
        return VERSION
    dirty = ".dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else ""
    return f"{VERSION}+{commit}{dirty}"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
