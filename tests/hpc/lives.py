"""Runs that have been through something, written by hand: attempts, journal, checkpoints, at times that a test sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hpc import config as configs
from hpc.jobs.attempts import ATTEMPTS_FILE, Attempt, Submission, note_start, note_submission
from hpc.run_folder import RunFolder
from hpc.tracking.journal import CURRENT, Record
from hpc.tracking.strict_json import dumps

HOUR = 3600.0


class Life:
    """Writes what a run leaves behind. `clock` is its present.

    Args:
        steps_per_s: of its training; a line of the journal every 100 steps.
    """

    def __init__(self, path: Path, start: float, steps_per_s: float = 10.0, steps: int = 1_500_000) -> None:
        self.folder = RunFolder(path)
        self.folder.create()
        overrides = [
            f"train.steps={steps}",
            "optimizer.constant_steps=-1",
            "cluster.nodes=4",
            "cluster.gpus_per_node=8",
        ]
        self.config = configs.load("srvp_bair", "", "", overrides)
        configs.save(self.config, self.folder.config)
        self.clock, self.speed, self.attempt, self.job, self.lines = start, steps_per_s, 0, "", 0
        self.restarts = 0

    def submit(self, job: str, verb: str = "train") -> None:
        self.job, self.restarts = job, -1
        note_submission(self.folder.path, Submission(self.clock, verb, job, 4, 32, f"logs/{job}_0_log.out", "code"))

    def evaluate(self, job: str) -> None:
        """A job beside the training, which goes on being the one that the other methods write of."""
        note_submission(
            self.folder.path, Submission(self.clock, "evaluate", job, 1, 1, f"logs/{job}_0_log.out", "code")
        )
        self.attempt += 1
        note_start(self.folder.path, Attempt(self.attempt, "evaluate", self.clock, job, 0, ["n9"], 1, None))

    def begin(self, wait: float, from_step: int, overhead: float = 40.0, ranks: int = 32) -> None:
        """An attempt starts after waiting, and trains."""
        self.clock += wait
        self.attempt += 1
        self.restarts += 1
        nodes = [f"n{k}" for k in range(1, 5)]
        saved = from_step or None
        note_start(
            self.folder.path, Attempt(self.attempt, "train", self.clock, self.job, self.restarts, nodes, ranks, saved)
        )
        self.clock += overhead
        self.event("training", number=self.attempt, training_time=self.clock, training_step=from_step)
        if self.lines:
            self.record("resume", from_step, from_step=from_step or None)
        self.record("start", from_step, about={}, config={})
        self.step = from_step

    def train(self, to_step: int) -> None:
        while self.step < to_step:
            self.step += 100
            self.clock += 100 / self.speed
            self.record("train", self.step, scalars={"loss": 0.5, "step_s": 1 / self.speed})

    def save(self, seconds: float = 6.0) -> None:
        """A checkpoint becomes durable."""
        checkpoint = self.folder.checkpoints / f"step-{self.step:09d}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        manifest = checkpoint / "manifest.json"
        manifest.write_text("{}")
        os.utime(manifest, (self.clock, self.clock))
        details = {"seconds": seconds, "stalled_s": 0.2, "step": self.step}
        self.record("event", self.step, name="saved", details=details)

    def end(self, cause: str, error: str = "") -> None:
        """In order; a killed attempt has no end."""
        self.event("ended", number=self.attempt, ended_time=self.clock, ended_step=self.step, cause=cause, error=error)

    def event(self, kind: str, **data: Any) -> None:
        with (self.folder.path / ATTEMPTS_FILE).open("a") as file:
            file.write(dumps({"event": kind, **data}) + "\n")

    def record(self, kind: str, step: int, **data: Any) -> None:
        with (self.folder.path / CURRENT).open("ab") as file:
            file.write(Record(self.lines, kind, self.attempt, step, round(self.clock, 3), data).line())
        self.lines += 1
