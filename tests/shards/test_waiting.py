"""Reading ahead: a consumer of any pace gets all batches in order, and no more are made ahead than was promised.

Counted, not timed; times are in tests/bench/streaming.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.ahead import DEPTH
from shards.errors import ShardError
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


def regions() -> int:
    """Pieces of shared memory that this process has open."""
    return Path("/proc/self/maps").read_text().count("/torch_")


def test_workers_keep_so_many_batches_ready_and_never_make_more(tmp_path):
    source, workers, prefetch = CountedSource(tmp_path), 2, 3
    with open_loader(source, workers, prefetch) as loader:
        batches = loader.batches(0)
        taken = 0
        for number in (1, 1, 5):
            list(islice(batches, number))
            taken += number
            wait_until(lambda: source.made >= taken + workers * prefetch + DEPTH)  # noqa: B023
            time.sleep(0.2)  # time to make more, which they must not
            assert source.made == taken + workers * prefetch + DEPTH


def test_batches_are_opened_in_this_process_before_they_are_asked_for(tmp_path):
    before = regions()
    with open_loader(CountedSource(tmp_path), 1, 2) as loader:  # of several, one that is early is opened too
        batches = loader.batches(0)
        wait_until(lambda: regions() - before >= DEPTH)
        assert regions() - before == DEPTH
        kept = [next(batches) for _ in range(3)]
        wait_until(lambda: regions() - before >= len(kept) + DEPTH)
        assert regions() - before == len(kept) + DEPTH


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
    before = regions()
    with open_loader(CountedSource(tmp_path), 1, 2) as loader:
        batches = loader.batches(0)
        kept = [next(batches) for _ in range(3)]
        wait_until(lambda: regions() - before >= 3 + DEPTH)
        assert regions() - before == 3 + DEPTH
        del kept
        for _ in range(10):
            next(batches)
        assert regions() - before <= 1 + DEPTH


class Mishap:
    """Batches, until one micro step at which something happens to the worker.

    Args:
        at: the micro step.
        what: "error", "hang", or the signal that the worker sends itself.
    """

    fingerprint = "mishap"
    arrays: dict = {}  # noqa: RUF012

    def __init__(self, at: int, what: str | signal.Signals) -> None:
        self.at = at
        self.what = what

    def __len__(self) -> int:
        return 1000

    def fetch(self, positions: np.ndarray, seed: int) -> Fetched:
        if int(positions[0]) == self.at and self.what == "error":
            raise ShardError(f"position {self.at} is damaged")
        if int(positions[0]) == self.at and self.what == "hang":
            time.sleep(3600)
        if int(positions[0]) == self.at and isinstance(self.what, signal.Signals):
            os.kill(os.getpid(), self.what)
        return Fetched({"video": expected_video(positions)}, [str(place) for place in positions])

    def read(self, indices: Sequence[int]) -> Fetched:
        raise NotImplementedError

    def quarantine(self, records: Sequence[Substitution]) -> None:
        raise NotImplementedError


def mishap_loader(at: int, what: str | signal.Signals) -> Loader:
    return Loader(Mishap(at, what), seed=0, global_batch=1, micro_batch=1, rank=0, world_size=1, workers=1)


def takers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches ahead"]


def test_an_error_comes_after_the_batches_before_it_and_stays():
    with mishap_loader(3, "error") as loader:
        batches = loader.batches(0)
        time.sleep(0.1)  # the thread may find it before the first batch is asked for
        assert [next(batches).positions for _ in range(3)] == [[0], [1], [2]]
        for _ in range(2):
            with pytest.raises(ShardError, match="position 3 is damaged"):
                next(batches)
    assert takers() == []


def test_a_worker_that_is_killed_ends_the_waiting_with_an_error():
    died = (RuntimeError, ConnectionError, EOFError)  # torch notices its death, or the thread was talking to it
    loader = mishap_loader(2, signal.SIGKILL)
    with pytest.raises(died), loader:  # torch's handler of SIGCHLD may speak up late, while the loader is being closed
        list(loader.batches(0))
    with contextlib.suppress(RuntimeError):  # the same handler, again
        loader.close()
    wait_until(lambda: not takers())
    assert takers() == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["hang", signal.SIGSTOP])
def test_a_worker_that_hangs_does_not_hold_up_the_end(what):
    loader = mishap_loader(2, what)
    list(islice(loader.batches(0), 1))
    workers = loader._running._workers
    wait_until(lambda: what == "hang" or state_of(workers[0].pid) == "T")
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 15  # 10 of it torch's, to a worker that does not answer
    assert not any(worker.is_alive() for worker in workers)
    wait_until(lambda: not takers(), 2)
    assert takers() == []


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_each_stream_ends_the_one_before_and_its_thread(tmp_path):
    with open_loader(CountedSource(tmp_path), 1, 2) as loader:
        for start in (0, 40, 8):
            batches = loader.batches(start)
            assert next(batches).positions == [start, start + 1]
            assert len(takers()) == 1
        loader.close()
        assert takers() == []
        assert len(list(batches)) <= DEPTH


def test_a_stream_that_nobody_closes_ends_with_its_last_user(tmp_path):
    batches = open_loader(CountedSource(tmp_path), 1, 2).batches(0)
    next(batches)
    assert len(takers()) == 1
    del batches
    wait_until(lambda: not takers())
    assert takers() == []


def test_a_process_ends_at_once_and_quietly_with_batches_still_coming():
    code = "from tests.shards.test_waiting import *; b = mishap_loader(-1, 'none').batches(0); next(b); next(b)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_signals_are_for_the_main_thread(tmp_path):
    with open_loader(CountedSource(tmp_path), 1, 2) as loader:
        next(loader.batches(0))
        status = Path(f"/proc/self/task/{takers()[0].native_id}/status").read_text()
        blocked = int(status.split("SigBlk:")[1].split()[0], 16)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            assert blocked >> (number - 1) & 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
