"""`build --wait`: tells how the slices of a build stand until the dataset is there, or no slice is left to bring it.

In:  the jobs of the slices and where the dataset will be. Out: a line whenever something has changed, and at the end
     the dataset's table, or the failed slices with the ends of their logs and the command that goes on.

Ctrl-C ends the following, never the build.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hpc.jobs import slurm
from hpc.jobs.follow import PASSING, SETTLE_S
from hpc.jobs.slurm import JobState, SlurmError
from shards.building.site import Site
from shards.manifest import MANIFEST_FILE, Manifest

POLL_S = 5.0
LOG_LINES = 15
LOG_BYTES = 16_384


@dataclass(frozen=True)
class Submitted:
    """A build in the queue.

    Attributes:
        out: the dataset to be.
        jobs: ids of the slices' jobs, in order.
        logs: folder of their output.
        command: what was typed.
    """

    out: Path
    jobs: list[str]
    logs: Path
    command: str

    def log(self, number: int) -> Path:
        """Output of a slice, counted from 0."""
        return self.logs / f"{self.jobs[number]}_0_log.out"


def follow(build: Submitted, poll_s: float = POLL_S) -> int:
    """Tell how the slices stand until the dataset is there (0) or no slice is left that could bring it (1)."""
    try:
        states = _until_the_end(build, poll_s)
    except KeyboardInterrupt:
        _say("stopped following; the build goes on. Stop it: scancel " + build.jobs[0].partition("_")[0])
        return 130
    if (build.out / MANIFEST_FILE).is_file():
        print(_table(build.out))
        return 0
    print(_failures(build, states))
    return 1


def _until_the_end(build: Submitted, poll_s: float) -> dict[str, JobState]:
    shown, over_since = "", None
    states: dict[str, JobState] = {}
    while not (build.out / MANIFEST_FILE).is_file():
        try:
            states = slurm.job_states(build.jobs)
            line, over = _standing(build, states), not any(state.unfinished for state in states.values())
        except SlurmError as error:
            line, over = f"SLURM does not answer, waiting all the same: {error}", False
        if line != shown:
            _say(line)
        shown = line
        over_since = (over_since or time.monotonic()) if over else None
        if over_since and time.monotonic() - over_since >= _patience_s(build, states, poll_s):
            break
        time.sleep(poll_s)
    return states


def _patience_s(build: Submitted, states: dict[str, JobState], poll_s: float) -> float:
    """How long the end of all jobs has to last: SLURM may queue some again, and shared files show late."""
    unsure = len(states) < len(build.jobs) or any(state.state in PASSING for state in states.values())
    return SETTLE_S if unsure else 2 * poll_s


def _standing(build: Submitted, states: dict[str, JobState]) -> str:
    """`3 RUNNING, 1 COMPLETED; 12 shards are complete`."""
    counts = Counter(state.state for state in states.values())
    shards = len(list(Site.of(build.out).folder.glob("*.part.json")))
    slices = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none in SLURM's memory"
    return f"slices: {slices}; {shards} shards are complete"


def _failures(build: Submitted, states: dict[str, JobState]) -> str:
    lines = []
    for number, job in enumerate(build.jobs):
        state = states[job].state if job in states else "forgotten by SLURM"
        if state != "COMPLETED":
            lines.append(
                f"slice {number + 1} of {len(build.jobs)} (job {job}): {state}; the end of {build.log(number)}:"
            )
            lines += [f"    {line}" for line in _last_lines(build.log(number))]
    lines = lines or [f"all slices ended, but {build.out} is not there; their logs are in {build.logs}"]
    return "\n".join([*lines, "complete shards are kept; to go on:", f"    {build.command}"])


def _last_lines(log: Path) -> list[str]:
    if not log.is_file():
        return ["(it never wrote)"]
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
        return file.read().decode(errors="replace").splitlines()[-LOG_LINES:]


def _table(out: Path) -> str:
    from rich.console import Console

    from shards.summary import split_table

    manifest = Manifest.load(out)
    console = Console()
    with console.capture() as captured:
        console.print(split_table(manifest))
    return f"built {manifest.name} in {out}, fingerprint {manifest.fingerprint[:12]}\n{captured.get().rstrip()}"


def _say(line: str) -> None:
    print(f"-- {time.strftime('%d %b %H:%M:%S')} {line}", flush=True)
