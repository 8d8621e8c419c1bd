"""The tests' own SLURM keeps to itself: its folder, its host names, its ports, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Settings
from tests.slurm.conftest import skip_or_fail

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]


def test_a_job_sees_nodes_of_its_own_name_and_no_job_around_the_tests(cluster, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    shown = cluster.run("srun", "-N4", "sh", "-c", "echo ${MASTER_ADDR-unset} $(hostname)").splitlines()
    names = cluster.nodes if cluster.own_host_names else [os.uname().nodename] * 4
    assert sorted(shown) == [f"unset {name}" for name in names]


def test_sacct_answers_as_submitit_and_the_launcher_ask_it(cluster):
    job = cluster.run("sbatch", "--parsable", "-N2", "-o", "/dev/null", "--wrap", "sleep 60")
    while cluster.state(job) != "RUNNING":
        time.sleep(0.05)
    shown = cluster.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job)
    assert shown == f"JobID|State|NodeList\n{job}|RUNNING|n[1-2]"
    assert cluster.run("sacct", "-n", "-X", "-P", "-o", "State,JobID", "-j", job) == f"RUNNING|{job}"
    cluster.run("scancel", job)
    while cluster.state(job) != "CANCELLED":
        time.sleep(0.05)
    assert f"{job}|CANCELLED" in cluster.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job)
    cluster.clear()


OWNER = """
import os, sys, time
from pathlib import Path
from tests.slurm.cluster import Settings, SlurmCluster
with SlurmCluster(Settings(nodes=2, gpus=2)) as cluster:
    job = cluster.run("sbatch", "--parsable", "-o", "/dev/null", "--gres=gpu:2", "--wrap",
                      "echo $CUDA_VISIBLE_DEVICES > " + sys.argv[1] + "; srun sh -c 'setsid sleep 600'")
    while not cluster.tasks(job):
        time.sleep(0.05)
    print(cluster.folder, *cluster.processes(job), flush=True)
    input()
"""


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_whatever_happens_to_its_owner_nothing_of_a_cluster_is_left(cluster, tmp_path, end):
    """`cluster` runs beside it and does not notice."""
    command = [sys.executable, "-c", OWNER, str(tmp_path / "devices")]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin and owner.stdout
        folder, *processes = owner.stdout.readline().split()
        assert Path(folder, "etc/slurm.conf").is_file() and len(processes) >= 3
        if end == "killed":
            owner.send_signal(signal.SIGKILL)
        else:
            owner.communicate("\n", timeout=60)
    deadline = time.monotonic() + 60
    while Path(folder).exists() or any(_lives(pid) for pid in processes):
        assert time.monotonic() < deadline, (folder, processes)
        time.sleep(0.05)
    assert (tmp_path / "devices").read_text() == "0,1\n"
    assert len(cluster.run("sinfo", "-h", "-N", "-p", "main", "-t", "idle").splitlines()) == Settings().nodes


def test_without_slurm_its_tests_are_skipped_unless_the_gate_demands_it():
    with pytest.raises(pytest.skip.Exception, match="apt-get install slurm-wlm munge"):
        skip_or_fail(["slurmd"], demanded=False)
    with pytest.raises(pytest.fail.Exception, match="there is no slurmctld, slurmd"):
        skip_or_fail(["slurmctld", "slurmd"], demanded=True)


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
