"""The one command line, `python hpc/launch.py`: what each verb does with a request.

In: argv. Out: a job submitted to SLURM, ranks run on this machine, or (--dry-run) a page that shows what would happen.
No torch import: everything here runs on a login node in well under a second.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc import config as configs
from hpc.errors import FOR_USERS, USER_ERROR
from hpc.prepare import existing, needs_run, prepare, refuse_stopped, world_size_of
from hpc.request import Request, parse
from hpc.run_folder import existing_run, new_run_folder
from hpc.starting import ensure_data, make_folder, start


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        request = parse(arguments, {name: meaning for name, (_, meaning) in VERBS.items()})
        return VERBS[request.verb][0](request)
    except FOR_USERS as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR


def run_train(request: Request) -> int:
    if request.array:
        from hpc.sweep import run_sweep

        return run_sweep(request)
    config, folder = prepare(request)
    world_size = world_size_of(config, request)
    if request.dry_run:
        from hpc.dry_run import describe

        print(describe(config, folder, request.where, world_size, request.steps_per_s))
        return 0
    from hpc.plan import plan_batches

    plan = plan_batches(config.train.global_batch, world_size, config.train.micro_batch, config.train.batchnorm_group)
    ensure_data(config, folder)
    resume = make_folder(config, folder, request)
    print(
        f"{config.experiment}{' size=' + config.size if config.size else ''}: {plan}\nrun folder {folder.path}",
        flush=True,
    )
    return start("train", folder, config, request, resume)


def run_evaluate(request: Request) -> int:
    config, folder = existing(request)
    if request.dry_run:
        print(configs.to_yaml(config))
        return 0
    refuse_stopped(folder)
    name = f"evaluate-{zlib.crc32(configs.to_yaml(config).encode()):08x}.yaml"  # others may be queued with theirs
    configs.save(config, folder.path / name)
    return start("evaluate", folder, config, request, config_file=name)


def run_resume(request: Request) -> int:
    """A new job (or new ranks here) for a run that exists, on as many nodes as are asked for."""
    folder = existing_run(needs_run(request))
    if folder.stop.exists() and not request.dry_run:
        folder.stop.unlink()
        print(f"removed {folder.stop}: the run goes on")
    if not request.dry_run:
        folder.diagnosis.unlink(missing_ok=True)
    return run_train(request)


def run_status(request: Request) -> int:
    from hpc.jobs.status import status
    from hpc.sweep import is_sweep, sweep_table

    path = Path(request.run) if request.run else None
    print(sweep_table(path) if path and is_sweep(path) else status(path))
    return 0


def run_cancel(request: Request) -> int:
    from hpc.jobs.control import cancel_run
    from hpc.sweep import cancel_sweep, is_sweep

    path = Path(needs_run(request))
    return cancel_sweep(path.resolve()) if is_sweep(path) else cancel_run(existing_run(str(path)))


def run_doctor(request: Request) -> int:
    """Its folder holds a configuration like a run's, so that it starts as any task does."""
    request.run = request.run or str(new_run_folder("doctor"))
    config, folder = prepare(request)
    if request.dry_run:
        from hpc.jobs.submit import sbatch_text

        print(sbatch_text(folder, config, world_size_of(config, request), "doctor"))
        return 0
    folder.create()
    configs.save(config, folder.config)
    return start("doctor", folder, config, request)


def run_export(request: Request) -> int:
    config, folder = existing(request)
    from hpc.export import export

    print(f"wrote {export(config, folder)}; read it with odevid.load(path)")
    return 0


VERBS: dict[str, tuple[Callable[[Request], int], str]] = {
    "train": (run_train, "start or continue a run (the default)"),
    "resume": (run_resume, "a new job that continues a run"),
    "cancel": (run_cancel, "end a run's jobs, after a save; they do not come back"),
    "status": (run_status, "all runs, or one: jobs, attempts, speed, ETA, last error"),
    "evaluate": (run_evaluate, "score a run on its test split: tables, curves, pictures"),
    "export": (run_export, "write model.pt, readable without DeepSpeed"),
    "doctor": (run_doctor, "check the nodes of an allocation; names those to --exclude"),
}
