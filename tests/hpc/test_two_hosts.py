"""Ranks on two hosts that do not share a network stack, each with Debian's habit of calling itself 127.0.1.1.

The hosts are network namespaces joined by a cable, with host names and an /etc/hosts of their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess
ROOT = Path(__file__).resolve().parents[2]
RANK = """
import os
from hpc.distributed import joined
from hpc.rendezvous import discover
ranks = discover()
with joined(ranks, 1, force_cpu=True) as world:
    print(world.ranks.master_addr, world.all_max([ranks.rank + 5]), os.environ["GLOO_SOCKET_IFNAME"])
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path) -> Iterator[list[str]]:
    """Two namespaces; their names begin with that of this process."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("no network namespaces: they take root, and ip of the package iproute2")
    names = [f"od{os.getpid()}{letter}" for letter in "ab"]
    with contextlib.ExitStack() as exits:
        for name in names:
            ip("netns", "add", name)
            exits.callback(subprocess.run, ["ip", "netns", "del", name], check=False)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for number, name in enumerate(names, start=1):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            for link in ("lo", name):
                ip("-n", name, "link", "set", link, "up")
            known = "10.77.0.1 host1\n10.77.0.2 host2\n"
            (tmp_path / name).write_text(f"127.0.0.1 localhost\n127.0.1.1 host{number}\n{known}")
        yield names


def start_rank(name: str, rank: int, tmp_path: Path) -> subprocess.Popen[str]:
    inside = (
        f"hostname host{rank + 1} && mount --bind {tmp_path / name} /etc/hosts && exec {sys.executable} -c '{RANK}'"
    )
    step = {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": "host1,host2",
        "SLURM_JOB_ID": "5",
    }
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "GLOO", "ODEVID_L"))}
    return subprocess.Popen(
        ["ip", "netns", "exec", name, "unshare", "--uts", "--mount", "sh", "-c", inside],
        env={**environ, **step, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_hosts_that_take_their_own_name_for_loopback_find_each_other_all_the_same(hosts, tmp_path):
    ranks = [start_rank(name, rank, tmp_path) for rank, name in enumerate(hosts)]
    try:
        told = [rank.communicate(timeout=90) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for name, (said, errors) in zip(hosts, told, strict=True):
        assert said.split("\n")[0] == f"host1 [6] {name}", errors
