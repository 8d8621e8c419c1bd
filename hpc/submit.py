"""Submits a task to SLURM through submitit, and lets it come back. The only module that imports submitit."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpc.config import Config, ConfigError
from hpc.run_folder import RunFolder
from hpc.task import Task

SITE_OPTIONS = ("partition", "qos", "account", "constraint", "exclude", "comment")


def submit(task: Task, folder: RunFolder, config: Config, world_size: int) -> int:
    """Submit the job; prints its id and how to follow it, returns 0."""
    executor = _executor(folder, config, world_size)
    job = executor.submit(task)
    log = folder.logs / f"{job.job_id}_0_log.out"
    print(
        f"submitted job {job.job_id} ({config.cluster.nodes} nodes, {world_size} ranks)\n"
        f"follow it   tail -F {log}\n"
        f"its state   squeue -j {job.job_id}\n"
        f"stop it     touch {folder.stop}   (saves first; scancel {job.job_id} ends it at the last checkpoint)"
    )
    return 0


def sbatch_text(folder: RunFolder, config: Config, world_size: int) -> str:
    """The batch script that `submit` would hand to sbatch."""
    import submitit.slurm.slurm as slurm

    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder.logs))}"
    text: str = slurm._make_sbatch_string(command=command, folder=folder.logs, **_slurm_parameters(config, world_size))
    return text


def again(task: Task) -> Any:
    """What submitit requeues: the same task."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(task)


def requeue() -> None:
    """Ask SLURM to queue this job again (a job that submitit did not start)."""
    subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)


def _executor(folder: RunFolder, config: Config, world_size: int) -> Any:
    import submitit.slurm.slurm as slurm

    if slurm.SlurmExecutor.affinity() < 0:
        raise ConfigError("no SLURM here (srun not found): submit from a login node, or say --local")
    executor = slurm.SlurmExecutor(folder=folder.logs, max_num_timeout=config.cluster.max_requeues)
    executor.update_parameters(**_slurm_parameters(config, world_size))
    return executor


def _slurm_parameters(config: Config, world_size: int) -> dict[str, Any]:
    """submitit's parameters. Only what the site set is passed on: SLURM has defaults of its own."""
    cluster = config.cluster
    parameters: dict[str, Any] = {
        "job_name": f"odevid-{config.experiment}",
        "nodes": cluster.nodes,
        "ntasks_per_node": world_size // cluster.nodes,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.time_min,
        "signal_delay_s": cluster.signal_delay_s,
        "setup": [*cluster.setup, f"export PYTHONPATH={_code_root()}:$PYTHONPATH"],
        "srun_args": ["--kill-on-bad-exit=1"],
    }
    gpus = world_size // cluster.nodes if cluster.gpus_per_node else 0
    if gpus:
        parameters["gpus_per_node"] = gpus
    if cluster.mem_gb:
        parameters["mem"] = f"{cluster.mem_gb}GB"
    parameters.update({name: value for name in SITE_OPTIONS if (value := getattr(cluster, name))})
    if cluster.reservation:
        parameters["additional_parameters"] = {"reservation": cluster.reservation}
    return parameters


def _code_root() -> Path:
    return Path(__file__).resolve().parent.parent
