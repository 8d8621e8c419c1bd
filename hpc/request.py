"""The command line as data: argv -> `Request`. Knows flags and words, not what becomes of them. No torch import."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hpc import config as configs
from hpc.config import ConfigError
from hpc.evaluation import help as help_of_evaluate
from hpc.machine import has_slurm

EPILOG = """\
examples
  python hpc/launch.py                                    on a laptop: trains the demo size of SRVP on Moving MNIST
  python hpc/launch.py --nodes 4                          on a cluster: the published schedule on 4 nodes
  python hpc/launch.py --nodes 4 experiment=srvp_bair data.root=/data --dry-run
  python hpc/launch.py run=runs/srvp_bair/20261120-101500 continues that run, on any number of ranks
  python hpc/launch.py evaluate run=runs/srvp_bair/20261120-101500              its keys: evaluate --help
  python hpc/launch.py export run=RUN                     writes RUN/model.pt for odevid.load
  python hpc/launch.py report run=RUN [run=RUN2 ...]      one HTML file: tables beside the papers', curves, pictures
  python hpc/launch.py predict run=RUN clip.mp4 --n-future 30 --samples 5       what comes after a video's first frames
  python hpc/launch.py study content-swap run=RUN         the papers' experiments; study --help lists them
  python hpc/launch.py status                             every run below runs/; status RUN: its jobs, attempts, ETA
  python hpc/launch.py resume RUN --nodes 2               a new job that continues it; cancel RUN ends its jobs
  python hpc/launch.py --nodes 2 --array sweep.yaml       one SLURM array, one run folder per element
  python hpc/launch.py doctor --nodes 4                   checks the nodes; names those to --exclude
  python hpc/launch.py build kth --raw KTH --out data/kth --slices 8        a dataset, by a SLURM array; options of a
                                                          builder: python hpc/launch.py build kth --help

keys (any of configs/, in full with --dry-run): experiment= size= run= seed= train.steps= train.global_batch=
  data.root= model.nf= optimizer.lr= eval.every= checkpoint.every_minutes= log.wandb= ...
experiments: {experiments}
sizes: {sizes}    clusters: {clusters}
"""

CLUSTER_FLAGS: dict[str, tuple[type, str]] = {
    "nodes": (int, "nodes of the job"),
    "gpus_per_node": (int, "GPUs of a node, a rank for each; 0: CPU ranks"),
    "cpus_per_task": (int, "CPU cores of a rank: itself and its loader processes"),
    "partition": (str, "partition to queue in"),
    "qos": (str, "quality of service"),
    "account": (str, "account that pays"),
    "constraint": (str, "features that the nodes must have"),
    "exclude": (str, "nodes to leave out, such as n[3,7]; `doctor` names them"),
    "reservation": (str, "reservation to run in"),
    "comment": (str, "comment on the job, for squeue and accounting"),
    "signal_delay_s": (int, "seconds before the time limit at which the run saves: more than a save takes"),
}
"""Flag, type, and what it says in --help."""

RUN_VERBS = ("status", "cancel", "resume", "evaluate", "export")
"""Verbs that take the run folder as a plain word, too."""

OWN_WORDS = ("report", "predict", "study")
"""Verbs that look at runs on this machine; each reads the rest of its command line itself (`VERB --help`)."""

NOT_FOR_BUILDS = {
    "nodes": "a build is shared out by --slices N, one task each",
    "gpus_per_node": "a build uses no GPU",
    "ranks": "a build here takes --local --workers N",
    "array": "a build is one array by itself: --slices N",
    "debug": "a build here, in one process, is --local --workers 1",
    "yes_cpu": "a build uses no GPU",
    "steps_per_s": "a build takes no steps",
    "allow_pipe": "a build reads no shards",
}
"""Flags of runs that are refused for builds, and what is meant instead."""

NOT_FOR_EVALUATIONS = {
    "array": "a sweep trains; evaluate each of its runs",
    "array_parallelism": "there is no array",
    "steps_per_s": "an evaluation takes no steps",
    "slices": "an evaluation is shared out over ranks",
    "cluster": "the run's own holds; --partition NAME and the like change it",
    "allow_pipe": "what the run was started with holds",
    "yes_cpu": "it runs wherever it is started",
}
"""Flags that are refused for `evaluate`, and why."""

SPECIAL = ("experiment", "size", "run")
"""Keys that say which configuration, and are no part of it."""


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
    wait: bool = False
    """Follow the job until it is finished for good."""
    array: str = ""
    """A sweep's YAML file."""
    array_parallelism: int = 0
    """Elements of the array that run at a time; 0: as many as there are."""
    steps_per_s: float = 0.0
    """An assumed speed, for a dry run without measurements; 0: what was measured."""
    build: list[str] = field(default_factory=list)
    """A build's dataset and the builder's own options; `overrides` then holds the cluster's."""
    slices: int = 0
    """Elements of a build's array; 0: the builder's usual number."""
    words: list[str] = field(default_factory=list)
    """The rest of the command line, of a verb in OWN_WORDS."""
    typed: list[str] = field(default_factory=list)
    """The whole command line, to be typed again."""


def parse(argv: Sequence[str], verbs: Mapping[str, str]) -> Request:
    """
    Raises:
        ConfigError: an unknown verb, or flags that contradict each other.
    """
    if "build" in argv and (request := _parse_build(argv)):
        return request
    verb = next((word for word in argv if not word.startswith("-")), "")
    if verb in OWN_WORDS:
        words = [word for word in argv if word not in (verb, "--debug")]
        return Request(verb, None, None, None, [], "local", 0, False, False, "", words=words)
    options = (_evaluate_parser() if _asks_how_to_evaluate(argv) else _parser(verbs)).parse_intermixed_args(argv)
    verb, *pairs = options.words if options.words and "=" not in options.words[0] else ["train", *options.words]
    if verb not in verbs:
        raise ConfigError(f"unknown verb {verb!r}: expected one of {', '.join(verbs)}, or key=value")
    if verb in RUN_VERBS and pairs and ("=" not in pairs[0] or "/" in pairs[0].partition("=")[0]):
        pairs[0] = f"run={pairs[0]}"
    special, overrides = _special(verb, pairs)
    if verb == "evaluate":
        _refuse_flags(options, NOT_FOR_EVALUATIONS, "is not for evaluations")
    if options.ranks is not None and options.ranks < 1:
        raise ConfigError(f"--ranks {options.ranks}: expected at least 1; without it the launcher chooses")
    if options.ranks and (options.nodes or 1) > 1:
        raise ConfigError(f"--ranks {options.ranks} runs here, --nodes {options.nodes} on SLURM: give one of them")
    if verb == "doctor" and pairs and "=" not in pairs[0]:
        raise ConfigError(f"doctor checks nodes, not runs; what is {pairs[0]}?")
    if options.slices:
        raise ConfigError(f"--slices {options.slices} shares out a build, not {verb}: launch.py build NAME --slices N")
    return Request(
        verb=verb,
        experiment=special.get("experiment"),
        size=special.get("size"),
        run=special.get("run"),
        overrides=_cluster_overrides(options) + overrides,
        where=_where(options),
        ranks=options.ranks or 0,
        dry_run=options.dry_run,
        yes_cpu=options.yes_cpu,
        cluster=options.cluster,
        allow_pipe=options.allow_pipe,
        wait=options.wait,
        array=options.array,
        array_parallelism=options.array_parallelism,
        steps_per_s=options.steps_per_s,
        typed=list(argv),
    )


def _special(verb: str, pairs: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The keys of SPECIAL, and the other words.

    Raises:
        ConfigError: one of these is given twice.
    """
    special: dict[str, str] = {}
    others = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in SPECIAL:
            others.append(pair)
        elif key in special:
            raise ConfigError(f"{key}={special[key]} and {key}={value}: {verb} takes one {key}=, give it once")
        else:
            special[key] = value
    return special, others


def _asks_how_to_evaluate(argv: Sequence[str]) -> bool:
    """Whether this is `evaluate --help`, with whatever flags."""
    if not {"-h", "--help"} & {*argv}:
        return False
    parser = argparse.ArgumentParser("launch.py", add_help=False, allow_abbrev=False)
    _add_flags(parser)
    words = [word for word in parser.parse_known_args(argv)[1] if not word.startswith("-")]
    return words[:1] == ["evaluate"]


def _refuse_flags(options: argparse.Namespace, flags: Mapping[str, str], why: str) -> None:
    """
    Raises:
        ConfigError: one of `flags` is given.
    """
    parser = argparse.ArgumentParser(add_help=False)
    _add_flags(parser)
    for name, instead in flags.items():
        if getattr(options, name) != parser.get_default(name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}: {instead}")


def _parse_build(argv: Sequence[str]) -> Request | None:
    """`build NAME ...`: the flags are ours, whatever else there is belongs to the builder. None: the verb is another.

    Raises:
        ConfigError: flags that mean nothing to a build.
    """
    parser = argparse.ArgumentParser("launch.py", add_help=False, allow_abbrev=False)
    _add_flags(parser)
    options, words = parser.parse_known_args(argv)
    if words[:1] != ["build"]:
        return None
    _refuse_flags(options, NOT_FOR_BUILDS, "is for runs")
    if options.slices < 0 or options.array_parallelism < 0:
        raise ConfigError("--slices and --array-parallelism: expected at least 1")
    return Request(
        verb="build",
        experiment=None,
        size=None,
        run=None,
        overrides=_cluster_overrides(options),
        where="" if {"-h", "--help"} & {*words} else _where(options),
        ranks=0,
        dry_run=options.dry_run,
        yes_cpu=False,
        cluster=options.cluster,
        wait=options.wait,
        array_parallelism=options.array_parallelism,
        build=words[1:],
        slices=options.slices,
        typed=list(argv),
    )


def _cluster_overrides(options: argparse.Namespace) -> list[str]:
    """The SLURM flags as `cluster.KEY=VALUE`."""
    given = {name: value for name in (*CLUSTER_FLAGS, "setup") if (value := getattr(options, name)) not in (None, [])}
    flags = [f"cluster.{name}={json.dumps(value)}" for name, value in given.items()]
    if options.mem is not None:
        flags.append(f"cluster.mem_gb={_gigabytes(options.mem)}")
    if options.time is not None:
        flags.append(f"cluster.time_min={_minutes(options.time)}")
    return flags


def _gigabytes(text: str) -> int:
    """`64`, `64G`, `64GB`, `1.5T` or `65536M` as whole gigabytes, rounded up.

    Raises:
        ConfigError: none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT]?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ConfigError(f"--mem {text}: expected gigabytes of a node, such as 64, 64GB or 1T")
    factor = {"M": 1 / 1024, "": 1, "G": 1, "T": 1024}[match[2].upper()]
    return math.ceil(float(match[1]) * factor)


def _minutes(text: str) -> int:
    """SLURM's ways to write a time: minutes, M:S, H:M:S, D-H, D-H:M, D-H:M:S; in minutes, rounded up.

    Raises:
        ConfigError: none of these.
    """
    days, dash, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()) or len(parts) > 3:
        raise ConfigError(f"--time {text}: expected minutes, H:M:S, or D-H:M:S such as 1-12:00:00")
    numbers = [int(part) for part in parts]
    units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
    seconds = sum(number * unit for number, unit in zip(numbers, units, strict=False))
    return math.ceil((int(days or 0) * 86400 + seconds) / 60)


def _where(options: argparse.Namespace) -> str:
    if options.debug:
        return "debug"
    if options.local or options.ranks:
        return "local"
    if has_slurm() or ((options.nodes or options.slices) and options.dry_run):
        return "slurm"
    if options.nodes and options.nodes > 1:
        raise ConfigError(
            f"--nodes {options.nodes}, but there is no SLURM here (no sbatch on PATH): "
            "submit from a login node, or leave --nodes out to run on this machine"
        )
    print("No SLURM here (no sbatch on PATH): running on this machine.")
    return "local"


def _parser(verbs: Mapping[str, str]) -> argparse.ArgumentParser:
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
    explained = "; ".join(f"{name}: {meaning}" for name, meaning in verbs.items())
    parser.add_argument("words", nargs="*", metavar="[VERB] key=value", help=explained)
    _add_flags(parser)
    return parser


def _evaluate_parser() -> argparse.ArgumentParser:
    """Of `evaluate --help`: what only other verbs take is left out."""
    parser = argparse.ArgumentParser(
        prog="launch.py evaluate",
        usage="launch.py evaluate run=RUN [key=value ...] [flags]",
        description=help_of_evaluate.DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=help_of_evaluate.epilog(),
    )
    parser.add_argument("words", nargs="*", metavar="run=RUN key=value", help="the run folder; keys as listed below")
    _add_flags(parser)
    for action in parser._actions:
        if action.dest in NOT_FOR_EVALUATIONS:
            action.help = argparse.SUPPRESS
    return parser


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show everything that would happen, start nothing")
    parser.add_argument(
        "--local", action="store_true", help="run on this machine although there is SLURM: one process per GPU"
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="run on this machine with N CPU ranks")
    parser.add_argument("--wait", action="store_true", help="follow the job's log until it is finished for good")
    parser.add_argument("--array", default="", metavar="FILE", help="a sweep: grid or list over config keys and seeds")
    parser.add_argument(
        "--array-parallelism", type=int, default=0, metavar="N", help="elements of the array that run at a time"
    )
    parser.add_argument(
        "--steps-per-s", type=float, default=0.0, metavar="X", help="speed that --dry-run assumes (else: as measured)"
    )
    parser.add_argument("--debug", action="store_true", help="run in this very process (for pdb)")
    parser.add_argument("--yes-cpu", action="store_true", help="yes, a full-size schedule on the CPU")
    parser.add_argument("--cluster", default="", metavar="NAME", help="site description of configs/cluster")
    parser.add_argument(
        "--allow-pipe", action="append", default=[], metavar="PREFIX", help="command prefix that pipe: shards may run"
    )
    parser.add_argument("--slices", type=int, default=0, metavar="N", help="elements of a build's array")
    slurm = parser.add_argument_group("SLURM (short for cluster.KEY=VALUE)")
    for name, (kind, meaning) in CLUSTER_FLAGS.items():
        metavar = "N" if kind is int else "NAME"
        slurm.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=meaning)
    slurm.add_argument("--mem", metavar="SIZE", help="memory of a node: 64, 64GB, 1T")
    slurm.add_argument("--time", metavar="LIMIT", help="time limit of one job: minutes, H:M:S or D-H:M:S")
    slurm.add_argument("--setup", action="append", default=[], metavar="LINE", help="shell line before the ranks start")
