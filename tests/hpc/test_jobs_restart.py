"""A job whose ranks failed is started again, unless a person is needed, asked for its end, or it gets nowhere.

`scontrol` is a shell script here, which says what it is told to and notes what it was asked; the real one is in
tests/slurm.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hpc import config as configs
from hpc.jobs import restart as restarting
from hpc.jobs.attempts import (
    Attempt,
    Failure,
    Submission,
    note_cancelled,
    note_end,
    note_failure,
    note_start,
    note_submission,
    read_history,
)
from hpc.jobs.no_progress import NoProgressError, refuse_without_progress
from hpc.jobs.slurm import SlurmError
from hpc.run_folder import RunFolder

ATTEMPT = Attempt(1, "train", 2.0, "77", 0, ["n1", "n2"], 2, None)


@pytest.fixture
def run(tmp_path, monkeypatch) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    configs.save(configs.load("srvp_smmnist", "test"), folder.config)
    for name in ("SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT", "ODEVID_LAUNCHER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    log = folder.logs / "77_0_log.out"
    log.write_text("step 3\nIllegal instruction\n")
    note_submission(folder.path, Submission(1.0, "train", "77", 2, 2, str(log), "code"))
    return folder


@pytest.fixture
def asked(tmp_path, monkeypatch) -> Path:
    """What scontrol was asked, a line each; JobState is RUNNING."""
    tools, asked = tmp_path / "tools", tmp_path / "asked"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho "JobId=77 JobState=${{STATE:-RUNNING}}"\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return asked


def decide(run: RunFolder, code: int, capsys) -> str:
    assert restarting.main(["--run", str(run.path), "--code", str(code)]) == 0
    return capsys.readouterr().out


def test_an_attempt_whose_ranks_never_began_counts_too(run, asked, capsys, monkeypatch):
    for restart in range(3):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
        told = decide(run, 1, capsys)
        assert ("requeued" in told) == (restart < 2)
    assert "its ranks never began (srun ended with code 1)" in told


def test_the_rank_that_srun_lost_first_is_named_since_it_cannot_speak(run, asked, capsys):
    note_start(run.path, ATTEMPT)
    log = run.logs / "77_0_log.out"
    log.write_text(
        "srun: error: n9: task 9: Killed\nsubmitit INFO - Starting with JobEnvironment(job_id=77)\n"
        "srun: error: n4: task 3: Terminated\nsrun: error: n2: task 1: Segmentation fault\n"
        "srun: error: n1: task 0: Killed\n"
    )
    decide(run, 139, capsys)
    (failure,) = read_history(run.path).failures
    assert (failure.rank, failure.node, failure.error) == (1, "n2", "srun: Segmentation fault")


def test_a_controller_that_is_away_for_a_while_is_asked_again(run, asked, capsys, monkeypatch):
    monkeypatch.setattr("hpc.jobs.slurm.PAUSE_S", 0)
    answers = iter([SlurmError("away"), SlurmError("away"), "JobState=RUNNING", SlurmError("away"), ""])

    def ask(*command: str) -> str:
        answer = next(answers)
        if isinstance(answer, SlurmError):
            raise answer
        return answer

    note_start(run.path, ATTEMPT)
    monkeypatch.setattr("hpc.jobs.slurm.ask", ask)
    assert "started again: requeued" in decide(run, 137, capsys)


def test_a_job_of_the_doctor_is_never_tried_again_and_an_evaluation_counts_for_itself(run, asked, capsys):
    for number in (1, 2, 3):
        note_start(run.path, replace(ATTEMPT, number=number, job="70"))
    note_submission(run.path, Submission(1.0, "doctor", "77", 2, 2, "", "code"))
    assert "the doctor has said" in decide(run, 143, capsys)
    note_submission(run.path, Submission(1.0, "evaluate", "77", 2, 2, "", "code"))
    note_start(run.path, replace(ATTEMPT, number=4, verb="evaluate"))
    assert "requeued" in decide(run, 137, capsys)
    assert [attempt.number for attempt in read_history(run.path).without_progress(None)] == [1, 2, 3]


def test_preemptions_before_the_first_step_are_the_queues_doing(run):
    for number in (1, 2, 3, 4):
        note_start(run.path, replace(ATTEMPT, number=number))
        note_end(run.path, number, 0, "preempt")
    refuse_without_progress(run, "train", 3)
    for number in (5, 6, 7):
        note_start(run.path, replace(ATTEMPT, number=number))
        note_end(run.path, number, 0, "walltime")
    with pytest.raises(NoProgressError):
        refuse_without_progress(run, "train", 3)


def test_a_crash_is_requeued(run, asked, capsys):
    note_start(run.path, ATTEMPT)
    assert "started again: requeued" in decide(run, 137, capsys)
    assert asked.read_text().splitlines()[-1] == "requeue 77"


def test_an_element_of_an_array_is_found_in_the_list_and_requeued_alone(run, asked, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs.txt").write_text(f"{tmp_path}/another\n{run.path}\n")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert restarting.main(["--runs", str(tmp_path / "runs.txt"), "--code", "1"]) == 0
    assert asked.read_text().splitlines()[-1] == "requeue 70_1"


@pytest.mark.parametrize("code", [2, 143])
def test_an_error_that_only_a_person_can_mend_is_not(run, asked, capsys, code):
    if code != 2:  # another rank's end was louder
        note_failure(run.path, Failure(3.0, "77", 0, 1, "n2", True, "ConfigError: no such thing"))
    assert "wants a person" in decide(run, code, capsys)
    assert not asked.exists()


def test_a_cancelled_job_is_not(run, asked, capsys):
    note_cancelled(run.path, ["77"])
    assert "it was cancelled" in decide(run, 143, capsys)
    assert not asked.exists()


def test_a_job_that_slurm_is_ending_is_not(run, asked, capsys, monkeypatch):
    monkeypatch.setenv("STATE", "CANCELLED")
    assert "SLURM is ending it (CANCELLED)" in decide(run, 143, capsys)
    assert "requeue" not in asked.read_text()


def test_a_site_may_not_want_it(run, asked, capsys):
    configs.save(configs.load("srvp_smmnist", "test", overrides=["cluster.restart_on_crash=false"]), run.config)
    assert "cluster.restart_on_crash=false" in decide(run, 137, capsys)


def test_three_attempts_without_progress_end_in_a_diagnosis_that_says_what_and_where(run, asked, capsys):
    for number in (1, 2, 3):
        note_start(run.path, replace(ATTEMPT, number=number, restart=number - 1, nodes=["n1", f"n{number}"]))
    note_failure(run.path, Failure(3.0, "77", 2, 1, "n3", False, "RuntimeError: Illegal instruction"))
    told = decide(run, 132, capsys)
    for expected in ("3 attempts in a row", "nodes of all of them: n1", "rank 1 on n3: RuntimeError", "resume"):
        assert expected in told
    assert "    Illegal instruction" in told.splitlines()
    assert run.diagnosis.read_text().strip() in told
    assert "requeue" not in asked.read_text()


def test_the_guard_counts_again_after_a_new_checkpoint_and_after_a_person_asked(run):
    for number in (1, 2, 3):
        note_start(run.path, replace(ATTEMPT, number=number))
    with pytest.raises(NoProgressError):
        refuse_without_progress(run, "train", 3)
    refuse_without_progress(run, "train", 4)
    saved = run.checkpoints / "step-000000005"
    saved.mkdir(parents=True)
    (saved / "manifest.json").touch()
    refuse_without_progress(run, "train", 3)
    (saved / "manifest.json").unlink()
    note_submission(run.path, Submission(1.0, "train", "78", 2, 2, "", "code"))
    refuse_without_progress(run, "train", 3)
