"""The file of a sweep (`--array FILE`): what it says, and the elements that follow from it. No torch import.

    name: learning-rates            optional; else the file's name. The sweep's folder is runs/sweeps/NAME
    base:                           optional: keys that all elements share
      experiment: srvp_smmnist
      train.steps: 20000
    grid:                           keys with lists of values: every combination is an element
      optimizer.lr: [1.0e-3, 3.0e-4]
      model.ny: [20, 50]
    seeds: [1, 2, 3]                optional: each of them with each of these seeds; short for `seed:` in the grid

or, instead of `grid:`, the elements one by one:

    list:
      - {optimizer.lr: 1.0e-3}
      - {optimizer.lr: 3.0e-4, optimizer.clip_norm: 1.0}

In:  that file. Keys are those of the command line, `experiment` and `size` included; nested keys may be written as
     nested mappings. `key=value` on the command line wins over `base:`.
Out: `Element`s, named by what sets them apart: `lr=0.001,ny=20,seed=1`. The name is a folder of the sweep.
"""

from __future__ import annotations

import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hpc import config as configs
from hpc.config import ConfigError

PARTS = ("name", "base", "grid", "list", "seeds")
APART = ("experiment", "size")
"""Keys that choose files of configs/, and are not `key=value` overrides."""
LONGEST_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
_SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True)
class Element:
    """One run of a sweep."""

    sweep: str
    """Name of the sweep."""
    name: str
    base: dict[str, Any]
    """What it shares with the others: key -> value."""
    own: dict[str, Any]
    """What the sweep varies: key -> value."""

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.base, **self.own}

    @property
    def overrides(self) -> list[str]:
        """Its settings as words of a command line, but for experiment and size."""
        return [f"{key}={json.dumps(value)}" for key, value in self.settings.items() if key not in APART]


def load_sweep(path: Path) -> list[Element]:
    """The elements of a sweep's file, in its order; the last key of a grid varies fastest, the seed faster still.

    Raises:
        ConfigError: it cannot be read, has an unknown key (the nearest right one is named), or the same element twice.
    """
    parts = _read(path)
    sweep = str(parts.get("name") or path.stem)
    if not _SWEEP_NAME.fullmatch(sweep):
        raise ConfigError(f"{path}: name {sweep!r} becomes a folder: expected letters, digits and . _ + - only")
    base = _settings(path, "base", parts.get("base"))
    varied = _varied(path, parts)
    for own in varied:
        if twice := sorted(own.keys() & base.keys()):
            raise ConfigError(f"{path}: {twice[0]} stands under base: and is varied, too: leave one of them out")
    shown = _shown(varied, everything="grid" in parts or len(varied) == 1)
    elements = [Element(sweep, _name(own, shown), base, own) for own in varied]
    return _distinct(path, elements)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"--array {path}: no such file; configs/sweep holds an example of one")
    try:
        loaded = OmegaConf.load(path)
        parts = OmegaConf.to_container(loaded) if isinstance(loaded, DictConfig) else None
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(parts, dict):
        raise ConfigError(f"{path}: expected a mapping with some of {', '.join(PARTS)}")
    for name in parts:
        if name not in PARTS:
            known = f"; a key that all elements share stands under base: {name}" if name in configs.all_keys() else ""
            raise ConfigError(f"{path}: unknown part {str(name)!r}: expected some of {', '.join(PARTS)}{known}")
    if "grid" in parts and "list" in parts:
        raise ConfigError(f"{path}: grid: and list: at once; take one of them, the other into a sweep of its own")
    return {str(name): value for name, value in parts.items()}


def _varied(path: Path, parts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What sets each element apart."""
    varied: list[dict[str, Any]] = [{}]
    if "grid" in parts:
        axes = {
            key: _values(path, f"grid: {key}", value) for key, value in _settings(path, "grid", parts["grid"]).items()
        }
        varied = [dict(zip(axes, chosen, strict=True)) for chosen in itertools.product(*axes.values())]
    elif "list" in parts:
        entries = _values(path, "list:", parts["list"])
        varied = [_settings(path, f"list, entry {number}", entry) for number, entry in enumerate(entries, start=1)]
    if "seeds" in parts:
        seeds = _values(path, "seeds:", parts["seeds"])
        if any("seed" in own for own in varied):
            raise ConfigError(f"{path}: seeds: and seed at once: leave one of them out")
        varied = [{**own, "seed": seed} for own in varied for seed in seeds]
    elif not parts.keys() & {"grid", "list"}:
        raise ConfigError(f"{path}: nothing to sweep over: expected grid:, list: or seeds:")
    return varied


def _settings(path: Path, part: str, given: Any) -> dict[str, Any]:
    """Dotted keys and their values, each key one of the command line's."""
    if not isinstance(given or {}, dict):
        raise ConfigError(f"{path}, {part}: expected a mapping such as {{optimizer.lr: 0.001}}, found {given!r}")
    settings = flat(given or {})
    known = configs.all_keys()
    for key in settings:
        if key not in known:
            raise ConfigError(f"{path}, {part}: unknown key {key!r}{configs.hint(key, known)}")
    return settings


def flat(nested: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _values(path: Path, what: str, given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise ConfigError(f"{path}, {what} expected a list such as [1, 2], found {given!r}")
    return given


def _shown(varied: Sequence[Mapping[str, Any]], everything: bool) -> dict[str, str]:
    """The keys that a name tells, with the shortest ending that means only one of them: optimizer.lr -> lr."""
    keys = list(dict.fromkeys(key for own in varied for key in own))
    if not everything:
        keys = [key for key in keys if key == "seed" or len({json.dumps(own.get(key, "")) for own in varied}) > 1]
    endings = Counter(key.rpartition(".")[2] for key in keys)
    return {key: short if endings[short := key.rpartition(".")[2]] == 1 else key for key in keys}


def _name(own: Mapping[str, Any], shown: Mapping[str, str]) -> str:
    return ",".join(f"{short}={_word(own[key])}" for key, short in shown.items() if key in own) or "base"


def _word(value: Any) -> str:
    """A value as a part of a folder's name."""
    if isinstance(value, list):
        return "+".join(_word(item) for item in value)
    text = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
    return _UNSAFE.sub("-", text)


def _distinct(path: Path, elements: Sequence[Element]) -> list[Element]:
    """The same elements, with a short digest in names that are too long or that two of them would share.

    Raises:
        ConfigError: two elements are the same.
    """
    seen: dict[str, Element] = {}
    for element in elements:
        if json.dumps(element.own, sort_keys=True) in seen:
            raise ConfigError(f"{path}: the element {element.name} stands there twice")
        seen[json.dumps(element.own, sort_keys=True)] = element
    shared = Counter(element.name.casefold() for element in elements)
    named = []
    for text, element in seen.items():
        name = element.name
        if shared[name.casefold()] > 1 or len(name) > LONGEST_NAME:
            name = f"{name[:LONGEST_NAME]}-{zlib.crc32(text.encode()):08x}"
        named.append(Element(element.sweep, name, element.base, element.own))
    return named
