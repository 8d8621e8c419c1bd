"""From a prepared run to ranks: its data, its folder, then a job in the queue, or processes on this machine.

In: the configuration, the folder and the request of a run. Out: an exit code. Shared by single runs and sweeps. No
torch import, unless the ranks are this very process (`--debug`).
"""

from __future__ import annotations

from pathlib import Path

from hpc import config as configs
from hpc.config import Config
from hpc.prepare import refuse_stopped, uses_gpus, world_size_of
from hpc.request import Request
from hpc.run_folder import RunFolder


def ensure_data(config: Config, folder: RunFolder) -> None:
    """Before anything is written: the run is not told to stop, and its data is there.

    Raises:
        ConfigError, ShardError: what is missing, or in the way.
    """
    from hpc.data import ensure_dataset

    refuse_stopped(folder)
    config.data.root = ensure_dataset(config.data)


def make_folder(config: Config, folder: RunFolder, request: Request) -> str:
    """The run folder with its resolved configuration; returns the wish of this launch, train.resume."""
    folder.create()
    resume, config.train.resume = config.train.resume, "auto"  # a wish for this launch, not for the next one
    configs.save(config, folder.config)
    if request.allow_pipe:
        folder.pipes.write_text("\n".join(request.allow_pipe) + "\n")
    return resume


def start(
    verb: str,
    folder: RunFolder,
    config: Config,
    request: Request,
    resume: str = "auto",
    config_file: str = "config.yaml",
) -> int:
    """Run `verb` on the ranks; returns the exit code of what ran, or 0 for a submitted job."""
    from hpc.task import Task

    world_size = world_size_of(config, request)
    task = Task(verb, str(folder.path), uses_gpus(config, request), resume, config_file)
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
