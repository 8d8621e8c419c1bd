"""Saving in the background: one at a time, no error lost, and a normal exit completes it."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from hpc.checkpoint.errors import CheckpointWriteError
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.writer import BackgroundWriter


class SlowStore:
    """Stands for a slow disk: each commit waits until it is let through."""

    def __init__(self):
        self.gate = threading.Semaphore(0)
        self.committed = []
        self.fail = None

    def commit(self, step, *_state_and_meta):
        self.gate.acquire()
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        self.committed.append(step)


@pytest.fixture
def slow():
    store = SlowStore()
    yield store
    store.gate.release(100)


def test_submit_returns_at_once_and_wait_waits(slow):
    writer = BackgroundWriter(slow)
    assert writer.wait()
    assert writer.submit(1, {}, {}) < 0.05
    assert not writer.wait(timeout=0.02)
    slow.gate.release()
    assert writer.wait(timeout=5)
    assert slow.committed == [1]


def test_at_most_one_write_is_in_flight_and_the_stall_is_reported(slow):
    writer = BackgroundWriter(slow)
    writer.submit(1, {}, {})
    threading.Timer(0.2, slow.gate.release, [2]).start()
    assert 0.1 < writer.submit(2, {}, {}) < 5
    assert slow.committed[0] == 1
    assert writer.wait(5)
    assert slow.committed == [1, 2]
    assert writer.longest_s >= 0.15
    assert writer.last_s < writer.longest_s


def test_an_error_surfaces_at_the_next_wait_once(slow):
    writer = BackgroundWriter(slow)
    slow.fail = CheckpointWriteError("disk full")
    writer.submit(1, {}, {})
    slow.gate.release()
    with pytest.raises(CheckpointWriteError, match="disk full"):
        writer.wait(5)
    assert writer.wait(5)


def test_an_error_surfaces_at_the_next_submit_and_that_state_is_written_all_the_same(slow):
    writer = BackgroundWriter(slow)
    slow.fail = CheckpointWriteError("disk full")
    writer.submit(1, {}, {})
    slow.gate.release(2)
    with pytest.raises(CheckpointWriteError, match="disk full"):
        writer.submit(2, {}, {})
    assert writer.wait(5)
    assert slow.committed == [2]


def test_an_unfit_state_is_reported_too(tmp_path):
    writer = BackgroundWriter(CheckpointStore(tmp_path, keep_last=2))
    writer.submit(1, {"x": object()}, {})
    with pytest.raises(TypeError, match=r"state\['x'\]"):
        writer.wait(5)


@pytest.mark.parametrize("ending", ["", "raise SystemExit(3)", "raise RuntimeError('the loop failed')"])
def test_a_process_that_ends_completes_its_pending_write(tmp_path, ending):
    code = f"""
import pathlib, time, torch
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.writer import BackgroundWriter
class Slow(CheckpointStore):
    def commit(self, *args):
        time.sleep(0.3)
        return super().commit(*args)
BackgroundWriter(Slow(pathlib.Path({str(tmp_path)!r}), keep_last=2)).submit(5, {{"w": torch.ones(3)}}, {{}})
{ending}
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, timeout=60)
    store = CheckpointStore(tmp_path, keep_last=2)
    newest = store.newest()
    assert newest is not None
    assert torch.equal(store.read(newest)["w"], torch.ones(3))


def test_the_loop_computes_while_the_write_goes_on(tmp_path):
    """Hashing and writing release the interpreter: 20 ms of Python work is not held up by a 64 MB write."""
    writer = BackgroundWriter(CheckpointStore(tmp_path, keep_last=2))
    writer.submit(1, {"w": torch.zeros(16_000_000)}, {})
    longest = 0.0
    while not writer.wait(timeout=0):
        started = time.perf_counter()
        sum(range(1000))
        longest = max(longest, time.perf_counter() - started)
    assert longest < 0.5
