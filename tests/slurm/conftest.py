"""For tests that want a real SLURM: the session's `cluster`, or `on_cluster` for code that runs in pytest itself."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import FOREIGN, SlurmCluster, missing_programs

NO_SLURM = "no SLURM: apt-get install slurm-wlm munge"


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Four nodes of four CPUs, as long as the session lasts."""
    if missing := missing_programs():
        if os.environ.get("ODEVID_DEMAND_SLURM") == "1":
            pytest.fail(f"{NO_SLURM} (ODEVID_DEMAND_SLURM=1, but there is no {', '.join(missing)})")
        pytest.skip(NO_SLURM)
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
