"""Before each attempt, in seconds: can these nodes run this job together?

In:  `World`, the run folder, where the data is. Out: `PreflightReport`, the same on all ranks, or `PreflightError` on
     all of them, which names the nodes and says what to type.

Local probes come first and never raise: what failed on one rank is gathered like any other result. Only when every
rank knows that all devices work do they enter an all-reduce, so that a broken one ends the job instead of hanging it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc.health import probes
from hpc.health.findings import (
    ERROR,
    WARNING,
    Finding,
    PreflightError,
    all_reduce_medians,
    by_node,
    to_exclude,
    usual_versions,
    verdicts,
)
from hpc.health.probes import GIB, KIB, MIB, Measurement

if TYPE_CHECKING:
    from hpc.distributed import World

WRITE_BYTES = MIB
SIZES = {KIB: 10, MIB: 5}
"""All-reduces: bytes, and how often."""
PRODUCT_SIZE, PRODUCTS = 2048, 10


@dataclass(frozen=True)
class PreflightReport:
    measurements: list[Measurement]
    """One per rank."""
    findings: list[Finding]
    seconds: float

    @property
    def warnings(self) -> list[str]:
        return [str(finding) for finding in self.findings]

    def journal(self) -> dict[str, Any]:
        """What is worth a line of the journal: nodes, versions, the worst of each number, the warnings."""
        nodes = by_node(self.measurements)
        disks = [found.disk for found in self.measurements if found.disk]
        clocks = [found.clock for found in self.measurements if found.clock]
        memories = [found.memory for found in self.measurements if found.memory]
        return {
            "seconds": self.seconds,
            "nodes": {node: len(ranks) for node, ranks in nodes.items()},
            "devices": sorted({found.device.name for found in self.measurements if found.device}),
            "versions": usual_versions(self.measurements),
            "memory_available_gib": min((memory.available_bytes for memory in memories), default=0) / GIB,
            "disk_free_gib": min((disk.free_bytes for disk in disks), default=0) / GIB,
            "disk_write_s": max((disk.seconds for disk in disks), default=0.0),
            "clock_skew_s": max((abs(clock.ahead_s) for clock in clocks), default=0.0),
            "all_reduce_s": all_reduce_medians(self.measurements),
            "warnings": self.warnings,
        }


def preflight(world: World, folder: Path, data_root: str | None) -> PreflightReport:
    """Probe all ranks and decide, alike on all of them; rank 0 prints the warnings. Collective.

    On GPUs this uses cuBLAS: call it after CUBLAS_WORKSPACE_CONFIG was set, if it is to be.

    Raises:
        PreflightError: something that cannot work; nodes to leave out are named.
    """
    start = time.monotonic()
    from hpc.health import fabric

    nodes = world.gather(probes.node_name())
    asking = [ranks[0] for ranks in fabric.first_ranks(nodes).values()]
    mine = probes.measure(world.rank, world.device)
    if world.rank in asking:
        mine.disk = mine.attempt("disk", lambda: probes.disk(folder, mine.node, WRITE_BYTES))
        if data_root:
            mine.attempt("data", lambda: probes.data_is_there(data_root))
    if world.device.type == "cuda":
        timed = mine.attempt("compute", lambda: probes.compute(world.device, PRODUCT_SIZE, PRODUCTS))
        mine.compute_s, mine.wrong_products = timed or (None, 0)
    buffer = mine.attempt("buffer", lambda: fabric.new_buffer(world.device, max(SIZES)))
    everyone = world.gather(mine)
    if world.size > 1 and not _cannot_work(verdicts(everyone)):
        assert buffer is not None
        mine.clock = fabric.clock(world, asking)
        mine.wrong_sums = fabric.wrong_sums(buffer, world.rank, world.size)
        mine.all_reduce_s = fabric.all_reduce_s(buffer, SIZES)
        everyone = world.gather(mine)
    findings = verdicts(everyone)
    if bad := _cannot_work(findings):
        raise PreflightError(_message(bad, len(set(nodes))))
    report = PreflightReport(everyone, [_as_warning(finding) for finding in findings], time.monotonic() - start)
    if world.rank == 0:
        for warning in report.warnings:
            print(f"preflight: {warning}", file=sys.stderr, flush=True)
    return report


def _cannot_work(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == ERROR]


def _as_warning(finding: Finding) -> Finding:
    """A slow node does not keep a run from going on; it is for `doctor` to say that it should be left out."""
    return Finding(finding.node, WARNING, finding.text)


def _message(bad: list[Finding], num_nodes: int) -> str:
    lines = ["these nodes cannot run this job together:", *(f"  {finding}" for finding in bad)]
    exclude = to_exclude(bad)
    if exclude and len(exclude) < num_nodes:
        lines.append(f"mend that, or leave them out: --exclude {','.join(exclude)}")
    return "\n".join(lines)
