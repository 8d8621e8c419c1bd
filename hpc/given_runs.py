"""Runs that a command line names, for the verbs that look at them: report, predict, study.

In: words such as `run=runs/srvp_kth/20261120-101500`. Out: run folders, and a run's model ready for use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.run_folder import RunFolder, existing_run

if TYPE_CHECKING:
    import torch

    from odevid.model import VideoModel


def runs_of(words: Sequence[str]) -> tuple[list[RunFolder], list[str]]:
    """The runs named by `run=DIR`, in their order, and the other words.

    Raises:
        ConfigError: one is not a run folder, or is named twice.
    """
    runs = [existing_run(word.partition("=")[2]) for word in words if word.startswith("run=")]
    paths = [run.path for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"run={path} is given {paths.count(path)} times: once is enough")
    return runs, [word for word in words if not word.startswith("run=")]


@dataclass(frozen=True)
class LoadedRun:
    """A run's model in eval mode on `device`, the step of its weights, and the run's configuration."""

    folder: RunFolder
    config: Config
    model: VideoModel
    step: int
    device: torch.device


def load_run(folder: RunFolder, overrides: Sequence[str] = (), device: str = "") -> LoadedRun:
    """A run's model with the weights that eval.checkpoint names.

    Args:
        overrides: `key=value` on top of the run's configuration.
        device: such as "cpu" or "cuda:1"; empty: a GPU if there is one.

    Raises:
        ConfigError: the run has no checkpoint, an override does not fit, or there is no such device.
    """
    from hpc.export import load_model

    where = device_of(device)
    config = configs.load_file(folder.config, list(overrides))
    model, step = load_model(config, folder)
    return LoadedRun(folder, config, model.to(where).eval(), step, where)


def device_of(device: str) -> torch.device:
    """The device of that name; of no name, a GPU if there is one.

    Raises:
        ConfigError: not a device of this machine.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        wanted = torch.device(device or ("cuda" if count else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"--device {device}: expected cpu, cuda or cuda:NUMBER") from error
    if wanted.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device {device}: expected cpu, cuda or cuda:NUMBER")
    if wanted.type == "cuda" and (wanted.index or 0) >= count:
        raise ConfigError(f"--device {device}: this machine shows {count} CUDA devices; leave it out, or --device cpu")
    return wanted


def short_name(folder: RunFolder) -> str:
    """How tables and legends call a run: the last two parts of its path."""
    return "/".join(Path(folder.path).parts[-2:])
