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
from hpc.jobs import slurm
from hpc.jobs.attempts import note_cancelled
from hpc.stop import StopCause, StopFlag
from hpc.task import Result, Task

ROOT = Path(tasks.__file__).resolve().parent.parent


class Ended(Exception):
    """Instead of the end of the test's own process."""


@pytest.fixture
def controller(tmp_path, monkeypatch):
    """Inside a job of submitit's, with a `scontrol` that notes what it is asked and can be told to fail some times."""
    tools, asked, failures = tmp_path / "tools", tmp_path / "asked", tmp_path / "failures"
    tools.mkdir()
    asked.touch()
    failures.write_text("0")
    (tools / "scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\nleft=$(cat {failures})\n'
        f'[ "$left" = 0 ] || {{ echo $((left - 1)) > {failures}; echo away >&2; exit 1; }}\n'
    )
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "PAUSE_S", 0)

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    return asked, failures


@pytest.fixture
def terminated():
    """SLURM's SIGTERM, half a second later."""
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    yield
    timer.join()


def leave(tmp_path: Path, cause: StopCause | None, rank: int = 0) -> Result:
    with StopFlag(tmp_path, rank).install() as stop:
        return Task("train", str(tmp_path))._leave(0, 5, cause, rank, stop)


@pytest.mark.parametrize("cause", [StopCause.PREEMPT, StopCause.WALLTIME])
def test_rank_0_asks_for_the_requeue_and_leaves_at_its_sigterm(tmp_path, controller, terminated, cause):
    with pytest.raises(Ended, match="0"):
        leave(tmp_path, cause)
    assert controller[0].read_text() == "requeue 7\n"


def test_a_controller_that_is_away_for_a_while_does_not_end_the_run(tmp_path, controller, terminated):
    controller[1].write_text("2")
    with pytest.raises(Ended):
        leave(tmp_path, StopCause.PREEMPT)
    assert controller[0].read_text() == "requeue 7\n" * 3


def test_a_controller_that_stays_away_is_an_error_with_its_own_words(tmp_path, controller):
    controller[1].write_text(str(slurm.TRIES))
    with pytest.raises(slurm.SlurmError, match="scontrol requeue 7: away"):
        leave(tmp_path, StopCause.PREEMPT)


def test_a_job_that_was_cancelled_meanwhile_is_not_requeued(tmp_path, controller, terminated):
    note_cancelled(tmp_path, ["7"])
    with pytest.raises(Ended):
        leave(tmp_path, StopCause.PREEMPT)
    assert controller[0].read_text() == ""


def test_other_ranks_leave_at_the_sigterm_of_the_requeue_that_rank_0_asked_for(tmp_path, controller, terminated):
    with pytest.raises(Ended, match="0"):
        leave(tmp_path, StopCause.PREEMPT, rank=1)
    assert controller[0].read_text() == ""


def test_a_bare_sigterm_ends_the_ranks_once_slurm_is_seen_to_let_the_job_run_on(tmp_path, controller, monkeypatch):
    monkeypatch.setattr(tasks, "ASK_EVERY_S", 0.1)
    answers = ["COMPLETING", "RUNNING PreemptTime=2026-11-21T02:00:00", "RUNNING PreemptTime=None"]
    shown = iter([*answers, answers[-1]])
    monkeypatch.setattr("hpc.jobs.slurm.ask", lambda *_: f"JobId=7 JobState={next(shown)}")
    with pytest.raises(Ended, match="0"):
        leave(tmp_path, StopCause.TERMINATE)
    assert next(shown, None) is None


def test_a_cancelled_job_asks_for_nothing_and_waits_for_sigkill(tmp_path):
    code = (
        "import os, signal, pathlib; from hpc.task import Task; from hpc.stop import StopCause, StopFlag\n"
        "with StopFlag(pathlib.Path('.'), 0).install() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('saved', flush=True)\n"
        "    Task('train', '.')._leave(0, 5, stop.local_cause(), 0, stop)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SUBMITIT_EXECUTOR": "slurm"}
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


def test_a_stop_file_and_the_end_of_the_schedule_return(tmp_path, controller):
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


def test_a_stopped_evaluation_says_the_very_command_that_goes_on():
    typed = "python hpc/launch.py evaluate run=x --ranks 2 eval.test_clips=40"
    assert f"go on with: {typed}" in Task("evaluate", "x", typed=typed)._farewell(5, StopCause.INTERRUPT)
