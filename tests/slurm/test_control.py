"""Following, cancelling and status against the real SLURM: its states as they really follow each other."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from hpc.jobs.attempts import Submission, note_submission
from hpc.jobs.control import cancel_run
from hpc.jobs.follow import follow
from hpc.jobs.status import status
from hpc.run_folder import RunFolder

pytestmark = pytest.mark.slurm


@pytest.fixture
def run(on_cluster, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.config.write_text("train: {steps: 100}\n")
    yield folder
    on_cluster.clear()


def submit(cluster, folder: RunFolder, script: str, *options: str) -> tuple[str, Path]:
    """A job of this run that does what the shell lines say; its id and its log."""
    pattern = folder.logs / "%j.out"
    words = ["--parsable", "--requeue", "--open-mode=append", "-o", str(pattern), *options, "--wrap", script]
    job = cluster.run("sbatch", *words)
    log = folder.logs / f"{job}.out"
    note_submission(folder.path, Submission(time.time(), "train", job, 1, 1, str(log), ""))
    return job, log


def wait_for(cluster, job: str, state: str) -> None:
    deadline = time.monotonic() + 30
    while cluster.state(job) != state:
        assert time.monotonic() < deadline, cluster.state(job)
        time.sleep(0.05)


def test_a_requeued_job_is_followed_to_its_real_end(on_cluster, run, capsys, monkeypatch):
    monkeypatch.setattr("hpc.jobs.follow.STATE_EVERY", 1)
    script = "echo life ${SLURM_RESTART_COUNT:-0}; [ ${SLURM_RESTART_COUNT:-0} = 1 ] || exec sleep 60; sleep 1"
    job, log = submit(on_cluster, run, script)
    results: list[int] = []
    following = threading.Thread(target=lambda: results.append(follow(job, log, poll_s=0.05)))
    following.start()
    wait_for(on_cluster, job, "RUNNING")
    time.sleep(1)
    on_cluster.run("scontrol", "requeue", job)
    following.join(timeout=60)
    assert results == [0]
    shown = capsys.readouterr().out
    assert re.findall(r"^life \d", shown, re.MULTILINE) == ["life 0", "life 1"]
    told = re.findall(rf"job {job}: (\w+)", shown)
    assert told.count("running") == 2 and "queued" in told[told.index("running") :]
    assert f"job {job} is finished: COMPLETED" in shown


def test_cancelled_jobs_end_and_stay_dead_though_they_ask_to_be_requeued(on_cluster, run, capsys):
    stubborn = "trap 'scontrol requeue $SLURM_JOB_ID' TERM; sleep 600 & wait; wait"
    running, _ = submit(on_cluster, run, stubborn)
    queued, _ = submit(on_cluster, run, "sleep 600", f"--dependency=afterany:{running}")
    foreign = on_cluster.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600")
    wait_for(on_cluster, running, "RUNNING")
    wait_for(on_cluster, foreign, "RUNNING")
    assert re.search(rf"state +running: job {running} RUNNING on n\d", status(run.path))
    assert re.search(rf"{queued} .*PENDING \(Dependency\)", status(run.path))
    assert cancel_run(run) == 0
    assert f"jobs {running}, {queued} are gone" in capsys.readouterr().out
    time.sleep(2)
    assert {on_cluster.state(running), on_cluster.state(queued)} == {"CANCELLED"}
    assert on_cluster.state(foreign) == "RUNNING"
    assert re.search(rf"{running} .*CANCELLED.*, cancelled for good", status(run.path))
