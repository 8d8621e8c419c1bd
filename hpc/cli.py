"""The one command line, `python hpc/launch.py`: what each verb does with a request.

In: argv. Out: a job submitted to SLURM, ranks run on this machine, or (--dry-run) a page that shows what would happen.
No torch import: everything here runs on a login node in well under a second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hpc import config as configs
from hpc.config import ConfigError
from hpc.errors import FOR_USERS, USER_ERROR
from hpc.prepare import existing, needs_run, prepare, world_size_of
from hpc.request import Request, parse
from hpc.run_folder import existing_run, new_run_folder
from hpc.starting import ensure_data, make_folder, start, warn_of_other_jobs


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        request = parse(arguments, {name: meaning for name, (_, meaning) in VERBS.items()})
        return VERBS[request.verb][0](request)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for the interpreter's last flush
        return 0
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
    warn_of_other_jobs(folder, request)
    ensure_data(config, folder, resuming=request.verb == "resume")
    resume = make_folder(config, folder, request)
    print(
        f"{config.experiment}{' size=' + config.size if config.size else ''}: {plan}\nrun folder {folder.path}",
        flush=True,
    )
    return start("train", folder, config, request, resume)


def run_evaluate(request: Request) -> int:
    config, folder = existing(request)
    if not any(word.startswith("cluster.nodes=") for word in request.overrides):
        config.cluster.nodes = 1  # not as many as the training had
    if request.dry_run:
        print(configs.to_yaml(config))
        return 0
    if folder.newest_checkpoint() is None:
        raise ConfigError(f"{folder.path} has no checkpoint yet: there is nothing to evaluate")
    return start("evaluate", folder, config, request)


def run_resume(request: Request) -> int:
    """A new job (or new ranks here) for a run that exists, on as many nodes as are asked for."""
    config, folder = existing(request)
    if folder.model.is_file() and (folder.newest_checkpoint() or 0) >= config.train.steps:
        raise ConfigError(
            f"{folder.path} is finished ({config.train.steps} steps): evaluate it, or ask for more with train.steps=N"
        )
    return run_train(request)


def run_status(request: Request) -> int:
    from hpc.jobs.status import status
    from hpc.sweep import is_sweep, sweep_table

    _nothing_else(request)
    path = Path(request.run) if request.run else None
    print(sweep_table(path) if path and is_sweep(path) else status(path))
    return 0


def run_cancel(request: Request) -> int:
    from hpc.jobs.control import cancel_run
    from hpc.sweep import cancel_sweep, is_sweep

    path = Path(needs_run(request))
    _nothing_else(request)
    if request.dry_run:
        raise ConfigError("cancel has no --dry-run: `status RUN` shows the jobs that it would end")
    return cancel_sweep(path.resolve()) if is_sweep(path) else cancel_run(existing_run(str(path)))


def run_doctor(request: Request) -> int:
    """Its folder holds a configuration like a run's, so that it starts as any task does."""
    if request.run is not None and (Path(request.run) / "config.yaml").exists():
        raise ConfigError(
            f"run={request.run} is a run; doctor checks nodes, and makes a folder of its own: leave it out"
        )
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


def run_build(request: Request) -> int:
    from hpc.building import build

    return build(request)


def run_report(request: Request) -> int:
    from hpc.report.command import main as report

    return report(request.words)


def run_predict(request: Request) -> int:
    from hpc.predict import main as predict

    return predict(request.words)


def run_study(request: Request) -> int:
    from hpc.studies.command import main as study

    return study(request.words)


def _nothing_else(request: Request) -> None:
    if request.overrides:
        raise ConfigError(f"{request.verb} takes one run and nothing else: what is {' '.join(request.overrides)}?")


VERBS: dict[str, tuple[Callable[[Request], int], str]] = {
    "train": (run_train, "start or continue a run (the default)"),
    "resume": (run_resume, "a new job that continues a run"),
    "cancel": (run_cancel, "end a run's jobs, after a save; they do not come back"),
    "status": (run_status, "all runs, or one: jobs, attempts, speed, ETA, last error"),
    "evaluate": (run_evaluate, "score a run on its test split: tables, curves, pictures"),
    "report": (run_report, "one HTML file on one or several runs, beside the papers' numbers"),
    "predict": (run_predict, "continue a video file: GIF, MP4, npz"),
    "study": (run_study, "the papers' experiments: content swap, interpolation, frame rate, ..."),
    "export": (run_export, "write model.pt, readable without DeepSpeed"),
    "doctor": (run_doctor, "check the nodes of an allocation; names those to --exclude"),
    "build": (run_build, "make a dataset of raw files, as a SLURM array of slices or here"),
}
