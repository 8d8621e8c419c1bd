"""Sees what a run's optimiser steps really consume, from inside its ranks.

In:  a copy of this file, named sitecustomize.py, in a folder of the ranks' PYTHONPATH: Python runs it at its start.
Out: RUN/consumed/rank-R-attempt-A.jsonl, one line per optimiser step that this rank has taken: step, positions, keys.

The line of a step is written before the journal's, so whatever step is in the journal has a line of every rank.
"""

from __future__ import annotations

import functools
import importlib.machinery
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

FOLDER = "consumed"


def consumed(run: Path) -> Iterator[dict[str, Any]]:
    """Every line of every rank and attempt, with `rank` and `attempt`."""
    for path in sorted((run / FOLDER).glob("rank-*.jsonl")):
        _, rank, _, attempt = path.stem.split("-")
        for line in path.read_text().splitlines():
            yield {"rank": int(rank), "attempt": int(attempt), **json.loads(line)}


class _Watching(MetaPathFinder):
    """Finds the training loop as everybody does, and adds a witness to it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name != "hpc.train":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None
        spec.loader.exec_module = functools.partial(_execute, spec.loader.exec_module)  # type: ignore[method-assign]
        return spec


def _execute(usual: Callable[[Any], None], module: Any) -> None:
    usual(module)
    advance = module.Trainer._advance

    def watched(trainer: Any, fetched: list[Any]) -> Any:
        result = advance(trainer, fetched)
        _note(trainer, fetched)
        return result

    module.Trainer._advance = watched


def _note(trainer: Any, fetched: list[Any]) -> None:
    folder = trainer.folder.path / FOLDER
    folder.mkdir(exist_ok=True)
    line = {
        "step": trainer.step,
        "positions": [position for batch in fetched for position in batch.positions],
        "keys": [key for batch in fetched for key in batch.keys],
    }
    path = folder / f"rank-{trainer.world.rank}-attempt-{trainer.attempt}.jsonl"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.write(descriptor, json.dumps(line).encode() + b"\n")
    os.close(descriptor)


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, _Watching())
