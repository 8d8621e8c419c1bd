"""How an element stands, from its folder and what `squeue` says. A shell script of that name answers here."""

from __future__ import annotations

import json
import shlex
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
from hpc.sweep import cancel_sweep
from hpc.sweep.states import Standing, launcher_at_work, only_launcher, standings
from hpc.tracking.journal import Journal


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


def refused(run: RunFolder, job: str, number: int) -> None:
    """A second job that a person asked for while another was at work."""
    submitted(run, job)
    began(run, job, number)
    note_end(run.path, number, None, "error", "is being trained by another job, which is running")


def test_a_running_element_is_not_lost_when_a_second_job_of_it_is_refused(run, squeue):
    submitted(run, "7_1")
    began(run, "7_1")
    refused(run, "8", 2)
    squeue(j7_1="RUNNING", j8="FAILED")
    assert standings([run]) == [Standing("running", 2, "", "7_1", ("7_1",))]
    submitted(run, "9")
    squeue(j7_1="RUNNING", j8="FAILED", j9="PENDING")
    assert standings([run]) == [Standing("running", 2, "", "7_1", ("7_1", "9"))]
    squeue(j7_1="PENDING", j8="FAILED", j9="FAILED")
    assert state(run) == "queued"


@pytest.mark.parametrize(("cause", "stands"), [("finished", "finished"), ("stop-file", "cancelled"), ("", "failed")])
def test_once_it_is_over_its_own_end_counts_and_not_that_of_the_refused_job(run, squeue, cause, stands):
    submitted(run, "7_1")
    began(run, "7_1")
    refused(run, "8", 2)
    squeue(j7_1="TIMEOUT", j8="FAILED")
    if cause:
        note_end(run.path, 1, 9, cause)
    else:  # killed; it has trained on meanwhile
        journal = Journal(run.path, 1)
        journal.append("train", 9, {"scalars": {"loss": 1.0}})
        journal.close()
    (found,) = standings([run])
    assert (found.state, found.job) == (stands, "7_1")
    assert found.error == ("" if cause else "TIMEOUT")


def test_slurm_is_asked_once_for_all_jobs_of_all_elements(tmp_path, squeue, monkeypatch):
    runs = [RunFolder(tmp_path / name) for name in "ab"]
    for number, run in enumerate(runs):
        run.create()
        submitted(run, f"7_{number}")
        refused(run, f"8{number}", 1)
    squeue(j7_0="RUNNING", j7_1="RUNNING")
    asked: list[list[str]] = []
    real = standings.__globals__["job_states"]
    monkeypatch.setattr("hpc.sweep.states.job_states", lambda jobs: asked.append(jobs) or real(jobs))
    assert [found.state for found in standings(runs)] == ["running", "running"]
    assert asked == [["7_0", "80", "7_1", "81"]]


def test_cancelling_a_sweep_ends_every_job_of_every_element_and_none_comes_back(tmp_path, squeue, capsys):
    sweep = tmp_path / "sweep"
    runs = {name: RunFolder(sweep / name) for name in ("seed=1", "seed=2", "seed=3")}
    for number, run in enumerate(runs.values()):
        run.create()
        submitted(run, f"7_{number}")
        began(run, f"7_{number}")
    refused(runs["seed=2"], "8", 2)
    submitted(runs["seed=2"], "9")
    note_end(runs["seed=3"].path, 1, 9, "finished")
    (sweep / "sweep.json").write_text(json.dumps({"elements": {name: {"own": {}, "in_file": True} for name in runs}}))
    squeue(j7_0="RUNNING", j7_1="RUNNING", j8="FAILED", j9="PENDING", j7_2="COMPLETED")
    orders = tmp_path / "orders"
    over = "\n".join(f"{job}|CANCELLED|None||0:00|N/A" for job in ("7_0", "7_1", "9"))
    tools = tmp_path / "tools"
    (tools / "scancel").write_text(
        f"#!/bin/sh\necho \"$@\" > {orders}\nprintf '#!/bin/sh\ncat <<END\n{over}\nEND\n' > {tools}/squeue\n"
    )
    (tools / "scancel").chmod(0o755)
    assert cancel_sweep(sweep) == 0
    assert orders.read_text().split() == ["7_0", "7_1", "9"]
    assert "2 cancelled" in capsys.readouterr().out
    assert state(runs["seed=2"]) == "cancelled", "also while the refused job is the last of which anything is known"


def test_what_is_not_training_counts_nowhere(run, squeue):
    submitted(run, "7_1")
    began(run, "7_1")
    note_end(run.path, 1, 5, "preempt")
    note_submission(run.path, Submission(time.time(), "evaluate", "9", 1, 1, "", ""))
    began(run, "9", 2, verb="evaluate")
    squeue(j7_1="FAILED", j9="RUNNING")
    assert standings([run]) == [Standing("stopped", 1, "", "7_1")]
    note_submission(run.path, Submission(time.time(), "train", "local", 1, 1, "", ""))
    began(run, "local", 3)
    note_submission(run.path, Submission(time.time(), "evaluate", "local", 1, 1, "", ""))
    note_failure(run.path, Failure(time.time(), "local", 0, 0, "n1", True, "no test split"))
    assert standings([run]) == [Standing("failed", 2, "killed: it ended without a word", "local")]


def test_of_a_killed_rank_srun_knows_and_of_an_earlier_life_nothing_is_told(run, squeue):
    submitted(run, "7_1")
    began(run, "7_1")
    squeue(j7_1="FAILED")
    note_failure(run.path, Failure(time.time(), "7_1", 0, 0, "n1", False, "an earlier one"))
    for rank, error in ((0, "Connection closed by peer"), (1, "srun: Killed"), (2, "Socket closed")):
        note_failure(run.path, Failure(time.time(), "7_1", 1, rank, "n1", False, error))
    assert standings([run])[0].error == "srun: Killed"


def test_an_element_that_will_never_start_says_so(run, squeue, tmp_path):
    submitted(run, "7_1")
    (tmp_path / "tools" / "squeue").write_text("#!/bin/sh\necho '7_1|PENDING|PartitionTimeLimit||0:00|N/A'\n")
    assert standings([run]) == [
        Standing("queued", 0, "waits for ever unless changed: PartitionTimeLimit", "7_1", ("7_1",))
    ]


def test_commands_that_are_told_can_be_typed_whatever_the_folder_is_called(tmp_path, squeue):
    sweep = tmp_path / "my sweeps"
    sweep.mkdir()
    with only_launcher(sweep), pytest.raises(ConfigError) as error, only_launcher(sweep):
        pass
    assert f"status {shlex.quote(str(sweep))} tells" in str(error.value)
