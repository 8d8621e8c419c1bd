"""What a hang leaves in the run folder, and how the nodes' observers find each other's part of it.

RUN/hangs/attempt-0003/rank-2.txt        dump of all threads, by the rank itself
                       node-HOST.json    what the observer of a node found out about its ranks
                       diagnosis.txt     who is to blame, for people; later lines tell who came back
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hpc.watchdog.verdict import RankRecord

DIAGNOSIS = "diagnosis.txt"


def hang_folder(run_dir: Path, attempt: int) -> Path:
    return Path(run_dir) / "hangs" / f"attempt-{attempt:04d}"


@dataclass(frozen=True)
class NodeRecord:
    """One node's part."""

    host: str
    ranks: list[RankRecord]

    @property
    def lowest(self) -> int:
        return min((record.rank for record in self.ranks), default=2**31)


def write_node(folder: Path, node: NodeRecord) -> None:
    """
    Raises:
        OSError: the run folder cannot be written.
    """
    told = {"host": node.host, "time": time.time(), "ranks": [record.to_dict() for record in node.ranks]}
    write_durably(node_path(folder, node.host), json.dumps(told, indent=1) + "\n")


def node_path(folder: Path, host: str) -> Path:
    return folder / f"node-{host}.json"


def read_nodes(folder: Path) -> list[NodeRecord]:
    """The parts that are there, the node of the lowest rank first."""
    nodes = []
    for path in folder.glob("node-*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # taken back, or not yet seen whole
            told = json.loads(path.read_text())
            nodes.append(NodeRecord(told["host"], [_record(record) for record in told["ranks"]]))
    return sorted(nodes, key=lambda node: node.lowest)


def take_back(folder: Path, host: str) -> None:
    """This node's ranks work again: its part remains under a name that nobody counts."""
    with contextlib.suppress(OSError):
        node_path(folder, host).replace(folder / f"recovered-{host}.json")


def signatures(folder: Path, name: str) -> dict[str, tuple[int, int]]:
    """What tells one version of a file from the next, for the files that match."""
    found = {}
    for path in folder.glob(name):
        with contextlib.suppress(OSError):
            status = path.stat()
            found[path.name] = (status.st_ino, status.st_mtime_ns)
    return found


def write_durably(path: Path, text: str) -> None:
    """Whole or not at all, and on the disk when this returns.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def tidy(run_dir: Path, attempt: int, ranks: Sequence[int]) -> None:
    """Remove dump files without a dump, and folders that are empty then: most attempts do not hang."""
    folder = hang_folder(run_dir, attempt)
    with contextlib.suppress(OSError):
        for rank in ranks:
            path = folder / f"rank-{rank}.txt"
            if path.is_file() and not path.stat().st_size:
                path.unlink()
        folder.rmdir()
        folder.parent.rmdir()


def _record(told: dict[str, Any]) -> RankRecord:
    known = {item.name for item in fields(RankRecord)}
    return RankRecord(**{name: value for name, value in told.items() if name in known})
