"""From what was measured on all ranks to what is wrong, and where: pure functions on plain data.

In:  one `Measurement` per rank, and the all-reduce times of pairs of nodes, if there are any.
Out: `Finding`s. Every rank holds the same measurements, so all of them come to the same findings.

What can only be judged by comparison (a slow node, another version, a missing GPU, a clock) is compared with what is
usual among the others, never with a number that holds for one kind of machine. No torch import.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hpc.health.probes import GIB, MIB, Measurement

T = TypeVar("T")
SLOW_FACTOR = 2.0
"""A device or a node takes so many times as long as the median of the others."""
SLOW_DISK_FACTOR, SLOW_DISK_FLOOR_S = 4.0, 1.0
"""Writes of a few MiB vary; one that takes less than the floor is of no account."""
CLOCK_S = 5.0
FEW_BYTES, FEW_FILES = 10 * GIB, 10_000
LITTLE_MEMORY = 2 * GIB
MUST_AGREE = ("python", "torch", "deepspeed", "cuda", "nccl", "code", "sources")
SHOULD_AGREE = ("driver", "kernel")
FATAL_PROBES = ("device", "compute", "disk", "data", "buffer")

SEVERITIES = ERROR, SLOW, WARNING = "error", "slow", "warning"


class PreflightError(RuntimeError):
    """The nodes of this job cannot run it together; the message names them and says what to type."""


@dataclass(frozen=True)
class Finding:
    node: str
    """Empty: the group as a whole."""
    severity: str
    """error: cannot work; slow: holds back all the others; warning: odd, but it works."""
    text: str

    @property
    def severe(self) -> bool:
        """A reason to leave the node out."""
        return self.severity in (ERROR, SLOW)

    def __str__(self) -> str:
        return f"{self.severity}: {self.node + ': ' if self.node else ''}{self.text}"


@dataclass(frozen=True)
class Pair:
    """One all-reduce between the ranks of two nodes."""

    nodes: tuple[str, str]
    seconds: float | None
    """None: it failed."""
    wrong_sums: int = 0
    error: str = ""

    @property
    def problem(self) -> str:
        """Empty if there is none."""
        if self.seconds is None:
            return f"fails: {self.error}"
        return "gives wrong sums" if self.wrong_sums else ""


def verdicts(measurements: Sequence[Measurement], pairs: Sequence[Pair] = ()) -> list[Finding]:
    """What is wrong, the worst first, then by node."""
    found: list[Finding] = []
    for rule in (_failures, _versions, _shared_gpus, _missing_gpus, _devices, _memory, _clocks, _disks, _compute):
        found += rule(measurements)
    found += _pairs(pairs)
    found += _sums(measurements, pairs)
    return sorted(dict.fromkeys(found), key=lambda finding: (SEVERITIES.index(finding.severity), finding.node))


def to_exclude(findings: Iterable[Finding]) -> list[str]:
    """Nodes with a severe finding."""
    return sorted({finding.node for finding in findings if finding.severe and finding.node})


def by_node(measurements: Iterable[Measurement]) -> dict[str, list[Measurement]]:
    """The measurements of each node, nodes in the order of their first rank."""
    nodes: dict[str, list[Measurement]] = {}
    for found in measurements:
        nodes.setdefault(found.node, []).append(found)
    return nodes


def usual_versions(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The version of each thing that most nodes have; in a tie rank 0's."""
    names = dict.fromkeys(name for found in measurements for name in found.versions)
    seen = {name: _usual(measurements, lambda found, name=name: found.versions.get(name)) for name in names}  # type: ignore[misc]
    return {name: version for name, version in seen.items() if version is not None}


def all_reduce_medians(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Time of an all-reduce of the whole group by its size in bytes: the median over the ranks."""
    sizes = dict.fromkeys(size for found in measurements for size in found.all_reduce_s)
    return {size: statistics.median(found.all_reduce_s[size] for found in measurements) for size in sizes}


def _failures(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    """What fails on all nodes is not a node's fault; data that is nowhere may just not be built yet."""
    nodes: dict[str, set[str]] = defaultdict(set)
    for found in measurements:
        for probe in found.errors:
            nodes[probe].add(found.node)
    num_nodes = len(by_node(measurements))
    everywhere = {probe for probe, failing in nodes.items() if len(failing) == num_nodes}
    said: set[str] = set()
    for found in measurements:
        for probe, error in found.errors.items():
            fatal = probe in FATAL_PROBES and not (probe == "data" and probe in everywhere)
            severity = ERROR if fatal else WARNING
            text = f"rank {found.rank}: {probe} could not be used or measured: {error}"
            if probe not in everywhere or num_nodes == 1:
                yield Finding(found.node, severity, text)
            elif probe not in said:
                said.add(probe)
                yield Finding("", severity, f"all nodes, as {text}")


def _versions(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    usual = usual_versions(measurements)
    for found in measurements:
        if not found.versions:
            continue  # the probe failed, and that is a finding of its own
        for names, severity in ((MUST_AGREE, ERROR), (SHOULD_AGREE, WARNING)):
            other = [name for name in names if found.versions.get(name) != usual.get(name)]
            if other:
                here = ", ".join(f"{name} {found.versions.get(name, 'missing')}" for name in other)
                there = ", ".join(f"{name} {usual.get(name, 'missing')}" for name in other)
                yield Finding(found.node, severity, f"has {here}; the others have {there}")


def _shared_gpus(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    users: dict[tuple[str, str], list[int]] = defaultdict(list)
    for found in measurements:
        if found.device and found.device.uuid:
            users[found.node, found.device.uuid].append(found.rank)
    for (node, uuid), ranks in users.items():
        if len(ranks) > 1:
            listed = ", ".join(map(str, ranks))
            yield Finding(node, ERROR, f"ranks {listed} share one GPU ({uuid}): it shows fewer GPUs than it has ranks")


def _missing_gpus(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    usual = _usual(measurements, lambda found: found.device.visible if found.device else None) or 0
    for found in measurements:
        device = found.device
        if device and device.kind == "cuda" and device.visible < usual:
            yield Finding(found.node, ERROR, f"shows {device.visible} GPUs; the others show {usual}")


def _devices(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    usual = _usual(measurements, lambda found: found.device.name if found.device else None)
    for found in measurements:
        device = found.device
        if device is None:
            continue
        if device.name != usual:
            yield Finding(found.node, WARNING, f"has {device.name}; the others have {usual}")
        if device.free_bytes < device.total_bytes / 2:
            yield Finding(
                found.node,
                WARNING,
                f"rank {found.rank}: its GPU has only {device.free_bytes / GIB:.1f} of "
                f"{device.total_bytes / GIB:.1f} GiB free: something else uses it (see nvidia-smi there)",
            )


def _memory(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    for node, found in by_node(measurements).items():
        known = [rank.memory.available_bytes for rank in found if rank.memory]
        if known and min(known) < LITTLE_MEMORY:
            yield Finding(node, WARNING, f"only {min(known) / GIB:.1f} GiB of host memory are left to its ranks")


def _clocks(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    known = {found.node: found.clock for found in measurements if found.clock}
    if not known:
        return
    middle = statistics.median_low([clock.ahead_s for clock in known.values()])  # rank 0's own clock may be the odd one
    for node, clock in known.items():
        ahead = clock.ahead_s - middle
        if abs(ahead) > CLOCK_S + clock.uncertainty_s:
            direction = "ahead of" if ahead > 0 else "behind"
            yield Finding(node, WARNING, f"its clock is {abs(ahead):.0f} s {direction} the others': times will mislead")


def _disks(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    known = {found.node: found.disk for found in measurements if found.disk}
    for node, disk in known.items():
        if disk.free_bytes < FEW_BYTES:
            yield Finding(node, WARNING, f"only {disk.free_bytes / GIB:.1f} GiB are free in the run folder")
        if disk.free_files is not None and disk.free_files < FEW_FILES:
            yield Finding(node, WARNING, f"only {disk.free_files} inodes are free in the run folder's file system")
    for node, factor in _slower({node: disk.seconds for node, disk in known.items()}, SLOW_DISK_FACTOR):
        disk = known[node]
        if disk.seconds > SLOW_DISK_FLOOR_S:
            speed = f"{disk.written_bytes / MIB / disk.seconds:.1f} MiB/s"
            yield Finding(node, WARNING, f"writes {speed}: {factor:.1f} times as long as the median of the others")


def _compute(measurements: Sequence[Measurement]) -> Iterator[Finding]:
    for found in measurements:
        if found.wrong_products:
            yield Finding(found.node, ERROR, f"rank {found.rank}: its device computes wrong matrix products")
    known = {found.rank: found.compute_s for found in measurements if found.compute_s is not None}
    ranks = {found.rank: found for found in measurements}
    for rank, factor in _slower(known, SLOW_FACTOR):
        found = ranks[rank]
        on_gpu = found.device and found.device.kind == "cuda"  # a CPU is shared, and what it does meanwhile varies
        text = f"rank {rank}: a matrix product takes {factor:.1f} times as long as the median of the others"
        yield Finding(found.node, SLOW if on_gpu else WARNING, text)


def _pairs(pairs: Sequence[Pair]) -> Iterator[Finding]:
    """A bad node is bad with every partner; its partners are not, with another one."""
    of_node: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for node in pair.nodes:
            of_node[node].append(pair)
    yield from _broken_pairs(pairs, of_node)
    best = {
        node: min(times)
        for node, mine in of_node.items()
        if (times := [pair.seconds for pair in mine if pair.seconds is not None])
    }
    for node, factor in _slower(best, SLOW_FACTOR):
        text = f"all-reduce with its best partner takes {factor:.1f} times as long as the median of the other nodes'"
        yield Finding(node, SLOW, text)


def _broken_pairs(pairs: Sequence[Pair], of_node: Mapping[str, list[Pair]]) -> Iterator[Finding]:
    """Whose fault it is can be told of a node that has several partners and fails with all of them."""
    broken = [pair for pair in pairs if pair.problem]
    guilty = {node for node, mine in of_node.items() if len(mine) > 1 and all(pair.problem for pair in mine)}
    for node in sorted(guilty):
        yield Finding(node, ERROR, f"all-reduce with every other node {of_node[node][0].problem}")
    for pair in broken:
        if not guilty & set(pair.nodes):
            yield Finding("", ERROR, f"all-reduce between {' and '.join(pair.nodes)} {pair.problem}")


def _sums(measurements: Sequence[Measurement], pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Wrong sums of the whole group do not tell whose fault they are."""
    ranks = [str(found.rank) for found in measurements if found.wrong_sums]
    if ranks:
        hint = "" if pairs else "; find the bad node with: python hpc/launch.py doctor --nodes N"
        yield Finding("", ERROR, f"all-reduce over all ranks gives wrong sums on {len(ranks)} ranks{hint}")


def _slower(seconds: Mapping[T, float], factor: float) -> Iterator[tuple[T, float]]:
    """Those that take at least `factor` times as long as the median of the others."""
    for name, mine in seconds.items():
        others = [other for key, other in seconds.items() if key != name]
        if others and mine >= factor * statistics.median(others) > 0:
            yield name, mine / statistics.median(others)


def _usual(measurements: Sequence[Measurement], value: Callable[[Measurement], Any]) -> Any:
    """The value that most nodes have (those without one do not count); in a tie that of the lowest rank."""
    votes: Counter[Any] = Counter()
    for ranks in by_node(measurements).values():
        votes.update([known for found in ranks if (known := value(found)) is not None][:1])
    return votes.most_common(1)[0][0] if votes else None
