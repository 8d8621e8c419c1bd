"""The truth about a run: one line of JSON per thing that happened, appended and never rewritten.

In:  kind, step, and named plain values.
Out: RUN/metrics.jsonl, and on reading the one lineage of records that led to the present weights.

    RUN/metrics-000001.jsonl   the oldest lines, moved here when the file had grown to `rotate_bytes`
    RUN/metrics.jsonl          the newest lines

A line: {"v":1,"seq":41,"kind":"train","attempt":2,"step":4100,"time":1700000000.1,"scalars":{"loss":0.5}}
    v        version of this format
    seq      number of the line since the run began: never repeated, never going back
    kind     "start" (an attempt began; about, config), "resume" (from_step), "train" and "eval" (scalars),
             "video" (name, path below RUN), "event" (name, details)
    attempt  1 for the first process that wrote, one more after every restart
    step     optimiser steps done
    time     seconds since 1970
    ...      what is in brackets above: `Record.data`
NaN and infinities are the strings "NaN", "Infinity", "-Infinity" (see `strict_json`).

A run resumed at step S recomputes the steps after S. The lines of the former attempt beyond S are not deleted: the
`resume` line marks them as superseded, and `surviving` leaves them out.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpc.tracking import strict_json

VERSION = 1
CURRENT = "metrics.jsonl"
HEAD = ("seq", "kind", "attempt", "step", "time")
_ROTATED = "metrics-{:06d}.jsonl"
_LOGGER = logging.getLogger(__name__)


class JournalError(RuntimeError):
    """A journal that cannot be read as one."""


class Record(NamedTuple):
    """One line of the journal; the fields are explained at the head of this file."""

    seq: int
    kind: str
    attempt: int
    step: int
    time: float
    data: dict[str, Any]

    def line(self) -> bytes:
        """As it stands in the file, newline included."""
        head = {"v": VERSION, **{name: getattr(self, name) for name in HEAD}}
        return (strict_json.dumps({**head, **self.data}) + "\n").encode()


class Journal:
    """Appends to the journal of a run; one process at a time.

    Each line reaches the operating system before `append` returns, so a killed process loses none; the disk is synced
    every `sync_every_s` seconds and at `close`, so a power cut loses no more than that. When the disk refuses, lines
    wait in memory (at most `MAX_WAITING`) and are written once there is room: a full disk does not end a training.

    Attributes:
        repaired_bytes: length of a line that a kill had left unfinished, cut off at opening; 0 if there was none.
        records_before: whether there was anything in the journal at opening.
    """

    MAX_WAITING = 10_000

    def __init__(
        self, run_dir: Path, attempt: int, *, rotate_bytes: int = 64 * 2**20, sync_every_s: float = 30.0
    ) -> None:
        self._run_dir = Path(run_dir)
        self._path = self._run_dir / CURRENT
        self._attempt = attempt
        self._rotate_bytes = rotate_bytes
        self._sync_every_s = sync_every_s
        self._synced = time.monotonic()
        self._waiting: deque[bytes] = deque(maxlen=self.MAX_WAITING)
        self._lost = 0
        self._torn = False
        self.repaired_bytes = _cut_unfinished_line(self._path)
        last = last_record(self._run_dir)
        self.records_before = last is not None
        self._next_seq = last.seq + 1 if last else 0
        self._open()

    def append(self, kind: str, step: int, data: Mapping[str, Any]) -> Record:
        """Write one line. TypeError, naming the key, for a value that is not plain; ValueError for a key in HEAD."""
        if taken := {"v", *HEAD} & data.keys():
            raise ValueError(f"data has the keys {sorted(taken)}, which every line has anyway: choose other names")
        record = Record(self._next_seq, kind, self._attempt, step, round(time.time(), 3), dict(data))
        line = record.line()
        self._next_seq += 1
        self._lost += len(self._waiting) == self.MAX_WAITING
        self._waiting.append(line)
        self._drain()
        return record

    def resume(self, from_step: int | None) -> Record:
        """Say that this attempt goes on from `from_step`, so that later lines of former attempts are superseded.

        None: it starts anew, and everything before is superseded.
        """
        return self.append("resume", from_step or 0, {"from_step": from_step})

    def close(self) -> None:
        """Write what waits, sync, close. Warns of lines that the disk did not take to the end."""
        self._drain()
        if self._waiting:
            _LOGGER.warning("%s: %d lines are lost, the disk is full.", self._path, len(self._waiting) + self._lost)
            self._waiting.clear()
        self._sync()
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._fd).st_size

    def _drain(self) -> None:
        refused_before = len(self._waiting) > 1
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self._torn = True
            if not refused_before:
                _LOGGER.warning("%s cannot be written: %s. Lines wait in memory; make room.", self._path, error)
            return
        if refused_before:
            _LOGGER.warning("%s is written again; %d lines were lost meanwhile.", self._path, self._lost)
            self._lost = 0
        if time.monotonic() - self._synced >= self._sync_every_s:
            self._sync()

    def _write(self, line: bytes) -> None:
        if self._size and self._size + len(line) > self._rotate_bytes:
            self._rotate()
        if self._torn:  # a part of a line may have got through
            os.ftruncate(self._fd, self._size)
            self._torn = False
        written = 0
        while written < len(line):
            written += os.write(self._fd, line[written:])
        self._size += len(line)

    def _rotate(self) -> None:
        self._sync()
        full = self._fd
        self._path.rename(self._run_dir / _ROTATED.format(len(journal_files(self._run_dir))))
        self._open()
        os.close(full)

    def _sync(self) -> None:
        self._synced = time.monotonic()
        try:
            os.fsync(self._fd)
        except OSError as error:
            _LOGGER.warning("%s could not be synced: %s", self._path, error)


def journal_files(run_dir: Path) -> list[Path]:
    """The files of a run's journal, oldest lines first."""
    current = Path(run_dir) / CURRENT
    rotated = sorted(Path(run_dir).glob("metrics-[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"))
    return [*rotated, *([current] if current.exists() else [])]


def read_records(run_dir: Path) -> Iterator[Record]:
    """Every record, in the order of writing; a last line that is just being written is left out.

    Raises JournalError naming file and line for anything else that is not a record.
    """
    files = journal_files(run_dir)
    for path in files:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.endswith(b"\n") or path is not files[-1]:
                    yield parse(line, f"{path}:{number}")


def surviving(records: Iterable[Record]) -> list[Record]:
    """The one lineage: what former attempts wrote beyond the step at which a later one resumed is left out."""
    kept = []
    newest_step_kept = float("inf")
    for record in reversed(list(records)):
        if record.step <= newest_step_kept:
            kept.append(record)
        if record.kind == "resume":
            from_step = record.data["from_step"]
            newest_step_kept = min(newest_step_kept, -1 if from_step is None else from_step)
    return kept[::-1]


def last_record(run_dir: Path) -> Record | None:
    """The newest record, found without reading the files before it."""
    for path in reversed(journal_files(run_dir)):
        line = _last_line(path)
        if line:
            return parse(line, f"{path}, last line")
    return None


def parse(line: bytes, where: str) -> Record:
    """The record of one line. JournalError, beginning with `where`, for anything else."""
    try:
        body = strict_json.loads(line)
        version = body.pop("v")
        if version != VERSION:
            raise JournalError(f"{where} has format version {version!r}; this version of the code reads {VERSION}")
        return Record._make([*(body.pop(name) for name in HEAD), body])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(
            f"{where} is not a journal record ({error!r}): {line[:80]!r}. Expected one JSON object per line with v, "
            "seq, kind, attempt, step and time. Repair or delete that line."
        ) from error


def _last_line(path: Path, chunk: int = 1 << 16) -> bytes:
    """The last line that ends with a newline, or nothing."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        tail = b""
        while start and tail.count(b"\n") < 2:
            start = max(0, start - chunk)
            file.seek(start)
            tail = file.read()
    complete = tail[: tail.rfind(b"\n") + 1]
    return complete.splitlines(keepends=True)[-1] if complete else b""


def _cut_unfinished_line(path: Path) -> int:
    """Cut off what follows the last newline; returns how many bytes that were."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb") as file:
        end = size
        while end:
            start = max(0, end - (1 << 16))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
    if end < size:
        os.truncate(path, end)
    return size - end
