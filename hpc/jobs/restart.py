"""After a job's ranks have failed: is it started again? `python -m hpc.jobs.restart --run RUN --code CODE`.

    batch script: srun ranks --non-zero code--> this program --> scontrol requeue, or a diagnosis and a failed job

In:  the exit code of srun, what the ranks noted in RUN/attempts.jsonl, the job's state. Out: the job requeued, or
     RUN/diagnosis.txt. A crash is worth another try on perhaps better nodes; an error that only a person can mend is
     not, nor is a job that somebody cancelled, nor a run that gets nowhere.

Preempted and timed-out jobs are not this module's: their rank 0 requeues (hpc/task.py), or SLURM itself.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from pathlib import Path

from hpc import config as configs
from hpc.config import ConfigError
from hpc.errors import USER_ERROR
from hpc.jobs import slurm
from hpc.jobs.attempts import Attempt, Failure, History, note_end, note_failure, note_start, read_history
from hpc.jobs.no_progress import NoProgressError, refuse_without_progress
from hpc.run_folder import RunFolder

LOOK_BACK_BYTES = 16_384


def restart(folder: RunFolder, code: int, job: str) -> str:
    """Requeue the job of this process, or not; what was decided, in words."""
    config = configs.load_file(folder.config)
    history = read_history(folder.path)
    verb = _verb(history, job)
    if verb == "doctor":
        return "not started again: the doctor has said what it found"
    user_errors = [f for f in history.failures if f.for_user and (f.job, f.restart) == (job, slurm.restarts())]
    if user_errors or code == USER_ERROR:
        return "not started again: the error above wants a person"
    if job in history.cancelled:
        return "not started again: it was cancelled"
    _note_whom_srun_lost(folder, history, job)
    _note_the_attempt(folder, history, verb, code, job)
    state = slurm.patiently(lambda: slurm.show_job(job)).get("JobState", "unknown")
    if state != "RUNNING":
        return f"not started again by itself: SLURM is ending it ({state})"
    if not config.cluster.restart_on_crash:
        return "not started again: cluster.restart_on_crash=false"
    refuse_without_progress(folder, verb, config.cluster.max_idle_attempts)
    slurm.patiently(lambda: slurm.requeue(job))
    return "started again: requeued"


def _verb(history: History, job: str) -> str:
    """What this job does."""
    return next((submission.verb for submission in reversed(history.submissions) if submission.job == job), "train")


def _note_the_attempt(folder: RunFolder, history: History, verb: str, code: int, job: str) -> None:
    """If no rank came so far as to note its start, the attempt counts all the same."""
    if any((attempt.job, attempt.restart) == (job, slurm.restarts()) for attempt in history.attempts):
        return
    checkpoint = folder.newest_checkpoint() if verb == "train" else None
    nodes = slurm.hostnames(os.environ.get("SLURM_JOB_NODELIST", ""))
    number = history.next_number()
    note_start(folder.path, Attempt(number, verb, time.time(), job, slurm.restarts(), nodes, 0, checkpoint))
    note_end(folder.path, number, None, "error", f"its ranks never began (srun ended with code {code})")


def _note_whom_srun_lost(folder: RunFolder, history: History, job: str) -> None:
    """A rank that was killed cannot say so; srun, whose words are in rank 0's log, names it first."""
    logs = [Path(submission.log) for submission in history.submissions if submission.job == job]
    if not logs or not logs[-1].is_file():
        return
    with logs[-1].open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOOK_BACK_BYTES))
        said = file.read().decode(errors="replace")
    this_life = said.rpartition("Starting with JobEnvironment")[2]
    if first := re.search(r"srun: error: (\S+): tasks? (\d+)[\d,-]*: (?!Exited|Terminated)(.+)", this_life):
        node, rank, fate = first.groups()
        note_failure(folder.path, Failure(time.time(), job, slurm.restarts(), int(rank), node, False, f"srun: {fate}"))


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hpc.jobs.restart")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--run", help="the run's folder")
    which.add_argument("--runs", help="a file of run folders, a line for each element of this array")
    parser.add_argument("--code", type=int, required=True, help="exit code of srun")
    options = parser.parse_args(argv)
    path = options.run
    if path is None:
        path = Path(options.runs).read_text().splitlines()[int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))]
    job = slurm.this_job()
    if job is None:
        raise ConfigError(
            "hpc.jobs.restart belongs to a SLURM job's batch script; to continue a run: launch.py resume RUN"
        )
    try:
        decision = restart(RunFolder(Path(path)), options.code, job)
    except (slurm.SlurmError, ConfigError, NoProgressError, OSError) as error:
        decision = f"not started again: {error}"
    print(f"job {job} ended with code {options.code}; {decision}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
