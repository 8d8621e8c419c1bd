"""The life of one run in a real queue: four nodes, every usual fault, two nodes, three nodes, the end.

A start of four ranks costs more than all their steps, so one run goes through everything, and each test looks at what
a stage of its life left. A stage is a fixture that begins where the former one ended:

    launched -> timed_out -> rank_killed -> preempted -> cancelled -> on_two_nodes -> on_three_nodes
    untouched    the same run on four ranks of this machine, which nobody ever disturbs
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.jobs import EVERY, GLOBAL_BATCH, ROOT, ClusterRun, Recovery, assert_same_bits

pytestmark = [pytest.mark.slurm, pytest.mark.multiprocess, pytest.mark.timeout(1800)]
SIGNAL_DELAY_S = 10
STRANGERS = {"MASTER_ADDR": "elsewhere.invalid", "MASTER_PORT": "1", "RANK": "7", "WORLD_SIZE": "9", "LOCAL_RANK": "7"}
STRANGERS |= {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "9"}
"""What a shell may have left in the environment of the launcher."""


@pytest.fixture(scope="module")
def run(cluster, digits, tmp_path_factory) -> Iterator[ClusterRun]:
    yield ClusterRun(cluster, tmp_path_factory.mktemp("life") / "run", digits)
    cluster.clear()


# -- the life ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launched(run) -> str:
    """What the launcher printed, once the job has trained for a while."""
    words = ("--partition", "low", "--time", "60", f"cluster.signal_delay_s={SIGNAL_DELAY_S}")
    output = run.launch(*words, environ=STRANGERS)
    run.wait_for_step(EVERY + 2)
    return output


@pytest.fixture(scope="module")
def timed_out(run, launched, untouched) -> Recovery:
    return run.survive("time limit", lambda: run.run_out_of_time(SIGNAL_DELAY_S, untouched))


@pytest.fixture(scope="module")
def rank_killed(run, timed_out) -> Recovery:
    ranks = run.cluster.tasks(run.job)
    return run.survive("SIGKILL of a rank", lambda: os.kill(ranks[2], signal.SIGKILL))


@pytest.fixture(scope="module")
def preempted(run, rank_killed) -> Recovery:
    return run.survive("preemption, announced by USR2", run.preempt)


@pytest.fixture(scope="module")
def cancelled(run, preempted) -> str:
    """The id of the cancelled job. What the run was on four nodes is complete with it."""
    run.cluster.run("scancel", run.job)
    run.wait("the job to be gone", lambda: run.job_state() == "CANCELLED" and not run.cluster.processes(run.job))
    return run.job


@pytest.fixture(scope="module")
def on_two_nodes(run, cancelled) -> int:
    """The step from which it went on."""
    return _continue_and_stop(run, 2)


@pytest.fixture(scope="module")
def on_three_nodes(run, on_two_nodes) -> int:
    return _continue_and_stop(run, 3)


def _continue_and_stop(run: ClusterRun, nodes: int) -> int:
    attempt, stood_at = run.attempt(), max(run.checkpoints())
    run.resume(nodes)
    run.wait_for_step(EVERY // 2, after_attempt=attempt)
    (run.folder / "STOP").touch()
    run.wait_for_state("COMPLETED")
    (run.folder / "STOP").unlink()
    return stood_at


# -- its promises ------------------------------------------------------------------------------------------------------


def test_the_launcher_says_where_the_run_is_and_how_to_follow_it(run, launched):
    assert f"submitted job {run.job} (4 nodes, 4 ranks)" in launched
    assert str(run.folder) in launched


def test_ranks_meet_at_the_first_node_whatever_the_launchers_shell_had_in_its_environment(run, cluster, launched):
    address, _, port = run.records("start")[0]["about"]["master"].rpartition(":")
    assert address == ("n1" if cluster.own_host_names else "127.0.0.1")
    assert int(port) in _listening(cluster.tasks(run.job)[0])
    assert run.history().attempts[0].world_size == 4
    if cluster.own_host_names:
        assert run.history().attempts[0].nodes == ["n1", "n2", "n3", "n4"]


def test_nobody_trains_the_same_run_beside_its_job(run, launched):
    refused = run.command("--ranks", "1", f"run={run.folder}", code=2)
    assert f"job {run.job} of this run is RUNNING: cancel it first" in refused
    task = json.dumps({"verb": "train", "run_dir": str(run.folder), "use_gpu": False})
    intruder = subprocess.run([sys.executable, "-m", "hpc.worker", task], cwd=ROOT, capture_output=True, text=True)
    assert intruder.returncode == 2
    assert f"is being trained by job {run.job}" in intruder.stderr


def test_at_its_time_limit_a_job_saves_and_comes_back_without_losing_a_step(run, timed_out):
    assert timed_out.steps_recomputed == 0
    assert run.history().attempts[0].cause in ("preempt", "walltime")


def test_after_a_requeue_the_ranks_meet_at_another_port(run, timed_out):
    first, second = (record["about"]["master"] for record in run.records("start")[:2])
    assert first.rpartition(":")[0] == second.rpartition(":")[0]
    assert first != second


def test_a_killed_rank_takes_the_others_along_and_the_job_comes_back_by_itself(run, rank_killed):
    assert 0 <= rank_killed.steps_recomputed <= EVERY
    assert rank_killed.seconds_to_end_of_ranks < 120, "they would wait for the dead one for half an hour"
    assert "requeued" in run.log()


def test_a_preempted_job_saves_makes_room_and_comes_back_without_losing_a_step(run, preempted):
    assert preempted.steps_recomputed == 0
    assert "preempt" in [attempt.cause for attempt in run.history().attempts]


def test_a_cancelled_job_saves_and_stays_dead(run, cancelled):
    assert max(run.checkpoints()) == run.last_step()
    assert run.history().attempts[-1].cause == "terminate"


def test_interruptions_change_no_bit(run, untouched, cancelled):
    """Promise 2: the time limit, the killed rank, the preemption left no trace in weights, moments or losses."""
    assert_same_bits(run, untouched)


def test_a_number_of_nodes_that_cannot_share_the_batch_is_refused_with_those_that_can(run, cancelled):
    refused = run.command("resume", str(run.folder), "--nodes", "5", code=2)
    assert "valid numbers of ranks: 1, 2, 3, 4, 6, 12" in refused


def test_on_two_and_then_three_nodes_the_run_continues_with_the_same_samples(
    run, untouched, on_two_nodes, on_three_nodes
):
    last = run.last_step()
    assert on_two_nodes < on_three_nodes < last
    untouched.train_to(last)
    found, expected = run.surviving(), untouched.run.surviving()
    for step in range(1, last + 1):
        for term in ("loss", "kl_y", "kl_z", "res"):  # another batch or noise moves the last three by a tenth or more
            assert found[step][term] == pytest.approx(expected[step][term], rel=1e-3), (step, term)
        assert found[step]["samples_consumed"] == step * GLOBAL_BATCH
    sizes = [size for size, _ in itertools.groupby(attempt.world_size for attempt in run.history().attempts)]
    assert sizes == [4, 2, 3]


def test_a_cancelled_job_is_still_dead_after_all_that(run, cluster, cancelled, on_three_nodes):
    assert cluster.state(cancelled) == "CANCELLED"
    assert not cluster.run("squeue", "-h")
    assert not cluster.processes(cancelled)


def _listening(pid: int) -> set[int]:
    """TCP ports on which a process listens."""
    mine = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and f"socket:[{rest[5]}]" in mine:
                found.add(int(local.rpartition(":")[2], 16))
    return found
