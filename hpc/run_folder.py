"""Where everything of a run lies. The folder is the run: whoever has it can resume, evaluate and report.

config.yaml       resolved configuration, of the latest launch
submitted/        the configuration of each launch: what its job reads, whatever is launched later
code/             the code that its jobs run, one folder per version
attempts.jsonl    its life in the queue: submissions, attempts, how they ended
metrics.jsonl     the truth about what happened, one line per record
checkpoints/      step-000001000/ ...
pictures/         samples of the validations
evaluation/       tables, curves and pictures of `evaluate`; substeps-N/: the same at another time step;
                  split-train/, split-valid/: the same of another split
studies/          the papers' experiments, one folder each
predictions/      continued videos of `predict`
report.html       everything at a glance, one file
model.pt          exported weights with their configuration: odevid.load(path)
logs/             batch script, output of each rank
hangs/            who hung where, if anybody did
diagnosis.txt     why the run was given up, if it was
wandb/            offline mirror
STOP              touch it to stop the run after a save
"""

from __future__ import annotations

import time
from pathlib import Path

from hpc.config import ConfigError

SPLIT = "split-"
"""Begins the names of the folders in evaluation/ that are of another split than test."""


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.submitted = path / "submitted"
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self.evaluation = path / "evaluation"
        self.studies = path / "studies"
        self.predictions = path / "predictions"
        self.report = path / "report.html"
        self.logs = path / "logs"
        self.code = path / "code"
        self.hangs = path / "hangs"
        self.diagnosis = path / "diagnosis.txt"
        self.model = path / "model.pt"
        self.stop = path / "STOP"
        self.pipes = path / "allowed_pipes.txt"

    def create(self) -> None:
        for folder in (self.path, self.pictures, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    def allowed_pipes(self) -> list[str]:
        """Command prefixes that the command line allowed for `pipe:` shards."""
        return self.pipes.read_text().splitlines() if self.pipes.is_file() else []

    @property
    def is_evaluated(self) -> bool:
        """Whether there is something of an evaluation on the test split."""
        return any(not path.name.startswith(SPLIT) for path in self.evaluation.glob("*"))

    def newest_checkpoint(self) -> int | None:
        """Step of the newest complete checkpoint, without reading it; None if there is none."""
        manifests = self.checkpoints.glob("step-*/manifest.json")
        return max((int(path.parent.name.removeprefix("step-")) for path in manifests), default=None)


def new_run_folder(experiment: str, base: Path = Path("runs")) -> Path:
    """runs/EXPERIMENT/TIME, with a suffix if two start in one second."""
    stem = base / experiment / time.strftime("%Y%m%d-%H%M%S")
    path, number = stem, 1
    while path.exists():
        number += 1
        path = stem.with_name(f"{stem.name}-{number}")
    return path


def existing_run(run: str) -> RunFolder:
    """The folder of a started run.

    Raises:
        ConfigError: it is not one.
    """
    folder = RunFolder(Path(run).resolve())
    if not folder.config.is_file():
        raise ConfigError(
            f"run={run}: no config.yaml there, so it is not a run folder; runs started here are under runs/"
        )
    return folder
