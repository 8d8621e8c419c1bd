"""Cancelling a run: its jobs end and stay dead, and the user is told what of it is saved."""

from __future__ import annotations

import pytest

from hpc.config import ConfigError
from hpc.jobs import control
from hpc.jobs.attempts import Attempt, Submission, note_end, note_start, note_submission, read_history
from hpc.jobs.control import cancel_run
from hpc.run_folder import RunFolder
from hpc.tracking.journal import Journal
from tests.hpc.fake_slurm import DOWN, FakeSlurm, line


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "POLL_S", 0.01)
    return FakeSlurm(tmp_path / "tools", monkeypatch)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def submit(folder: RunFolder, job: str, time: float = 1000.0) -> None:
    note_submission(folder.path, Submission(time, "train", job, 1, 1, "log", "code"))


def begin(folder: RunFolder, number: int, job: str) -> None:
    note_start(folder.path, Attempt(number, "train", 1010.0, job, 0, ["n1"], 1, None))


def save(folder: RunFolder, step: int) -> None:
    checkpoint = folder.checkpoints / f"step-{step:09d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")


def test_every_job_of_the_run_that_is_not_over_is_cancelled_and_noted_first(run, slurm, capsys):
    for job in ("5", "6", "7_2"):
        submit(run, job)
    noted = f"cp {run.path}/attempts.jsonl {slurm.folder}/before; echo $@ >> {slurm.orders}"
    slurm._put("scancel", noted)
    over = line("5", "COMPLETED")
    slurm.answers(
        f"{over}; {line('6', 'RUNNING')}; {line('7_2', 'PENDING', 'Dependency')}; {line('8', 'RUNNING')}",
        f"{over}; {line('6', 'COMPLETING')}; {line('7_2', 'CANCELLED')}; {line('8', 'RUNNING')}",
        f"{over}; {line('6', 'CANCELLED')}; {line('7_2', 'CANCELLED')}; {line('8', 'RUNNING')}",
    )
    save(run, 40)
    journal = Journal(run.path, 1)
    journal.append("train", 45, {"scalars": {"loss": 1.0}})
    journal.close()
    assert cancel_run(run) == 0
    assert slurm.orders_given() == ["6 7_2"]
    (slurm.folder / "before").rename(slurm.folder / "attempts.jsonl")
    assert read_history(slurm.folder).cancelled == read_history(run.path).cancelled == {"6", "7_2"}
    shown = capsys.readouterr().out
    assert "waiting for 6 (COMPLETING): what runs saves its state and ends" in shown
    assert "jobs 6, 7_2 are gone" in shown
    assert "saved at step 40; it had come to step 45" in shown
    assert f"python hpc/launch.py resume {run.path}" in shown


def test_a_job_that_was_just_being_requeued_is_cancelled_again(run, slurm, capsys):
    submit(run, "6")
    slurm.answers(
        line("6", "RUNNING"), line("6", "CANCELLED"), line("6", "PENDING", "BeginTime"), line("6", "CANCELLED")
    )
    assert cancel_run(run) == 0
    assert slurm.orders_given() == ["6", "6"]
    assert "no checkpoint was written" in capsys.readouterr().out


def test_a_job_that_stays_is_named(run, slurm, capsys, monkeypatch):
    monkeypatch.setattr(control, "PATIENCE_S", 0.2)
    submit(run, "6")
    slurm.answers(line("6", "COMPLETING"))
    assert cancel_run(run) == 1
    assert "still there: 6 COMPLETING" in capsys.readouterr().out


def test_without_an_answer_the_wish_is_kept_all_the_same(run, slurm, capsys):
    submit(run, "6")
    slurm.answers(DOWN)
    assert cancel_run(run) == 1
    assert read_history(run.path).cancelled == {"6"}
    assert "Unable to contact slurm controller" in capsys.readouterr().out


def test_a_controller_that_goes_away_meanwhile_is_waited_for(run, slurm):
    submit(run, "6")
    slurm.answers(line("6", "RUNNING"), DOWN, line("6", "COMPLETING"), DOWN, "true")
    assert cancel_run(run) == 0


def test_what_is_over_is_left_alone(run, slurm, capsys):
    submit(run, "6")
    slurm.answers(line("6", "TIMEOUT"))
    assert cancel_run(run) == 0
    assert slurm.orders_given() == [] and read_history(run.path).cancelled == set()
    assert "nothing to cancel in the queue: job 6 is over" in capsys.readouterr().out


def test_where_there_is_no_slurm_nothing_is_pretended(run, monkeypatch):
    submit(run, "6")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"no SLURM here.*login node"):
        cancel_run(run)


def test_ranks_without_slurm_are_stopped_by_their_file(run, capsys):
    submit(run, "local")
    begin(run, 1, "local")
    assert cancel_run(run) == 0
    assert run.stop.exists()
    assert str(run.stop) in capsys.readouterr().out


def test_a_local_run_that_has_ended_is_not_kept_from_going_on(run):
    submit(run, "local")
    begin(run, 1, "local")
    note_end(run.path, 1, 30, "interrupt")
    assert cancel_run(run) == 0
    assert not run.stop.exists()
