"""One rank started by the local launcher, or by torchrun: `python -m hpc.worker TASK_JSON`.

Under torchrun, on a run folder that exists:
`torchrun --nproc-per-node 8 -m hpc.worker '{"verb": "train", "run_dir": RUN}'`.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

from hpc.errors import FOR_USERS, exit_code
from hpc.task import Task

PR_SET_PDEATHSIG = 1


def main() -> int:
    _die_with_parent()
    try:
        return Task(**json.loads(sys.argv[1]))().exit_code
    except FOR_USERS as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)


def _die_with_parent() -> None:
    """A launcher that is killed takes its ranks along (Linux only; elsewhere they run on)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            sys.exit("the launcher is gone")


if __name__ == "__main__":
    sys.exit(main())
