"""`launch.py cancel runs/sweeps/NAME`: ends every job of a sweep, for good.

In: the sweep's folder. Out: each element's jobs noted as cancelled before SLURM hears of it, so that none comes back;
the table when they are gone.
"""

from __future__ import annotations

import time
from pathlib import Path

from hpc.jobs import slurm
from hpc.jobs.attempts import note_cancelled, read_history
from hpc.run_folder import RunFolder
from hpc.sweep.states import launcher_at_work, open_jobs, standings
from hpc.sweep.table import recorded_elements, sweep_table

PATIENCE_S, LOOK_EVERY_S = 90.0, 1.0


def cancel_sweep(sweep: Path) -> int:
    """0 when all jobs of the sweep have ended, 1 if some have not within `PATIENCE_S`.

    Raises:
        SlurmError: scancel's own words.
    """
    if launcher_at_work(sweep):
        print(f"a launcher is running elements of {sweep} on some machine: press Ctrl-C there (it saves, and ends)")
        return 1
    folders = [RunFolder(sweep / name) for name in recorded_elements(sweep)]
    active: list[str] = []
    for folder, standing in zip(folders, standings(folders), strict=True):
        if standing.unfinished:  # those that are over, too: one may be the last that was asked for
            note_cancelled(folder.path, open_jobs(read_history(folder.path)))
            active += standing.unfinished
    if active:
        slurm.cancel(active)
        print(f"cancelled {', '.join(active)}; waiting until they have saved and are gone", flush=True)
    gone = _all_gone(active)
    print(sweep_table(sweep))
    print("to go on later: the command that started the sweep, with train.resume=auto")
    return 0 if gone else 1


def _all_gone(jobs: list[str]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while any(state.unfinished for state in slurm.job_states(jobs).values()):
        if time.monotonic() > deadline:
            print(f"some are not gone after {PATIENCE_S:.0f} s: see squeue; they will not be started again")
            return False
        time.sleep(LOOK_EVERY_S)
    return True
