"""Ranks find each other from SLURM, torchrun or alone; inherited MASTER_* never win inside a SLURM step."""

from __future__ import annotations

import pytest

from hpc import rendezvous
from hpc.rendezvous import RendezvousError, discover, first_host, slurm_identity

SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NODELIST": "n[3-6]",
    "SLURM_JOB_ID": "77",
    "SLURM_STEP_ID": "0",
}


def test_a_slurm_step_decides_rank_and_address_whatever_was_inherited(monkeypatch):
    monkeypatch.setattr(rendezvous, "node_address", lambda host: f"{host}.cluster")
    ranks = discover({**SLURM, "MASTER_ADDR": "localhost", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "1"})
    assert (ranks.rank, ranks.local_rank, ranks.world_size, ranks.local_world_size) == (5, 1, 8, 2)
    assert ranks.master_addr == "n3.cluster"
    assert ranks.master_port == 0  # rank 0 finds a free one


def test_the_identity_of_a_meeting_is_the_same_on_all_ranks_and_another_after_a_requeue():
    assert slurm_identity(SLURM) == slurm_identity({**SLURM, "SLURM_PROCID": "0"})
    assert slurm_identity(SLURM) != slurm_identity({**SLURM, "SLURM_RESTART_COUNT": "1"})


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [("n1", "n1"), ("n[1-4]", "n1"), ("n[007-009,12]", "n007"), ("a1,b2", "a1"), ("gpu[3,5]-ib,x", "gpu3-ib")],
)
def test_first_host_of_a_node_list(nodelist, host):
    assert first_host(nodelist) == host


def test_torchrun_is_believed_and_a_half_set_environment_is_an_error():
    whole = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "5"}
    assert discover(whole).master_addr == "h"
    with pytest.raises(RendezvousError, match="MASTER_PORT"):
        discover({name: value for name, value in whole.items() if name != "MASTER_PORT"})


def test_alone_means_one_rank_on_a_free_port():
    ranks = discover({})
    assert (ranks.rank, ranks.world_size) == (0, 1)


def test_export_sets_all_five_variables_and_clears_what_misleads_deepspeed():
    environ = {"LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "3", "MASTER_PORT": "1"}
    rendezvous.Ranks(1, 0, 2, 1, "host", 4242).export(environ)
    assert environ == {
        "RANK": "1",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "MASTER_ADDR": "host",
        "MASTER_PORT": "4242",
    }
