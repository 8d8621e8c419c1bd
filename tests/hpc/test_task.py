"""How a rank leaves after a stop: rank 0 requeues through submitit's handler, the others wait to be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hpc import task as tasks
from hpc.config import ConfigError
from hpc.stop import StopCause, StopFlag
from hpc.task import Result, Task

ROOT = Path(tasks.__file__).resolve().parent.parent


class Ended(Exception):
    """Instead of the end of the test's own process."""


@pytest.fixture
def submitit_handler(monkeypatch):
    """A stand-in for submitit's handler of SIGUSR2, which requeues and exits; its answers can be set."""
    answers: list[BaseException] = []
    calls: list[int] = []

    def handler(number: int, _frame: object) -> None:
        calls.append(number)
        raise answers.pop(0) if answers else SystemExit(-1)

    former = signal.signal(signal.SIGUSR2, handler)
    monkeypatch.setattr(tasks, "REQUEUE_PAUSE_S", 0)
    yield answers, calls
    signal.signal(signal.SIGUSR2, former)


def leave(tmp_path: Path, cause: StopCause | None, rank: int = 0) -> Result:
    with StopFlag(tmp_path, rank).install() as stop:
        return Task("train", str(tmp_path))._leave(0, 5, cause, rank, stop)


@pytest.mark.parametrize("cause", [StopCause.PREEMPT, StopCause.WALLTIME])
def test_rank_0_requeues_through_the_handler_that_submitit_installed(tmp_path, submitit_handler, cause):
    with pytest.raises(SystemExit):
        leave(tmp_path, cause)
    assert submitit_handler[1] == [signal.SIGUSR2]


def test_a_controller_that_is_away_for_a_while_does_not_end_the_run(tmp_path, submitit_handler):
    answers, calls = submitit_handler
    answers += [subprocess.CalledProcessError(1, "scontrol"), subprocess.TimeoutExpired("scontrol", 60)]
    with pytest.raises(SystemExit):
        leave(tmp_path, StopCause.PREEMPT)
    assert len(calls) == 3


def test_a_controller_that_stays_away_is_an_error_that_says_how_to_go_on(tmp_path, submitit_handler):
    submitit_handler[0].extend(subprocess.CalledProcessError(1, "scontrol") for _ in range(tasks.REQUEUE_TRIES))
    with pytest.raises(RuntimeError, match="start it again with the same run="):
        leave(tmp_path, StopCause.PREEMPT)


def test_other_ranks_leave_at_the_sigterm_of_the_requeue_they_asked_for(tmp_path, submitit_handler, monkeypatch):
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(Ended, match="0"):
        leave(tmp_path, StopCause.PREEMPT, rank=1)
    assert not timer.is_alive()
    assert not submitit_handler[1]


def test_a_cancelled_job_asks_for_nothing_and_waits_for_sigkill(tmp_path):
    code = (
        "import os, signal, pathlib; from hpc.task import Task; from hpc.stop import StopCause, StopFlag\n"
        "signal.signal(signal.SIGUSR2, lambda *_: print('requeued', flush=True))\n"
        "with StopFlag(pathlib.Path('.'), 0).install() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('saved', flush=True)\n"
        "    Task('train', '.')._leave(0, 5, stop.local_cause(), 0, stop)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
        (told,) = process.stdout.read().splitlines()
        assert told.startswith("stopped at step 5 (terminate)")


def test_a_stop_file_and_the_end_of_the_schedule_return(tmp_path, submitit_handler):
    assert leave(tmp_path, StopCause.STOP_FILE) == Result(0, 5, "stop-file")
    assert leave(tmp_path, None) == Result(0, 5, "finished")


def test_without_submitit_every_cause_returns_its_exit_code_even_inside_an_allocation(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for cause in StopCause:
        assert leave(tmp_path, cause) == Result(cause.exit_code, 5, cause.label)


def test_a_rank_that_should_have_a_gpu_never_trains_on_the_cpu_instead(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ConfigError, match=r"no CUDA device.*CUDA_VISIBLE_DEVICES is 0,1.*--gpus-per-node 0"):
        tasks.require_gpu()


def test_the_signal_handlers_do_not_wait_for_torch():
    look = "import sys, hpc.task; print('torch' in sys.modules, 'omegaconf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
