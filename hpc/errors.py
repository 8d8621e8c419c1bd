"""The errors that tell a user what to do. They are shown as one message: a stack of calls would only hide it."""

from __future__ import annotations

from hpc.checkpoint.errors import CheckpointError
from hpc.config import ConfigError
from hpc.guard import BudgetExceeded
from hpc.health.findings import PreflightError
from hpc.jobs.no_progress import NoProgressError
from hpc.jobs.slurm import SlurmError
from hpc.meeting import MeetingError
from hpc.rendezvous import RendezvousError
from shards.errors import ShardError

WORTH_ANOTHER_TRY = (MeetingError, PreflightError, SlurmError)
"""What may be otherwise on other nodes, or later."""

FOR_USERS = (
    ConfigError,
    ShardError,
    CheckpointError,
    BudgetExceeded,
    RendezvousError,
    NoProgressError,
    *WORTH_ANOTHER_TRY,
)
"""Shown without the calls that led there, except under --debug."""

USER_ERROR, FAILURE = 2, 1
"""Exit codes: of what only a person can mend, and of everything else."""


def exit_code(error: BaseException) -> int:
    """USER_ERROR if trying again would meet the same error."""
    hopeless = isinstance(error, FOR_USERS) and not isinstance(error, WORTH_ANOTHER_TRY)
    return USER_ERROR if hopeless else FAILURE
