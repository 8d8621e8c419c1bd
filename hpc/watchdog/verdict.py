"""Who hangs, in words: evidence about each rank goes in, a paragraph for people comes out. Pure functions.

ProcessState, Position, Beat --judge--> RankRecord (also node-HOST.json) --diagnose--> diagnosis.txt
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpc.watchdog.dumps import Position
from hpc.watchdog.heartbeat import LEFT, Beat, Identity
from hpc.watchdog.proc import ProcessState

STOPPED, DEAD, GONE, IO, COLLECTIVE, RUNNING = "stopped", "dead", "left", "io", "collective", "running"
CULPRITS = (STOPPED, DEAD, GONE, IO)
"""Verdicts that explain by themselves why the other ranks wait, the clearest first."""


@dataclass(frozen=True)
class RankRecord:
    """What was found out about one rank."""

    rank: int
    host: str
    pid: int
    step: int
    """Of its last heartbeat, as is the phase."""
    phase: str
    silent_s: float
    overdue: bool
    kind: str
    state: str = ""
    wchan: str = ""
    collective: str = ""
    where: str = ""
    function: str = ""
    kernel_stack: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host} (pid {self.pid})"

    @property
    def verdict(self) -> str:
        if self.kind == STOPPED:
            by = "by a debugger, state t" if self.state == "t" else "SIGSTOP, state T"
            return f"stopped ({by})"
        if self.kind == DEAD:
            return "dead"
        if self.kind == GONE:
            return "not there any more: it has ended its training in order"
        if self.kind == IO:
            at = f", at {self.where}" if self.where else ""
            return f"waiting on I/O (state D, {self.wchan or 'wait channel unknown'}{at})"
        if self.kind == COLLECTIVE:
            return f"waiting in a collective ({self.collective}, {self.where})"
        return f"running in {self.phase} ({self.place})"

    @property
    def place(self) -> str:
        """Where its thread is, as far as known."""
        if not self.where:
            return f"no dump of its threads, state {self.state or 'unknown'}"
        return f"{self.where}, in {self.function}" if self.function else self.where

    @property
    def heartbeat(self) -> str:
        return f"last heartbeat at step {self.step} ({self.phase}), {self.silent_s:.0f} s ago"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"silent_s": round(self.silent_s, 1), "verdict": self.verdict}


def judge(
    identity: Identity,
    beat: Beat,
    host: str,
    silent_s: float,
    samples: Sequence[ProcessState | None],
    dump: Position | None,
) -> RankRecord:
    """
    Args:
        samples: the process's state, looked at several times: a short wait on I/O is no finding.
        dump: from the rank's own dump of its threads, if it could make one.
    """
    last = samples[-1]
    return RankRecord(
        rank=identity.rank,
        host=host,
        pid=identity.pid,
        step=beat.step,
        phase=beat.phase,
        silent_s=silent_s,
        overdue=silent_s > beat.patience,
        kind=_kind(beat, samples, dump),
        state=last.state if last else "",
        wchan=last.wchan if last else "",
        collective=dump.collective if dump else "",
        where=dump.where if dump else "",
        function=dump.function if dump else "",
        kernel_stack=last.stack if last else (),
    )


def _kind(beat: Beat, samples: Sequence[ProcessState | None], dump: Position | None) -> str:
    last = samples[-1]
    if beat.phase == LEFT:
        return GONE
    if last is None or last.state in "ZX":
        return DEAD
    if last.state in "Tt":
        return STOPPED
    if all(sample is not None and sample.state == "D" for sample in samples):
        return IO
    return COLLECTIVE if dump and dump.collective else RUNNING


def diagnose(records: Sequence[RankRecord], world_size: int, silent_nodes: Sequence[str] = ()) -> str:
    """One paragraph, who is to blame first.

    Args:
        silent_nodes: nodes of the run that wrote no record.
    """
    records = sorted(records, key=lambda record: record.rank)
    missing = sorted(set(range(world_size)) - {record.rank for record in records})
    waiting = [record for record in records if record.kind == COLLECTIVE]
    culprits = [record for kind in CULPRITS for record in records if record.kind == kind]
    sentences = [f"{record.name} is {record.verdict}, {record.heartbeat}" for record in culprits]
    if missing:
        nodes = f" (no record from {', '.join(silent_nodes)})" if silent_nodes else ""
        sentences.append(f"no word from {_ranks(missing)}{nodes}: dead, or the node or its observer is")
    running = [record for record in records if record.kind == RUNNING]
    if running and not culprits and not missing:
        sentences.append("no rank is stopped or dead")
    alone = "does not wait for the others: it is " if waiting else "is "
    sentences += [f"{record.name} {alone}{record.verdict}, {record.heartbeat}" for record in running]
    return "; ".join(sentences + _waiting(waiting, bool(sentences)))


def _waiting(waiting: Sequence[RankRecord], explained: bool) -> list[str]:
    """Who waits where; if nobody else is to blame, what that can mean."""
    groups: dict[tuple[str, str, int], list[int]] = {}
    for record in waiting:
        groups.setdefault((record.collective, record.where, record.step), []).append(record.rank)
    told = [
        f"{_ranks(ranks)} {'wait' if len(ranks) > 1 else 'waits'} in a collective: {call} ({where}), step {step}"
        for (call, where, step), ranks in groups.items()
    ]
    if explained or not told:
        return told
    if len(groups) > 1:
        return ["no rank is stopped or dead: all wait, but not in the same collective at the same step", *told]
    return ["no rank is stopped or dead: all wait in the same collective, so look at the network between them", *told]


def _ranks(ranks: Iterable[int]) -> str:
    """rank 2; ranks 0, 1, 3; ranks 0-6, 8."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 3 else [str(rank) for rank in run] for run in runs]
    count = sum(len(run) for run in runs)
    return f"rank{'s' if count > 1 else ''} {', '.join(part for run in parts for part in run)}"
