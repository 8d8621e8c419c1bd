"""Runs a task on this machine, one process per rank, without SLURM.

In: a task and a number of ranks. Out: the exit code. Signals sent to the launcher are passed on to every rank, which
agree among themselves what to do; a rank that dies ends the others at once instead of leaving them in a collective.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hpc.jobs.attempts import LOCAL, Submission, note_submission
from hpc.jobs.snapshot import keep_code
from hpc.rendezvous import Ranks, free_port
from hpc.run_folder import RunFolder
from hpc.task import Task

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
POLL_S = 0.1
GRACE_S = 1.0
"""The first rank seen to end may have lost its connection to the one that is to blame: they get this long to say so."""


def run_ranks(task: Task, folder: RunFolder, world_size: int) -> int:
    """Start the ranks, wait for them; the first non-zero exit code, else 0."""
    code = keep_code(folder.code)
    note_submission(folder.path, Submission(time.time(), task.verb, LOCAL, 1, world_size, "", str(code)))
    port = free_port()
    with contextlib.ExitStack() as files:
        ranks = [_start(task, folder, code, rank, world_size, port, files) for rank in range(world_size)]
        with _forwarding(ranks):
            try:
                return _wait(ranks, folder)
            finally:
                for process in ranks:
                    process.kill()


def _start(
    task: Task, folder: RunFolder, code: Path, rank: int, world_size: int, port: int, files: contextlib.ExitStack
) -> subprocess.Popen[bytes]:
    environ = dict(os.environ, ODEVID_LAUNCHER="local")
    Ranks(rank, rank, world_size, world_size, "127.0.0.1", port).export(environ)
    environ["PYTHONPATH"] = os.pathsep.join([str(code), *filter(None, [environ.get("PYTHONPATH")])])
    output = None
    if rank:
        folder.logs.mkdir(parents=True, exist_ok=True)
        output = files.enter_context((folder.logs / f"rank-{rank}.log").open("ab"))
    command = [sys.executable, "-P", "-m", "hpc.worker", json.dumps(dataclasses.asdict(task))]
    return subprocess.Popen(command, env=environ, stdout=output, stderr=output, start_new_session=True)


def _wait(ranks: list[subprocess.Popen[bytes]], folder: RunFolder) -> int:
    while True:
        codes = [process.poll() for process in ranks]
        if all(code == 0 for code in codes):
            return 0
        if any(codes):
            time.sleep(GRACE_S)
            return _failed([process.poll() for process in ranks], folder)
        time.sleep(POLL_S)


def _failed(codes: list[int | None], folder: RunFolder) -> int:
    """Say which ranks failed and what they said (rank 0 has said it here); the exit code of the first."""
    failed = {rank: code for rank, code in enumerate(codes) if code}
    for rank, code in failed.items():
        print(f"rank {rank} ended with code {code}; ending the others", file=sys.stderr)
        if rank and (said := _last_lines(folder.logs / f"rank-{rank}.log")):
            print(said, file=sys.stderr)
    sys.stderr.flush()
    code = next(iter(failed.values()))
    return code if code > 0 else 128 - code


def _last_lines(log: Path, count: int = 15) -> str:
    """The end of a rank's output, which is where it says why it ended; nothing where it said nothing."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join([f"the end of {log}:", *(f"    {line}" for line in lines)]) if any(lines) else ""


@contextlib.contextmanager
def _forwarding(ranks: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass signals on to the ranks, which live in sessions of their own."""

    def forward(number: int, _frame: object) -> None:
        for process in ranks:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    former = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
