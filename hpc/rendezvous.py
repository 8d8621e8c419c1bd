"""Who am I among the ranks, and where do we meet: from SLURM, torchrun (or our local launcher), or a single process.

In: the environment of this process. Out: `Ranks`, and the five variables that torch.distributed and DeepSpeed read.
The only place that looks at SLURM_* for this purpose. No torch import: it also runs on a login node and in tests.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass


class RendezvousError(RuntimeError):
    """The environment does not say which rank this is or where the others are."""


@dataclass(frozen=True)
class Ranks:
    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    master_addr: str
    master_port: int
    """0: rank 0 takes a free one and tells the others (hpc/meeting.py)."""
    cpus: int = 0
    """CPUs that SLURM gave to this rank; 0 if it did not say."""
    identity: str = ""
    """Of this step of this attempt: the same on all its ranks, another one after a requeue."""

    def export(self, environ: MutableMapping[str, str] | None = None) -> None:
        """Set what torch.distributed and DeepSpeed read; inherited values are overwritten."""
        environ = os.environ if environ is None else environ
        environ.update(
            RANK=str(self.rank),
            LOCAL_RANK=str(self.local_rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_WORLD_SIZE=str(self.local_world_size),
            MASTER_ADDR=self.master_addr,
            MASTER_PORT=str(self.master_port),
        )
        environ.pop("OMPI_COMM_WORLD_LOCAL_RANK", None)
        environ.pop("LOCAL_SIZE", None)  # equal to the world size it switches DeepSpeed to shared-memory files


def discover(environ: Mapping[str, str] | None = None) -> Ranks:
    """Read this process's place from its environment.

    A SLURM step with tasks wins over an inherited torchrun environment, unless the local launcher or torchrun started
    this very process (it then set ODEVID_LAUNCHER or TORCHELASTIC_RUN_ID).
    """
    environ = os.environ if environ is None else environ
    if "ODEVID_LAUNCHER" in environ or "TORCHELASTIC_RUN_ID" in environ:
        return _from_torchrun(environ)
    if "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        return _from_slurm(environ)
    if "RANK" in environ and "WORLD_SIZE" in environ:
        return _from_torchrun(environ)
    return Ranks(0, 0, 1, 1, "127.0.0.1", free_port())


def free_port() -> int:
    """A TCP port of this machine that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _from_torchrun(environ: Mapping[str, str]) -> Ranks:
    needed = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in environ]
    if missing:
        raise RendezvousError(
            f"RANK is set but {', '.join(missing)} is not: start through torchrun or `python hpc/launch.py`, "
            "or unset RANK and WORLD_SIZE for a single process"
        )
    world = int(environ["WORLD_SIZE"])
    local_world = int(environ.get("LOCAL_WORLD_SIZE", world))
    return Ranks(
        int(environ["RANK"]),
        int(environ["LOCAL_RANK"]),
        world,
        local_world,
        environ["MASTER_ADDR"],
        int(environ["MASTER_PORT"]),
    )


def _from_slurm(environ: Mapping[str, str]) -> Ranks:
    world = int(environ["SLURM_STEP_NUM_TASKS"])
    nodes = int(environ.get("SLURM_STEP_NUM_NODES", "1"))
    first = first_host(environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "localhost")))
    return Ranks(
        rank=int(environ["SLURM_PROCID"]),
        local_rank=int(environ["SLURM_LOCALID"]),
        world_size=world,
        local_world_size=max(1, world // nodes),
        master_addr=node_address(first),
        master_port=0,
        cpus=int(environ.get("SLURM_CPUS_PER_TASK", "0")),
        identity=slurm_identity(environ),
    )


def slurm_identity(environ: Mapping[str, str]) -> str:
    """What all ranks of a step compute alike; another one for another job, step or restart of the same job."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    return ".".join(environ.get(name, "0") for name in names)


def first_host(nodelist: str) -> str:
    """First host of a SLURM node list such as `n[1-4,7],m2`."""
    head, bracket, rest = nodelist.partition("[")
    if not bracket or "," in head:
        return nodelist.split(",")[0]
    first = rest.split("]")[0].split(",")[0].split("-")[0]
    return head + first + rest.partition("]")[2].split(",")[0]


def node_address(host: str) -> str:
    """The host's name if it resolves, else the address that SLURM itself uses for it."""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror:
        shown = subprocess.run(
            ["scontrol", "-o", "show", "node", host], capture_output=True, text=True, check=False
        ).stdout
        for word in shown.split():
            if word.startswith("NodeAddr="):
                return word.partition("=")[2]
        raise RendezvousError(
            f"the first node {host!r} of this job does not resolve, and `scontrol show node {host}` names no NodeAddr"
        ) from None
    return host
