"""Keeps W&B's offline folders of a run from growing without bound: each attempt leaves one, and a run has hundreds.

In: RUN/wandb and a limit. Out: the oldest `offline-run-*` folders gone, as many as it takes. Nothing is lost by it: the
journal holds every row, and `python -m hpc.tracking sync` makes the whole W&B run from it.
"""

from __future__ import annotations

import shutil
from pathlib import Path


def limit_offline_folders(wandb_dir: Path, max_bytes: int) -> list[str]:
    """Remove the oldest offline folders until the rest is within `max_bytes`; the newest stays. Names of the removed.

    Their names hold the time they were made at, so their order is that of the names.
    """
    folders = sorted(path for path in wandb_dir.glob("offline-run-*") if path.is_dir() and not path.is_symlink())
    sizes = {path: _size(path) for path in folders}
    removed = []
    for path in folders[:-1]:
        if sum(sizes.values()) <= max_bytes:
            break
        shutil.rmtree(path, ignore_errors=True)
        del sizes[path]
        removed.append(path.name)
    return removed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())
