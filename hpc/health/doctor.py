"""The verb `doctor`: examine every node of an allocation and name those that a job should leave out.

In:  `World` on the allocation's nodes, a folder on the shared file system.
Out: FOLDER/doctor.txt (tables for people, printed as well) and FOLDER/doctor.json (all that was measured); the exit
     code: 0, or 1 when a node has a severe finding.

Order: what each node does alone, clocks, all-reduce between pairs of nodes, then of the whole group. What comes next
is printed before it starts, so that the last line of the log names what hangs, if anything does.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.checkpoint.durable import replace_text
from hpc.health import probes
from hpc.health.findings import (
    SEVERITIES,
    Finding,
    Pair,
    all_reduce_medians,
    by_node,
    to_exclude,
    usual_versions,
    verdicts,
)
from hpc.health.probes import GIB, KIB, MIB, Measurement
from hpc.tracking import strict_json

if TYPE_CHECKING:
    from hpc.config import Config
    from hpc.distributed import World

FORMAT = 1
WRITE_BYTES = 64 * MIB
SIZES = {KIB: 50, MIB: 20, 16 * MIB: 5, 64 * MIB: 5}
"""All-reduces of the whole group: bytes, and how often."""
PAIR_BYTES, PAIR_REPEATS = 16 * MIB, 5
PRODUCT = {"cuda": (8192, 20), "cpu": (512, 20)}
"""By kind of device: size of the matrices, and how many products."""


@dataclasses.dataclass(frozen=True)
class Examination:
    measurements: list[Measurement]
    pairs: list[Pair]

    @property
    def findings(self) -> list[Finding]:
        return verdicts(self.measurements, self.pairs)


def doctor_rank(world: World, folder: Path, config: Config) -> int:
    """Examine, print, write; the exit code. Collective, and alike on all ranks."""
    examined = examine(world, folder, config.data.root)
    findings = examined.findings
    if world.rank == 0:
        print(report(examined), flush=True)
        try:
            replace_text(folder / "doctor.txt", report(examined) + "\n")
            replace_text(folder / "doctor.json", strict_json.dumps(to_json(examined)) + "\n")
        except OSError as error:  # a finding already: the probe of the disk has met it
            print(f"not written to {folder}: {error}", flush=True)
    return int(any(finding.severe for finding in findings))


def examine(world: World, folder: Path, data_root: str = "") -> Examination:
    """Measure everything. A probe that fails on one rank is a finding; the others do not wait for it. Collective."""
    from hpc.health import fabric

    def say(what: str) -> None:
        if world.rank == 0:
            print(f"doctor: {what}", flush=True)

    nodes = world.gather(probes.node_name())
    ranks = fabric.first_ranks(nodes)
    asking = [of_node[0] for of_node in ranks.values()]
    say(f"{len(ranks)} nodes, {world.size} ranks: devices, memory, versions")
    mine = probes.measure(world.rank, world.device)
    timed = mine.attempt("compute", lambda: probes.compute(world.device, *PRODUCT[world.device.type]))
    mine.compute_s, mine.wrong_products = timed or (None, 0)
    buffer = mine.attempt("buffer", lambda: fabric.new_buffer(world.device, max(SIZES)))
    _disks_in_turn(world, asking, mine, folder, data_root, say)
    say("clocks")
    mine.clock = fabric.clock(world, asking)
    everyone = world.gather(mine)
    pairs: list[Pair] = []
    if world.size > 1 and not _no_all_reduce(everyone):
        assert buffer is not None
        pairs = fabric.measure_pairs(world, ranks, buffer[: PAIR_BYTES // 4], PAIR_REPEATS, say)
        if all(pair.seconds is not None for pair in pairs):
            say("all-reduce of the whole group")
            mine.wrong_sums = fabric.wrong_sums(buffer, world.rank, world.size)
            mine.all_reduce_s = fabric.all_reduce_s(buffer, SIZES)
            everyone = world.gather(mine)
    return Examination(everyone, pairs)


def _disks_in_turn(
    world: World, asking: Sequence[int], mine: Measurement, folder: Path, data_root: str, say: Any
) -> None:
    """One node after the other writes, so that each shows its own speed and not its share of all."""
    for rank in asking:
        say(f"disk, rank {rank}")
        if world.rank == rank:
            mine.disk = mine.attempt("disk", lambda: probes.disk(folder, mine.node, WRITE_BYTES))
            if data_root:
                mine.attempt("data", lambda: probes.data_is_there(data_root))
        world.barrier()


def _no_all_reduce(measurements: Sequence[Measurement]) -> bool:
    """Whether an all-reduce would hang or fail because a rank has no working device."""
    return any({"device", "buffer"} & found.errors.keys() for found in measurements)


def report(examined: Examination) -> str:
    """Tables of nodes and bandwidths, versions, findings, and the nodes to leave out, for people."""
    findings = examined.findings
    versions = usual_versions(examined.measurements)
    parts = [
        _columns(_node_rows(examined)),
        _columns(_bandwidth_rows(examined)),
        "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
        "\n".join(map(str, findings)) or "nothing to complain about",
        _exclude_text(findings),
    ]
    return "\n\n".join(part for part in parts if part)


def to_json(examined: Examination) -> dict[str, Any]:
    """All that was measured and concluded, as plain values."""
    findings = examined.findings
    return {
        "format": FORMAT,
        "time": time.time(),
        "measurements": [dataclasses.asdict(found) for found in examined.measurements],
        "pairs": [dataclasses.asdict(pair) for pair in examined.pairs],
        "all_reduce_s": all_reduce_medians(examined.measurements),
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "exclude": to_exclude(findings),
    }


def _exclude_text(findings: Sequence[Finding]) -> str:
    nodes = to_exclude(findings)
    if not nodes:
        return "nodes to --exclude: none"
    reasons = [f"  {node}: " + "; ".join(f.text for f in findings if f.node == node and f.severe) for node in nodes]
    return "\n".join([f"nodes to --exclude: {','.join(nodes)}", *reasons])


def _node_rows(examined: Examination) -> list[list[str]]:
    heads = ["node", "ranks", "device", "GPU GiB free", "host GiB free", "product ms", "write MiB/s", "disk GiB free"]
    rows = [[*heads, "clock ms", "pair GiB/s", "found"]]
    findings = examined.findings
    for node, found in by_node(examined.measurements).items():
        worst = min((f.severity for f in findings if f.node == node), key=SEVERITIES.index, default="ok")
        first = found[0]
        rows.append(
            [
                node,
                str(len(found)),
                _devices(found),
                _gib([rank.device.free_bytes for rank in found if rank.device and rank.device.kind == "cuda"]),
                _gib([rank.memory.available_bytes for rank in found if rank.memory]),
                _number([1e3 * rank.compute_s for rank in found if rank.compute_s], max),
                _number([first.disk.written_bytes / MIB / first.disk.seconds] if first.disk else [], min),
                _gib([first.disk.free_bytes] if first.disk else []),
                f"{1e3 * first.clock.ahead_s:+.1f}" if first.clock else "-",
                _number(_pair_speeds(examined.pairs, node), max),
                worst,
            ]
        )
    return rows


def _devices(found: Sequence[Measurement]) -> str:
    names = dict.fromkeys(rank.device.name if rank.device else "none" for rank in found)
    return ", ".join(names)


def _pair_speeds(pairs: Sequence[Pair], node: str) -> list[float]:
    """GiB per second with each partner (algorithm bandwidth)."""
    return [PAIR_BYTES / pair.seconds / GIB for pair in pairs if node in pair.nodes and pair.seconds]


def _bandwidth_rows(examined: Examination) -> list[list[str]]:
    medians = all_reduce_medians(examined.measurements)
    if not medians:
        return []
    from hpc.health.fabric import bandwidths, size_text

    members = len(examined.measurements)
    rows = [["all-reduce of", "ms", "algorithm GiB/s", "bus GiB/s"]]
    for size, seconds in medians.items():
        speeds = bandwidths(int(size), seconds, members)
        rows.append([size_text(int(size)), f"{1e3 * seconds:.3g}", *(f"{speed / GIB:.3g}" for speed in speeds)])
    return rows


def _gib(values: Sequence[int]) -> str:
    return f"{min(values) / GIB:.1f}" if values else "-"


def _number(values: Sequence[float], worst: Any) -> str:
    return f"{worst(values):.3g}" if values else "-"


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned first column, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
