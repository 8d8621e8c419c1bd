"""What makes a run the run it is: its checkpoints and its stream of samples cannot go on with anything else.

In: two configurations as plain dictionaries. Out: the first key that may not differ and does. No torch import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from hpc.config import MovingMnistConfig
from odevid.config import MODELS

IDENTITY = ("model", "data.moving_mnist", "data.name", "train.recipe", "seed")


class Change(NamedTuple):
    key: str
    before: Any
    after: Any


def first_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    """None if a run with the configuration `before` may go on with `after`."""
    for name in IDENTITY:
        old, new = _at(before, name), _at(after, name)
        if not isinstance(new, Mapping):
            old, new, prefix = {name: old}, {name: new}, ""
        else:
            old, prefix = _defaults(name, old) | dict(old), f"{name}."
        for key in new:
            if new[key] != old.get(key):
                return Change(prefix + key, old.get(key), new[key])
    return None


def _defaults(name: str, kept: Mapping[str, Any]) -> dict[str, Any]:
    """What stands for options that there were not yet when a configuration was kept."""
    usual: Any = MovingMnistConfig() if name == "data.moving_mnist" else MODELS[kept["name"]]()
    return asdict(usual)


def _at(config: Mapping[str, Any], name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = found[part]
    return found
