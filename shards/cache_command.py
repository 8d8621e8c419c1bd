"""What the cache of remote shards holds; make it smaller, or empty it.

In: a cache folder (see cache.py). Out: a table. Nothing else that lies in the folder is counted or deleted.
The bound of a run is its own: data.cache_gb.

  python -m shards cache                          where it is, its files, its size, its bound
  python -m shards cache --limit 50               delete the least recently used files beyond 50 GB
  python -m shards cache --clear                  delete all of them
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    place = "cache folder (default: $ODEVID_CACHE or ~/.cache/odevid)"
    parser.add_argument("--cache", metavar="DIR", help=place)
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--clear", action="store_true", help="delete all files that are not being fetched")
    change.add_argument(
        "--limit", type=_gigabytes, metavar="GB", help="delete the least recently used files beyond this"
    )


def run(args: argparse.Namespace) -> int:
    """Change the cache if that is asked for, and print what it holds."""
    from rich.console import Console
    from rich.table import Table

    from shards.cache import open_store
    from shards.summary import human_bytes

    store = open_store(args.cache)
    if args.clear or args.limit is not None:
        freed = store.shrink(0 if args.clear else round(args.limit * 1e9))
        print(f"deleted {human_bytes(freed)}")
    usage = store.usage()
    table = Table("what", "", title=str(store.folder))
    table.add_row("files", f"{len(usage.files):,}")
    table.add_row("size", human_bytes(sum(size for _, size in usage.files)))
    table.add_row("being fetched", human_bytes(usage.fetching))
    table.add_row("bound, unless data.cache_gb sets one", human_bytes(store.limit(usage)))
    table.add_row("room of the disk, with what is held", human_bytes(usage.room))
    Console().print(table)
    return 0


def _gigabytes(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected GB, 0 or more")
    return number
