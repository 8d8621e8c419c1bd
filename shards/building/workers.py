"""Work spread over processes, with a bar and the time left.

In: a function, things to do. Out: (thing, result) as they are done. Workers are spawned, take no notice of Ctrl-C (the
parent ends them), and end with their parent, however that ends.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from shards.errors import ShardError


class WorkerKilled(ShardError):
    """A worker process was killed: by the system for want of memory, by a crash of a decoder, or by somebody."""


Thing = TypeVar("Thing")
Result = TypeVar("Result")
_POLL_S = 0.2
_LINE_EVERY_S = 30.0
_PR_SET_PDEATHSIG = 1
_ticks: Any = None


def tick() -> None:
    """One step of the work is done: moves the bar."""
    if _ticks is not None:
        with _ticks.get_lock():
            _ticks.value += 1


def run_in_workers(
    work: Callable[[Thing], Result],
    things: Sequence[Thing],
    workers: int,
    title: str,
    *,
    steps: int | None = None,
) -> Iterator[tuple[Thing, Result]]:
    """Results as they are done, in no order.

    Args:
        work: a function that can be pickled.
        things: what to do.
        workers: processes.
        title: of the bar.
        steps: how often ``work`` calls :func:`tick` in all; None counts things.

    Raises:
        WorkerKilled: a worker was killed.
        OSError: from ``work``; nothing more is begun then, and what had begun is ended.
        Exception: anything else from ``work``, after everything else is done.
    """
    if not things:
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(
        min(workers, len(things)), mp_context=context, initializer=_begin, initargs=(counter, os.getpid())
    )
    try:
        pending: dict[Future[Result], Thing] = {pool.submit(work, thing): thing for thing in things}
        done_things = 0
        failure: BaseException | None = None
        with progress(title, steps or len(things)) as advance_to:
            while pending:
                done, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                for future in done:
                    thing = pending.pop(future)
                    done_things += 1
                    error = future.exception()
                    if error is None:
                        yield thing, future.result()
                    elif isinstance(error, (OSError, BrokenProcessPool)):
                        raise error
                    failure = failure or error
                advance_to(counter.value if steps else done_things)
        if failure is not None:
            raise failure
    except BrokenProcessPool as error:
        problem = "a worker process was killed, perhaps for want of memory; what is complete is kept"
        raise WorkerKilled(problem, remedy="Run the same command again, with fewer --workers.") from error
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _begin(counter: Any, parent: int) -> None:
    global _ticks
    _ticks = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on a terminal; else a line now and then. Yields what is told how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        with _lines(title, total) as advance_to:
            yield advance_to
        return
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    begin = time.monotonic()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total, rate="")

        def advance_to(done: int) -> None:
            bar.update(task, completed=done, rate=f"{done / max(time.monotonic() - begin, 1e-9):.3g}/s")

        yield advance_to


@contextmanager
def _lines(title: str, total: int) -> Iterator[Callable[[int], None]]:
    begin = told = time.monotonic()

    def advance_to(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told < _LINE_EVERY_S or not done:
            return
        told = now
        left = timedelta(seconds=round((total - done) * (now - begin) / done))
        print(f"{title}: {done} of {total}, {done / (now - begin):.3g}/s, {left} left", file=sys.stderr, flush=True)

    yield advance_to
