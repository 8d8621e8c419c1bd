"""From a source of clips to this rank's batches, in order, ahead of time.

    samples_consumed --micro step numbers--> positions of this rank --ClipSource.fetch in workers--> Batch (pinned)

What workers send is opened in this process before it is asked for: by torch's pinning thread, else by `TakenAhead`.

The stream of positions belongs to the job, not to a rank: optimiser step k takes positions [kB, (k+1)B) whatever the
number of ranks, workers and micro batches, so the whole state of the data is the one number ``samples_consumed``.

Letters: B global batch, M micro batch, W ranks, r this rank; a micro step is one forward and backward pass.
"""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from shards.ahead import TakenAhead
from shards.source import ClipSource, Substitution

_STOP_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)


@dataclass
class Batch:
    """One micro batch on its way to the device.

    Attributes:
        arrays: by name, each with a leading batch axis M; ``video`` is uint8 BTCHW.
        keys: name of each sample.
        positions: place of each sample in the endless stream.
        substitutions: samples that took another's place here; give them to the ledger when the batch is consumed.
    """

    arrays: dict[str, torch.Tensor]
    keys: list[str]
    positions: list[int]
    substitutions: list[Substitution]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which copies to the device run in the background."""
        return replace(self, arrays={name: array.pin_memory() for name, array in self.arrays.items()})


class Loader:
    """This rank's share of the endless stream of training batches.

    Args:
        source: where clips come from. Every worker process gets a pickled copy.
        seed: the run's seed; same seed, same contents, same global batch: same batches.
        global_batch: clips per optimiser step, over all ranks and micro steps.
        micro_batch: clips per forward pass on one rank; global_batch must be a multiple of micro_batch * world_size.
        rank: this process among the ranks, from 0.
        world_size: number of ranks.
        workers: processes that read ahead; 0 reads in this process. Their number never changes what is read.
        prefetch: micro batches that each worker keeps ready (unused with 0 workers). At most workers x prefetch +
            `shards.ahead.DEPTH` are ahead of the consumer, without the latter where batches are pinned.
        pin_memory: put batches into page-locked memory where there is a CUDA device.

    Raises:
        ValueError: the batch sizes do not divide, or a number is out of range.
    """

    def __init__(
        self,
        source: ClipSource,
        *,
        seed: int,
        global_batch: int,
        micro_batch: int,
        rank: int,
        world_size: int,
        workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
    ) -> None:
        _check_sizes(global_batch, micro_batch, rank, world_size, workers, prefetch)
        self._reader = _MicroBatches(source, seed, micro_batch, rank, world_size)
        self._workers = workers
        self._prefetch = prefetch
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._running: Any = None
        self._ahead: TakenAhead | None = None

    def batches(self, samples_consumed: int) -> Iterator[Batch]:
        """Micro batches in order, endlessly, the first one at position ``samples_consumed`` of the job's stream.

        A new call ends the iterator of the one before.

        Raises:
            ShardError: a sample is damaged and may not be substituted.
            ValueError: ``samples_consumed`` is negative.
        """
        if samples_consumed < 0:
            raise ValueError(f"samples_consumed counts samples from 0, found {samples_consumed}")
        self.close()
        loader = DataLoader(
            replace(self._reader, samples_consumed=samples_consumed),
            batch_size=None,
            sampler=_EndlessCount(),
            num_workers=self._workers,
            prefetch_factor=self._prefetch if self._workers else None,
            collate_fn=_as_it_is,
            pin_memory=self._pin_memory,
            multiprocessing_context="spawn" if self._workers else None,
            worker_init_fn=_settle_worker,
            generator=torch.Generator(),  # else each call would draw from the run's own generator
        )
        with _stop_signals_held():
            self._running = iter(loader)
            if self._workers and not self._pin_memory:
                self._ahead = TakenAhead(self._running)  # here, so that signals never go to its thread
        return self._ahead or self._running

    def close(self) -> None:
        """Stop the workers after the micro batch each is reading; the loader can be used again."""
        running, self._running = self._running, None
        if running is None or not self._workers:
            return
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None
        running._shutdown_workers()
        for process in running._workers:
            process.kill()  # only one that hangs is still there, and it ignores the polite signals
            process.join()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def evaluation_indices(num_clips: int, rank: int, world_size: int, batch: int) -> Iterator[list[int]]:
    """Clip numbers of one evaluation pass on one rank, in batches: over all ranks each clip exactly once.

    Ranks may differ by one clip, and so by one batch; the last batch of a rank may be short.

    Raises:
        ValueError: rank, world size or batch is out of range.
    """
    if not 0 <= rank < world_size or batch < 1:
        raise ValueError(f"need 0 <= rank < world_size and batch >= 1, found {rank}, {world_size}, {batch}")
    mine = range(rank, num_clips, world_size)
    for start in range(0, len(mine), batch):
        yield list(mine[start : start + batch])


@dataclass(frozen=True)
class _MicroBatches(Dataset[Batch]):
    """One rank's stream as a table: micro step number (from ``samples_consumed`` on) -> batch."""

    source: ClipSource
    seed: int
    micro_batch: int
    rank: int
    world_size: int
    samples_consumed: int = 0

    def __getitem__(self, micro_step: int) -> Batch:
        start = self.samples_consumed + (micro_step * self.world_size + self.rank) * self.micro_batch
        positions = np.arange(start, start + self.micro_batch, dtype=np.int64)
        fetched = self.source.fetch(positions, self.seed)
        arrays = {name: torch.from_numpy(array) for name, array in fetched.arrays.items()}
        return Batch(arrays, fetched.keys, positions.tolist(), fetched.substitutions)


class _EndlessCount(Sampler[int]):
    """Micro step numbers 0, 1, 2, ... without an end: there are no epochs to run out of."""

    def __iter__(self) -> Iterator[int]:
        return count()


def _as_it_is(batch: Any) -> Any:
    return batch


def _settle_worker(_: int) -> None:
    """Runs first in each worker: one thread, and deaf to the signals by which a job is told to stop.

    SLURM sends those to every process of a step; the main process must be able to read on until it has saved.
    A worker has nothing to tidy up: it leaves before Python ends the thread that is sending a batch, since that thread,
    ended inside torch, aborts the process ("terminate called without an active exception").
    """
    atexit.register(os._exit, 0)
    torch.set_num_threads(1)
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _stop_signals_held() -> Iterator[None]:
    """Hold back stop signals while workers start, which inherit this; a signal is delivered afterwards, not lost.

    Workers are spawned, not forked: a fork copies locks held by other threads (tracking, checkpoint writer, NCCL) and
    an initialised CUDA context cannot be used in it. A fork server would save each worker's import of torch (1.6 s),
    but torch's workers watch their parent process, which would be the fork server: they outlive a killed run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()  # unblocks some signals when it starts, so it starts first
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_sizes(global_batch: int, micro_batch: int, rank: int, world_size: int, workers: int, prefetch: int) -> None:
    if min(global_batch, micro_batch, world_size, prefetch) < 1 or workers < 0 or not 0 <= rank < world_size:
        raise ValueError(
            f"need global_batch, micro_batch, world_size, prefetch >= 1, workers >= 0, 0 <= rank < world_size; found "
            f"{global_batch=}, {micro_batch=}, {world_size=}, {prefetch=}, {workers=}, {rank=}"
        )
    if global_batch % (micro_batch * world_size):
        raise ValueError(
            f"global batch {global_batch} is not a multiple of micro batch {micro_batch} x {world_size} ranks = "
            f"{micro_batch * world_size}; change one of them"
        )
