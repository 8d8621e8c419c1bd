"""The data side: raw datasets -> tar shards, and tar shards -> ordered batches. Knows no model and no cluster.

    build (writer.py) -> DIR/manifest.json, DIR/{split}-000000.tar, DIR/{split}-000000.index.npz
    open_source -> ClipSource -> Loader -> Batch          (source.py, dataset.py, order.py, loader.py)

``python -m shards --help`` shows the commands. Importing this package imports neither torch nor numpy: names below are
loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ArraySpec": "shards.manifest",
    "Batch": "shards.loader",
    "ClipSource": "shards.source",
    "DamageError": "shards.errors",
    "Fetched": "shards.source",
    "Loader": "shards.loader",
    "Manifest": "shards.manifest",
    "Order": "shards.order",
    "RefusedError": "shards.errors",
    "Sample": "shards.writer",
    "ShardError": "shards.errors",
    "ShardClips": "shards.dataset",
    "Substitution": "shards.source",
    "SubstitutionLedger": "shards.substitution",
    "evaluation_indices": "shards.loader",
    "open_source": "shards.opening",
    "video_spec": "shards.manifest",
    "write_dataset": "shards.writer",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shards' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
