"""A second life in the queue, through what is rarer: dead nodes, requeues by hand, a lost srun, a damaged checkpoint.

As in test_faults.py one run goes through it all, each stage a fixture that begins where the former one ended:

    launched -> preempted_by_term -> requeued -> node_died -> first_node_died -> node_set_down -> srun_killed
        -> damaged -> terminated
"""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Settings
from tests.slurm.jobs import EVERY, ClusterRun, Recovery, assert_same_bits

pytestmark = [pytest.mark.slurm, pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def run(cluster, digits, tmp_path_factory) -> Iterator[ClusterRun]:
    """On a cluster that announces a preemption by nothing but SIGTERM."""
    settings: Settings = cluster.settings
    cluster.configure(dataclasses.replace(settings, preempt_send_user_signal=False, grace_s=12))
    yield ClusterRun(cluster, tmp_path_factory.mktemp("rare") / "run", digits)
    cluster.clear()
    cluster.configure(settings)


# -- the life ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launched(run) -> str:
    """The job."""
    run.launch("--partition", "low", "--time", "60")
    run.wait_for_step(EVERY + 2)
    return run.job


@pytest.fixture(scope="module")
def preempted_by_term(run, launched) -> Recovery:
    return run.survive("preemption, announced by SIGTERM", run.preempt)


@pytest.fixture(scope="module")
def requeued(run, preempted_by_term) -> Recovery:
    return run.survive("scontrol requeue", lambda: run.cluster.run("scontrol", "requeue", run.job))


@pytest.fixture(scope="module")
def node_died(run, requeued) -> Recovery:
    return _lose_a_node(run, "n3", "SIGKILL of all of a node")


@pytest.fixture(scope="module")
def first_node_died(run, node_died) -> Recovery:
    """The node with rank 0, srun and the batch script."""
    return _lose_a_node(run, "n1", "SIGKILL of all of the first node")


def _lose_a_node(run: ClusterRun, node: str, fault: str) -> Recovery:
    return run.survive(fault, lambda: run.cluster.kill_slurmd(node), lambda: _repair(run, node))


@pytest.fixture(scope="module")
def node_set_down(run, first_node_died) -> Recovery:
    fault = "scontrol update node state=down"
    return run.survive(fault, lambda: run.cluster.set_down("n2"), lambda: _repair(run, "n2"))


def _repair(run: ClusterRun, node: str) -> None:
    run.wait_for_state("PENDING")  # once SLURM has noticed
    run.cluster.resume(node)


@pytest.fixture(scope="module")
def srun_killed(run, node_set_down) -> Recovery:
    def harm() -> None:
        pids = [pid for pid in run.cluster.processes(run.job) if _name(pid) == "srun"]
        assert pids
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    return run.survive("SIGKILL of srun", harm)


@pytest.fixture(scope="module")
def damaged(run, srun_killed) -> Recovery:
    def flip_a_bit() -> None:
        newest = run.checkpoints()[max(run.checkpoints())] / "state.pt"
        content = bytearray(newest.read_bytes())
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)

    fault = "newest checkpoint damaged while queued"
    return run.survive(fault, lambda: run.cluster.run("scontrol", "requeue", run.job), flip_a_bit)


@pytest.fixture(scope="module")
def terminated(run, damaged) -> str:
    """State in which the job ended."""
    run.cluster.run("scancel", "--signal", "TERM", run.job)
    return run.wait_for_state("COMPLETED", "CANCELLED", "FAILED", "PENDING", "TIMEOUT")


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


# -- its promises ------------------------------------------------------------------------------------------------------


def test_a_preemption_without_usr2_still_saves_and_the_job_comes_back(run, preempted_by_term):
    assert preempted_by_term.steps_recomputed == 0


def test_a_requeue_by_hand_saves_first(run, requeued):
    assert requeued.steps_recomputed == 0


def test_a_node_that_dies_costs_at_most_one_checkpoint_interval(run, launched, node_died):
    assert 0 <= node_died.steps_recomputed <= EVERY
    assert run.job == launched


def test_so_does_the_first_node_with_rank_0_and_the_batch_script(run, first_node_died):
    assert 0 <= first_node_died.steps_recomputed <= EVERY


def test_a_node_set_down_costs_at_most_one_checkpoint_interval(run, node_set_down):
    assert 0 <= node_set_down.steps_recomputed <= EVERY


def test_a_lost_srun_does_not_leave_ranks_behind(run, srun_killed):
    assert 0 <= srun_killed.steps_recomputed <= EVERY


def test_a_checkpoint_damaged_in_the_queue_falls_back_loudly_to_the_one_before(run, damaged):
    assert 0 <= damaged.steps_recomputed <= EVERY
    assert "DAMAGED CHECKPOINT" in run.log()


def test_a_bare_sigterm_saves_and_ends_well_without_coming_back(run, terminated):
    assert terminated == "COMPLETED"
    assert max(run.checkpoints()) == run.last_step()


def test_none_of_it_changed_a_bit(run, untouched, terminated):
    assert_same_bits(run, untouched)


def test_one_job_lived_through_it_all(run, launched, terminated):
    assert [submission.job for submission in run.history().submissions] == [launched]
    assert int(run.cluster.show(launched)["Restarts"]) >= 7
