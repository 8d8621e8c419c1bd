"""The one command line: parse, decide where to run, prepare the run folder, hand over.

In: argv. Out: a job submitted to SLURM, ranks run on this machine, or (--dry-run) a page that shows what would happen.
No torch import: everything here runs on a login node in well under a second.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.machine import count_gpus, has_slurm
from hpc.run_folder import RunFolder, existing_run, new_run_folder

EPILOG = """\
examples
  python hpc/launch.py                                    on a laptop: trains the demo size of SRVP on Moving MNIST
  python hpc/launch.py --nodes 4                          on a cluster: the published schedule on 4 nodes
  python hpc/launch.py --nodes 4 experiment=srvp_bair data.root=/data --dry-run
  python hpc/launch.py run=runs/srvp_bair/20261120-101500 continues that run, on any number of ranks
  python hpc/launch.py evaluate run=runs/srvp_bair/20261120-101500
  python hpc/launch.py export run=RUN                     writes RUN/model.pt for odevid.load

keys (any of configs/, in full with --dry-run): experiment= size= run= seed= train.steps= train.global_batch=
  data.root= model.nf= optimizer.lr= eval.every= checkpoint.every_minutes= log.wandb= ...
experiments: {experiments}
sizes: {sizes}    clusters: {clusters}
"""

CLUSTER_FLAGS = {
    "nodes": int,
    "gpus_per_node": int,
    "cpus_per_task": int,
    "mem_gb": int,
    "time_min": int,
    "partition": str,
    "qos": str,
    "account": str,
    "constraint": str,
    "exclude": str,
    "reservation": str,
    "comment": str,
}


@dataclass
class Request:
    """A parsed command line."""

    verb: str
    experiment: str | None
    size: str | None
    run: str | None
    overrides: list[str]
    where: str
    """slurm, local or debug."""
    ranks: int
    dry_run: bool
    yes_cpu: bool
    cluster: str
    allow_pipe: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        request = parse(arguments)
        return VERBS[request.verb][0](request)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(argv: Sequence[str]) -> Request:
    """
    Raises:
        ConfigError: an unknown verb, or flags that contradict each other.
    """
    options = _parser().parse_intermixed_args(argv)
    verb, *pairs = options.words if options.words and "=" not in options.words[0] else ["train", *options.words]
    if verb not in VERBS:
        raise ConfigError(f"unknown verb {verb!r}: expected one of {', '.join(VERBS)}, or key=value")
    special: dict[str, str] = {}
    overrides = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if equals and key in ("experiment", "size", "run"):
            special[key] = value
        else:
            overrides.append(pair)
    given = {name: value for name in (*CLUSTER_FLAGS, "setup") if (value := getattr(options, name)) not in (None, [])}
    flags = [f"cluster.{name}={json.dumps(value)}" for name, value in given.items()]
    if options.ranks < 0:
        raise ConfigError(f"--ranks {options.ranks}: expected at least 1")
    return Request(
        verb=verb,
        experiment=special.get("experiment"),
        size=special.get("size"),
        run=special.get("run"),
        overrides=flags + overrides,
        where=_where(options),
        ranks=options.ranks,
        dry_run=options.dry_run,
        yes_cpu=options.yes_cpu,
        cluster=options.cluster,
        allow_pipe=options.allow_pipe,
    )


def _where(options: argparse.Namespace) -> str:
    if options.debug:
        return "debug"
    if options.local or options.ranks:
        return "local"
    if has_slurm() or (options.nodes and options.dry_run):
        return "slurm"
    if options.nodes and options.nodes > 1:
        raise ConfigError(
            f"--nodes {options.nodes}, but there is no SLURM here (no sbatch on PATH): "
            "submit from a login node, or leave --nodes out to run on this machine"
        )
    print("No SLURM here (no sbatch on PATH): running on this machine.")
    return "local"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py",
        description="Train and evaluate video prediction models, on SLURM or on this machine.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.format(
            experiments=", ".join(configs.available("experiment")),
            sizes=", ".join(configs.available("size")),
            clusters=", ".join(configs.available("cluster")),
        ),
    )
    verbs = "; ".join(f"{name}: {help_text}" for name, (_, help_text) in VERBS.items())
    parser.add_argument("words", nargs="*", metavar="[VERB] key=value", help=verbs)
    parser.add_argument("--dry-run", action="store_true", help="show everything that would happen, start nothing")
    parser.add_argument(
        "--local", action="store_true", help="run on this machine although there is SLURM: one process per GPU"
    )
    parser.add_argument("--ranks", type=int, default=0, metavar="N", help="run on this machine with N CPU ranks")
    parser.add_argument("--debug", action="store_true", help="run in this very process (for pdb)")
    parser.add_argument("--yes-cpu", action="store_true", help="yes, a full-size schedule on the CPU")
    parser.add_argument("--cluster", default="", metavar="NAME", help="site description of configs/cluster")
    parser.add_argument(
        "--allow-pipe", action="append", default=[], metavar="PREFIX", help="command prefix that pipe: shards may run"
    )
    slurm = parser.add_argument_group("SLURM (short for cluster.KEY=VALUE)")
    for name, kind in CLUSTER_FLAGS.items():
        slurm.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None)
    slurm.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line before the ranks start")
    return parser


# -- verbs ---------------------------------------------------------------------------------------------------------


def run_train(request: Request) -> int:
    config, folder = prepare(request)
    world_size = world_size_of(config, request)
    if request.dry_run:
        from hpc.dry_run import describe

        print(describe(config, folder, request.where, world_size))
        return 0
    _refuse_stopped(folder)
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
    folder, config = _existing(request)
    if request.dry_run:
        print(configs.to_yaml(config))
        return 0
    _refuse_stopped(folder)
    configs.save(config, folder.path / "evaluate.yaml")
    return start("evaluate", folder, config, request)


def run_export(request: Request) -> int:
    folder, config = _existing(request)
    from hpc.export import export

    print(f"wrote {export(config, folder)}; read it with odevid.load(path)")
    return 0


def _refuse_stopped(folder: RunFolder) -> None:
    if folder.stop.exists():
        raise ConfigError(f"this run was told to stop, and would stop again: remove that file first: rm {folder.stop}")


def _existing(request: Request) -> tuple[RunFolder, Config]:
    if request.run is None:
        raise ConfigError(f"{request.verb} needs run=DIR, the folder of a started run (they are under runs/)")
    folder = existing_run(request.run)
    config = configs.load_file(folder.config, request.overrides)
    _refuse_another_experiment(request, config)
    return folder, config


def prepare(request: Request) -> tuple[Config, RunFolder]:
    """The resolved configuration and the folder, of a new run or of one that continues."""
    if request.run is not None and RunFolder(Path(request.run)).config.is_file():
        folder = existing_run(request.run)
        config = configs.load_file(folder.config, request.overrides)
        _refuse_another_experiment(request, config)
        config = _absolute(config)
        _refuse_another_run(folder, config)
        return config, folder
    config = configs.load(request.experiment or "srvp_smmnist", _size(request), request.cluster, request.overrides)
    usual = configs.load(config.experiment).data.name
    if config.data.name != usual:
        print(f"NOTE: size={config.size} trains on {config.data.name}, not on {usual}.")
    path = Path(request.run) if request.run else new_run_folder(config.experiment)
    return _absolute(config), RunFolder(path.resolve())


def _refuse_another_experiment(request: Request, config: Config) -> None:
    for name, given, kept in (
        ("experiment", request.experiment, config.experiment),
        ("size", request.size, config.size),
    ):
        if given not in (None, kept):
            raise ConfigError(
                f"run={request.run} was started with {name}={kept}, not {given}: leave {name}= out, or use another run="
            )


def _refuse_another_run(folder: RunFolder, config: Config) -> None:
    """What a run's checkpoints and its stream of samples are made of cannot change under them."""
    if config.train.resume == "never" or not any(folder.checkpoints.glob("step-*")):
        return
    kept = configs.load_file(folder.config)
    for section, before, after in (
        ("model.", vars(kept.model), vars(config.model)),
        ("data.moving_mnist.", vars(kept.data.moving_mnist), vars(config.data.moving_mnist)),
        ("data.", {"name": kept.data.name}, {"name": config.data.name}),
        ("train.", {"recipe": kept.train.recipe}, {"recipe": config.train.recipe}),
        ("", {"seed": kept.seed}, {"seed": config.seed}),
    ):
        if changed := [key for key in after if after[key] != before.get(key)]:
            key = changed[0]
            raise ConfigError(
                f"{section}{key}={after[key]}, but {folder.path} has checkpoints made with {before.get(key)}: "
                "leave it out, use another run=, or start this one anew with train.resume=never"
            )


def _size(request: Request) -> str:
    """The wanted size, or the demo's when nothing was asked for and there is nothing to run more on."""
    if request.size is not None:
        return request.size
    if request.where == "slurm" or count_gpus() or request.yes_cpu:
        return ""
    if request.experiment is not None and (
        request.dry_run or request.experiment not in configs.available("experiment")
    ):
        return ""
    if request.experiment is None and not any(word.startswith("model.") for word in request.overrides):
        print(
            "NO SLURM AND NO GPU: training size=demo, a small model for minutes on a CPU (--yes-cpu for the full size)."
        )
        return "demo"
    raise ConfigError(
        f"experiment={request.experiment or 'srvp_smmnist'} at full size would take months on this CPU: "
        "add size=demo, run where there is a GPU or SLURM, or say --yes-cpu"
    )


def _absolute(config: Config) -> Config:
    """Paths of the config do not depend on where a job happens to start."""
    from hpc.data import data_parent

    config.data.root = data_parent(config.data)
    if config.data.moving_mnist.mnist:
        config.data.moving_mnist.mnist = str(Path(config.data.moving_mnist.mnist).resolve())
    return config


def world_size_of(config: Config, request: Request) -> int:
    """Ranks of the run: one per GPU, or CPU ranks."""
    if request.where == "debug":
        return 1
    if request.ranks:
        return request.ranks
    cluster = config.cluster
    gpus = cluster.gpus_per_node
    if gpus < 0:
        gpus = 8 if request.where == "slurm" else count_gpus()
    per_node = gpus or cluster.ranks_per_node
    return per_node * (cluster.nodes if request.where == "slurm" else 1)


def uses_gpus(config: Config, request: Request) -> bool:
    """Whether each rank must have a GPU: always on SLURM unless CPU ranks were asked for, here if there are any."""
    gpus = config.cluster.gpus_per_node
    if request.where == "slurm" or gpus >= 0:
        return gpus != 0 and not request.ranks
    return count_gpus() > 0 and not request.ranks


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
