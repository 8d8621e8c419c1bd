"""The one command line, `python hpc/launch.py`: what each verb does with a request.

In: argv. Out: a job submitted to SLURM, ranks run on this machine, or (--dry-run) a page that shows what would happen.
No torch import: everything here runs on a login node in well under a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from hpc import config as configs
from hpc.config import Config
from hpc.errors import FOR_USERS
from hpc.prepare import existing, prepare, refuse_stopped, uses_gpus, world_size_of
from hpc.request import Request, parse
from hpc.run_folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        request = parse(arguments, {name: meaning for name, (_, meaning) in VERBS.items()})
        return VERBS[request.verb][0](request)
    except FOR_USERS as error:
        if "--debug" in arguments:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_train(request: Request) -> int:
    config, folder = prepare(request)
    world_size = world_size_of(config, request)
    if request.dry_run:
        from hpc.dry_run import describe

        print(describe(config, folder, request.where, world_size))
        return 0
    refuse_stopped(folder)
    from hpc.data import ensure_dataset
    from hpc.plan import plan_batches

    plan = plan_batches(config.train.global_batch, world_size, config.train.micro_batch, config.train.batchnorm_group)
    config.data.root = ensure_dataset(config.data)
    folder.create()
    resume, config.train.resume = config.train.resume, "auto"  # a wish for this launch, not for the next one
    configs.save(config, folder.config)
    if request.allow_pipe:
        folder.pipes.write_text("\n".join(request.allow_pipe) + "\n")
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
    configs.save(config, folder.path / "evaluate.yaml")
    return start("evaluate", folder, config, request)


def run_export(request: Request) -> int:
    config, folder = existing(request)
    from hpc.export import export

    print(f"wrote {export(config, folder)}; read it with odevid.load(path)")
    return 0


def start(verb: str, folder: RunFolder, config: Config, request: Request, resume: str = "auto") -> int:
    """Run `verb` on the ranks; returns the exit code of what ran, or 0 for a submitted job."""
    from hpc.task import Task

    world_size = world_size_of(config, request)
    task = Task(verb, str(folder.path), use_gpu=uses_gpus(config, request), resume=resume)
    if request.where == "slurm":
        from hpc.submit import submit

        return submit(task, folder, config, world_size)
    if request.where == "debug":
        return task().exit_code
    from hpc.local import run_ranks

    return run_ranks(task, folder, world_size)


VERBS: dict[str, tuple[Callable[[Request], int], str]] = {
    "train": (run_train, "start or continue a run (the default)"),
    "evaluate": (run_evaluate, "score a run on its test split: tables, curves, pictures"),
    "export": (run_export, "write model.pt, readable without DeepSpeed"),
}
