"""Submits tasks to SLURM through submitit, and lets them come back. The only module that imports submitit.

In: a task (or many, as one array), run folders and configuration. Out: submitted jobs, noted in their run folders, or
(for a dry run) the batch script.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpc.config import Config, ConfigError
from hpc.jobs.attempts import Submission, note_submission
from hpc.jobs.build_slice import BuildSlice
from hpc.jobs.snapshot import code_digest, keep_code
from hpc.run_folder import RunFolder
from hpc.task import Task

SITE_OPTIONS = ("partition", "qos", "account", "constraint", "exclude", "comment")
STRANGERS = (
    *("ODEVID_LAUNCHER", "TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
"""What a shell may have left from another launcher; sbatch hands it on, and ranks would believe it."""
UNLIMITED = 10**9
"""Time-outs after which submitit would end a job: only the guard against attempts without progress may."""
WHERE_SLURM_IS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")


def submit(task: Task, folder: RunFolder, config: Config, world_size: int) -> Submission:
    """Queue one job for a run; prints its id and how to follow it.

    Raises:
        ConfigError: there is no SLURM here, or sbatch refuses the job; the message is its own.
    """
    code = keep_code(folder.code)
    parameters = _run_parameters(folder, config, world_size, task.verb, code)
    with _sbatch_may_refuse(config, world_size):
        job = str(_executor(folder.logs, parameters).submit(task).job_id)
    log = folder.logs / f"{job}_0_log.out"
    submission = Submission(time.time(), task.verb, job, config.cluster.nodes, world_size, str(log), str(code))
    note_submission(folder.path, submission)
    run = shlex.quote(str(folder.path))
    lines = [
        f"submitted job {job} ({config.cluster.nodes} nodes, {world_size} ranks)",
        f"follow it   tail -F {shlex.quote(str(log))}",
    ]
    if task.verb == "train":
        lines += [
            f"its state   python hpc/launch.py status {run}",
            f"stop it     touch {run}/STOP   (saves, ends)",
            f"            python hpc/launch.py cancel {run}   (saves within the site's KillWait, mostly 30 s)",
        ]
    else:
        lines += [f"its state   squeue -j {job}", f"stop it     scancel {job}"]
    print("\n".join(lines), flush=True)
    return submission


def submit_array(
    tasks: Sequence[Task],
    folders: Sequence[RunFolder],
    logs: Path,
    config: Config,
    world_size: int,
    parallelism: int,
    name: str,
) -> list[str]:
    """Queue one SLURM array, an element for each task.

    Args:
        folders: of the runs, in the order of `tasks`; each notes its submission.
        logs: folder of the array's batch script and output.
        config: what `cluster` the elements share.
        parallelism: elements that run at a time; 0: as many as SLURM likes.
        name: of the array, for squeue.

    Returns:
        Ids of the elements: `A_0`, `A_1` ...

    Raises:
        ConfigError: there is no SLURM here, or sbatch refuses the array; the message is its own.
    """
    code = keep_code(logs.parent / "code")
    logs.mkdir(parents=True, exist_ok=True)
    runs = logs / f"runs-{time.time_ns()}.txt"
    runs.write_text("".join(f"{folder.path}\n" for folder in folders))
    parameters = _array_parameters(len(tasks), runs, config, world_size, parallelism, name, code)
    executor = _executor(logs, parameters)
    with _sbatch_may_refuse(config, world_size), executor.batch():
        jobs = [executor.submit(task) for task in tasks]
    ids = [str(job.job_id) for job in jobs]
    for job, task, folder in zip(ids, tasks, folders, strict=True):
        log = logs / f"{job}_0_log.out"
        submission = Submission(time.time(), task.verb, job, config.cluster.nodes, world_size, str(log), str(code))
        note_submission(folder.path, submission)
    return ids


def submit_slices(tasks: Sequence[BuildSlice], folder: Path, config: Config, parallelism: int, name: str) -> list[str]:
    """Queue the slices of a build as one SLURM array; a single slice is a plain job.

    Args:
        folder: of this submission: logs/ and code/ are made in it.
        config: what `cluster` the slices share; each is one task on one node.
        parallelism: slices that run at a time; 0: as many as SLURM likes.
        name: of the array, for squeue.

    Returns:
        Ids of the jobs in the order of `tasks`: `A_0`, `A_1` ...

    Raises:
        ConfigError: there is no SLURM here, or sbatch refuses the array; the message is its own.
    """
    parameters = _slice_parameters(len(tasks), folder, config, parallelism, name, keep_code(folder / "code"))
    executor = _executor(folder / "logs", parameters)
    with _sbatch_may_refuse(config, 1), executor.batch():
        jobs = [executor.submit(task) for task in tasks]
    return [str(job.job_id) for job in jobs]


def sbatch_text(folder: RunFolder, config: Config, world_size: int, verb: str = "train") -> str:
    """The batch script that `submit` would hand to sbatch; SLURM need not be there."""
    return _text(folder.logs, _run_parameters(folder, config, world_size, verb, folder.code / code_digest()))


def array_text(count: int, logs: Path, config: Config, world_size: int, parallelism: int, name: str) -> str:
    """The batch script that `submit_array` would hand to sbatch for `count` tasks; SLURM need not be there."""
    code = logs.parent / "code" / code_digest()
    parameters = _array_parameters(count, logs / "runs-TIME.txt", config, world_size, parallelism, name, code)
    return _text(logs, {**parameters, "map_count": count})


def slices_text(count: int, folder: Path, config: Config, parallelism: int, name: str) -> str:
    """The batch script that `submit_slices` would hand to sbatch for `count` slices; SLURM need not be there."""
    parameters = _slice_parameters(count, folder, config, parallelism, name, folder / "code" / code_digest())
    return _text(folder / "logs", parameters if count == 1 else {**parameters, "map_count": count})


def _text(logs: Path, parameters: dict[str, Any]) -> str:
    import submitit.slurm.slurm as slurm

    command = f"{_python()} -u -m submitit.core._submit {shlex.quote(str(logs))}"
    text: str = slurm._make_sbatch_string(command=command, folder=logs, **parameters)
    return text


def again(task: Task | BuildSlice) -> Any:
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


def _executor(logs: Path, parameters: dict[str, Any]) -> Any:
    import submitit.slurm.slurm as slurm

    if slurm.SlurmExecutor.affinity() < 0:
        raise ConfigError("no SLURM here (srun not found): submit from a login node, or say --local")
    executor = slurm.SlurmExecutor(logs, max_num_timeout=UNLIMITED, python=_python())
    executor.update_parameters(**parameters)
    return executor


@contextlib.contextmanager
def _sbatch_may_refuse(config: Config, world_size: int) -> Iterator[None]:
    from submitit.core.utils import FailedJobError

    try:
        with outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()):  # sbatch's words come with the error
            yield
    except FailedJobError as error:
        raise ConfigError(
            f"sbatch refused the job ({config.cluster.nodes} nodes, {_gpus(config, world_size)} GPUs each):\n{error}\n"
            "see sinfo for what there is; --nodes, --gpus-per-node (0: CPU ranks), --partition, --account, --time "
            "... ask for something else, and --local runs on this machine"
        ) from error


def _run_parameters(folder: RunFolder, config: Config, world_size: int, verb: str, code: Path) -> dict[str, Any]:
    parameters = _slurm_parameters(_job_name(folder, config, verb), config, world_size, code)
    parameters["dependency"] = "singleton"  # two jobs on one run folder wait for each other: by user and job name
    parameters["teardown"] = _teardown(f"--run {shlex.quote(str(folder.path))}")
    return parameters


def _array_parameters(
    count: int, runs: Path, config: Config, world_size: int, parallelism: int, name: str, code: Path
) -> dict[str, Any]:
    parameters = _slurm_parameters(f"odevid-{name}", config, world_size, code)
    parameters["array_parallelism"] = parallelism or count
    parameters["teardown"] = _teardown(f"--runs {shlex.quote(str(runs))}")
    return parameters


def _slice_parameters(
    count: int, folder: Path, config: Config, parallelism: int, name: str, code: Path
) -> dict[str, Any]:
    parameters = _slurm_parameters(f"odevid-{name}", config, 1, code)
    parameters["array_parallelism"] = parallelism or count
    crashes = config.cluster.max_idle_attempts if config.cluster.restart_on_crash else 0
    parameters["teardown"] = _teardown(f"again {shlex.quote(str(folder))} --crashes {crashes}", "hpc.jobs.build_slice")
    return parameters


def _slurm_parameters(name: str, config: Config, world_size: int, code: Path) -> dict[str, Any]:
    """submitit's parameters. Only what the site set is passed on: SLURM has defaults of its own."""
    cluster = config.cluster
    parameters: dict[str, Any] = {
        "job_name": name,
        "nodes": cluster.nodes,
        "ntasks_per_node": world_size // cluster.nodes,
        "cpus_per_task": cluster.cpus_per_task,
        "time": cluster.time_min,
        "signal_delay_s": cluster.signal_delay_s,
        "setup": [*cluster.setup, *_python_setup(code)],
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


def _python_setup(code: Path) -> list[str]:
    """Shell lines by which the job imports the code kept for it, whatever folder or shell it was submitted from.

    The last one lets the script go on after srun, though a site's own lines may have said `set -e`.
    """
    return [
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        f"unset {' '.join(STRANGERS)}",
        "set +eu",
    ]


def _teardown(which: str, decides: str = "hpc.jobs.restart") -> list[str]:
    """Shell lines after srun: a job whose ranks failed may be started again, as a module decides."""
    return [
        "code=$?",
        f'[ $code = 0 ] || {shlex.quote(sys.executable)} -m {decides} {which} --code "$code"',
        "exit $code",
    ]
