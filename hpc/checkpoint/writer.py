"""Saves in the background: the loop hands over a state on the host and goes on while a thread writes it.

In:  step, state (already cloned to host memory; nobody may change it afterwards), meta.
Out: a committed checkpoint some seconds later; how long that took and how long the loop had to wait.

The thread makes no collective call and touches no device. At most one write is in flight: more would only pile up host
memory when the disk is slow. A process that ends normally, also by an exception, completes the write first.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from hpc.checkpoint.store import CheckpointStore


class BackgroundWriter:
    """Writes the states of one run into `store`, on rank 0."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._write: Future[None] | None = None
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
            former.result()
        return stalled

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the write in flight, at most `timeout` seconds; False if it still runs. Raises its error, once."""
        if self._write is None:
            return True
        if not wait([self._write], timeout).done:
            return False
        finished, self._write = self._write, None
        finished.result()
        return True

    def _commit(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
        started = time.monotonic()
        try:
            self._store.commit(step, state, meta)
        finally:
            self.last_s = time.monotonic() - started
            self.longest_s = max(self.longest_s, self.last_s)
