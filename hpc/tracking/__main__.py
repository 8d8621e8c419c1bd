"""`python -m hpc.tracking sync RUN`: the command line of what a run has told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc.tracking.journal import JournalError
from hpc.tracking.sync import Rebuilt, rebuild
from hpc.tracking.wandb_mirror import MirrorError

EPILOG = """\
A run keeps everything it tells in RUN/metrics.jsonl; W&B is a mirror of that file. Rebuild the mirror when
  - the machines that train have no network (log.wandb=offline, or auto without a network),
  - W&B was lost in the middle ("W&B mirror switched off"),
  - the run was resumed and you want one curve: a live mirror keeps the steps that were done twice, this leaves out
    everything after the checkpoint at which a later attempt continued.

The rebuilt run is a new W&B run with its own id, because W&B cannot take rows back; delete the old one there if you
like. The run may be going on meanwhile; nothing in RUN changes but RUN/wandb, where W&B puts its files.

examples
  python -m hpc.tracking sync runs/srvp_smmnist/20261120-101500 --mode online
  python -m hpc.tracking sync runs/srvp_smmnist/20261120-101500 --project tables --mode offline
  wandb sync runs/.../wandb/offline-run-...-ID            uploads what --mode offline wrote
  wandb leet runs/srvp_smmnist/20261120-101500/wandb      shows it in this terminal, without a server
"""


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    try:
        print(_describe(rebuild(options.run, options.project, options.mode)))
    except (JournalError, MirrorError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hpc.tracking", description="Work with what a run has told.")
    verbs = parser.add_subparsers(required=True, metavar="sync")
    sync = verbs.add_parser(
        "sync",
        help="rebuild a W&B run from RUN/metrics.jsonl",
        description="Rebuild a W&B run from RUN/metrics.jsonl.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG,
    )
    sync.add_argument("run", type=Path, metavar="RUN", help="folder of a started run")
    sync.add_argument("--project", default="", help="W&B project (default: log.project of the run)")
    sync.add_argument(
        "--mode",
        choices=("auto", "online", "offline"),
        default="auto",
        help="auto (the default): online with an API key and a network, else offline",
    )
    return parser


def _describe(found: Rebuilt) -> str:
    lines = [
        f"W&B run {found.run_id} ({found.mode}): {found.rows} rows, {found.superseded} superseded records left out"
    ]
    if found.missing_videos:
        lines.append(f"{found.missing_videos} videos are not there any more and were left out")
    if found.evaluations:
        lines.append(f"{found.evaluations} evaluation{'s' * (found.evaluations > 1)} in its summary")
    lines += [f"left out: {why}" for why in found.unreadable]
    lines.append(found.where if found.mode == "online" else f"upload it with: wandb sync {found.where}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
