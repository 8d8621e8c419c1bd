"""A whole schedule in a real queue, compressed to minutes: the run, what is done to it, the same run left in peace.

In:  a cluster and stored clips, as many as make whole epochs of the schedule.
Out: two run folders; the disturbed one has interruptions.jsonl (attempt, kind, ranks), for people and pictures.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.slurm import rehearsal_witness
from tests.slurm.cluster import SlurmCluster
from tests.slurm.jobs import PATIENCE_S, ROOT, ClusterRun, Recovery

STEPS, CONSTANT = 400, 260
EVERY = 20
"""Steps between checkpoints."""
GLOBAL_BATCH, CLIPS = 12, 1200
EPOCHS = STEPS * GLOBAL_BATCH // CLIPS
LR = 4e-3
SCHEDULE = (
    "size=test",
    f"train.steps={STEPS}",
    f"train.global_batch={GLOBAL_BATCH}",
    f"optimizer.lr={LR}",
    f"optimizer.constant_steps={CONSTANT}",
    f"checkpoint.every={EVERY}",
    "optimizer.eps=300",  # above most gradients: else Adam makes as much of a rounding error as of a gradient
)
SIGNAL_DELAY_S = 30
INTERRUPTIONS = "interruptions.jsonl"


class Rehearsal(ClusterRun):
    """One run through the whole schedule; its ranks tell what they consume.

    Args:
        witness: a folder of one's own for sitecustomize.py.
    """

    def __init__(self, cluster: SlurmCluster, folder: Path, data: Path, witness: Path) -> None:
        super().__init__(cluster, folder, data)
        self.recoveries: list[Recovery] = []
        self.ranks = 4
        shutil.copyfile(rehearsal_witness.__file__, witness / "sitecustomize.py")
        self.environ = {**cluster.environ, "PYTHONPATH": str(witness)}

    def fresh_words(self) -> tuple[str, ...]:
        return (*SCHEDULE, f"data.root={self.data}")

    def command(self, *arguments: str, code: int = 0, environ: dict[str, str] | None = None) -> str:
        return super().command(*arguments, code=code, environ={**self.environ, **(environ or {})})

    # -- interruptions ---------------------------------------------------------------------------------------------

    def interrupt(
        self, kind: str, at_step: int, harm: Callable[[], object], repair: Callable[[], object] | None = None
    ) -> None:
        """Do something to the run once it has come to a step, and wait until it trains again.

        Args:
            repair: what somebody does once the ranks have ended.
        """
        self._train_to(at_step)
        line = {"attempt": self.attempt(), "kind": kind, "ranks": self.ranks}
        with (self.folder / INTERRUPTIONS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.recoveries.append(self.survive(kind, harm, repair))

    def cancel(self, at_step: int, nodes: int) -> None:
        """A person cancels the job by SLURM's own command, and goes on with another number of nodes."""
        self.interrupt(
            "scancel",
            at_step,
            lambda: self.cluster.run("scancel", self.job),
            lambda: self._go_on("CANCELLED", nodes),
        )

    def stop(self, at_step: int, nodes: int) -> None:
        """A person lets the run stop by itself, and goes on with another number of nodes."""
        self.interrupt("STOP file", at_step, (self.folder / "STOP").touch, lambda: self._go_on("COMPLETED", nodes))

    def lose_node(self, kind: str, at_step: int, rank: int, harm: Callable[[str], None]) -> None:
        """The node of a rank is lost, and comes back once SLURM has noticed."""
        self._train_to(at_step)
        node = self.history().attempts[-1].nodes[rank]
        self.interrupt(kind, at_step, lambda: harm(node), lambda: self._mend(node))

    def _train_to(self, step: int) -> None:
        self.wait(f"step {step}", lambda: self.last_step() >= step)

    def _go_on(self, once: str, nodes: int) -> None:
        self.wait_for_state(once)
        (self.folder / "STOP").unlink(missing_ok=True)
        self.ranks = nodes
        self.resume(nodes, "--partition", "low")

    def _mend(self, node: str) -> None:
        self.wait_for_state("PENDING")
        self.cluster.resume(node)

    # -- looking ---------------------------------------------------------------------------------------------------

    def surviving_attempts(self) -> dict[int, int]:
        """Step -> the attempt whose step it is that led to the present weights."""
        found: dict[int, int] = {}
        for record in sorted([*self.records("train"), *self.records("resume")], key=lambda record: record["seq"]):
            if record["kind"] == "resume":
                found = {step: attempt for step, attempt in found.items() if step <= record["step"]}
            else:
                found[record["step"]] = record["attempt"]
        return found

    def consumed(self) -> dict[int, list[tuple[int, str]]]:
        """Position and key of each clip that a surviving step consumed, over all ranks, in the order of positions."""
        attempts = self.surviving_attempts()
        found: dict[int, list[tuple[int, str]]] = {step: [] for step in attempts}
        for line in rehearsal_witness.consumed(self.folder):
            if attempts.get(line["step"]) == line["attempt"]:
                found[line["step"]] += zip(line["positions"], line["keys"], strict=True)
        return {step: sorted(clips) for step, clips in found.items()}


class InPeace:
    """The same run on four ranks of this machine, which nobody disturbs."""

    def __init__(self, run: Rehearsal) -> None:
        self.run = run
        self._output = run.folder.with_name("in-peace.txt")
        words = (f"run={run.folder}", *run.fresh_words(), "watchdog.enabled=false")
        with self._output.open("wb") as output:
            self._launcher = subprocess.Popen(
                [sys.executable, "hpc/launch.py", "--ranks", "4", *words],
                cwd=ROOT,
                env=run.environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def finish(self) -> None:
        code = self._launcher.wait(timeout=PATIENCE_S)
        assert code == 0, self._output.read_text()[-3000:]

    def end(self) -> None:
        self._launcher.kill()
        self._launcher.wait()


def kill_rank(run: Rehearsal, rank: int, number: int) -> None:
    os.kill(run.cluster.tasks(run.job)[rank], number)


def learning_rate(step: int) -> float:
    """Of the schedule at a step counted from 1, in closed form."""
    return LR * min(1.0, (STEPS - step) / (STEPS - CONSTANT))


def curve(run: ClusterRun, name: str) -> list[Any]:
    """One scalar of all surviving steps."""
    return [scalars[name] for _, scalars in sorted(run.surviving().items())]
