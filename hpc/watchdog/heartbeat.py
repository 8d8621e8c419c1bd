"""Heartbeats: a small file of shared memory per rank, written by the rank without a system call, read by the observer.

In:  step, phase, time and patience of a rank. Out: the same in another process of the node, also when the rank is
     stopped or dead.

    /dev/shm/odevid-UID/KEY/rank-2    (KEY stands for run, job, attempt and node; elsewhere if there is no /dev/shm)

Times are those of CLOCK_MONOTONIC, which is the same for all processes of a node and never jumps.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import os
import shutil
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hpc.watchdog.proc import is_alive, start_time

IDENTITY = struct.Struct("@qqQQ")
"""rank, pid, the process's start time (pids are used again), id of the thread that beats."""
BEAT = struct.Struct("@Qqdd16sQ")
"""count, step, time, patience, phase, count: the two counts differ while a beat is being written."""
BEAT_OFFSET, SIZE = 64, 128

LEFT = "left"
"""Phase of a rank that has ended its watch in order."""
STALE_S = 600.0
"""A folder of dead processes that nobody touched for so long belongs to an attempt that was killed."""


@dataclass(frozen=True)
class Identity:
    rank: int
    pid: int
    started: int
    thread: int


@dataclass(frozen=True)
class Beat:
    count: int
    step: int
    time: float
    """CLOCK_MONOTONIC of the beat."""
    patience: float
    """Seconds after which the next beat is overdue; infinite: never."""
    phase: str


def base_folder() -> Path:
    """Where this user's heartbeats of this node lie."""
    shared = Path("/dev/shm")
    base = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    return base / f"odevid-{os.getuid()}"


def folder_for(run_dir: Path, attempt: int, host: str) -> Path:
    """The same for all ranks of this attempt on this node, another for everybody else's."""
    job = [os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")]
    key = "|".join([str(Path(run_dir).resolve()), str(attempt), host, *job])
    return base_folder() / hashlib.sha256(key.encode()).hexdigest()[:16]


class Heart:
    """The writing end, for the calling process and thread.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, folder: Path, rank: int, step: int, phase: str, patience: float) -> None:
        for path in (folder.parent, folder):
            path.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / f"rank-{rank}"
        partial = folder / f".rank-{rank}.{os.getpid()}"
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, SIZE)  # a full file system is an error here, and not a SIGBUS later
            self._map = mmap.mmap(descriptor, SIZE)
        finally:
            os.close(descriptor)
        identity = Identity(rank, os.getpid(), start_time(os.getpid()), threading.get_ident())
        IDENTITY.pack_into(self._map, 0, identity.rank, identity.pid, identity.started, identity.thread)
        self._count = 0
        self.beat(step, phase, time.monotonic(), patience)
        self._step = step
        partial.replace(self._path)

    def beat(self, step: int, phase: str, now: float, patience: float) -> None:
        self._count = count = self._count + 1
        self._step = step
        BEAT.pack_into(self._map, BEAT_OFFSET, count, step, now, patience, phase.encode(), count)

    def close(self) -> None:
        """Say that this rank has left, and take the file away; an observer that holds it can still read it."""
        self.beat(self._step, LEFT, time.monotonic(), math.inf)
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other ranks are still there
            self._path.parent.rmdir()
        self._map.close()


class Pulse:
    """The reading end.

    Raises:
        OSError: no such heartbeat. ValueError: not one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            self.inode = os.fstat(file.fileno()).st_ino
            self._map = mmap.mmap(file.fileno(), SIZE, prot=mmap.PROT_READ)
        self.identity = Identity(*IDENTITY.unpack_from(self._map, 0))

    def read(self) -> Beat:
        """The latest beat."""
        while True:
            count, step, moment, patience, phase, again = BEAT.unpack_from(self._map, BEAT_OFFSET)
            if count == again:
                return Beat(count, step, moment, patience, phase.rstrip(b"\0").decode(errors="replace"))

    def alive(self) -> bool:
        """Whether the process still exists (stopped counts, a zombie does not)."""
        return is_alive(self.identity.pid, self.identity.started)

    def remove(self) -> None:
        """Take the file of a dead rank away, and the folder with the last one; another rank's in its place stays."""
        with contextlib.suppress(OSError):
            if self._path.stat().st_ino == self.inode:
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()

    def close(self) -> None:
        self._map.close()


def sweep(base: Path, stale_s: float = STALE_S) -> None:
    """Remove what killed attempts left behind: folders that nobody touches, of processes that are gone."""
    folders = list(base.iterdir()) if base.is_dir() else []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            if time.time() - folder.stat().st_mtime < stale_s:
                continue
            if not any(_is_alive(path) for path in folder.glob("rank-*")):
                shutil.rmtree(folder)


def _is_alive(path: Path) -> bool:
    with contextlib.closing(Pulse(path)) as pulse:
        return pulse.alive()
