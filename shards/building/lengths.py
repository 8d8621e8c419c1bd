"""How many frames videos really have: by decoding them, in parallel, once.

In: files. Out: the number of decoded frames of each, or why it cannot be decoded. What was found is kept beside the
build, by path, length and time stamp, so that a continued build and the other slices of it need not decode again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.atomic import locked, write_atomically
from shards.building.plan import BadSource
from shards.building.workers import run_in_workers


@dataclass(frozen=True)
class ParallelSurvey:
    """A :class:`shards.building.plan.Survey`.

    Attributes:
        kept: file in which lengths are kept; None keeps nothing (a dry run writes nothing).
        workers: processes.
    """

    kept: Path | None
    workers: int

    def __call__(self, files: Sequence[Path]) -> dict[Path, int | BadSource]:
        """Number of decoded frames of each file; for one that cannot be decoded, why.

        Of several processes that ask at a time one decodes, the others wait and read what it has kept.
        """
        if self.kept is None:
            return self._survey(files, {})
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.kept.with_suffix(".lock")):
            known = self._load(self.kept)
            before = dict(known)
            try:
                return self._survey(files, known)
            finally:
                if known != before:
                    write_atomically(self.kept, json.dumps(known).encode())

    def _survey(self, files: Sequence[Path], known: dict[str, list[Any]]) -> dict[Path, int | BadSource]:
        """Look up what is known; decode the rest, and add it."""
        found: dict[Path, int | BadSource] = {}
        missing = []
        for file in files:
            row = known.get(str(file))
            if row is not None and row[:2] == list(_state(file)):
                found[file] = row[2] if isinstance(row[2], int) else BadSource(*row[2])
            else:
                missing.append(file)
        for file, length in run_in_workers(_length, missing, self.workers, "lengths of videos"):
            found[file] = length
            known[str(file)] = [*_state(file), length if isinstance(length, int) else [length.kind, length.detail]]
        return found

    @staticmethod
    def _load(kept: Path) -> dict[str, list[Any]]:
        if not kept.exists():
            return {}
        rows: dict[str, list[Any]] = json.loads(kept.read_text(encoding="utf-8"))
        return rows


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


def _length(file: Path) -> int | BadSource:
    from shards.building.video import count_frames

    try:
        return count_frames(file)
    except BadSource as error:
        return error
