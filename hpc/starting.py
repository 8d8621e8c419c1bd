"""From a prepared run to ranks: its data, its folder, then a job in the queue, or processes on this machine.

In: the configuration, the folder and the request of a run. Out: an exit code. Shared by single runs and sweeps. No
torch import, unless the ranks are this very process (`--debug`).
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.jobs import slurm
from hpc.jobs.attempts import LOCAL, read_history
from hpc.machine import has_slurm
from hpc.prepare import refuse_stopped, uses_gpus, world_size_of
from hpc.request import Request
from hpc.run_folder import RunFolder

if TYPE_CHECKING:
    from hpc.task import Task


def ensure_data(config: Config, folder: RunFolder, resuming: bool = False) -> None:
    """Before anything is written: the run is not told to stop (unless a person resumes it), and its data is there.

    Raises:
        ConfigError, ShardError: what is missing, or in the way.
    """
    from hpc.data import ensure_dataset, refuse_unfit

    if not resuming:
        refuse_stopped(folder)
    config.data.root = ensure_dataset(config.data)
    refuse_unfit(config)


def make_folder(config: Config, folder: RunFolder, request: Request) -> str:
    """The run folder with its resolved configuration; returns the wish of this launch, train.resume."""
    folder.create()
    resume, config.train.resume = config.train.resume, "auto"  # a wish for this launch, not for the next one
    configs.save(config, folder.config)
    folder.diagnosis.unlink(missing_ok=True)
    if request.verb == "resume" and folder.stop.exists():
        folder.stop.unlink()
        print(f"removed {folder.stop}: the run goes on")
    if request.allow_pipe:
        folder.pipes.write_text("\n".join(request.allow_pipe) + "\n")
    return resume


def make_task(
    verb: str, folder: RunFolder, config: Config, use_gpu: bool, resume: str = "auto", typed: str = ""
) -> Task:
    """What the ranks will run: the code and the configuration as they are now, whatever is launched later."""
    from hpc.task import Task

    text = configs.to_yaml(config)
    name = f"submitted/{verb}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    folder.submitted.mkdir(exist_ok=True)
    configs.save(config, folder.path / name)
    return Task(verb, str(folder.path), use_gpu, resume, name, typed)


def warn_of_other_jobs(folder: RunFolder, request: Request) -> None:
    """Tell of jobs of this run that are not over: a new one waits for them.

    Raises:
        ConfigError: it would not wait, as ranks on this machine or beside an element of an array.
    """
    jobs = [s.job for s in read_history(folder.path).submissions if s.verb == "train" and s.job != LOCAL]
    if not jobs or not has_slurm():
        return
    with contextlib.suppress(slurm.SlurmError):
        for job in slurm.job_states(jobs).values():
            if not job.unfinished:
                continue
            if request.where != "slurm" or "_" in job.job:
                raise ConfigError(
                    f"job {job.job} of this run is {job.state}: cancel it first (python hpc/launch.py cancel "
                    f"{shlex.quote(str(folder.path))}), or wait for its end"
                )
            print(f"NOTE: job {job.job} of this run is {job.state}; the new one waits until it has left")


def start(
    verb: str,
    folder: RunFolder,
    config: Config,
    request: Request,
    resume: str = "auto",
) -> int:
    """Run `verb` on the ranks; returns the exit code of what ran, or 0 for a submitted job."""
    world_size = world_size_of(config, request)
    if request.where == "debug":
        config.watchdog.enabled = False  # somebody thinks at a breakpoint
    typed = f"python hpc/launch.py {shlex.join(request.typed)}"
    task = make_task(verb, folder, config, uses_gpus(config, request), resume, typed)
    if request.where == "slurm":
        from hpc.jobs.submit import submit

        submission = submit(task, folder, config, world_size)
        if not request.wait:
            return 0
        from hpc.jobs.follow import follow

        return follow(submission.job, Path(submission.log))
    if request.where == "debug":
        return task().exit_code
    from hpc.local import run_ranks

    return run_ranks(task, folder, world_size)
