"""The loader: one stream for the job, whatever ranks, workers and micro batches; resumed anywhere at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards.loader import Batch, Loader, evaluation_indices
from shards.source import Fetched, Substitution
from tests.shards.stored_clips import flip_bit, make_dataset, open_clips, open_reader

GLOBAL_BATCH = 8


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A dataset with one damaged clip."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    make_dataset(folder)
    label = open_reader(folder)._index(0).arrays["label"]
    flip_bit(folder / "train-000000.tar", int(label.offset[3]))
    return folder


def read_steps(root: Path, steps: int, *, consumed: int = 0, world: int = 1, micro: int = 8, workers: int = 0) -> list:
    """For each optimiser step the global batch: (position, key, frames, substitute's key), in order of position."""
    source = open_clips(root, max_substitutions=3)
    per_step = GLOBAL_BATCH // (micro * world)
    rows: list[tuple] = []
    for rank in range(world):
        options: dict[str, Any] = {"micro_batch": micro, "rank": rank, "world_size": world, "workers": workers}
        with Loader(source, seed=5, global_batch=GLOBAL_BATCH, **options) as loader:
            for batch in islice(loader.batches(consumed), steps * per_step):
                substitutes = {record.position: record.substitute_key for record in batch.substitutions}
                for position, key, frames in zip(batch.positions, batch.keys, batch.arrays["video"], strict=True):
                    rows.append((position, key, frames.numpy().tobytes(), substitutes.get(position)))
    rows.sort()
    return rows


def test_the_same_batches_at_any_number_of_ranks_and_any_micro_batch(root):
    reference = read_steps(root, 6)
    assert [row[0] for row in reference] == list(range(48))
    assert sum(row[3] is not None for row in reference) >= 2
    for world, micro in ((1, 4), (1, 1), (2, 4), (2, 2), (4, 2), (4, 1), (8, 1)):
        assert read_steps(root, 6, world=world, micro=micro) == reference


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_batches_at_any_number_of_workers(root, workers):
    assert read_steps(root, 4, world=1, micro=2, workers=workers) == read_steps(root, 4)


def test_resuming_anywhere_gives_exactly_the_rest(root):
    whole = read_steps(root, 6)
    for step, world, micro in ((1, 1, 8), (3, 2, 2), (5, 4, 1)):
        rest = read_steps(root, 6 - step, consumed=step * GLOBAL_BATCH, world=world, micro=micro)
        assert rest == whole[step * GLOBAL_BATCH :]


def test_resuming_far_ahead_takes_no_time(root):
    source = open_clips(root, max_substitutions=3)
    loader = Loader(source, seed=5, global_batch=8, micro_batch=8, rank=0, world_size=1)
    next(loader.batches(0))
    started = time.perf_counter()
    batch = next(loader.batches(10**15))
    assert time.perf_counter() - started < 1
    assert batch.positions[0] == 10**15


def test_batches_come_in_order_as_uint8_tensors(root):
    loader = Loader(open_clips(root, max_substitutions=3), seed=5, global_batch=8, micro_batch=2, rank=1, world_size=2)
    batches = list(islice(loader.batches(0), 4))
    assert [batch.positions for batch in batches] == [[2, 3], [6, 7], [10, 11], [14, 15]]
    assert batches[0].arrays["video"].dtype == torch.uint8
    assert batches[0].arrays["video"].shape == (2, 5, 3, 8, 8)


def test_reading_does_not_touch_the_runs_own_random_numbers(root):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = Loader(open_clips(root, max_substitutions=3), seed=5, global_batch=8, micro_batch=8, rank=0, world_size=1)
    next(loader.batches(0))
    assert torch.equal(torch.get_rng_state(), before)


class SlowSource:
    """Knows in which process it runs, and takes its time."""

    fingerprint = "slow"
    arrays: dict = {}  # noqa: RUF012

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __len__(self) -> int:
        return 100

    def fetch(self, positions: np.ndarray, seed: int) -> Fetched:
        time.sleep(self.seconds)
        return Fetched({"pid": np.array([os.getpid()]), "threads": np.array([torch.get_num_threads()])}, ["x"])

    def read(self, indices: Sequence[int]) -> Fetched:
        raise NotImplementedError

    def quarantine(self, records: Sequence[Substitution]) -> None:
        raise NotImplementedError


def slow_loader(seconds: float) -> Loader:
    return Loader(SlowSource(seconds), seed=0, global_batch=1, micro_batch=1, rank=0, world_size=1, workers=1)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_ignore_the_signals_that_stop_a_job_and_end_when_closed():
    loader = slow_loader(0.05)
    batches = loader.batches(0)
    first: Batch = next(batches)
    pid = int(first.arrays["pid"][0])
    assert pid != os.getpid()
    assert int(first.arrays["threads"][0]) == 1
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        os.kill(pid, number)
    assert [int(next(batches).arrays["pid"][0]) for _ in range(5)] == [pid] * 5
    processes = loader._running._workers
    started = time.monotonic()
    loader.close()
    assert time.monotonic() - started < 3
    assert [process.exitcode for process in processes] == [0]
    assert not is_running(pid)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


@pytest.mark.slow
def test_workers_do_not_outlive_a_run_that_is_killed():
    code = "from tests.shards.test_loader import *; b = next(slow_loader(0.05).batches(0)); "
    code += "print(int(b.arrays['pid'][0]), flush=True); time.sleep(60)"
    repository = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=repository) as run:
        assert run.stdout is not None
        worker = int(run.stdout.readline())
        run.kill()
    deadline = time.monotonic() + 15
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not is_running(worker)


def test_errors_of_a_worker_reach_the_main_process_with_their_message(root):
    loader = Loader(open_clips(root), seed=5, global_batch=8, micro_batch=8, rank=0, world_size=1, workers=1)
    with loader, pytest.raises(RuntimeError, match=r"train-000000.tar, member clip003.label.raw"):
        list(islice(loader.batches(0), 6))


@pytest.mark.parametrize("num_clips", [0, 1, 7, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_evaluation_visits_each_clip_exactly_once(num_clips, world):
    parts = [list(evaluation_indices(num_clips, rank, world, batch=3)) for rank in range(world)]
    clips = [clip for part in parts for batch in part for clip in batch]
    assert sorted(clips) == list(range(num_clips))
    assert all(len(batch) <= 3 for part in parts for batch in part)
    counts = [sum(len(batch) for batch in part) for part in parts]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    "sizes",
    [
        {"global_batch": 8, "micro_batch": 3, "rank": 0, "world_size": 1},
        {"global_batch": 8, "micro_batch": 4, "rank": 2, "world_size": 2},
        {"global_batch": 8, "micro_batch": 0, "rank": 0, "world_size": 1},
        {"global_batch": 8, "micro_batch": 8, "rank": 0, "world_size": 1, "workers": -1},
    ],
)
def test_batch_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match=r"found|multiple"):
        Loader(SlowSource(0), seed=0, **sizes)
    with pytest.raises(ValueError, match="found -1"):
        slow_loader(0).batches(-1)
