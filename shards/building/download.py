"""Get a raw dataset, or say how: ``python -m shards download NAME [--raw DIR] [--unpack]``.

Without --raw: addresses, sizes, checksums and licence. With --raw: fetches what its terms leave open to programs (kth,
bair, ucf101, moving-mnist), goes on where it was cut, and checks what is published of each file. For human and kinetics
it says what a person has to do.

--unpack unpacks zip and tar below DIR; for rar it says what to type.

Exit status: 0 if all files are here and as published, or if only information was asked for; 1 otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.building.catalogue import CATALOGUE, Listing, RemoteFile
from shards.building.fetch import fetch
from shards.building.unpack import can_unpack, unpack
from shards.errors import ShardError
from shards.summary import human_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``download``."""
    parser.add_argument("dataset", metavar="NAME", choices=CATALOGUE, help=", ".join(CATALOGUE))
    raw_help = "folder for the files; made if missing (default: only say what there is)"
    parser.add_argument("--raw", type=Path, metavar="DIR", help=raw_help)
    parser.add_argument("--unpack", action="store_true", help="unpack zip and tar files too")


def run(args: argparse.Namespace) -> int:
    """Do as the parsed options of :func:`add_arguments` say; returns the exit status."""
    listing = CATALOGUE[args.dataset]
    print(describe(listing, args.raw))
    if args.raw is None:
        return 0
    if not listing.files:
        print(f"nothing was fetched: the terms of {args.dataset} leave that to you, see above")
        return 1
    return 0 if _get_all(listing, args.raw, unpacking=args.unpack) else 1


def describe(listing: Listing, raw: Path | None) -> str:
    """What is known of a dataset's files, and what is left for a person to do."""
    folder = str(raw) if raw is not None else "DIR"
    lines = [listing.title, f"  page:    {listing.page}", f"  licence: {listing.licence}"]
    for file in listing.files:
        size = human_bytes(file.size) if file.size is not None else "size not published"
        lines += [f"  {file.url}", f"    {size}, {file.digest or 'no published checksum known'}"]
    lines += [f"  {number}. {step.format(raw=folder)}" for number, step in enumerate(listing.steps, start=1)]
    lines.append(f"  then: python -m shards build {listing.builder.format(raw=folder)}")
    return "\n".join(lines)


def _get_all(listing: Listing, raw: Path, *, unpacking: bool) -> bool:
    """Fetch every file, and unpack it; one that fails does not keep the others. Returns whether all are here."""
    complete = True
    for file in listing.files:
        try:
            with _progress(file.name) as advance:
                path = fetch(file, raw, advance)
            print(f"{path}: {human_bytes(path.stat().st_size)}, {_checked(file)}")
            if file.into is not None:
                _unpack(path, raw / file.into, unpacking=unpacking)
        except ShardError as error:
            print(f"error: {error}", file=sys.stderr)
            complete = False
    return complete


def _checked(file: RemoteFile) -> str:
    if file.digest is not None:
        return f"{file.digest.partition(':')[0]} as published"
    return "size as published" if file.size is not None else "not checked: no published checksum known"


def _unpack(path: Path, folder: Path, *, unpacking: bool) -> None:
    if not can_unpack(path):
        print(f"  unpack it with: unrar x {path} {folder}/")
    elif not unpacking:
        print("  unpack it with: the same command and --unpack")
    else:
        with _progress(f"unpack {path.name}") as advance:
            done = 0

            def on_block(number: int) -> None:
                nonlocal done
                done += number
                advance(done, None)

            number = unpack(path, folder, on_block)
        print(f"  unpacked {number} files into {folder}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, if that is a terminal; yields what is to be called with bytes done and in all."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, whole: progress.update(task, completed=done, total=whole)
