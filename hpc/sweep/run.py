"""`--array FILE`: starts the elements of a sweep that are to be started, and leaves the others alone. No torch import.

    the file --> elements --> resolved configurations --> which of them to start --> one SLURM array, or here in turn

In:  a request with a sweep's file. Out: runs/sweeps/NAME/ELEMENT, a run folder each; sweep.json beside them, which
     lists the elements; a job id each, or ranks on this machine one element after the other; the table at the end.

The same command again starts only what failed, was stopped or is missing, in the same folders: each continues from its
checkpoints (hpc/sweep/prepared.py).
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hpc import config as configs
from hpc.config import ConfigError
from hpc.errors import FOR_USERS
from hpc.jobs.attempts import read_history
from hpc.prepare import uses_gpus, world_size_of
from hpc.request import Request
from hpc.starting import ensure_data, make_folder, make_task, start
from hpc.stop import StopCause
from hpc.sweep.elements import load_sweep
from hpc.sweep.prepared import (
    Prepared,
    is_started,
    keep_folders,
    look,
    naming,
    prepare_elements,
    record,
    sweep_folder,
)
from hpc.sweep.states import (
    ACTIVE,
    CANCELLED,
    FAILED,
    FINISHED,
    QUEUED,
    RUNNING,
    STATES,
    STOPPED,
    UNKNOWN,
    Standing,
    only_launcher,
    standings,
)
from hpc.sweep.table import sweep_table

POLL_S = 5.0
INTERRUPTED = StopCause.INTERRUPT.exit_code


def run_sweep(request: Request) -> int:
    """Start what is to be started; 0, or 1 if an element has failed (known at the end: here, or with --wait).

    Raises:
        ConfigError: the file, an element, or what was done with it before does not allow it; nothing has been started.
    """
    path = Path(request.array)
    if request.verb != "train":
        raise ConfigError(f"{request.verb} --array: only runs are started as a sweep; give {request.verb} a run=DIR")
    elements = load_sweep(path)
    sweep = sweep_folder(request, elements[0].sweep)
    prepared = prepare_elements(path, elements, sweep, request)
    keep_folders(prepared, sweep)
    if request.dry_run:
        look(prepared, sweep, request, path)
        print(_page(prepared, sweep, request))
        return 0
    sweep.mkdir(parents=True, exist_ok=True)
    with only_launcher(sweep):
        look(prepared, sweep, request, path, alone=True)
        starting = [one for one in prepared if is_started(one.standing, request)]
        _make_ready(starting, request)
        record(sweep, path, prepared)
        print(_plan(prepared, sweep, request), flush=True)
        if request.where != "slurm":
            return _run_here(starting, sweep, request)
        if starting:
            _submit(starting, sweep, request)
    if not request.wait:
        print(f"the table   python hpc/launch.py status {shlex.quote(str(sweep))}")
        return 0
    return _wait(prepared, sweep)


# -- starting --------------------------------------------------------------------------------------------------------


def _make_ready(starting: Sequence[Prepared], request: Request) -> list[str]:
    """Data and folder of each; returns each one's wish for this launch, train.resume."""
    for one in starting:
        with naming(one.name):
            ensure_data(one.config, one.folder)
    return [make_folder(one.config, one.folder, request) for one in starting]


def _submit(starting: Sequence[Prepared], sweep: Path, request: Request) -> None:
    from hpc.jobs.submit import submit_array

    config = starting[0].config
    gpu, world_size = uses_gpus(config, request), world_size_of(config, request)
    tasks = [make_task("train", one.folder, one.config, gpu, one.resume) for one in starting]
    folders = [one.folder for one in starting]
    jobs = submit_array(
        tasks, folders, sweep / "logs", config, world_size, request.array_parallelism, starting[0].element.sweep
    )
    array = jobs[0].partition("_")[0]  # one element alone is a plain job
    at_a_time = f", {request.array_parallelism} at a time" if request.array_parallelism else ""
    log = shlex.quote(f"{sweep}/logs/{jobs[0]}_0_log.out")
    print(
        f"submitted array {array}: {_elements(jobs)} of {config.cluster.nodes} nodes, {world_size} ranks{at_a_time}\n"
        f"follow one  tail -F {log}   ({starting[0].name})\n"
        f"its state   squeue -r -j {array}",
        flush=True,
    )


def _run_here(starting: Sequence[Prepared], sweep: Path, request: Request) -> int:
    """One after the other; one that fails does not stop the others, one that a person ends does."""
    failed = False
    for number, one in enumerate(starting, start=1):
        print(f"--- element {number} of {len(starting)}: {one.name} ({one.folder.path})", flush=True)
        try:
            code = start("train", one.folder, one.config, request, one.resume)
        except FOR_USERS as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            code = 2
        if code == INTERRUPTED or _was_stopped(one):
            print(f"{one.name} was stopped, so the sweep stops; the same command goes on from here")
            print(sweep_table(sweep, alone=True))
            return code
        failed |= code != 0
    print(sweep_table(sweep, alone=True))
    return int(failed)


def _was_stopped(one: Prepared) -> bool:
    """Whether a signal ended it. The STOP file and train.max_minutes mean this element alone."""
    (standing,) = standings([one.folder])
    trained = [attempt for attempt in read_history(one.folder.path).attempts if attempt.verb == "train"]
    return standing.state == STOPPED and trained[-1].cause != StopCause.WALLTIME.label


def _wait(prepared: Sequence[Prepared], sweep: Path) -> int:
    """Until nothing is queued or running any more, looked at twice: a job on its way back may be neither for a moment.

    Ctrl-C ends the waiting, not the jobs.
    """
    folders = [one.folder for one in prepared]
    told, quiet_looks = "", 0
    try:
        while quiet_looks < 2:
            now = standings(folders)
            if (counts := _counts(now)) != told:
                print(f"{time.strftime('%H:%M:%S')} {counts}", flush=True)
                told = counts
            states = {standing.state for standing in now}
            if states == {FINISHED}:
                break
            quiet_looks = 0 if states & {*ACTIVE} else quiet_looks + 1
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(f"\nno longer waiting; the jobs go on. The table: python hpc/launch.py status {shlex.quote(str(sweep))}")
        return INTERRUPTED
    print(sweep_table(sweep))
    return int(any(standing.state == FAILED for standing in now))


# -- telling ---------------------------------------------------------------------------------------------------------


def _counts(found: Sequence[Standing]) -> str:
    """`2 finished, 1 failed`, in the order of STATES."""
    numbers = Counter(standing.state for standing in found)
    return ", ".join(f"{numbers[state]} {state}" for state in STATES if numbers[state])


def _elements(things: Sequence[object]) -> str:
    return f"{len(things)} element{'s' * (len(things) != 1)}"


def _plan(prepared: Sequence[Prepared], sweep: Path, request: Request) -> str:
    """What is started and what is left alone, element by element."""
    first = prepared[0]
    lines = [f"sweep {first.element.sweep}: {_elements(prepared)} in {sweep}"]
    lines += [f"  {one.name}   {one.standing.state}: {_intention(one, request)}" for one in prepared]
    return "\n".join(lines)


def _intention(one: Prepared, request: Request) -> str:
    state = one.standing.state
    if is_started(one.standing, request):
        step = one.folder.newest_checkpoint()
        if step is None:
            return "starts"
        return "starts anew" if one.resume == "never" else f"goes on from step {step}"
    if state == CANCELLED:
        run = shlex.quote(f"run={one.folder.path}")
        return f"left alone (python hpc/launch.py resume {run}; all of them: train.resume=auto)"
    if state == UNKNOWN:
        return f"left alone (job {one.standing.job}, and SLURM does not answer here)"
    job = f" (job {one.standing.job})" if state in (QUEUED, RUNNING) and one.standing.job else ""
    return f"left alone{job}"


def _page(prepared: Sequence[Prepared], sweep: Path, request: Request) -> str:
    """The dry run: the elements, the first one's configuration, and the batch script."""
    starting = [one for one in prepared if is_started(one.standing, request)]
    first = (starting or list(prepared))[0]
    world_size = world_size_of(first.config, request)
    sections = {
        "elements": _plan(prepared, sweep, request),
        f"resolved configuration of {first.name}": configs.to_yaml(first.config).rstrip(),
        "where": f"{request.where}, {world_size} ranks for each element",
    }
    if request.where == "slurm" and starting:
        from hpc.jobs.submit import array_text

        sections["sbatch script"] = array_text(
            len(starting), sweep / "logs", first.config, world_size, request.array_parallelism, first.element.sweep
        )
    return "\n\n".join(f"# {title}\n{text}" for title, text in sections.items())
