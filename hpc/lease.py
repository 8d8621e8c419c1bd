"""One trainer at a time in a run folder: a lock that its rank 0 holds as long as it lives.

In: a run folder. Out: the lock held, or an error that says who holds it. SLURM's own jobs wait for each other in the
queue; the lock is for what does not go through it: ranks on this machine, a resumed element of an array, another user.
Where the file system has no locks, nothing is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from hpc.config import ConfigError

LOCK_FILE = ".training"
PATIENCE_S = 120.0
"""A node that died may hold a lock for a while yet; so may an attempt that is just leaving."""
LOOK_EVERY_S = 1.0


@contextlib.contextmanager
def held(run_dir: Path, who: str, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the run folder for the duration of the block.

    Args:
        who: told to others who want it.

    Raises:
        ConfigError: somebody else holds it, and did so for `patience_s`.
    """
    descriptor = os.open(run_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _take(descriptor, run_dir, patience_s)
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{who}, process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, run_dir: Path, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "somebody"
                raise ConfigError(
                    f"{run_dir} is being trained by {holder}: wait for its end, stop it "
                    f"(touch {run_dir}/STOP, or launch.py cancel), or use another run="
                ) from None
        except OSError:  # no locks on this file system
            return None
        time.sleep(LOOK_EVERY_S)
