"""`launch.py build NAME`: a dataset of raw files, as a SLURM array of slices or in this process. No torch import.

    request --check--> the builder's words --> N slices: one SLURM array (hpc/jobs/build_slice.py) --> OUT
                                           or `python -m shards build` here

In:  a request with the builder's words. Out: jobs in the queue, noted in runs/builds/NAME-TIME, or the dataset.

Options are checked by the builder's own parser before anything is queued. The plan is made by the slices: it may look
into every raw file, which is not a login node's work (--dry-run makes it, and shows it).
"""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from hpc import config as configs
from hpc.checkpoint.durable import replace_text
from hpc.config import Config, ConfigError
from hpc.jobs.build_follow import Submitted, follow
from hpc.jobs.build_slice import BUILD_FILE, BuildSlice
from hpc.request import CLUSTER_FLAGS, NOT_FOR_BUILDS, Request
from shards.building.catalogue import CATALOGUE
from shards.building.command import add_builder, run_builder
from shards.cli import BUILDERS
from shards.cli import main as shards_main
from shards.encoding import Encoding

USUAL_SLICES = 16
OURS = {
    "--slice": "--slices N makes them",
    "--workers": "a slice has a process per CPU: --cpus-per-task N",
}
"""A builder's options that a slice is given by us, and what is meant instead."""


def build(request: Request) -> int:
    """Queue a build, or carry it out here; an exit code.

    Raises:
        ConfigError, ShardError: what is wrong with the request, and what to type.
    """
    name, *words = request.build or [""]
    if name in ("-h", "--help"):
        print(_datasets())
        return 0
    if name not in BUILDERS:
        problem = f"unknown dataset {name!r}" if name else "a dataset is missing"
        raise ConfigError(f"{problem}: launch.py build NAME ...\n{_datasets()}")
    module = import_module(BUILDERS[name][0])
    if {"-h", "--help"} & {*words} and hasattr(module, "plan"):
        _parser(name, module).parse_args(words)
    if request.where != "slurm":
        return _here(name, words, request)
    if not hasattr(module, "plan"):
        raise ConfigError(f"{name} is generated, not read from raw files, and has no slices: build it with --local")
    _refuse_ours(words)
    parser = _parser(name, module)
    args = parser.parse_args(words)
    config = _config(request)
    args.workers = config.cluster.cpus_per_task
    if request.dry_run:
        args.dry_run = True
        run_builder(module, args, "")
        print(_script(name, request, config))
        return 0
    _refuse_in_vain(args)
    return _submit(name, _with_absolute_paths(words, parser), args.out.absolute(), request, config)


def _here(name: str, words: Sequence[str], request: Request) -> int:
    if request.slices > 1:
        print(f"NOTE: --slices {request.slices} is for SLURM; here one process and its --workers build it all.")
    return shards_main(["build", name, *words, *(["--dry-run"] if request.dry_run else [])])


# -- before submission -----------------------------------------------------------------------------------------------


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The builder's own options; ours are only listed, since they have been read already."""
    parser = argparse.ArgumentParser(
        f"launch.py build {name}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_builder(parser, name, module)
    parser.description = (module.__doc__ or "").strip()
    add = parser.add_argument_group("SLURM").add_argument
    add("--slices", metavar="N", help=f"elements of the array that share the build out (default: {USUAL_SLICES})")
    add("--array-parallelism", metavar="N", help="elements that run at a time (default: as many as SLURM likes)")
    add("--local", action="store_true", help="build in this process although there is SLURM")
    add("--wait", action="store_true", help="follow the array until the dataset is there, or slices have failed")
    add("--cluster", metavar="NAME", help="site description of configs/cluster")
    add("--cpus-per-task", metavar="N", help="CPU cores of a slice, a worker process on each")
    for flag, (kind, meaning) in CLUSTER_FLAGS.items():
        if flag not in (*NOT_FOR_BUILDS, "cpus_per_task", "signal_delay_s"):
            add(f"--{flag.replace('_', '-')}", metavar="N" if kind is int else "NAME", help=meaning)
    add("--mem", metavar="SIZE", help="memory of a slice: 8, 8GB")
    add("--time", metavar="LIMIT", help="time limit of a slice, which goes on in another job: minutes, H:M:S, D-H:M:S")
    add("--setup", action="append", metavar="LINE", help="shell line before a slice starts")
    return parser


def _datasets() -> str:
    lines = [f"  {name:<14} {about}" for name, (_, about) in BUILDERS.items()]
    return "\n".join(["datasets, each with options of its own (launch.py build NAME --help):", *lines])


def _refuse_ours(words: Sequence[str]) -> None:
    for word in words:
        if instead := OURS.get(word.partition("=")[0]):
            raise ConfigError(f"{word.partition('=')[0]} is for python -m shards build; on SLURM {instead}")


def _refuse_in_vain(args: argparse.Namespace) -> None:
    """What every slice would only find out in the job.

    Raises:
        ConfigError, ShardError: it cannot be built.
    """
    Encoding.parse(args.encoding)
    if args.shard_mb is not None and args.shard_mb < 1:
        raise ConfigError(f"--shard-mb {args.shard_mb}: expected at least 1")
    if not args.raw.exists():
        how = f"; how to get it: python -m shards download {args.dataset}" if args.dataset in CATALOGUE else ""
        raise ConfigError(f"--raw {args.raw}: no such file or folder{how}")
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise ConfigError(f"--out {args.out}: is there already and not empty; delete it, or choose another folder")
    if "%" in str(Path.cwd()):
        raise ConfigError(f"{Path.cwd()}: SLURM reads % in the names of logs as its own; submit from another folder")


def _with_absolute_paths(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """The same words with the values of options that take paths made absolute."""
    found: list[str] = []
    takes_paths = False
    for word in words:
        option, equals, value = word.partition("=")
        if action := parser._option_string_actions.get(option):
            takes_paths = action.type is Path
            found.append(f"{option}={Path(value).absolute()}" if takes_paths and equals else word)
        else:
            found.append(str(Path(word).absolute()) if takes_paths else word)
    return found


def _config(request: Request) -> Config:
    """The site's and the command line's `cluster`; the rest of the configuration is not used."""
    config = configs.load("srvp_smmnist", "", request.cluster, request.overrides)
    config.cluster.nodes, config.cluster.gpus_per_node, config.cluster.ranks_per_node = 1, 0, 1
    return config


def _script(name: str, request: Request, config: Config) -> str:
    from hpc.jobs.submit import slices_text

    folder = _folder(name)
    count = request.slices or USUAL_SLICES
    lines = [f"{count} slices, a task of {config.cluster.cpus_per_task} CPUs each", "", "# sbatch script"]
    return "\n".join([*lines, slices_text(count, folder, config, request.array_parallelism, f"build-{name}")])


def _folder(name: str) -> Path:
    """runs/builds/NAME-TIME, not made yet, with a suffix if two are submitted in one second."""
    stem = Path("runs/builds").absolute() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, number = stem, 1
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path


# -- submission ------------------------------------------------------------------------------------------------------


def _submit(name: str, words: Sequence[str], out: Path, request: Request, config: Config) -> int:
    from hpc.jobs.submit import submit_slices

    count, cpus = request.slices or USUAL_SLICES, config.cluster.cpus_per_task
    tasks = [BuildSlice(("build", name, *words), number, count, cpus) for number in range(1, count + 1)]
    folder = _folder(name)
    (folder / "logs").mkdir(parents=True)
    jobs = submit_slices(tasks, folder, config, request.array_parallelism, f"build-{name}")
    build = Submitted(out, jobs, folder / "logs", shlex.join(["python", "hpc/launch.py", *request.typed]))
    note = {"command": build.command, "out": str(out), "jobs": jobs}
    replace_text(folder / BUILD_FILE, json.dumps(note, indent=1) + "\n")
    array = jobs[0].partition("_")[0]
    at_a_time = f", {request.array_parallelism} at a time" if request.array_parallelism else ""
    print(
        f"submitted array {array}: {count} slices of {cpus} CPUs{at_a_time}\n"
        f"follow one  tail -F {shlex.quote(str(build.log(0)))}   (slice 1)\n"
        f"its state   squeue -r -j {array}\n"
        f"stop it     scancel {array}   (the same command goes on from there)\n"
        f"the dataset {shlex.quote(str(out))}   (there when all slices are done)",
        flush=True,
    )
    return follow(build) if request.wait else 0
