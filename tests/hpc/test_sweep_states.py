"""How an element stands, from its folder and what `squeue` says. A shell script of that name answers here."""

from __future__ import annotations

import time

import pytest

from hpc.config import ConfigError
from hpc.jobs.attempts import (
    Attempt,
    Failure,
    Submission,
    note_cancelled,
    note_end,
    note_failure,
    note_start,
    note_submission,
)
from hpc.run_folder import RunFolder
from hpc.sweep.states import Standing, launcher_at_work, only_launcher, standings


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Says which jobs SLURM knows: id -> state."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")

    def put(**jobs: str) -> None:
        lines = "\n".join(f"{job[1:]}|{state}|None||0:00|N/A" for job, state in jobs.items())
        for name, script in (("squeue", f"cat <<'END'\n{lines}\nEND"), ("sacct", "exit 1")):
            (tools / name).write_text(f"#!/bin/sh\n{script}\n")
            (tools / name).chmod(0o755)

    put()
    return put


@pytest.fixture
def run(tmp_path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def submitted(run: RunFolder, job: str) -> None:
    note_submission(run.path, Submission(time.time(), "train", job, 1, 1, "", ""))


def began(run: RunFolder, job: str, number: int = 1, verb: str = "train") -> None:
    note_start(run.path, Attempt(number, verb, time.time(), job, 0, ["n1"], 1, None))


def state(run: RunFolder, **more: bool) -> str:
    (standing,) = standings([run], **more)
    return standing.state


def test_nothing_done_is_missing(run, squeue):
    assert standings([run]) == [Standing("missing")]


def test_a_job_is_what_slurm_says_while_it_has_it(run, squeue):
    submitted(run, "7_1")
    squeue(j7_0="RUNNING", j7_1="PENDING")
    assert state(run) == "queued"
    began(run, "7_1")
    squeue(j7_1="RUNNING")
    assert state(run) == "running"
    note_end(run.path, 1, 5, "preempt")
    squeue(j7_1="PENDING")
    assert state(run) == "queued", "it was requeued"
    squeue(j7_1="FAILED")
    assert state(run) == "stopped"


def test_finished_is_what_the_last_job_said_and_no_older_one(run, squeue):
    submitted(run, "7_1")
    began(run, "7_1")
    note_end(run.path, 1, 9, "finished")
    began(run, "local", 2, verb="evaluate")
    assert state(run) == "finished"
    submitted(run, "8")
    squeue(j8="PENDING")
    assert state(run) == "queued"


def test_a_killed_job_has_failed_for_the_reason_that_the_best_informed_rank_told(run, squeue):
    submitted(run, "7_1")
    began(run, "7_1")
    squeue(j7_1="OUT_OF_MEMORY")
    assert standings([run]) == [Standing("failed", 1, "OUT_OF_MEMORY", "7_1")]
    note_end(run.path, 1, None, "error", "connection closed\nby peer")
    assert standings([run])[0].error == "connection closed by peer"
    for rank, error, for_user in ((0, "lost rank 1", False), (1, "no space left", True)):
        note_failure(run.path, Failure(time.time(), "7_1", 0, rank, "n1", for_user, error))
    assert standings([run])[0].error == "no space left"
    submitted(run, "8_0")
    assert standings([run])[0].error == "ended before its first attempt began", "that was another job's error"


@pytest.mark.parametrize("how", ["noted", "scancel", "STOP", "stop-file"])
def test_cancelled_is_told_from_failed(run, squeue, how):
    submitted(run, "7_1")
    began(run, "7_1")
    squeue(j7_1="CANCELLED" if how == "scancel" else "FAILED")
    if how == "noted":
        note_cancelled(run.path, ["7_1"])
    if how == "STOP":
        run.stop.touch()
    if how == "stop-file":
        note_end(run.path, 1, 5, "stop-file")
    assert state(run) == "cancelled"
    if how != "STOP":
        submitted(run, "8")
        squeue(j8="RUNNING")
        assert state(run) == "running", "a person wanted it again"


def test_without_slurm_a_job_is_unknown_but_what_is_finished_or_local_is_not(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    submitted(run, "7_1")
    assert state(run) == "unknown"
    began(run, "7_1")
    note_end(run.path, 1, 9, "finished")
    assert state(run) == "finished"
    submitted(run, "local")
    assert state(run) == "failed"


def test_ranks_of_this_machine_are_at_work_only_while_a_launcher_is(run, squeue):
    submitted(run, "local")
    assert state(run, locally_at_work=True) == "queued"
    began(run, "local")
    assert state(run, locally_at_work=True) == "running"
    assert standings([run])[0].error == "killed: it ended without a word"
    note_end(run.path, 1, 5, "interrupt")
    assert state(run, locally_at_work=True) == "stopped"


def test_two_launchers_of_one_sweep_exclude_each_other(tmp_path):
    assert not launcher_at_work(tmp_path)
    with only_launcher(tmp_path):
        assert launcher_at_work(tmp_path)
        with pytest.raises(ConfigError, match="another launcher"), only_launcher(tmp_path):
            pass
    assert not launcher_at_work(tmp_path)
