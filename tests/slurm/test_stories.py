"""Shorter lives in the queue: a crash at once, an error for people, a full disk, a cancel in a requeue; the verbs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.jobs import EVERY, ROOT, ClusterRun

pytestmark = [pytest.mark.slurm, pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture
def run(cluster, digits, tmp_path) -> Iterator[ClusterRun]:
    yield ClusterRun(cluster, tmp_path / "run", digits)
    cluster.clear()


def test_a_run_that_crashes_at_once_is_given_up_after_three_attempts_with_a_diagnosis(run, tmp_path):
    broken = tmp_path / "broken" / "deepspeed"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libcuda.so.1: file too short')\n")
    run.launch("--setup", f"export PYTHONPATH={broken.parent}")
    assert run.wait_for_state("FAILED", "COMPLETED", "CANCELLED") == "FAILED"
    assert run.cluster.show(run.job)["Restarts"] == "2"
    diagnosis = (run.folder / "diagnosis.txt").read_text()
    assert "3 attempts" in diagnosis
    assert "file too short" in diagnosis
    assert f"resume {run.folder}" in diagnosis
    assert "3 attempts" in run.log()
    (broken / "__init__.py").unlink()
    broken.rmdir()
    run.resume()  # as the diagnosis says: what is mended may run again
    run.wait_for_step(3)


def test_an_error_that_only_a_person_can_mend_ends_the_job_at_once_with_one_message(run, digits, tmp_path):
    missing = Path(shutil.copytree(digits, tmp_path / "digits"))
    run.launch(f"data.root={missing}")
    run.wait_for_step(1)
    run.cluster.run("scontrol", "requeuehold", run.job)
    run.wait("the ranks to end", lambda: not run.cluster.tasks(run.job))
    said = len(run.log())
    shutil.rmtree(missing)
    run.wait_for_state("PENDING", "REQUEUE_HOLD")
    run.cluster.run("scontrol", "release", run.job)
    assert run.wait_for_state("FAILED", "COMPLETED", "CANCELLED") == "FAILED"
    assert run.cluster.show(run.job)["Restarts"] == "1"
    last_words = run.log()[said:]
    assert str(missing) in last_words
    assert "Traceback" not in last_words


def test_a_disk_that_is_full_for_a_while_stops_nothing_and_the_next_save_succeeds(run, cluster, tmp_path):
    if not cluster.own_host_names:
        pytest.skip("no SLURM nodes with file systems of their own here")
    run.launch()
    run.wait_for_step(EVERY + 2)
    disk, checkpoints = tmp_path / "disk", run.folder / "checkpoints"
    disk.mkdir()
    _on_node(
        cluster,
        "n1",
        f"mount -t tmpfs -o size=4m odevid {disk} && cp -a {checkpoints}/. {disk}/ && "
        f"mount --bind {disk} {checkpoints}; head -c 100M /dev/zero > {disk}/filler; true",
    )
    run.wait("a save to fail", lambda: _events(run, "save_failed") != [])
    (failed, *_) = _events(run, "save_failed")
    assert "No space left" in failed["details"]["error"]
    attempt = run.attempt()
    run.wait_for_step(run.last_step() + EVERY)
    _on_node(cluster, "n1", f"rm {disk}/filler")
    step = run.last_step()
    run.wait("a save to succeed", lambda: _saved_on(cluster, "n1", disk) > step)
    assert run.attempt() == attempt
    assert "WARNING" in run.log() or "save_failed" in run.log()


def _events(run: ClusterRun, name: str) -> list[dict]:
    return [record for record in run.records("event") if record["name"] == name]


def _saved_on(cluster: SlurmCluster, node: str, folder: Path) -> int:
    steps = re.findall(r"step-(\d+)", _on_node(cluster, node, f"ls {folder}"))
    return max(map(int, steps), default=0)


def _on_node(cluster: SlurmCluster, node: str, script: str) -> str:
    """Run it where the node's own mounts are seen: nobody else sees them, and they end with the node."""
    return cluster.run("nsenter", f"--mount=/proc/{cluster.daemon(node)}/ns/mnt", "sh", "-c", script)


def test_a_job_cancelled_while_it_is_being_requeued_stays_dead_and_the_run_can_be_resumed(run, tmp_path):
    """With `--wait` watching, and `status` telling."""
    words = ("--wait", *run.where(4), f"run={run.folder}", *run.fresh_words())
    with (tmp_path / "said").open("w") as said:
        waiting = subprocess.Popen(
            [sys.executable, "hpc/launch.py", *words], cwd=ROOT, env=run.cluster.environ, stdout=said, stderr=said
        )
        run.wait("the job to be submitted", lambda: "submitted job" in (tmp_path / "said").read_text())
        run.job = run.job_of((tmp_path / "said").read_text())
        run.wait_for_step(3)
        assert "RUNNING" in run.command("status", str(run.folder))
        run.cluster.run("scontrol", "requeue", run.job)
        told = run.command("cancel", str(run.folder))
        stood_at = max(run.checkpoints())
        assert f"saved at step {stood_at}" in told
        assert waiting.wait(timeout=120) != 0
    assert "step 1/" in (tmp_path / "said").read_text()
    assert run.job_state() == "CANCELLED"
    cancelled = run.job

    run.resume(4, "--wait", f"train.steps={stood_at + 5}")
    assert run.job_state() == "COMPLETED"
    assert run.last_step() == stood_at + 5
    assert (run.folder / "model.pt").is_file()
    assert run.cluster.state(cancelled) == "CANCELLED"
    shown = run.command("status", str(run.folder))
    assert cancelled in shown and run.job in shown
    assert f"{stood_at + 5}" in shown
