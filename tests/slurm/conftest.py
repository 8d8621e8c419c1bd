"""For tests that want a real SLURM: the session's `cluster`, or `on_cluster` for code that runs in pytest itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shards.building.moving_mnist import build_moving_mnist
from tests.slurm.cluster import FOREIGN, SlurmCluster, missing_programs
from tests.slurm.jobs import Untouched

NO_SLURM = "no SLURM: apt-get install slurm-wlm munge"


def skip_or_fail(missing: list[str], demanded: bool) -> None:
    """Where the gate demands a SLURM its absence is a failure; elsewhere the tests that need one are left out."""
    if demanded:
        pytest.fail(f"{NO_SLURM} (ODEVID_DEMAND_SLURM=1, but there is no {', '.join(missing)})")
    pytest.skip(NO_SLURM)


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Four nodes of four CPUs, as long as the session lasts."""
    if missing := missing_programs():
        skip_or_fail(missing, demanded=os.environ.get("ODEVID_DEMAND_SLURM") == "1")
    with SlurmCluster() as started:
        yield started


@pytest.fixture
def on_cluster(cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """SLURM's commands, called from this very process, reach the cluster."""
    for name in os.environ:
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environ[name])
    return cluster


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset that every node can read."""
    root = tmp_path_factory.mktemp("data") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True)
    return root


@pytest.fixture(scope="session")
def untouched(cluster: SlurmCluster, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Untouched]:
    """What the disturbed runs on four nodes are compared with."""
    local = Untouched(cluster, tmp_path_factory.mktemp("untouched"), digits)
    yield local
    local.end()
