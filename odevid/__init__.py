"""Latent-dynamics video prediction: networks, models, objectives, metrics and pictures.

In: videos as tensors in [0, 1]. Out: loss terms, predicted frames, numbers and figures. This package knows no file
format of data and no cluster. Importing it (or `odevid.config`) does not import torch: names are resolved on first use,
so that a login node can read a config in well under a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from odevid.export import load, save_model
    from odevid.registry import build_model

__all__ = ["build_model", "load", "save_model"]

_HOMES = {"build_model": "odevid.registry", "load": "odevid.export", "save_model": "odevid.export"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'odevid' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
