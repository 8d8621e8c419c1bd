"""One trainer at a time in a run folder; the lock ends with its holder, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.config import ConfigError
from hpc.lease import held

ROOT = Path(__file__).resolve().parents[2]
HOLDER = "import sys, time; from pathlib import Path; from hpc.lease import held\n"
HOLDER += "with held(Path(sys.argv[1]), 'job 77', 0):\n    print('held', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_trainer_is_refused_and_told_who_is_first(tmp_path, holder):
    with (
        pytest.raises(ConfigError, match=rf"is being trained by job 77, process {holder.pid} on"),
        held(tmp_path, "", 0),
    ):
        pass


def test_the_lock_of_a_killed_holder_is_free_at_once(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with held(tmp_path, "the next", 0):
        pass


def test_who_is_patient_gets_it_when_the_holder_leaves(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("hpc.lease.LOOK_EVERY_S", 0.05)
    started = time.monotonic()
    subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
    with held(tmp_path, "the next", 30):
        assert time.monotonic() - started >= 0.4


def test_it_can_be_taken_again_and_again(tmp_path):
    for _ in range(3):
        with held(tmp_path, "me", 0):
            pass
