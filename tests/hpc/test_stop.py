"""Every reason to stop raises the flag with its cause; all ranks act on the same one; nothing kills a save."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.stop import SIGNALS, AfterSave, StopCause, StopFlag, decode, encode

REPOSITORY = Path(__file__).parents[2]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def flag(tmp_path):
    stop = StopFlag(tmp_path, rank=0)
    with stop.install():
        yield stop


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGUSR2, StopCause.PREEMPT),
        (signal.SIGTERM, StopCause.TERMINATE),
        (signal.SIGINT, StopCause.INTERRUPT),
    ],
)
def test_a_signal_raises_the_flag_and_nothing_else(flag, number, cause):
    assert flag.local_cause() is None
    send(number)
    assert flag.local_cause() is cause
    assert flag.local_cause() is cause


def test_what_follows_each_cause():
    """The table of the design: who asks for a requeue, who waits to be ended, who exits."""
    table = {cause.label: (cause.requeue, cause.under_slurm, cause.elsewhere, cause.exit_code) for cause in StopCause}
    assert table == {
        "walltime": (True, AfterSave.REQUEUE, AfterSave.EXIT, 0),
        "preempt": (True, AfterSave.REQUEUE, AfterSave.EXIT, 0),
        "stop-file": (False, AfterSave.EXIT, AfterSave.EXIT, 0),
        "interrupt": (False, AfterSave.EXIT, AfterSave.EXIT, 130),
        "terminate": (False, AfterSave.WAIT, AfterSave.EXIT, 0),
    }


def test_former_handlers_are_not_called_and_come_back(tmp_path):
    called = []

    def submitit_like(number, frame):
        called.append((number, frame))

    before = signal.signal(signal.SIGUSR2, submitit_like)
    try:
        flag = StopFlag(tmp_path, rank=0)
        with flag.install():
            send(signal.SIGUSR2)
        assert called == []
        assert signal.getsignal(signal.SIGUSR2) is submitit_like
        assert all(signal.getsignal(number) != flag._on_signal for number in SIGNALS)
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_the_budget_ends_the_run_by_the_wall_clock(tmp_path):
    clock = Clock()
    flag = StopFlag(tmp_path, rank=3, budget_s=60, clock=clock)
    clock.now += 59.9
    assert flag.local_cause() is None
    clock.now += 0.2
    assert flag.local_cause() is StopCause.WALLTIME


def test_a_stop_file_is_seen_by_rank_0_within_a_second_and_looked_for_no_oftener(tmp_path, monkeypatch):
    looks = []
    real = os.path.lexists

    def counted(path):
        looks.append(path)
        return real(path)

    monkeypatch.setattr(os.path, "lexists", counted)
    clock = Clock()
    first, other = (StopFlag(tmp_path, rank=rank, clock=clock) for rank in (0, 1))
    for _ in range(1000):
        assert first.local_cause() is other.local_cause() is None
        clock.now += 0.01
    assert len(looks) == pytest.approx(10, abs=1)
    (tmp_path / "STOP").touch()
    clock.now += 1
    assert first.local_cause() is StopCause.STOP_FILE
    assert other.local_cause() is None
    assert (tmp_path / "STOP").exists()


def test_a_wish_to_end_outranks_a_wish_to_go_on_later(flag):
    send(signal.SIGTERM)
    send(signal.SIGUSR2)
    assert flag.local_cause() is StopCause.TERMINATE
    order = [cause.label for cause in sorted(StopCause, key=encode)]
    assert order == ["walltime", "preempt", "stop-file", "interrupt", "terminate"]


def test_all_ranks_act_on_the_same_cause(tmp_path):
    """Whatever each rank has noticed: the greatest number is decoded alike everywhere."""
    clock = Clock()
    flags = [StopFlag(tmp_path, rank=rank, budget_s=10 if rank == 2 else None, clock=clock) for rank in range(4)]
    greatest = max(encode(flag.local_cause()) for flag in flags)
    assert [flag.agree(lambda _: greatest) for flag in flags] == [None] * 4
    clock.now += 11
    (tmp_path / "STOP").touch()
    greatest = max(encode(flag.local_cause()) for flag in flags)
    assert [flag.agree(lambda own: max(own, greatest)) for flag in flags] == [StopCause.STOP_FILE] * 4


def test_every_cause_survives_the_all_reduce():
    for cause in (None, *StopCause):
        assert decode(encode(cause)) is cause
    with pytest.raises(KeyError):
        decode(99)


@pytest.mark.usefixtures("flag")
@pytest.mark.parametrize("earlier", [[], [signal.SIGTERM]])
def test_a_second_ctrl_c_ends_the_run_at_once(earlier):
    for number in earlier:
        send(number)
    send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_a_second_signal_does_not_end_a_save(flag):
    send(signal.SIGINT)
    done = []

    def save():
        with flag.shield():
            send(signal.SIGINT)
            send(signal.SIGTERM)
            send(signal.SIGTERM)
            done.append("saved")

    with pytest.raises(KeyboardInterrupt):
        save()
    assert done == ["saved"]


def test_a_shield_without_a_second_ctrl_c_raises_nothing(flag):
    send(signal.SIGINT)
    with flag.shield():
        send(signal.SIGTERM)
    assert flag.local_cause() is StopCause.TERMINATE


def test_no_torch_before_the_handlers_are_installed():
    code = "import sys, hpc.stop; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_signals_during_a_real_background_save_do_not_harm_it(tmp_path):
    """From outside, into a process that is writing: it finishes the write and ends by itself."""
    code = f"""
import pathlib, time, torch
from hpc.checkpoint.store import CheckpointStore
from hpc.checkpoint.writer import BackgroundWriter
from hpc.stop import StopFlag
class Slow(CheckpointStore):
    def commit(self, *args):
        time.sleep(0.5)
        return super().commit(*args)
flag = StopFlag(pathlib.Path({str(tmp_path)!r}), rank=0)
with flag.install():
    writer = BackgroundWriter(Slow(pathlib.Path({str(tmp_path)!r}), keep_last=2))
    print("ready", flush=True)
    while flag.local_cause() is None:
        time.sleep(0.01)
    with flag.shield():
        writer.submit(1, {{"w": torch.ones(3)}}, {{}})
        print("saving", flush=True)
        writer.wait()
print(flag.local_cause().label, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR2)
    assert process.stdout.readline() == "saving\n"
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    assert process.stdout.readline() == "terminate\n"
    assert process.wait(10) == 0
    from hpc.checkpoint.store import CheckpointStore

    newest = CheckpointStore(tmp_path, keep_last=2).newest()
    assert newest is not None
    assert newest.step == 1
