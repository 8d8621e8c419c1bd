"""What the kernel tells about a process: /proc/PID/{stat,wchan,stack}. Nothing here needs the process's help."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

STATE, START_TIME = 0, 19
"""Places in /proc/PID/stat, counted from behind the command's name."""


@dataclass(frozen=True)
class ProcessState:
    state: str
    """One letter: R runs, S sleeps, D waits on I/O, T is stopped, Z is dead and not yet buried."""
    wchan: str
    """Function of the kernel in which it waits; empty if it does not, or if we may not know."""
    stack: tuple[str, ...]
    """Kernel functions, innermost first; empty unless we are root."""


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that was started then still exists (a zombie does not)."""
    fields = _stat(pid)
    return fields is not None and int(fields[START_TIME]) == started and fields[STATE] not in "ZX"


def start_time(pid: int) -> int:
    """Clock ticks from boot to the process's start; 0 for one that is gone. With the pid it names a process."""
    fields = _stat(pid)
    return int(fields[START_TIME]) if fields else 0


def look(pid: int, started: int) -> ProcessState | None:
    """What the process does now; None if it is gone."""
    fields = _stat(pid)
    if fields is None or int(fields[START_TIME]) != started:
        return None
    wchan = _read(pid, "wchan").strip()
    stack = tuple(line.split("] ")[-1].split("+")[0] for line in _read(pid, "stack").splitlines())
    return ProcessState(fields[STATE], "" if wchan == "0" else wchan, stack)


def _stat(pid: int) -> list[str] | None:
    text = _read(pid, "stat")
    return text.rpartition(")")[2].split() if text else None


def _read(pid: int, name: str) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""
