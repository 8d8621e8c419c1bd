"""``python -m shards build NAME``: options that all builders share, and what happens between them and the engine.

In: parsed options. Out: a dataset's folder and its table, or (--dry-run) what would be written.
"""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from shards.building.catalogue import CATALOGUE
from shards.building.lengths import ParallelSurvey
from shards.building.plan import BadSource, BuildPlan, cut_into_parts
from shards.building.run import BuildOptions, build
from shards.building.site import Site, Slice
from shards.building.space import describe
from shards.encoding import Encoding
from shards.errors import ShardError
from shards.manifest import Manifest

_WITHOUT_EFFECT = ("--slice", "--workers")
_EPILOG = """\
An interrupted build goes on where it was when the same command is given again: complete shards are kept beside OUT
until all are there, and the bytes do not depend on --workers, interruptions or slices. As a SLURM array:
  python hpc/launch.py build {name} --raw DIR --out DIR --slices 16
"""


def add_builder(parser: argparse.ArgumentParser, name: str, module: ModuleType) -> None:
    """Give a parser the options of a builder, its own and the common ones.

    Args:
        parser: of ``build NAME``.
        name: of the dataset.
        module: the builder: add_arguments(parser), plan(args, survey) and DEFAULT_BAD.
    """
    parser.epilog = _EPILOG.format(name=name)
    module.add_arguments(parser)
    add = parser.add_argument_group("building").add_argument
    add("--raw", type=Path, required=True, metavar="PATH", help="the raw dataset, as described above")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the new dataset; missing or empty")
    cores = len(os.sched_getaffinity(0))
    add("--workers", type=int, default=cores, metavar="N", help=f"processes (default: this machine's cores, {cores})")
    add("--encoding", default="raw", help="raw (default, fastest to read), zstd, mp4 or mp4:CRF")
    add("--shard-mb", type=int, metavar="MB", help="size of a tar (default: 256, less for small datasets)")
    bad_help = f"what a source that cannot be used does: stop, or skip it and report it (default: {module.DEFAULT_BAD})"
    add("--bad", choices=("stop", "skip"), default=module.DEFAULT_BAD, help=bad_help)
    add("--slice", default="1/1", metavar="I/N", help="make only this share of the shards; the last slice merges")
    add("--dry-run", action="store_true", help="show what would be written, and how large; write nothing")
    parser.set_defaults(dataset=name)


def run_builder(module: ModuleType, args: argparse.Namespace, command: str) -> Manifest | None:
    """Build as the parsed options of :func:`add_builder` say.

    Args:
        module: the builder.
        args: parsed options.
        command: that a person would type, for the manifest.

    Returns:
        The manifest; None after a dry run, or where other slices are still at work.

    Raises:
        ShardError: options that do not fit, raw files that are not as expected, no room, another process at work.
    """
    part_of = Slice.parse(args.slice)
    encoding = Encoding.parse(args.encoding)
    for option, value in (("--workers", args.workers), ("--shard-mb", args.shard_mb)):
        if value is not None and value < 1:
            raise ShardError(f"{option} {value}: expected at least 1")
    if not args.raw.exists():
        remedy = f"How to get it: python -m shards download {args.dataset}" if args.dataset in CATALOGUE else ""
        raise ShardError("no such file or folder for --raw", file=args.raw, remedy=remedy)
    site = Site.of(args.out)
    site.reach()
    kept = None if args.dry_run else site.lengths
    try:
        plan: BuildPlan = module.plan(args, ParallelSurvey(kept, args.workers))
    except BadSource as error:
        raise ShardError(str(error), remedy="Repair it, or leave out what cannot be used with --bad skip.") from error
    plan = replace(plan, raw=args.raw if args.raw.is_dir() else args.raw.parent)
    if args.dry_run:
        print(describe(plan, cut_into_parts(plan, args.shard_mb), args.out, encoding, args.workers))
        return None
    for note in plan.notes:
        print(f"note: {note}", flush=True)
    options = BuildOptions(
        args.out, args.encoding, args.workers, args.bad, part_of, args.shard_mb, whole_command(command)
    )
    return build(plan, options)


def whole_command(command: str) -> str:
    """The command without what does not change a byte: its slice, its number of processes."""
    kept: list[str] = []
    skip = False
    for word in shlex.split(command):
        option = word.partition("=")[0]
        if not skip and option not in _WITHOUT_EFFECT:
            kept.append(word)
        skip = word in _WITHOUT_EFFECT
    return shlex.join(kept)
