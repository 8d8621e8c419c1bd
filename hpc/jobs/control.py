"""`cancel RUN`: ends the jobs of a run, for good.

In:  a run folder. Out: no job of it is queued or running, and none comes back; where the run stands, and how to go on.

The wish is written to attempts.jsonl before SLURM hears of it: whatever is about to start the job again by itself (the
end of its batch script, rank 0 after a time limit) reads it there and lets it be.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from hpc.config import ConfigError
from hpc.jobs import slurm
from hpc.jobs.attempts import LOCAL, History, note_cancelled, read_history
from hpc.jobs.slurm import JobState, SlurmError
from hpc.machine import has_slurm
from hpc.run_folder import RunFolder
from hpc.tracking.journal import JournalError, last_record

PATIENCE_S = 90.0
POLL_S = 1.0
QUIET_LOOKS = 3
"""So many looks in a row must find no job: one that was just being requeued is back by then."""
MAY_COME_BACK = ("NODE_FAIL", "PREEMPTED", "BOOT_FAIL")
"""Seen just before SLURM queues such a job again, and for good where it does not."""


def cancel_run(folder: RunFolder) -> int:
    """Cancel every unfinished job of the run and wait until they are gone; 0 if they are.

    Raises:
        ConfigError: it was submitted to a SLURM that this machine has no commands of.
    """
    history = read_history(folder.path)
    jobs = list(dict.fromkeys(s.job for s in history.submissions if s.job != LOCAL))
    code = 0
    if jobs:
        if not has_slurm():
            raise ConfigError(
                f"{folder.path} has jobs ({', '.join(jobs)}), but there is no SLURM here (no sbatch on PATH): "
                "cancel it on a login node"
            )
        code = _cancel_jobs(folder, jobs)
    if _runs_locally(history):
        _stop_local(folder)
    elif not jobs:
        print("nothing to cancel: no job of this run was ever submitted, and none runs here")
    if code == 0:
        print(_where_it_stands(folder))
    return code


def _cancel_jobs(folder: RunFolder, jobs: Sequence[str]) -> int:
    try:
        states = slurm.job_states(jobs)
    except SlurmError as error:
        note_cancelled(folder.path, jobs)
        print(
            f"SLURM does not answer: {error}\nnoted that {_named(jobs)} must not come back; what is queued or running "
            "goes on until you type the same again"
        )
        return 1
    alive = [j for j in jobs if j in states and (states[j].unfinished or states[j].state in MAY_COME_BACK)]
    if not alive:
        print(f"nothing to cancel in the queue: {_named(jobs)} {'is' if len(jobs) == 1 else 'are'} over")
        return 0
    note_cancelled(folder.path, alive)
    return _until_gone(alive)


def _until_gone(jobs: Sequence[str]) -> int:
    """Cancel, wait, and cancel again what a requeue under way has brought back."""
    told, quiet, deadline = "", 0, time.monotonic() + PATIENCE_S
    alive: dict[str, JobState] = {}
    error = _order(jobs)
    while time.monotonic() < deadline:
        try:
            alive = {job: state for job, state in slurm.job_states(jobs).items() if state.unfinished}
        except SlurmError as trouble:
            error = str(trouble)
        else:
            quiet = 0 if alive else quiet + 1
            if quiet == QUIET_LOOKS:
                print(f"{_named(jobs)} {'is' if len(jobs) == 1 else 'are'} gone")
                return 0
            if queued := [job for job, state in alive.items() if state.state not in ("RUNNING", "COMPLETING")]:
                error = _order(queued)
            told = _tell(alive, told)
        time.sleep(POLL_S)
    left = ", ".join(f"{job} {state.state}" for job, state in alive.items()) or _named(jobs)
    print(
        f"after {PATIENCE_S:.0f} s still there: {left}{f' ({error})' if error else ''}; "
        "they do not come back, but look again with squeue, or type the same again"
    )
    return 1


def _order(jobs: Sequence[str]) -> str:
    """Give the order; what SLURM says against it, which is no news when a job has just ended."""
    try:
        slurm.cancel(jobs)
    except SlurmError as error:
        return str(error)
    return ""


def _tell(alive: dict[str, JobState], told: str) -> str:
    """Say what is waited for, when that has changed."""
    what = ", ".join(f"{job} ({state.state})" for job, state in sorted(alive.items()))
    if what and what != told:
        print(f"waiting for {what}: what runs saves its state and ends", flush=True)
    return what or told


def _runs_locally(history: History) -> bool:
    """The last launch was on a machine without SLURM, and has not said that it ended."""
    if not history.submissions or history.submissions[-1].job != LOCAL:
        return False
    attempts = [attempt for attempt in history.attempts if attempt.job == LOCAL]
    return not attempts or attempts[-1].ended_time is None


def _stop_local(folder: RunFolder) -> None:
    folder.stop.touch()
    print(
        f"told the ranks that run without SLURM to save and stop: {folder.stop}\n"
        "they look at it once a second. It keeps the run stopped until `resume` removes it"
    )


def _where_it_stands(folder: RunFolder) -> str:
    saved = folder.newest_checkpoint()
    try:
        record = last_record(folder.path)
    except JournalError:
        record = None
    reached = f"; it had come to step {record.step:,}" if record and record.step > (saved or 0) else ""
    return (
        (f"saved at step {saved:,}" if saved is not None else "no checkpoint was written")
        + reached
        + f"\ngo on later with: python hpc/launch.py resume {folder.path}"
    )


def _named(jobs: Sequence[str]) -> str:
    return f"job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}"
