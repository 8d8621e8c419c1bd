"""What videos' decoder and headers say, which some plans depend upon: found in parallel, once.

In: files. Out: the number of decoded frames of each, or what its header announces, or why it cannot be read. What was
found is kept beside the build, by path, length and time stamp, so that a continued build and the other slices of it
need not look again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.atomic import locked, write_atomically
from shards.building.plan import BadSource
from shards.building.site import explained
from shards.building.workers import run_in_workers, tick

if TYPE_CHECKING:
    from shards.building.video import Probe

_FEW = 200  # headers for which no process is begun
_AT_A_TIME = 50  # headers that a process reads before it tells
_THREADS = 16

Answer = Any  # JSON: what is known of a file; [kind, detail] of a BadSource
Look = Callable[[Sequence[Path]], Iterator[tuple[Path, Answer]]]


@dataclass(frozen=True)
class ParallelSurvey:
    """A :class:`shards.building.plan.Survey`.

    Attributes:
        kept: file in which answers are kept; None keeps nothing (a dry run writes nothing).
        workers: processes.
    """

    kept: Path | None
    workers: int

    def __call__(self, files: Sequence[Path]) -> dict[Path, int | BadSource]:
        """Number of decoded frames of each file; for one that cannot be decoded, why.

        Of several processes that ask at a time one decodes, the others wait and read what it has kept.
        """
        found = self._answers("frames", files, self._decode)
        return {file: BadSource(*answer) if isinstance(answer, list) else answer for file, answer in found.items()}

    def probes(self, files: Sequence[Path]) -> dict[Path, Probe | BadSource]:
        """What the header of each file announces; for one that cannot be opened, why. One process looks, as above."""
        from shards.building.video import Probe

        found = self._answers("headers", files, self._probe)
        return {
            file: BadSource(*answer) if isinstance(answer, list) else Probe(**answer) for file, answer in found.items()
        }

    def _decode(self, files: Sequence[Path]) -> Iterator[tuple[Path, Answer]]:
        return run_in_workers(_length, files, self.workers, "lengths of videos")

    def _probe(self, files: Sequence[Path]) -> Iterator[tuple[Path, Answer]]:
        if len(files) < _FEW:
            with ThreadPoolExecutor(_THREADS) as pool:
                yield from zip(files, pool.map(_header, files), strict=True)
            return
        chunks = [tuple(files[begin : begin + _AT_A_TIME]) for begin in range(0, len(files), _AT_A_TIME)]
        for chunk, headers in run_in_workers(_headers, chunks, self.workers, "headers of videos", steps=len(files)):
            yield from zip(chunk, headers, strict=True)

    def _answers(self, section: str, files: Sequence[Path], look: Look) -> dict[Path, Answer]:
        """Those that are kept of files that are as they were, and those of ``look`` for the others.

        Raises:
            ShardError: what is found cannot be kept: no room, or not to be written.
        """
        if self.kept is None:
            return dict(look(files))
        with ExitStack() as until_the_end:
            with _writing(self.kept):
                self.kept.parent.mkdir(parents=True, exist_ok=True)
                until_the_end.enter_context(locked(self.kept.with_suffix(".lock")))
            everything = json.loads(self.kept.read_bytes()) if self.kept.exists() else {}
            known: dict[str, list[Any]] = everything.setdefault(section, {})
            states = {file: _state(file) for file in files}
            found = {file: known[str(file)][2] for file in files if known.get(str(file), [])[:2] == states[file]}
            missing = [file for file in files if file not in found]
            try:
                for file, answer in look(missing):
                    found[file] = answer
                    known[str(file)] = [*states[file], answer]
            finally:
                if missing:
                    with _writing(self.kept):
                        write_atomically(self.kept, json.dumps(everything).encode())
        return found


@contextmanager
def _writing(kept: Path) -> Iterator[None]:
    """Raise ShardError where the disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        raise explained(error, kept) from error


def _state(file: Path) -> list[int]:
    try:
        state = file.stat()
    except OSError:
        return [-1, -1]
    return [state.st_size, state.st_mtime_ns]


def _length(file: Path) -> Answer:
    from shards.building.video import count_frames

    try:
        return count_frames(file)
    except BadSource as error:
        return [error.kind, error.detail]


def _header(file: Path) -> Answer:
    from shards.building.video import probe

    try:
        return asdict(probe(file))
    except BadSource as error:
        return [error.kind, error.detail]


def _headers(files: Sequence[Path]) -> list[Answer]:
    headers = []
    for file in files:
        headers.append(_header(file))
        tick()
    return headers
