"""From a request to a run: its resolved configuration, its folder, and how many ranks of what kind it gets.

Refuses, with what to type, what would spoil a run that has started or take months where it was asked for. No torch
import.
"""

from __future__ import annotations

from pathlib import Path

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.identity import first_change
from hpc.machine import count_gpus
from hpc.request import Request
from hpc.run_folder import RunFolder, existing_run, new_run_folder


def existing(request: Request) -> tuple[Config, RunFolder]:
    """The folder of a started run and its configuration, for a verb that looks at it."""
    folder = existing_run(needs_run(request))
    config = configs.load_file(folder.config, request.overrides)
    _refuse_another_experiment(request, config)
    return config, folder


def needs_run(request: Request) -> str:
    if request.run is None:
        raise ConfigError(f"{request.verb} needs run=DIR, the folder of a started run (they are under runs/)")
    return request.run


def prepare(request: Request) -> tuple[Config, RunFolder]:
    """The resolved configuration and the folder, of a new run or of one that continues."""
    if request.run is not None and RunFolder(Path(request.run)).config.is_file():
        folder = existing_run(request.run)
        config = configs.load_file(folder.config, request.overrides)
        _refuse_another_experiment(request, config)
        config = _absolute(config)
        _refuse_another_run(folder, config)
        return config, folder
    config = configs.load(request.experiment or "srvp_smmnist", _size(request), request.cluster, request.overrides)
    usual = configs.load(config.experiment).data.name
    if config.data.name != usual:
        print(f"NOTE: size={config.size} trains on {config.data.name}, not on {usual}.")
    path = Path(request.run) if request.run else new_run_folder(config.experiment)
    if "%" in str(path.resolve()):
        raise ConfigError(f"run={path}: SLURM reads % in the names of logs as its own; use another name")
    return _absolute(config), RunFolder(path.resolve())


def _refuse_another_experiment(request: Request, config: Config) -> None:
    for name, given, kept in (
        ("experiment", request.experiment, config.experiment),
        ("size", request.size, config.size),
    ):
        if given not in (None, kept):
            raise ConfigError(
                f"run={request.run} was started with {name}={kept}, not {given}: leave {name}= out, or use another run="
            )


def _refuse_another_run(folder: RunFolder, config: Config) -> None:
    """What a run's checkpoints and its stream of samples are made of cannot change under them."""
    if config.train.resume == "never" or not any(folder.checkpoints.glob("step-*")):
        return
    kept = configs.load_file(folder.config)
    if change := first_change(configs.to_dict(kept), configs.to_dict(config)):
        raise ConfigError(
            f"{change.key}={change.after}, but {folder.path} has checkpoints made with {change.before}: "
            "leave it out, use another run=, or start this one anew with train.resume=never"
        )


def _size(request: Request) -> str:
    """The wanted size, or the demo's when nothing was asked for and there is nothing to run more on."""
    if request.size is not None:
        return request.size
    if request.where == "slurm" or count_gpus() or request.yes_cpu or request.verb == "doctor":
        return ""
    if request.experiment is not None and (
        request.dry_run or request.experiment not in configs.available("experiment")
    ):
        return ""
    if request.experiment is None and not any(word.startswith("model.") for word in request.overrides):
        print(
            "NO SLURM AND NO GPU: training size=demo, a small model for minutes on a CPU (--yes-cpu for the full size)."
        )
        return "demo"
    raise ConfigError(
        f"experiment={request.experiment or 'srvp_smmnist'} at full size would take months on this CPU: "
        "add size=small (a narrow model on this data) or size=demo (one moving digit), run where there is a GPU or "
        "SLURM, or say --yes-cpu"
    )


def _absolute(config: Config) -> Config:
    """Paths of the config do not depend on where a job happens to start."""
    from hpc.data import data_parent

    config.data.root = data_parent(config.data)
    if config.data.moving_mnist.mnist:
        config.data.moving_mnist.mnist = str(Path(config.data.moving_mnist.mnist).resolve())
    return config


def world_size_of(config: Config, request: Request) -> int:
    """Ranks of the run: one per GPU, or CPU ranks."""
    if request.where == "debug":
        return 1
    if request.ranks:
        return request.ranks
    cluster = config.cluster
    gpus = cluster.gpus_per_node
    if gpus < 0:
        gpus = 8 if request.where == "slurm" else count_gpus()
    per_node = gpus or cluster.ranks_per_node
    return per_node * (cluster.nodes if request.where == "slurm" else 1)


def uses_gpus(config: Config, request: Request) -> bool:
    """Whether each rank must have a GPU: always on SLURM unless CPU ranks were asked for, here if there are any."""
    gpus = config.cluster.gpus_per_node
    if request.where == "slurm" or gpus >= 0:
        return gpus != 0 and not request.ranks
    return count_gpus() > 0 and not request.ranks


def refuse_stopped(folder: RunFolder) -> None:
    if folder.stop.exists():
        raise ConfigError(f"this run was told to stop, and would stop again: remove that file first: rm {folder.stop}")
