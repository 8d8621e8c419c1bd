"""Submits a task to SLURM through submitit, and lets it come back. The only module that imports submitit.

In: a task, its run folder and configuration. Out: a submitted job, or (for a dry run) its batch script.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpc.config import Config, ConfigError
from hpc.run_folder import RunFolder
from hpc.task import Task

SITE_OPTIONS = ("partition", "qos", "account", "constraint", "exclude", "comment")
UNLIMITED = 10**9
"""Time-outs after which submitit would end a job: only the guard against attempts without progress may."""
WHERE_SLURM_IS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")


def submit(task: Task, folder: RunFolder, config: Config, world_size: int) -> int:
    """Submit the job; prints its id and how to follow it, returns 0.

    Raises:
        ConfigError: there is no SLURM here, or sbatch refuses the job; the message is its own.
    """
    from submitit.core.utils import FailedJobError

    executor = _executor(folder, config, world_size, task.verb)
    try:
        with outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()):  # sbatch's words come with the error
            job = executor.submit(task)
    except FailedJobError as error:
        raise ConfigError(
            f"sbatch refused the job ({config.cluster.nodes} nodes, {_gpus(config, world_size)} GPUs each):\n{error}\n"
            "see sinfo for what there is; --nodes, --gpus-per-node (0: CPU ranks), --partition, --account, --time "
            "... ask for something else, and --local runs on this machine"
        ) from error
    log = folder.logs / f"{job.job_id}_0_log.out"
    print(
        f"submitted job {job.job_id} ({config.cluster.nodes} nodes, {world_size} ranks)\n"
        f"follow it   tail -F {log}\n"
        f"its state   squeue -j {job.job_id}\n"
        f"stop it     touch {folder.stop}   "
        f"(or scancel {job.job_id}, which leaves it the site's KillWait, mostly 30 s, to save in)"
    )
    return 0


def sbatch_text(folder: RunFolder, config: Config, world_size: int, verb: str = "train") -> str:
    """The batch script that `submit` would hand to sbatch; SLURM need not be there."""
    import submitit.slurm.slurm as slurm

    command = f"{_python()} -u -m submitit.core._submit {shlex.quote(str(folder.logs))}"
    parameters = _slurm_parameters(folder, config, world_size, verb)
    text: str = slurm._make_sbatch_string(command=command, folder=folder.logs, **parameters)
    return text


def again(task: Task) -> Any:
    """What submitit requeues: the same task."""
    from submitit.helpers import DelayedSubmission

    return DelayedSubmission(task)


@contextlib.contextmanager
def outside_of_jobs() -> Iterator[None]:
    """Hide the job or the launcher that this process itself runs in, as in an interactive allocation.

    sbatch hands the environment on, and srun in the new job would take the old job's SLURM_* for its own options.
    """
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    stale = [name for name in os.environ if name.startswith(("SLURM_", "SRUN_")) and name not in WHERE_SLURM_IS]
    hidden = {name: os.environ.pop(name) for name in stale}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _executor(folder: RunFolder, config: Config, world_size: int, verb: str) -> Any:
    import submitit.slurm.slurm as slurm

    if slurm.SlurmExecutor.affinity() < 0:
        raise ConfigError("no SLURM here (srun not found): submit from a login node, or say --local")
    executor = slurm.SlurmExecutor(folder.logs, max_num_timeout=UNLIMITED, python=_python())
    executor.update_parameters(**_slurm_parameters(folder, config, world_size, verb))
    return executor


def _slurm_parameters(folder: RunFolder, config: Config, world_size: int, verb: str) -> dict[str, Any]:
    """submitit's parameters. Only what the site set is passed on: SLURM has defaults of its own."""
    cluster = config.cluster
    parameters: dict[str, Any] = {
        "job_name": _job_name(folder, config, verb),
        "dependency": "singleton",  # two jobs on one run folder wait for each other: by user and job name
        "nodes": cluster.nodes,
        "ntasks_per_node": world_size // cluster.nodes,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.time_min,
        "signal_delay_s": cluster.signal_delay_s,
        "setup": [*cluster.setup, *_python_setup()],
        # one dead rank ends all; since SLURM 22.05 srun does not inherit the job's CPUs per task
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={cluster.cpus_per_task}"],
        "stderr_to_stdout": True,
        "wckey": None,
        "additional_parameters": {"requeue": True},  # also where the site's default is JobRequeue=0
    }
    if gpus := _gpus(config, world_size):
        parameters["gpus_per_node"] = gpus
    if cluster.mem_gb:
        parameters["mem"] = f"{cluster.mem_gb}GB"
    parameters.update({name: value for name in SITE_OPTIONS if (value := getattr(cluster, name))})
    if cluster.reservation:
        parameters["additional_parameters"]["reservation"] = cluster.reservation
    return parameters


def _gpus(config: Config, world_size: int) -> int:
    """GPUs per node: one per rank, or none."""
    return world_size // config.cluster.nodes if config.cluster.gpus_per_node else 0


def _job_name(folder: RunFolder, config: Config, verb: str) -> str:
    """One name per verb and run folder: what keeps a run from being trained by two jobs at once."""
    return f"odevid-{verb}-{config.experiment}-{zlib.crc32(str(folder.path).encode()):08x}"


def _python() -> str:
    """The interpreter as a shell command, deaf to SLURM's signals until Python has handlers for them.

    By default they end a process. A preemption in the first seconds would end the job as failed, never to be requeued.
    """
    return f"""sh -c 'trap "" USR2 TERM; exec "$0" "$@"' {shlex.quote(sys.executable)}"""


def _python_setup() -> list[str]:
    """Shell lines by which the job imports this very code, whatever folder it was submitted from."""
    root = shlex.quote(str(Path(__file__).resolve().parent.parent))
    return [f"export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}", "export PYTHONSAFEPATH=1"]
