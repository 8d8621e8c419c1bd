"""One rank of four stands still: the others wait in a collective for it, the watchdog says who is to blame, and the job
starts again by itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.slurm.jobs import EVERY, ClusterRun

pytestmark = [pytest.mark.slurm, pytest.mark.multiprocess, pytest.mark.slow]


@pytest.fixture
def run(cluster, digits, tmp_path) -> Iterator[ClusterRun]:
    yield ClusterRun(cluster, tmp_path / "run", digits)
    cluster.clear()


def test_a_stopped_rank_is_named_with_node_and_process_and_the_job_starts_again(run, cluster):
    run.launch("watchdog.min_s=15")
    run.wait_for_step(EVERY + 2)
    stopped = cluster.tasks(run.job)[2]
    recovery = run.survive("SIGSTOP of a rank (watchdog.min_s=15)", lambda: os.kill(stopped, signal.SIGSTOP))
    assert 0 <= recovery.steps_recomputed <= EVERY
    (told,) = [event["details"]["diagnosis"] for event in run.records("event") if event["name"] == "hang"]
    node = "n3 " if cluster.own_host_names else ""
    assert f"rank 2 on {node}" in told
    assert f"(pid {stopped}) is stopped (SIGSTOP, state T)" in told
    assert "ranks 0, 1, 3 wait in a collective" in told
    assert told.split("\n")[0] in run.log()
    for rank in (0, 1, 3):
        dump = (run.folder / "hangs" / "attempt-0001" / f"rank-{rank}.txt").read_text()
        assert "hpc/train.py" in dump and "most recent call first" in dump
    assert "rank 2 on" in run.command("status", str(run.folder))
