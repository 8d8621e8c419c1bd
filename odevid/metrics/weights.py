"""Weights of published networks, found in a folder and read as plain tensors. Nothing is ever fetched or run.

In: which files a metric needs, under which names, and where they are published. Out: their paths, their tensors, or an
error that says which file to put where.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

FOLDER_VARIABLE = "ODEVID_WEIGHTS"
DEFAULT_FOLDER = "~/.cache/odevid/weights"


@dataclass(frozen=True)
class WeightFile:
    """A published file: what it holds, its paths relative to a weights folder (the first is advised), its address."""

    what: str
    names: tuple[str, ...]
    url: str


def weight_folders() -> list[Path]:
    """$ODEVID_WEIGHTS if it is set, then ~/.cache/odevid/weights."""
    named = os.environ.get(FOLDER_VARIABLE)
    return [Path(folder).expanduser() for folder in (named, DEFAULT_FOLDER) if folder]


def find_weights(
    purpose: str, files: Sequence[WeightFile], folder: str | Path | None = None, or_else: str = ""
) -> tuple[Path, ...]:
    """Paths of `files`, in their order, in `folder` or, if that is None, in `weight_folders()`.

    Raises FileNotFoundError, which starts with `purpose`, names each missing file, its place and its address, and ends
    with `or_else`, what else there is to type.
    """
    folders = weight_folders() if folder is None else [Path(folder).expanduser()]
    found = [_first(file, folders) for file in files]
    missing = [file for file, path in zip(files, found, strict=True) if path is None]
    if missing:
        wanted = "\n".join(f"  {folders[0] / file.names[0]}  ({file.what}, from {file.url})" for file in missing)
        raise FileNotFoundError(
            f"{purpose} needs weights, which are never fetched by themselves and are not in "
            f"{' or '.join(map(str, folders))}. Put there:\n{wanted}\n"
            f"or name another folder with weights= or ${FOLDER_VARIABLE}{or_else}"
        )
    return tuple(path for path in found if path is not None)


def _first(file: WeightFile, folders: Sequence[Path]) -> Path | None:
    candidates = (folder / name for folder in folders for name in file.names)
    return next((path for path in candidates if path.is_file()), None)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    Raises FileNotFoundError where there is none, ValueError for a file that holds anything but names and tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is not a state dict of tensors: {error}") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{path} holds a {type(weights).__name__}; expected a state dict: names and tensors")
    return dict(weights)


def pick(weights: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], origin: str, what: str) -> dict[str, Tensor]:
    """The tensors named in `shapes`, as float32; others in `weights` (such as a classifier's) are left out.

    Raises ValueError where one is missing, or has another shape or values that are not finite, naming `origin`, the
    first such tensor and `what` it should belong to.
    """
    missing = [name for name in shapes if name not in weights]
    if missing:
        raise ValueError(
            f"{origin} is not {what}: {len(missing)} of {len(shapes)} tensors are missing, first {missing[0]}; "
            f"it holds {', '.join(list(weights)[:3]) or 'nothing'}"
        )
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(
                f"{origin} is not {what}: {name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}"
            )
        if not weights[name].isfinite().all():
            raise ValueError(f"{origin} is damaged: {name} holds values that are not finite")
    return {name: weights[name].float() for name in shapes}
