"""Errors about data on disk or on the way from it.

Every message says what was found, where (file, member, byte offset), what was expected and what to type.
"""

from __future__ import annotations

import errno

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ShardError(RuntimeError):
    """Something about a dataset that its user has to mend.

    Args:
        problem: what was found, and what was expected instead.
        file: the file it is about.
        member: the sample or tar member inside the file.
        offset: byte offset inside the file.
        remedy: what to type or to change.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        member: str | None = None,
        offset: int | None = None,
        remedy: str = "",
    ) -> None:
        where = [str(file)] if file is not None else []
        where += [f"member {member}"] if member is not None else []
        where += [f"offset {offset}"] if offset is not None else []
        message = f"{', '.join(where)}: {problem}" if where else problem
        super().__init__(f"{message}\n  {remedy}" if remedy else message)


class DamageError(ShardError):
    """Bytes that are missing or not those that were written: what a substitution budget may cover."""


class RefusedError(ShardError):
    """Something that would run code or leave the dataset's own folder, and is therefore not done."""


def is_disk_full(error: OSError) -> bool:
    """Whether a write failed for want of room: disk, quota or file-size limit."""
    return error.errno in _DISK_FULL
