"""What SLURM's commands say, as data; shell scripts of their names answer here, the real ones in tests/slurm."""

from __future__ import annotations

import datetime
import os

import pytest

from hpc.jobs import slurm
from hpc.jobs.slurm import JobState, SlurmError


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Puts commands on PATH."""

    def put(**scripts: str) -> None:
        for name, script in scripts.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return put


def test_a_process_knows_its_job_its_element_and_its_restarts():
    assert slurm.this_job({"SLURM_JOB_ID": "7"}) == "7"
    assert slurm.this_job({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}) == "7_2"
    assert slurm.this_job({}) is None
    assert slurm.restarts({"SLURM_RESTART_COUNT": "3"}) == 3


def test_ranks_of_our_own_launcher_inside_an_allocation_are_no_job_of_slurms():
    inside = {"ODEVID_LAUNCHER": "local", "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "3", "SLURM_PROCID": "0"}
    assert (slurm.this_job(inside), slurm.restarts(inside), slurm.nodes_of_this_step(inside)) == (None, 0, [])


def test_states_come_from_the_queue_and_of_forgotten_jobs_from_accounting(commands):
    commands(
        squeue="echo '7|RUNNING|None|n[1-4]|1:02|2026-11-21T02:00:00'; echo '8|PENDING|a|b|c|d|e'",
        sacct="echo '9|CANCELLED by 0|n1|0:10'",
    )
    found = slurm.job_states(["7", "8", "9", "10"])
    assert found["7"] == JobState("7", "RUNNING", "None", "n[1-4]", "1:02", "2026-11-21T02:00:00")
    assert found["8"].unfinished
    assert (found["9"].state, found["9"].unfinished) == ("CANCELLED", False)
    assert "10" not in found


def test_a_job_that_the_controller_has_forgotten_is_no_error_but_a_controller_that_is_away_is(commands):
    commands(squeue="echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", sacct="exit 1")
    assert slurm.job_states(["7"]) == {}
    commands(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact"):
        slurm.job_states(["7"])


def test_a_time_limit_is_told_from_a_preemption(commands):
    def shown(seconds: int, preempted: str = "None") -> bool:
        end = (datetime.datetime.now() + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")
        commands(scontrol=f"echo 'JobId=7 JobState=RUNNING EndTime={end} PreemptTime={preempted}'")
        return slurm.is_at_its_time_limit("7", 120)

    assert shown(130)
    assert not shown(3600), "preempted without a word of SLURM's"
    assert not shown(10, "2026-11-21T02:00:00"), "the grace of a preemption is short, too"
    commands(scontrol="exit 1")
    assert not slurm.is_at_its_time_limit("7", 120)


def test_a_command_that_is_not_there_is_an_error_with_its_name(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SlurmError, match="squeue"):
        slurm.job_states(["7"])
