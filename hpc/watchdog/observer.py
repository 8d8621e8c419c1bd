"""The observer of a node: `python -m hpc.watchdog.observer SPEC_JSON`, light, and deaf to a scheduler's signals.

In:  heartbeats and /proc of this node's ranks, their dumps and the other nodes' records in the run folder.
Out: node-HOST.json when a rank is overdue (here, or on another node), diagnosis.txt from the observer of the lowest
     rank, and then SIGKILL to the ranks of a node with an overdue one. It ends when its ranks have ended.

    look --overdue or called--> examine --> node-HOST.json --> wait for the others' --> diagnosis.txt --> abort
      ^------------------------------ "back again", if a beat comes before that -------------------------'

Everything that touches the run folder has a time limit: the file system may be what hangs.
"""

from __future__ import annotations

import collections
import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc.watchdog import dumps, logs, proc, records
from hpc.watchdog.heartbeat import LEFT, Beat, Pulse
from hpc.watchdog.records import DIAGNOSIS, NodeRecord
from hpc.watchdog.spec import DUMP_SIGNAL, SURVIVED, ObserverSpec
from hpc.watchdog.verdict import RankRecord, diagnose, judge

LOOK_S = 10.0
"""Between two looks whether another node calls: a directory listing of a shared file system."""
SAMPLES, SAMPLE_S = 4, 0.1
ANSWER_S = 15.0
"""How long the run folder may take for what needs milliseconds."""


@dataclass
class Patient:
    """A rank under observation."""

    pulse: Pulse
    beat: Beat
    dumped: int = 0
    """Bytes of its dump file that belong to what is over."""
    alive: bool = True

    @property
    def rank(self) -> int:
        return self.pulse.identity.rank


class Observer:
    def __init__(self, spec: ObserverSpec) -> None:
        self.spec = spec
        self.folder = records.hang_folder(Path(spec.run_dir), spec.attempt)
        self.patients: dict[int, Patient] = {}
        self._suspended: collections.deque[tuple[float, float]] = collections.deque(maxlen=100)
        """When this node was suspended: the end, and how many seconds."""
        self._next_call = self._next_log_check = time.monotonic()
        self._quiet_until = -math.inf
        self._reported: dict[int, int] = {}
        """Overdue ranks that are in a record, with the count of their last beat."""
        self._answered: dict[str, tuple[int, int]] = {}
        """Calls of other nodes, by file and version."""
        self._answer_ends = math.inf
        """When a record counts no more that was only written because another node called."""
        self._busy: threading.Thread | None = None

    def run(self) -> None:
        """Until all ranks of this node have left or died."""
        self._take_back()
        while True:
            self._look()
            self._note_recovered()
            if self._is_over():
                break
            self._limit_logs()
            if self.spec.judges:
                self._judge()
            self._rest()
        for patient in self.patients.values():
            patient.pulse.remove()
        ranks = list(self.patients)
        self._within(ANSWER_S, lambda: records.tidy(Path(self.spec.run_dir), self.spec.attempt, ranks))

    # -- look ------------------------------------------------------------------------------------------------------

    @property
    def _call_s(self) -> float:
        return min(LOOK_S, self.spec.gather_s / 3)

    def _is_over(self) -> bool:
        """Whether all ranks have left or died; those that were too quick to be seen took their folder with them."""
        if not self.patients:
            return not Path(self.spec.heartbeats).is_dir()
        return not any(patient.alive for patient in self.patients.values())

    def _rest(self) -> None:
        """Sleep until the next look; the time of a suspended node counts for none of its ranks."""
        began = time.monotonic()
        time.sleep(self.spec.poll_s)
        slept = time.monotonic() - began
        if slept > self.spec.poll_s + self.spec.stall_s:
            self._suspended.append((began + slept, slept))

    def _look(self) -> None:
        """Read all heartbeats; find new ranks."""
        if sum(patient.alive for patient in self.patients.values()) < self.spec.local_world_size:
            self._find()
        for patient in self.patients.values():
            patient.beat = patient.pulse.read()
            patient.alive = patient.beat.phase != LEFT and patient.pulse.alive()
        with contextlib.suppress(OSError):
            os.utime(self.spec.heartbeats)  # in use: another attempt must not sweep it away

    def _find(self) -> None:
        """Ranks that are new, or new in the place of a dead one."""
        for path in Path(self.spec.heartbeats).glob("rank-*"):
            with contextlib.suppress(OSError, ValueError):
                pulse = Pulse(path)
                known = self.patients.get(pulse.identity.rank)
                if known and known.pulse.inode == pulse.inode:
                    pulse.close()
                else:
                    self.patients[pulse.identity.rank] = Patient(pulse, pulse.read())

    def _silent_s(self, patient: Patient) -> float:
        """Seconds since its last beat, without those in which this node was suspended."""
        last = patient.beat.time
        return time.monotonic() - last - sum(min(lost, max(0.0, end - last)) for end, lost in self._suspended)

    # -- judge -----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        now = time.monotonic()
        if now < self._quiet_until:
            return
        late = self.spec.slack_s + self.spec.poll_s  # the rank's own dump comes first
        overdue = {
            patient.rank: patient.beat.count
            for patient in self.patients.values()
            if patient.alive and self._silent_s(patient) > patient.beat.patience + late
        }
        new = any(self._reported.get(rank) != count for rank, count in overdue.items())
        if new or self._is_called(now):
            self._reported = overdue
            self._answer_ends = math.inf if overdue else now + 3 * self.spec.gather_s
            self._handle(overdue)
        elif now > self._answer_ends:
            self._answer_ends = math.inf
            self._take_back()

    def _is_called(self, now: float) -> bool:
        """Whether another node has written a record that this one has not answered."""
        if now < self._next_call or self.spec.local_world_size == self.spec.world_size:
            return False
        self._next_call = now + self._call_s
        calls: dict[str, tuple[int, int]] = {}
        if not self._within(ANSWER_S, lambda: calls.update(self._calls())):
            return False
        fresh = calls.items() - self._answered.items()
        self._answered = calls
        return bool(fresh)

    def _calls(self) -> dict[str, tuple[int, int]]:
        found = records.signatures(self.folder, "node-*.json")
        found.pop(records.node_path(self.folder, self.spec.host).name, None)
        return found

    def _handle(self, overdue: dict[int, int]) -> None:
        """Record, diagnose together with the other nodes, and abort unless somebody has come back meanwhile."""
        if not self._within(2 * self.spec.gather_s + ANSWER_S, lambda: self._report(overdue)):
            self._tell(f"no record in {self.folder}, which does not answer or refuses; " + self._words(overdue))
        self._look()
        if overdue and self.spec.abort and not self._back(overdue):
            self._abort()

    def _words(self, overdue: dict[int, int]) -> str:
        """What can be said about overdue ranks without the run folder."""
        told = []
        for patient in (self.patients[rank] for rank in overdue):
            identity = patient.pulse.identity
            state = proc.look(identity.pid, identity.started)
            found = judge(identity, patient.beat, self.spec.host, self._silent_s(patient), [state], None)
            told.append(f"{found.name} is {found.verdict}, {found.heartbeat}")
        return "; ".join(told) or "another node called"

    def _back(self, overdue: dict[int, int]) -> list[int]:
        """Ranks that have beaten since."""
        return [rank for rank, count in overdue.items() if self.patients[rank].pulse.read().count != count]

    def _note_recovered(self) -> None:
        """Say who came back; who did not gets a little time, since he may have waited for the one who did."""
        if not (back := self._back(self._reported)):
            return
        back = [rank for rank in back if not self._only_left(rank)]
        self._reported = {}
        self._quiet_until = time.monotonic() + self.spec.gather_s
        for rank in back:
            beat = self.patients[rank].beat
            line = f"recovered: rank {rank} on {self.spec.host} is back at step {beat.step} ({beat.phase})"
            self._tell(line)
            self._within(ANSWER_S, lambda line=line: self._append(line))  # type: ignore[misc]
        if back:
            self._take_back()

    def _only_left(self, rank: int) -> bool:
        """It has failed since, as ranks do when those that they wait for are ended; its last beat says no more."""
        beat = self.patients[rank].pulse.read()
        return beat.phase == LEFT and beat.count == self._reported[rank] + 1

    def _take_back(self) -> None:
        """What was recorded is over."""

        def work() -> None:
            records.take_back(self.folder, self.spec.host)
            for patient in self.patients.values():
                patient.dumped = self._dump_size(patient)

        self._within(ANSWER_S, work)

    def _append(self, line: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / DIAGNOSIS).open("a") as file:
            file.write(line + "\n")

    def _abort(self) -> None:
        alive = [patient for patient in self.patients.values() if patient.alive]
        self._tell(f"ending rank {', '.join(str(patient.rank) for patient in alive)} on {self.spec.host}")
        for patient in alive:
            if patient.pulse.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(patient.pulse.identity.pid, signal.SIGKILL)

    # -- record ----------------------------------------------------------------------------------------------------

    def _report(self, overdue: dict[int, int]) -> None:
        """This node's record, then the diagnosis of all: by this node, or by the one of the lowest rank."""
        before = records.signatures(self.folder, DIAGNOSIS)
        mine = NodeRecord(self.spec.host, self._examine())
        records.write_node(self.folder, mine)
        nodes = self._gather(mine, overdue)
        if nodes[0].host != self.spec.host and (not overdue or self._diagnosed(before, overdue)):
            return
        if self._back(overdue):
            return
        ranks = [record for node in nodes for record in node.ranks]
        silent = _run_nodes(Path(self.spec.run_dir), self.spec.attempt) - {node.host for node in nodes}
        diagnosis = diagnose(ranks, self.spec.world_size, sorted(silent))
        records.write_durably(self.folder / DIAGNOSIS, diagnosis + "\n")
        self._tell(f"{diagnosis} (dumps and records: {self.folder})")

    def _gather(self, mine: NodeRecord, overdue: dict[int, int]) -> list[NodeRecord]:
        """The records of all nodes, or those that come in time."""
        until = time.monotonic() + self.spec.gather_s
        while True:
            nodes = [node for node in records.read_nodes(self.folder) if node.host != mine.host]
            nodes = sorted([*nodes, mine], key=lambda node: node.lowest)
            complete = sum(len(node.ranks) for node in nodes) >= self.spec.world_size
            if complete or time.monotonic() > until or self._back(overdue):
                return nodes
            time.sleep(self.spec.poll_s)

    def _diagnosed(self, before: dict[str, tuple[int, int]], overdue: dict[int, int]) -> bool:
        """Wait for the diagnosis of another node."""
        until = time.monotonic() + self.spec.gather_s
        while time.monotonic() < until and not self._back(overdue):
            if records.signatures(self.folder, DIAGNOSIS) not in ({}, before):
                return True
            time.sleep(self.spec.poll_s)
        return False

    def _examine(self) -> list[RankRecord]:
        """Evidence about every rank of this node: /proc several times, and the position in its latest dump."""
        patients = sorted(self.patients.values(), key=lambda patient: patient.rank)
        samples: dict[int, list[proc.ProcessState | None]] = {patient.rank: [] for patient in patients}
        for _ in range(SAMPLES):
            for patient in patients:
                identity = patient.pulse.identity
                samples[patient.rank].append(proc.look(identity.pid, identity.started))
            time.sleep(SAMPLE_S)
        self._ask_for_dumps([patient for patient in patients if samples[patient.rank][-1] is not None])
        found = []
        for patient in patients:
            text = self._dump_path(patient).read_bytes()[patient.dumped :] if self._dump_size(patient) else b""
            position = dumps.position(text.decode(errors="replace"), patient.pulse.identity.thread)
            silent_s = self._silent_s(patient)
            found.append(
                judge(patient.pulse.identity, patient.beat, self.spec.host, silent_s, samples[patient.rank], position)
            )
        return found

    def _ask_for_dumps(self, patients: Iterable[Patient]) -> None:
        """Let those whose own timer has not just done it dump their threads now; a stopped one cannot."""
        asked = []
        for patient in patients:
            size = self._dump_size(patient)
            has_dumped = size > patient.dumped and self._silent_s(patient) > patient.beat.patience
            if not has_dumped and patient.beat.phase != LEFT and patient.pulse.alive():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(patient.pulse.identity.pid, DUMP_SIGNAL)
                    asked.append((patient, size))
        until = time.monotonic() + (SAMPLES * SAMPLE_S if asked else 0)
        while time.monotonic() < until and any(self._dump_size(patient) <= size for patient, size in asked):
            time.sleep(SAMPLE_S / 2)
        time.sleep(SAMPLE_S)  # for the rest of a dump that has begun

    def _dump_path(self, patient: Patient) -> Path:
        return self.folder / f"rank-{patient.rank}.txt"

    def _dump_size(self, patient: Patient) -> int:
        with contextlib.suppress(OSError):
            return self._dump_path(patient).stat().st_size
        return 0

    # -- the rest --------------------------------------------------------------------------------------------------

    def _limit_logs(self) -> None:
        now = time.monotonic()
        if not self.spec.log_limit_bytes or now < self._next_log_check:
            return
        self._next_log_check = now + self.spec.log_check_s
        for name in self.spec.log_files:
            self._within(ANSWER_S, lambda name=name: logs.limit(Path(name), self.spec.log_limit_bytes))  # type: ignore[misc]

    def _within(self, seconds: float, work: Callable[[], object]) -> bool:
        """Do what needs the run folder in a thread; False if it failed, or is not done in time."""
        if self._busy is not None:
            self._busy.join(seconds)
            if self._busy.is_alive():
                return False
        done: list[bool] = []

        def task() -> None:
            try:
                work()
            except OSError as error:
                self._tell(str(error))
            else:
                done.append(True)

        self._busy = threading.Thread(target=task, daemon=True)
        self._busy.start()
        self._busy.join(seconds)
        return bool(done)

    def _tell(self, message: str) -> None:
        """One line in the output of the job."""
        with contextlib.suppress(OSError):
            os.write(2, f"watchdog: {message}\n".encode())


def _run_nodes(run_dir: Path, attempt: int) -> set[str]:
    """The nodes of the attempt, if the run knows them."""
    from hpc.jobs.attempts import read_history

    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        return {node for known in read_history(run_dir).attempts if known.number == attempt for node in known.nodes}
    return set()


def main(argument: str) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SURVIVED)
    Observer(ObserverSpec(**json.loads(argument))).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
