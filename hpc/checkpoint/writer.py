"""Saves in the background: the loop hands over a state on the host and goes on while a thread writes it.

In:  step, state (already cloned to host memory; nobody may change it afterwards), meta.
Out: a committed checkpoint some seconds later; how long that took and how long the loop had to wait.

The thread makes no collective call and touches no device. At most one write is in flight: more would only pile up host
memory when the disk is slow. A process that ends normally, also by an exception, completes the write first.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from hpc.checkpoint.store import CheckpointStore


class Written(NamedTuple):
    """A checkpoint that has become durable."""

    step: int
    seconds: float


class BackgroundWriter:
    """Writes the states of one run into `store`, on rank 0."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write: Future[Written] | None = None
        self._written: list[Written] = []
        self.last_s = 0.0
        """Seconds that the last finished write took."""
        self.longest_s = 0.0
        """Seconds that the longest write took: what a stop must leave time for."""

    def submit(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> float:
        """Start writing; returns the seconds spent waiting for the write before.

        If that former write failed, this one is started all the same and the former's error is raised afterwards.
        """
        former, started = self._write, time.monotonic()
        if former is not None:
            wait([former])
        stalled = time.monotonic() - started
        self._write = self._thread.submit(self._commit, step, state, meta)
        if former is not None:
            self._written.append(former.result())
        return stalled

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the write in flight, at most `timeout` seconds; False if it still runs. Raises its error, once."""
        if self._write is None:
            return True
        if not wait([self._write], timeout).done:
            return False
        finished, self._write = self._write, None
        self._written.append(finished.result())
        return True

    def news(self) -> list[Written]:
        """Checkpoints that became durable since the last question. Never blocks; raises a failed one's error, once."""
        if self._write is not None and self._write.done():
            self.wait()
        written, self._written = self._written, []
        return written

    def _commit(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> Written:
        started = time.monotonic()
        try:
            self._store.commit(step, state, meta)
            return Written(step, time.monotonic() - started)
        finally:
            self.last_s = time.monotonic() - started
            self.longest_s = max(self.longest_s, self.last_s)
