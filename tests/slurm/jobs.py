"""A run as a SLURM job, seen and handled from a login node: launched, watched, harmed, measured.

Everything waits on facts (a line of the journal, a state in the queue), with patience for a slow machine.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hpc.jobs.attempts import History, read_history
from tests.slurm.cluster import SlurmCluster

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 240.0
EVERY = 10
"""Steps between checkpoints."""
STEPS = 1_000_000
"""More than any test trains: a run ends when the test has seen enough."""
GLOBAL_BATCH = 12
SMALL = ("size=test", f"train.global_batch={GLOBAL_BATCH}", f"checkpoint.every={EVERY}", "checkpoint.keep_last=1000")
SLOW_LEARNING = "optimizer.lr=1e-4"
"""Rounding, where it differs, grows from step to step: so it stays far below what another batch would do."""
TIMED = ("step_s", "frames_per_s", "data_wait_share", "data_wait_share_max", "memory_gib")
"""Scalars of the journal that the clock determines, not the weights and the samples."""


@dataclass(frozen=True)
class Recovery:
    """What a fault cost."""

    fault: str
    steps_recomputed: int
    seconds_to_training: float
    """From the fault to the first step that follows it."""
    seconds_to_end_of_ranks: float
    """From the fault until no rank of that attempt lives."""


class ClusterRun:
    """One run folder and its jobs."""

    def __init__(self, cluster: SlurmCluster, folder: Path, data: Path) -> None:
        self.cluster, self.folder, self.data = cluster, folder, data
        self.job = ""

    # -- launching -------------------------------------------------------------------------------------------------

    def command(self, *arguments: str, code: int = 0, environ: dict[str, str] | None = None) -> str:
        """Output of `python hpc/launch.py ...`."""
        done = subprocess.run(
            [sys.executable, "hpc/launch.py", *arguments],
            cwd=ROOT,
            env={**self.cluster.environ, **(environ or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def launch(self, *arguments: str, nodes: int = 4, environ: dict[str, str] | None = None) -> str:
        """Submit a job that starts the run; the launcher's output."""
        output = self.command(
            *self.where(nodes), f"run={self.folder}", *self.fresh_words(), *arguments, environ=environ
        )
        self.job = self.job_of(output)
        return output

    def resume(self, nodes: int = 4, *arguments: str) -> str:
        """Submit a job that continues it."""
        output = self.command("resume", str(self.folder), *self.where(nodes), *arguments)
        self.job = self.job_of(output)
        return output

    def fresh_words(self) -> tuple[str, ...]:
        """What makes it small, for the launcher."""
        return (*SMALL, SLOW_LEARNING, f"data.root={self.data}", f"train.steps={STEPS}")

    @staticmethod
    def where(nodes: int) -> tuple[str, ...]:
        return ("--nodes", str(nodes), "--gpus-per-node", "0", "--cpus-per-task", "1", "--mem", "2G")

    @staticmethod
    def job_of(output: str) -> str:
        found = re.search(r"submitted job (\d+)", output)
        assert found, output
        return found[1]

    # -- looking ---------------------------------------------------------------------------------------------------

    def records(self, kind: str) -> list[dict[str, Any]]:
        journal = self.folder / "metrics.jsonl"
        lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    def last_step(self) -> int:
        """Of the latest attempt that trains, which may be less than a former one's."""
        steps = self.records("train")
        return steps[-1]["step"] if steps else 0

    def attempt(self) -> int:
        """Number of the attempt that took the latest step."""
        steps = self.records("train")
        return steps[-1]["attempt"] if steps else 0

    def surviving(self) -> dict[int, dict[str, Any]]:
        """Scalars of each step that led to the present weights. AssertionError if a step is missing or there twice."""
        found: dict[int, dict[str, Any]] = {}
        journal = [*self.records("train"), *self.records("resume")]
        for record in sorted(journal, key=lambda record: record["seq"]):
            if record["kind"] == "resume":
                found = {step: scalars for step, scalars in found.items() if step <= record["step"]}
            else:
                assert record["step"] not in found, record
                found[record["step"]] = record["scalars"]
        assert sorted(found) == list(range(1, len(found) + 1))
        return found

    def checkpoints(self) -> dict[int, Path]:
        """Complete ones by step."""
        return {int(path.name[5:]): path for path in sorted((self.folder / "checkpoints").glob("step-*"))}

    def state_at(self, step: int) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(self.checkpoints()[step] / "state.pt", weights_only=True)
        return state

    def history(self) -> History:
        return read_history(self.folder)

    def log(self) -> str:
        """Rank 0's output, through all restarts of the job."""
        path = self.folder / "logs" / f"{self.job}_0_log.out"
        return path.read_text() if path.exists() else ""

    def job_state(self) -> str:
        return self.cluster.state(self.job)

    # -- waiting ---------------------------------------------------------------------------------------------------

    def wait(self, what: str, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {patience_s:.0f} s for {what}\n{self.situation()}")
            time.sleep(0.1)

    def wait_for_step(self, more: int, *, after_attempt: int = 0) -> int:
        """Wait until an attempt after that one has taken so many steps; the step where it stands."""

        def taken() -> bool:
            return sum(record["attempt"] > after_attempt for record in self.records("train")) >= more

        self.wait(f"{more} steps after attempt {after_attempt}", taken)
        return self.last_step()

    def wait_for_state(self, *states: str, patience_s: float = PATIENCE_S) -> str:
        self.wait(f"job {self.job} to be {' or '.join(states)}", lambda: self.job_state() in states, patience_s)
        return self.job_state()

    def situation(self) -> str:
        """For a person who reads why a test failed."""
        queue = self.cluster.run("squeue", "-a", "-t", "all", check=False)
        logs = [
            f"--- {path}\n{path.read_text()[-3000:]}" for path in sorted((self.folder / "logs").glob("*_0_log.out"))
        ]
        attempts = self.folder / "attempts.jsonl"
        return "\n".join([queue, attempts.read_text() if attempts.exists() else "no attempts", *logs])

    # -- faults ----------------------------------------------------------------------------------------------------

    def run_out_of_time(self, signal_delay_s: int, meanwhile: Untouched | None = None) -> float:
        """SLURM's own clock runs out, a minute or so from now; the ranks sleep until its signal. When that came.

        The limit is in whole minutes and SLURM looks at it every half minute, so it is set only here: no slow machine
        can come to it before.

        Args:
            meanwhile: another run that may have the processors.
        """
        ranks = self.cluster.tasks(self.job)
        for pid in ranks.values():
            os.kill(pid, signal.SIGSTOP)
        self._wait_for_state_of(ranks[0], "T")
        days, _, clock = self.cluster.show(self.job)["RunTime"].rpartition("-")
        hours, minutes, seconds = map(int, clock.split(":"))
        passed = int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds
        self.limit(math.ceil((passed + signal_delay_s + 15) / 60))
        with meanwhile.awake() if meanwhile else contextlib.nullcontext():
            self._wait_for_state_of(ranks[0], "RSDZX")
        woken = time.time()
        self.limit(60)
        return woken

    def limit(self, minutes: int) -> None:
        """The job's time limit, from its start."""
        self.cluster.run("scontrol", "update", f"jobid={self.job}", f"timelimit={minutes}")

    def preempt(self) -> str:
        """A job of more important people wants all the nodes, for a moment; its id."""
        options = ("--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null")
        return self.cluster.run("sbatch", *options, "--wrap", "sleep 1")

    def survive(self, fault: str, harm: Callable[[], object], repair: Callable[[], object] | None = None) -> Recovery:
        """Do something to the job that it survives, and wait until it has trained beyond a checkpoint again.

        Args:
            harm: may return the time at which it was really done.
            repair: what somebody does once the ranks have ended.
        """
        attempt, ranks = self.attempt(), set(self.cluster.tasks(self.job).values())
        assert ranks, self.situation()
        began = time.time()
        found = harm()
        began = found if isinstance(found, float) else began
        self.wait(f"the ranks to end after {fault}", lambda: not ranks & set(self.cluster.tasks(self.job).values()))
        ended = time.time()
        if repair is not None:
            repair()
        self.wait_for_step(EVERY + 4, after_attempt=attempt)
        before = max(record["step"] for record in self.records("train") if record["attempt"] == attempt)
        first = next(record for record in self.records("train") if record["attempt"] > attempt)
        recovery = Recovery(fault, before - first["step"] + 1, round(first["time"] - began, 1), round(ended - began, 1))
        note(recovery)
        return recovery

    def _wait_for_state_of(self, pid: int, letters: str) -> None:
        stat = Path(f"/proc/{pid}/stat")
        self.wait(
            f"process {pid} to be {letters}",
            lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] in letters,
        )


def note(recovery: Recovery) -> None:
    """Keep it for the benchmark record, if somebody makes one."""
    if path := os.environ.get("ODEVID_FAULT_TIMES"):
        with Path(path).open("a") as file:
            file.write(json.dumps(asdict(recovery)) + "\n")


class Untouched:
    """The same run on four ranks of this machine, which nobody disturbs.

    It sleeps unless it is wanted: the processors belong to the cluster.
    """

    def __init__(self, cluster: SlurmCluster, folder: Path, data: Path) -> None:
        self.run = ClusterRun(cluster, folder / "run", data)
        self._output = folder / "output"
        words = (f"run={self.run.folder}", *self.run.fresh_words(), "watchdog.enabled=false")
        with self._output.open("wb") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "hpc/launch.py", "--ranks", "4", *words],
                cwd=ROOT,
                env=cluster.environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def train_to(self, step: int) -> None:
        """Wake it until it has taken and saved that step."""
        with self.awake():
            self.run.wait(f"the local run to reach step {step}", lambda: self._has_saved(step))

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self._signal(signal.SIGCONT)
        yield
        self._signal(signal.SIGSTOP)

    def end(self) -> None:
        self._launcher.kill()
        self._launcher.wait()

    def _has_saved(self, step: int) -> bool:
        assert self._launcher.poll() is None, self._output.read_text()
        return self.run.last_step() >= step and max(self.run.checkpoints(), default=0) >= step // EVERY * EVERY

    def _signal(self, number: int) -> None:
        pid = self._launcher.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), number)


def assert_same_bits(run: ClusterRun, untouched: Untouched) -> None:
    """Losses of every step, and weights and moments at the last checkpoint that both have."""
    last = run.last_step()
    untouched.train_to(last)
    found, expected = run.surviving(), untouched.run.surviving()
    for step in range(1, last + 1):
        assert _learned(found[step]) == _learned(expected[step]), step
    compared = last // EVERY * EVERY
    mine, theirs = run.state_at(compared), untouched.run.state_at(compared)
    assert mine["samples_consumed"] == theirs["samples_consumed"] == compared * GLOBAL_BATCH
    torch.testing.assert_close(mine["engines"], theirs["engines"], rtol=0, atol=0)


def _learned(scalars: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scalars.items() if name not in TIMED}
