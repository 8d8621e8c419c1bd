"""The scores of one evaluation as files: what `evaluate` writes and what `report` reads. No torch.

scores.json   `Scores`: protocol, table, curves with intervals, FVD, cost; small, for people and programs
curves.npz    every value: "METHOD/METRIC" (clips, frames) float32, "keys" of the clips, and "best_sample/METRIC",
              the sample that was best (its number, per clip)

Methods: "best" of N samples (chosen for each metric and video), "single" (the mean over samples), "repeat_last",
"constant_velocity", all of the predicted frames; "reconstruction" of the given frames by the first sample (eval.given);
"step_halved", by how much the first sample's PSNR is higher with half the solver's step (eval.halve_step). Infinite
PSNR (a frame matched exactly) is kept as the string "Infinity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc.checkpoint.durable import replace_text
from hpc.config import ConfigError
from hpc.run_folder import SPLIT
from hpc.tracking import strict_json

FORMAT = 2
MODEL, SINGLE, REPEAT, VELOCITY = "best", "single", "repeat_last", "constant_velocity"
RECONSTRUCTION, STEP_HALVED = "reconstruction", "step_halved"
"""Methods."""
CENTROID = "centroid"
SCORES, CURVES = "scores.json", "curves.npz"


@dataclass(frozen=True)
class Score:
    """A line of the table: a method's mean over videos of a metric's mean over time."""

    method: str
    metric: str
    """A name of `hpc.config.METRICS`, or "centroid": the median error (pixels) over the method's first five frames."""
    unit: str
    mean: float
    half_width: float | None
    """95 %: 1.96 standard deviations over videos / sqrt(videos), as in SRVP's camera-ready. None: has no interval."""
    half_width_of_frames: float | None
    """95 %: the mean over frames of the half-widths of each frame."""
    videos: int
    samples: int


@dataclass(frozen=True)
class CurveScores:
    """A method's metric at each of its frames, over videos; frames are counted from 1."""

    method: str
    metric: str
    first_frame: int
    mean: list[float]
    half_width: list[float]


@dataclass(frozen=True)
class FvdScores:
    """Frechet video distance of the first samples of each video, several sets of them."""

    mean: float
    half_width: float | None
    sets: list[float]
    videos: int
    dimension: int
    """Features; with no more videos than that the covariances are singular."""


@dataclass(frozen=True)
class Cost:
    """What the evaluation took, over all attempts if it was stopped in between."""

    rank_s: float
    """Seconds of ranks at work, added up."""
    cpu_s: float
    """CPU-seconds of the same."""
    ranks: int
    """Of the last attempt."""
    device: str
    scored: int
    """Videos x samples."""

    @property
    def wall_s(self) -> float:
        """Seconds without interruption on that many ranks."""
        return self.rank_s / self.ranks

    @property
    def s_per_video_and_sample(self) -> float:
        """Seconds of one rank."""
        return self.rank_s / self.scored


@dataclass(frozen=True)
class Scores:
    """Everything that an evaluation found."""

    about: dict[str, Any]
    """step, config, code, date, data, torch, and identity: a digest of all that the numbers depend on."""
    protocol: dict[str, Any]
    """split, num_clips, clips_of_split, num_context, num_frames, samples, seed, substeps, metrics, ..."""
    table: list[Score]
    curves: list[CurveScores]
    cost: Cost
    fvd: FvdScores | None = None
    absent: dict[str, str] = field(default_factory=dict)
    """metric -> why it was not computed, and which file to put where."""
    files: dict[str, str] = field(default_factory=dict)
    """what it is -> picture or table beside this file."""

    def score(self, method: str, metric: str) -> Score | None:
        """A line of the table, if there is one."""
        return next((line for line in self.table if (line.method, line.metric) == (method, metric)), None)

    def save(self, folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
        """Write both files."""
        values: dict[str, Any] = dict(arrays)
        np.savez_compressed(folder / CURVES, **values)
        replace_text(folder / SCORES, strict_json.dumps({"format": FORMAT, **asdict(self)}) + "\n")


def read_scores(folder: Path) -> Scores:
    """
    Raises:
        ConfigError: there are none, or another version of this software wrote them.
    """
    path = folder / SCORES
    if not path.is_file():
        raise ConfigError(f"no {path}: score the run first: python hpc/launch.py evaluate run=RUN")
    kept = strict_json.loads(path.read_text())
    if kept.pop("format", None) != FORMAT:
        raise ConfigError(
            f"{path} was written by another version: python hpc/launch.py evaluate run=RUN writes it anew"
        )
    return Scores(
        about=kept["about"],
        protocol=kept["protocol"],
        table=[Score(**line) for line in kept["table"]],
        curves=[CurveScores(**curve) for curve in kept["curves"]],
        cost=Cost(**kept["cost"]),
        fvd=FvdScores(**kept["fvd"]) if kept["fvd"] else None,
        absent=kept["absent"],
        files=kept["files"],
    )


def scalar_name(method: str, metric: str) -> str:
    """How metrics lines and W&B call a score: psnr (best of N), psnr_single, psnr_reconstruction, ..."""
    if method == MODEL:
        return metric
    return f"{metric}_{method}" + ("_change" if method == STEP_HALVED else "")


def splits_in(folder: Path) -> dict[str, Path]:
    """Split -> folder of RUN/evaluation with the scores of that split; the test split has RUN/evaluation itself."""
    return {path.name.removeprefix(SPLIT): path for path in sorted(folder.glob(f"{SPLIT}*")) if path.is_dir()}


def evaluations_in(folder: Path) -> list[Path]:
    """Folders with scores of one split, in RUN/evaluation those of the test one: the model's own time step first, then
    substeps-1, substeps-2, ...
    """
    found = [path.parent for path in [*folder.glob(SCORES), *folder.glob(f"substeps-*/{SCORES}")]]
    return sorted(found, key=lambda path: (len(path.name), path.name) if path != folder else (0, ""))
