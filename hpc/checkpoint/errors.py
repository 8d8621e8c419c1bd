"""What can go wrong with checkpoints, each with what was found, what was expected and what to type."""

from __future__ import annotations


class CheckpointError(RuntimeError):
    """Any trouble with checkpoints."""


class CheckpointWriteError(CheckpointError):
    """A save failed (full disk, quota, I/O error). What was saved before is intact; training may go on, loudly."""


class CheckpointDamagedError(CheckpointError):
    """One checkpoint is not what its manifest says: a file is missing, cut short, altered, or not plain data."""


class NoUsableCheckpointError(CheckpointError):
    """A resume was asked for, or checkpoints exist, but none can be used: starting from zero needs a clear yes."""
