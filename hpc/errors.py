"""The errors that tell a user what to do. They are shown as one message: a stack of calls would only hide it."""

from __future__ import annotations

from hpc.checkpoint.errors import CheckpointError
from hpc.config import ConfigError
from hpc.guard import BudgetExceeded
from hpc.rendezvous import RendezvousError
from shards.errors import ShardError

FOR_USERS = (ConfigError, ShardError, CheckpointError, BudgetExceeded, RendezvousError)
"""Shown without the calls that led there, except under --debug."""
