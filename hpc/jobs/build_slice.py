"""One slice of a build, as an element of a SLURM array: made, interrupted, started again.

    batch script: srun task --> BuildSlice --> this program, `make`: the build itself, in a process of its own
                  the task failed --> this program, `again`: the job requeued, or left as it is

In:  the words of `python -m shards build ...`, and which slice of how many. Out: the slice's shards beside the dataset;
     the last slice puts it together. An exit code of 0, USER_ERROR (what only a person can mend), or any other.

A build may be killed at any time and goes on from its last complete shard, so nothing is saved before a preemption or a
time limit: the build is ended at once and its job requeued. No torch import.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.errors import FAILURE, USER_ERROR, exit_code
from hpc.jobs import slurm
from hpc.stop import StopCause, StopFlag
from shards.errors import ShardError

BUILD_FILE = "build.json"
"""In the folder of a submission: what was submitted. It tells the folder of a build from a run's."""
POLL_S = 0.2
GRACE_S = 1.0
"""SLURM signals all processes of a task: the build may be ended by one that this process has not noticed yet."""
ASK_EVERY_S = 10.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class BuildSlice:
    """What the task of one element runs.

    Attributes:
        words: of the whole build, after `python -m shards`.
        number: of the slice, from 1.
        count: of slices.
        workers: processes of this slice.
    """

    words: tuple[str, ...]
    number: int
    count: int
    workers: int

    def __call__(self) -> int:
        """Make the slice; ends the process with another exit code than 0 if that fails."""
        with StopFlag(None, rank=0).install() as stop:
            code = self._make(stop)
            if code and (cause := stop.local_cause()):
                print(f"slice {self.number}/{self.count} was interrupted ({cause.label}); it goes on later", flush=True)
                _leave(stop, cause)
        if code:
            sys.exit(code if code > 0 else FAILURE)
        return code

    def checkpoint(self) -> Any:
        """For submitit, whose handler of SIGUSR2 is there until ours is: the same slice again."""
        from hpc.jobs.submit import again

        return again(self)

    def _make(self, stop: StopFlag) -> int:
        """Exit code of the build, which is ended when this process is told to stop."""
        program = [sys.executable, "-u", "-m", "hpc.jobs.build_slice"]
        share = f"{self.number}/{self.count}"
        process = subprocess.Popen([*program, "make", str(os.getpid()), share, str(self.workers), *self.words])
        try:
            while process.poll() is None and stop.local_cause() is None:
                time.sleep(POLL_S)
            if process.poll():
                time.sleep(GRACE_S)
        finally:
            process.kill()
        return process.wait()


def make(share: str, workers: str, words: Sequence[str]) -> int:
    """`python -m shards WORDS --slice SHARE --workers WORKERS` in this process, with the exit codes of a job."""
    from shards.cli import build_parser

    typed = shlex.join(["python", "-m", "shards", *words])  # the same in all slices: the manifest holds it
    parser = build_parser(words)
    args = parser.parse_args([*words, "--slice", share, "--workers", workers], argparse.Namespace(typed=typed))
    try:
        code: int = args.run(args)
    except ShardError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return exit_code(error)
    return code


def _end_with(parent: int) -> None:
    """A build whose task was killed would hold the place of the one that is started again."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILURE)


def again(folder: Path, code: int, allowed: int, job: str) -> str:
    """Requeue the job of this process, or not; what was decided, in words.

    Args:
        folder: of the submission; notes the crashes of each element.
        code: exit code of srun.
        allowed: crashes after which an element stays failed.
        job: this element.
    """
    if code == USER_ERROR:
        return "not started again: the error above wants a person"
    state = slurm.patiently(lambda: slurm.show_job(job)).get("JobState", "unknown")
    if state != "RUNNING":
        return f"not started again by itself: SLURM is ending it ({state})"
    notes = folder / "crashes" / f"{job}.txt"
    notes.parent.mkdir(exist_ok=True)
    with notes.open("a") as file:
        file.write(f"code {code} on {os.environ.get('SLURM_JOB_NODELIST', 'an unknown node')}\n")
    crashes = len(notes.read_text().splitlines())
    if crashes >= allowed:
        return f"not started again: it has crashed {crashes} times, see {notes}"
    slurm.patiently(lambda: slurm.requeue(job))
    return "started again: requeued"


def _leave(stop: StopFlag, cause: StopCause) -> None:
    """Ask for a requeue if that is due, and wait to be ended; returns if SLURM lets this job run on after all.

    A task that left by itself after the SIGTERM of a preemption would end the job, and SLURM would not requeue it.
    """
    job = slurm.this_job()
    if job is None:
        return
    if cause.requeue:
        slurm.patiently(lambda: slurm.requeue(job))
    left_alone = 0
    next_question = time.monotonic() + ASK_EVERY_S
    while left_alone < 2:
        time.sleep(POLL_S)
        if cause.requeue and stop.local_cause() is StopCause.TERMINATE:
            os._exit(0)  # the end that was asked for
        if time.monotonic() >= next_question:
            left_alone = left_alone + 1 if _lets_run(job) else 0
            next_question = time.monotonic() + ASK_EVERY_S


def _lets_run(job: str) -> bool:
    """Whether SLURM neither cancels nor preempts this job."""
    try:
        shown = slurm.show_job(job)
    except slurm.SlurmError:
        return False
    return shown.get("JobState") == "RUNNING" and shown.get("PreemptTime", "None") == "None"


def main(argv: list[str]) -> int:
    """`make PARENT SHARE WORKERS WORDS`, or `again FOLDER --crashes N --code CODE` in a batch script."""
    if argv[:1] == ["make"]:
        _end_with(int(argv[1]))
        return make(argv[2], argv[3], argv[4:])
    parser = argparse.ArgumentParser(prog="hpc.jobs.build_slice")
    parser.add_argument("what", choices=("again",))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crashes", type=int, required=True, help="after so many an element stays failed")
    parser.add_argument("--code", type=int, required=True, help="exit code of srun")
    options = parser.parse_args(argv)
    job = slurm.this_job() or "unknown"
    try:
        decision = again(options.folder, options.code, options.crashes, job)
    except (slurm.SlurmError, OSError) as error:
        decision = f"not started again: {error}"
    print(f"job {job} ended with code {options.code}; {decision}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
