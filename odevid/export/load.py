"""A trained model as one file: its config and its weights, nothing that runs code when read.

In: a model, or a path. Out: a file, or the model in eval mode.
The file is `torch.save({"format": "odevid-model", "version": 1, "config": {...}, "weights": state_dict})`.
"""

import dataclasses
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odevid.config import ModelConfig, model_config
from odevid.model import VideoModel
from odevid.registry import build_model

FORMAT = "odevid-model"
VERSION = 1


def save_model(path: str | Path, config: ModelConfig, weights: dict[str, Tensor]) -> None:
    """Write `weights` (a state dict) with `config` to `path`, which appears only when complete."""
    path = Path(path)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(config),  # type: ignore[call-overload]
        "weights": {name: tensor.detach().cpu() for name, tensor in weights.items()},
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save(content, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load(path: str | Path, device: str | torch.device = "cpu") -> VideoModel:
    """The model saved at `path`, in eval mode on `device`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an exported model, is of another version, or its weights do not fit its config.
    """
    content = _read(Path(path))
    config = _config(Path(path), content["config"])
    model = build_model(config)
    try:
        model.load_state_dict(content["weights"])
    except RuntimeError as error:
        raise ValueError(f"{path}: weights do not fit the config saved beside them: {error}") from error
    return model.to(device).eval()


def _read(path: Path) -> dict[str, Any]:
    expected = f"an exported model ({FORMAT}, version {VERSION}), as `odevid.save_model` writes it"
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is not {expected}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"{path} is not {expected}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} is not {expected}")
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {content.get('version')!r} of {FORMAT}; this code reads {VERSION}")
    missing = {"config", "weights"} - set(content)
    if missing:
        raise ValueError(f"{path} is not {expected}: it lacks {', '.join(sorted(missing))}")
    return content


def _config(path: Path, values: dict[str, Any]) -> ModelConfig:
    try:
        return model_config(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
