"""A state as bytes: plain tensors and values out by `torch.save`, back by a reader that runs no code.

In:  nested dicts, lists and tuples of tensors, numbers, strings, None.
Out: the same, on the CPU, or an error that names the place of what does not belong there.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any, cast

from hpc.checkpoint.durable import FileRecord, HashingFile
from hpc.checkpoint.errors import CheckpointDamagedError

_PLAIN = (str, int, float, bool, bytes, type(None))


def write_state(path: Path, state: dict[str, Any]) -> FileRecord:
    """`torch.save` into a new file, hashed on the way and synced.

    Raises OSError if the disk refuses, TypeError (before a byte is written) for what `read_state` could not read back.
    """
    import torch

    require_plain(state, "state")
    file = HashingFile(path)
    try:
        torch.save(state, cast(IO[bytes], file))
        return file.seal()
    except RuntimeError as error:
        if file.error is None:
            raise
        raise file.error from error
    finally:
        file.close()


def read_state(path: Path) -> dict[str, Any]:
    """The state in `path`, tensors on the CPU. Nothing in the file is run: whatever is not plain data is refused."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointDamagedError(
            f"{path} was refused: it holds something other than tensors, numbers, strings, lists and dicts, which "
            f"loading could run as code. Use only checkpoints that this project wrote. ({_first_line(error)})"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointDamagedError(f"{path} cannot be read: {_first_line(error)}") from error


def require_plain(value: Any, where: str) -> None:
    """Raise TypeError, naming the place, unless `value` is something that `read_state` accepts."""
    import torch

    if type(value) in _PLAIN or type(value) is torch.Tensor:
        return
    if type(value) is dict:
        for key, item in value.items():
            if type(key) not in _PLAIN:
                raise TypeError(f"{where} has the key {key!r} of type {_name(key)}; expected a string or a number")
            require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for position, item in enumerate(value):
            require_plain(item, f"{where}[{position}]")
    else:
        raise TypeError(
            f"{where} is a {_name(value)}; a checkpoint holds only torch.Tensor, dict, list, tuple, str, bytes, int, "
            "float, bool and None. Convert it first (parameter.detach(), float(x), dict(x), ...)."
        )


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [repr(error)])[0]
