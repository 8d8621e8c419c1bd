"""A sweep on a real SLURM: one array, some elements at a time, and the same command again for what went wrong."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path

import pytest

from hpc import cli
from hpc import config as configs
from hpc.jobs.attempts import Attempt, read_history
from hpc.jobs.slurm import job_states
from hpc.run_folder import RunFolder
from hpc.sweep import cancel_sweep, sweep_table
from hpc.sweep import run as sweeping
from shards.building.moving_mnist import build_moving_mnist

pytestmark = pytest.mark.slurm

SWEEP = """
base: {experiment: srvp_smmnist, size: test, train.steps: 3, eval.every: 3, eval.clips: 1}
list:
  - {seed: 1, data.root: whole}
  - {seed: 2, data.root: whole}
  - {seed: 3, data.root: damaged}
"""
WHOLE, DAMAGED = ("seed=1,root=whole", "seed=2,root=whole"), "seed=3,root=damaged"
COMMAND = ("--array", "seeds.yaml", "--array-parallelism", "2", "--nodes", "1", "--cpus-per-task", "2")
FOLDER = Path("runs/sweeps/seeds")


def attempts(name: str) -> list[Attempt]:
    return read_history(FOLDER / name).attempts


def table_now() -> dict[str, dict[str, str]]:
    sweep_table(FOLDER)
    return table()


def table() -> dict[str, dict[str, str]]:
    with (FOLDER / "table.csv").open(newline="") as file:
        return {row["element"]: row for row in csv.DictReader(file)}


@pytest.fixture
def seeds(tmp_path, monkeypatch) -> Path:
    """A sweep's file where it is started from, with data of which one copy lacks a shard; that shard."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeping, "POLL_S", 0.5)
    for name in ("whole", "damaged"):
        build_moving_mnist(
            Path(name), digits=1, deterministic=True, sequences=24, frames=6, encoding="raw", test_set="none"
        )
    Path("seeds.yaml").write_text(SWEEP)
    (shard,) = Path("damaged").glob("train-*.tar")
    return shard.rename("shard")


def test_an_array_runs_some_at_a_time_and_the_same_command_starts_only_what_failed(on_cluster, seeds, capsys):
    assert cli.main([*COMMAND, "--wait"]) == 1
    shown = capsys.readouterr().out
    assert "sweep seeds: 2 finished, 1 failed" in shown
    first = {name: attempts(name) for name in (*WHOLE, DAMAGED)}
    assert [len(found) for found in first.values()] == [1, 1, 1], "an error that wants a person is not tried again"
    jobs = [found[0].job for found in first.values()]
    assert jobs == [f"{jobs[0].partition('_')[0]}_{number}" for number in range(3)]
    ends = [found[0].ended_time or 0.0 for found in first.values()]
    assert first[DAMAGED][0].time > min(ends[:2]), "three at a time"
    rows = table()
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(WHOLE, "finished"),
        DAMAGED: "failed",
    }
    assert "train-000000.tar" in rows[DAMAGED]["error"]
    assert float(rows[WHOLE[0]]["best"]) == float(rows[WHOLE[0]]["psnr"])
    groups = {configs.load_file(FOLDER / name / "config.yaml").log.group for name in rows}
    assert groups == {"seeds"}

    seeds.rename(Path("damaged") / "train-000000.tar")
    assert cli.main([*COMMAND]) == 0
    shown = capsys.readouterr().out
    assert "seed=1,root=whole   finished: left alone" in shown
    assert ": 1 element of 1 nodes" in shown
    again = read_history(FOLDER / DAMAGED).submissions[-1].job
    assert job_states([again])[again].unfinished
    assert cli.main([*COMMAND, "--wait"]) == 0
    shown = capsys.readouterr().out
    assert f"left alone (job {again})" in shown, "what is queued or running is not submitted a second time"
    assert "sweep seeds: 3 finished" in shown
    assert [len(attempts(name)) for name in (*WHOLE, DAMAGED)] == [1, 1, 2]
    assert attempts(DAMAGED)[-1].job == again
    assert all(float(row["psnr"]) > 0 for row in table().values())
    on_cluster.clear()


def test_a_sweep_is_cancelled_as_one_and_stays_so_until_it_is_asked_for(on_cluster, seeds, capsys):
    base = "{experiment: srvp_smmnist, size: test, train.steps: 1000000, data.root: whole}"
    Path("seeds.yaml").write_text(f"base: {base}\nseeds: [1, 2, 3]")
    names = ("seed=1", "seed=2", "seed=3")
    assert cli.main([*COMMAND]) == 0
    deadline = time.monotonic() + 120
    while not any(attempt.training_step is not None for name in names for attempt in attempts(name)):
        assert time.monotonic() < deadline, sweep_table(FOLDER)
        time.sleep(0.1)
    assert {row["state"] for row in table_now().values()} == {"running", "queued"}
    capsys.readouterr()
    assert cancel_sweep(FOLDER) == 0
    assert "3 cancelled" in capsys.readouterr().out
    assert on_cluster.run("squeue", "-h") == ""
    assert cli.main([*COMMAND]) == 0
    assert capsys.readouterr().out.count("cancelled: left alone") == 3
    assert on_cluster.run("squeue", "-h") == ""
    asked = [len(read_history(FOLDER / name).submissions) for name in names]
    assert asked == [1, 1, 1]
    assert cli.main([*COMMAND, "train.resume=auto"]) == 0
    assert "goes on from step" in capsys.readouterr().out
    assert len(on_cluster.run("squeue", "-h", "-r").splitlines()) == 3
    on_cluster.clear()


@pytest.mark.slow
def test_an_element_that_crashes_or_is_preempted_comes_back_alone(on_cluster, seeds):
    base = "{experiment: srvp_smmnist, size: test, train.steps: 1000000, data.root: whole, checkpoint.every: 5}"
    Path("seeds.yaml").write_text(f"base: {base}\nseeds: [1, 2]")
    assert cli.main([*COMMAND]) == 0
    job = read_history(FOLDER / "seed=2").submissions[-1].job
    assert job.endswith("_1")
    for number, signal_name in enumerate(("KILL", "USR2"), start=1):
        _wait_until_trained_from_a_checkpoint("seed=1", 1)
        _wait_until_trained_from_a_checkpoint("seed=2", number)
        if signal_name == "KILL":
            (rank,) = on_cluster.tasks(on_cluster.show(job)["JobId"]).values()
            os.kill(rank, signal.SIGKILL)
        else:
            on_cluster.run("scancel", "--signal", signal_name, job)
    _wait_until_trained_from_a_checkpoint("seed=2", 3)
    assert [(attempt.job, attempt.restart) for attempt in attempts("seed=2")] == [(job, 0), (job, 1), (job, 2)]
    assert attempts("seed=2")[1].cause == "preempt"
    assert attempts("seed=2")[2].training_step == attempts("seed=2")[1].ended_step
    assert len(attempts("seed=1")) == 1
    on_cluster.clear()


def _wait_until_trained_from_a_checkpoint(name: str, attempt: int) -> None:
    """Until that attempt of an element trains and the run has a checkpoint."""
    deadline = time.monotonic() + 180
    while len(found := attempts(name)) < attempt or found[attempt - 1].training_step is None or not _saved(name):
        assert time.monotonic() < deadline, sweep_table(FOLDER)
        time.sleep(0.1)


def _saved(name: str) -> int:
    return RunFolder(FOLDER / name).newest_checkpoint() or 0
