"""Take batches from worker processes before they are asked for.

    workers --handles of shared memory--> torch's iterator, run by a thread here --a few opened batches--> next()

A worker sends a handle of shared memory, not the bytes. To open it, the receiver asks the worker, whose answer waits
until its reading lets go of the interpreter; ordering the next batch wakes a worker, which may take the core. Both cost
milliseconds, each time. Here a thread waits for them while the training goes on, as torch's pinning thread does for the
first of them where there is a GPU.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

DEPTH = 2  # batches taken and not asked for
_PATIENCE = 1.0  # seconds for a worker's answer when stopping


class TakenAhead(Iterator[Any]):
    """The items of a torch DataLoader's iterator with workers, up to `DEPTH` of them taken by a thread beforehand.

    An error comes where the item would have come, and again at every later call.

    Args:
        running: the iterator, not used yet and from now on by nobody else; it does not pin.
    """

    def __init__(self, running: Any) -> None:
        self._ready: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._room = threading.Semaphore(DEPTH)
        told, tell = Pipe(duplex=False)
        running._data_queue = _UntilTold(running._worker_result_queue, told)
        arguments = (running, self._ready, self._room, told)
        thread = threading.Thread(target=_take, args=arguments, name="batches ahead", daemon=True)
        thread.start()
        self._stop = weakref.finalize(self, _end, thread, tell, self._room)  # at the latest when the process ends

    def __next__(self) -> Any:
        item, error = self._ready.get()
        if error is not None:
            self._ready.put((None, error))
            raise error
        self._room.release()
        return item

    def stop(self) -> None:
        """End the thread; one that waits for the answer of a worker that hangs ends when that worker is killed."""
        self._stop()


class _Told(BaseException):
    """The thread is to end: not an error, and not for torch to handle."""


class _UntilTold:
    """The queue that workers send to, for the iterator to wait on; a word to the thread ends the waiting."""

    def __init__(self, results: Any, told: Connection) -> None:
        self._results = results
        self._told = told

    def get(self, timeout: float) -> Any:
        arrived = wait([self._told, self._results._reader], timeout)
        if self._told in arrived:
            raise _Told
        if not arrived:
            raise queue.Empty
        return self._results.get()


def _take(running: Any, ready: queue.SimpleQueue[Any], room: threading.Semaphore, told: Connection) -> None:
    end: Exception = StopIteration()
    try:
        while room.acquire() and not told.poll():
            ready.put((next(running), None))
    except _Told:
        pass
    except Exception as error:  # noqa: BLE001 - raised again where the item is asked for
        end = error
    ready.put((None, end))


def _end(thread: threading.Thread, tell: Connection, room: threading.Semaphore) -> None:
    tell.send_bytes(b"stop")
    room.release()
    if thread is not threading.current_thread():  # in which the garbage collector may have come by
        thread.join(_PATIENCE)
