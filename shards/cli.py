"""``python -m shards COMMAND``: build datasets and look after them.

Commands only parse, call one function of the package, and print; their modules are imported when they run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

from shards.errors import ShardError
from shards.folder import LocalFolder, open_folder
from shards.manifest import Manifest

Build = Callable[[argparse.Namespace, str], Manifest | None]

# Datasets that can be built: name -> module and help. To add one made of raw files, write a module with
# add_arguments(parser), plan(args, survey) and DEFAULT_BAD (see shards/building/plan.py), and add a line.
BUILDERS = {
    "moving-mnist": ("shards.building.moving_mnist", "moving digits, for endless training, and the published test set"),
    "kth": ("shards.building.kth", "KTH human actions, from the original avi files"),
    "bair": ("shards.building.bair", "BAIR robot pushing, from the original TFRecords"),
    "human": ("shards.building.human", "Human3.6M, from the original mp4 files"),
    "ucf101": ("shards.building.ucf101", "UCF101 with its lists and labels, from the original avi files"),
    "kinetics": ("shards.building.kinetics", "folders of labelled videos laid out as Kinetics"),
    "videos": ("shards.building.videos", "any folder or list of video files of your own"),
}

_EXAMPLES = """examples:
  python -m shards build moving-mnist --out data/mmnist   digits for endless training, and the published test set
  python -m shards build kth --raw KTH --out data/kth     from the avi files; --dry-run says what and how large
  python -m shards build videos --raw MY_VIDEOS --out data/mine --size 64 --fps 10 --split 0.9
  python -m shards inspect data/mmnist                    dataset card: tables, and pictures in data/mmnist/card
  python -m shards verify data/mmnist                     is every bit as it was written? exit status 1 if not
  python -m shards repack data/kth --out data/kth-small --encoding mp4:12 --samples-per-shard 256
  python -m shards repack videos --split all --out data/mine --min-frames 15      from anyone's tars of videos
  python -m shards index videos                           scan anyone's tars now instead of at first use
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 well, 1 damage or an error in the data, 2 wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(words).parse_args(words, argparse.Namespace(typed=_typed(words)))
    try:
        return args.run(args)
    except ShardError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what is complete is kept, the same command goes on", file=sys.stderr)
        return 130


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The command line; ``argv`` says which builder's options are wanted."""
    raw = argparse.RawDescriptionHelpFormatter
    about = "Build datasets of tar shards, and look after them."
    parser = argparse.ArgumentParser("python -m shards", description=about, epilog=_EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands.add_parser("build", help="make a dataset from raw files, or from nothing"), argv)
    _add_module(
        commands.add_parser("download", help="fetch a raw dataset, or say how to get it"), "shards.building.download"
    )
    _add_verify(commands.add_parser("verify", help="read everything and compare it with its checksums"))
    _add_inspect(commands.add_parser("inspect", help="a card: counts, classes, values, duplicates, pictures"))
    _add_repack(commands.add_parser("repack", help="the same samples with another shard size or encoding"))
    _add_index(commands.add_parser("index", help="make lost indexes again; index anyone's tars of videos"))
    _add_module(
        commands.add_parser("cache", help="what is kept of remote datasets; limit or clear it"), "shards.cache_command"
    )
    return parser


def _add_build(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Every builder is named; only the one that was asked for is imported and has its options."""
    datasets = parser.add_subparsers(metavar="DATASET", required=True)
    chosen = argv[1] if len(argv) > 1 and argv[0] == "build" else ""
    raw = argparse.RawDescriptionHelpFormatter
    for name, (module_name, about) in BUILDERS.items():
        builder = datasets.add_parser(name, help=about, formatter_class=raw)
        if name == chosen:
            module = import_module(module_name)
            builder.description = (module.__doc__ or about).strip()
            if hasattr(module, "plan"):
                from shards.building.command import add_builder, run_builder

                add_builder(builder, name, module)
                build: Build = partial(run_builder, module)
            else:
                module.add_arguments(builder)
                build = module.run
            builder.set_defaults(run=partial(_build, build))


def _add_module(parser: argparse.ArgumentParser, module_name: str) -> None:
    """A command whose module has add_arguments(parser) and run(args)."""
    module = import_module(module_name)
    parser.description = (module.__doc__ or "").strip()
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)


def _build(build: Build, args: argparse.Namespace) -> int:
    manifest = build(args, args.typed)
    if manifest is not None:
        print(f"built {manifest.name} in {args.out}, fingerprint {manifest.fingerprint[:12]}")
        _print_table(manifest)
        print(f"look at it: python -m shards inspect {shlex.quote(str(args.out))}")
    return 0


def _typed(argv: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "shards", *argv])


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="DIR", help="dataset folder, or an http(s) address")
    parser.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from shards.verify import verify_dataset

    folder = open_folder(args.root)
    manifest = _manifest_of(args.root)
    total = 2 * sum(info.bytes for info in manifest.splits.values())
    with _progress("verify", total, is_bytes=True) as advance:
        reports = verify_dataset(folder, manifest, advance)
    table = Table("split", "samples", "sound", "damage", title=f"{manifest.name} in {args.root}")
    for report in reports:
        table.add_row(report.split, str(report.expected), str(report.sound), str(len(report.damage)))
    Console().print(table)
    damage = [line for report in reports for line in report.damage]
    for line in damage:
        print(line)
    print("damaged: copy the files named above again, or build again" if damage else "every bit is as it was written")
    return 1 if damage else 0


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("root", metavar="DIR", help="dataset folder, or an http(s) address")
    add("--split", action="append", default=[], help="only this split; may be repeated (default: all)")
    add("--clips", type=_at_least_one, default=8, metavar="N", help="rows of a contact sheet (default: 8)")
    add("--frames", type=_at_least_one, default=10, metavar="T", help="columns of a contact sheet (default: 10)")
    add("--card", type=Path, metavar="FOLDER", help="folder of the card (default: card in the dataset's folder)")
    sample_help = "samples of each split read for mean and standard deviation; 0: all (default: 512)"
    add("--sample", type=int, default=512, metavar="N", help=sample_help)
    parser.set_defaults(run=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from shards.card.facts import make_card
    from shards.card.terminal import print_card
    from shards.card.text import sections, warnings
    from shards.card.write import card_folder, write_card

    manifest = _manifest_of(args.root)
    folder = card_folder(args.root, args.card)
    card = make_card(args.root, splits=args.split, sample=max(0, args.sample), progress=_count_clips)
    print_card(f"{manifest.name} in {args.root}", warnings(card), sections(card))
    print(f"\ncard: {write_card(card, folder, clips=args.clips, frames=args.frames)}")
    return 0


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number}: expected at least 1")
    return number


def _count_clips(what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return _progress(what, total, is_bytes=False)


def _add_repack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="DIR", help="dataset folder; or a folder of tars, or a tar, of anyone's making")
    parser.add_argument("--out", type=Path, required=True, metavar="NEW", help="folder of the new dataset")
    size_help = "samples in a tar (default: about 256 MB of them)"
    parser.add_argument("--samples-per-shard", "--shard-size", type=int, metavar="N", help=size_help)
    parser.add_argument("--encoding", help="raw, zstd, mp4 or mp4:CRF (default: as it was; raw for anyone's tars)")
    parser.add_argument("--split", action="append", default=[], help="only this split; may be repeated")
    parser.add_argument("--min-frames", type=int, default=1, metavar="T", help="leave out shorter clips")
    parser.set_defaults(run=_repack)


def _repack(args: argparse.Namespace) -> int:
    from shards.repack import repack

    with _progress("repack", None, is_bytes=False) as advance:
        manifest = repack(
            args.root,
            args.out,
            samples_per_shard=args.samples_per_shard,
            encoding=args.encoding,
            splits=args.split,
            min_frames=args.min_frames,
            command=args.typed,
            on_sample=lambda _: advance(1),
        )
    print(f"{args.out}: fingerprint {manifest.fingerprint[:12]}")
    _print_table(manifest)
    return 0


def _add_index(parser: argparse.ArgumentParser) -> None:
    about = "dataset folder whose lost indexes are made again; or a folder of tars, or a tar, of anyone's making"
    parser.add_argument("root", type=Path, metavar="PATH", help=about)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="for anyone's tars: keep the indexes there")
    parser.set_defaults(run=_index)


def _index(args: argparse.Namespace) -> int:
    manifest = open_folder(args.root).manifest()
    if manifest is not None:
        from shards.reindex import mend_indexes

        mended = mend_indexes(LocalFolder(args.root), manifest)
        print("\n".join(f"made again: {name}" for name in mended) or "every index is as it was written")
        return 0
    return _index_foreign(args.root, args.cache)


def _index_foreign(root: Path, cache: Path | None) -> int:
    from shards.foreign import find_tars
    from shards.foreign_index import index_tar

    num_damaged = 0
    with _progress("clips", None, is_bytes=False) as advance:
        for tar in find_tars(root, "all"):
            index = index_tar(tar, cache=cache, again=True, on_clip=lambda _: advance(1))
            damaged = [clip for clip in index.clips if clip.damage]
            num_damaged += len(damaged)
            print(f"{tar}: {len(index.clips)} clips, {len(damaged)} damaged, {len(index.pickles)} pickles left alone")
            for clip in damaged:
                print(f"  {clip.members[0].name}, offset {clip.members[0].offset}: {clip.damage}")
    return 1 if num_damaged else 0


def _manifest_of(root: str) -> Manifest:
    manifest = open_folder(root).manifest()
    if manifest is None:
        remedy = "For anyone's tars of videos: python -m shards index DIR, or repack DIR --split all --out NEW"
        raise ShardError("no manifest.json, so not a dataset of ours", file=root, remedy=remedy)
    return manifest


def _print_table(manifest: Manifest) -> None:
    from rich.console import Console

    from shards.summary import split_table

    Console().print(split_table(manifest))


@contextmanager
def _progress(what: str, total: int | None, *, is_bytes: bool) -> Iterator[Callable[[int], None]]:
    """A bar with the time left on standard error, if that is a terminal; yields what is to be called with amounts."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    amount = DownloadColumn() if is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda number: progress.advance(task, number)
