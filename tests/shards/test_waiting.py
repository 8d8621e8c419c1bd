"""Reading ahead: a consumer of any pace gets all batches in order, and no more are made ahead than was promised.

Counted, not timed; times are in tests/bench/streaming.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from shards.loader import Loader
from shards.source import Fetched, Substitution

BATCH = 2


class CountedSource:
    """Batches that tell where they belong. Each one made is noted as a file, so that all workers' are counted.

    Args:
        folder: of the notes.
        slow_every: micro steps whose number is a multiple of this take long to make; 0 for none.
    """

    fingerprint = "counted"
    arrays: dict = {}  # noqa: RUF012

    def __init__(self, folder: Path, slow_every: int = 0) -> None:
        self.folder = folder
        self.slow_every = slow_every

    def __len__(self) -> int:
        return 1000

    def fetch(self, positions: np.ndarray, seed: int) -> Fetched:
        micro_step = int(positions[0]) // BATCH
        if self.slow_every and micro_step % self.slow_every == 0:
            time.sleep(0.05)
        (self.folder / f"made-{micro_step}").touch()
        return Fetched({"video": expected_video(positions)}, [str(place) for place in positions])

    def read(self, indices: Sequence[int]) -> Fetched:
        raise NotImplementedError

    def quarantine(self, records: Sequence[Substitution]) -> None:
        raise NotImplementedError

    @property
    def made(self) -> int:
        """Micro steps that some worker has made."""
        return len(list(self.folder.glob("made-*")))


def expected_video(positions: np.ndarray) -> np.ndarray:
    """64 KiB per clip, all of them the clip's position modulo 251."""
    return np.repeat((positions % 251).astype(np.uint8), 1 << 16).reshape(len(positions), -1)


def open_loader(source: CountedSource, workers: int, prefetch: int) -> Loader:
    sizes: dict[str, Any] = {"global_batch": BATCH, "micro_batch": BATCH, "rank": 0, "world_size": 1}
    return Loader(source, seed=0, workers=workers, prefetch=prefetch, **sizes)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_workers_keep_so_many_batches_ready_and_never_make_more(tmp_path):
    source, workers, prefetch = CountedSource(tmp_path), 2, 3
    with open_loader(source, workers, prefetch) as loader:
        batches = loader.batches(0)
        taken = 0
        for number in (1, 1, 5):
            list(islice(batches, number))
            taken += number
            wait_until(lambda: source.made >= taken + workers * prefetch)  # noqa: B023
            time.sleep(0.2)  # time to make more, which they must not
            assert source.made == taken + workers * prefetch


def test_without_workers_nothing_is_made_ahead(tmp_path):
    source = CountedSource(tmp_path)
    batches = open_loader(source, 0, 2).batches(0)
    for taken in range(1, 5):
        next(batches)
        assert source.made == taken


def test_neither_a_late_consumer_nor_a_slow_worker_changes_number_or_order(tmp_path):
    with open_loader(CountedSource(tmp_path, slow_every=2), 2, 2) as loader:
        positions = []
        for number, batch in enumerate(islice(loader.batches(0), 24)):
            time.sleep(0.03 if number % 5 == 0 else 0)
            positions += batch.positions
    assert positions == list(range(24 * BATCH))


def test_a_batch_that_the_consumer_keeps_stays_as_it_was_while_others_come(tmp_path):
    with open_loader(CountedSource(tmp_path), 1, 2) as loader:
        batches = loader.batches(0)
        kept = list(islice(batches, 3))
        list(islice(batches, 30))
        for batch in kept:
            assert np.array_equal(batch.arrays["video"].numpy(), expected_video(np.array(batch.positions)))
        assert [batch.positions for batch in kept] == [[0, 1], [2, 3], [4, 5]]


def test_batches_that_were_let_go_give_their_memory_back(tmp_path):
    def regions() -> int:
        return Path("/proc/self/maps").read_text().count("/torch_")

    with open_loader(CountedSource(tmp_path), 1, 2) as loader:
        batches = loader.batches(0)
        before = regions()
        kept = [next(batches) for _ in range(3)]
        assert regions() - before == len(kept)
        del kept
        for _ in range(10):
            next(batches)
        assert regions() - before <= 1
