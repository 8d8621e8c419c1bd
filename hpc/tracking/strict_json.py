"""JSON that every reader accepts: numbers that JSON does not have are written as three fixed strings.

In:  plain Python values (dict, list, str, int, float, bool, None).
Out: one line of standard JSON, and back.

JSON has no NaN and no infinity; Python's own writer emits them all the same and other readers then refuse the file.
Here they become the strings "NaN", "Infinity" and "-Infinity", which `loads` turns back into floats.
"""

from __future__ import annotations

import json
import math
from typing import Any

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def dumps(value: Any) -> str:
    """One line of standard JSON. Raises TypeError naming the place of a value that JSON cannot hold."""
    return json.dumps(_encode(value, "value"), allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def loads(text: str | bytes) -> Any:
    """The value written by `dumps`. Raises json.JSONDecodeError (a ValueError) on anything that is not JSON."""
    return _decode(json.loads(text))


def _encode(value: Any, where: str) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name_of(value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, dict):
        return {_key(key, where): _encode(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item, f"{where}[{position}]") for position, item in enumerate(value)]
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}; "
        "expected str, int, float, bool, None, list or dict. Convert it first, for example with float(x) or str(x)."
    )


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}; expected str")


def _name_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _decode(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decode(item) for item in value]
    return value
