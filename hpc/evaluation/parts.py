"""The scores of one clip by one rank, how those of several ranks make one, and how they outlive a stop.

In: `ClipPart`s, each a range of samples of a clip. Out: `ClipScores` and `Picture`s; files of finished parts.

Legend: T predicted frames, C channels, H rows, W columns, D features, K sets of samples.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpc.evaluation.scores import MODEL, SINGLE


@dataclass(frozen=True)
class Chosen:
    """The best (or worst) sample of a clip by one metric: its mean over time, its number, its curve."""

    value: float
    sample: int
    curve_T: Tensor


@dataclass(frozen=True)
class PicturePart:
    """Frames of a clip for the eye, uint8: the true clip whole, samples without the given frames."""

    truth_TCHW: Tensor
    best: float
    best_TCHW: Tensor
    worst: float
    worst_TCHW: Tensor
    random: dict[int, Tensor]
    """number of the sample -> TCHW"""
    rebuilt_TCHW: Tensor | None = None
    """The given frames as the first sample shows them; in the first part of a clip only, if at all."""


@dataclass(frozen=True)
class ClipPart:
    """Samples first_sample ... first_sample + num_samples - 1 of one clip."""

    index: int
    key: str
    first_sample: int
    num_samples: int
    best: dict[str, Chosen]
    """By metric."""
    sums: dict[str, Tensor]
    """metric (and "centroid") -> sum over the samples of its curve, float64 T."""
    once: dict[str, dict[str, Tensor]]
    """method -> metric -> curve, of what does not depend on the number of samples; in the first part of a clip only."""
    wall_s: float
    cpu_s: float
    """What this part took: its share of a batch."""
    real_D: Tensor | None = None
    generated: dict[int, Tensor] = field(default_factory=dict)
    """set (the number of the sample) -> features D."""
    picture: PicturePart | None = None


@dataclass(frozen=True)
class ClipScores:
    """Scores of one clip: curves over frames, by method and metric."""

    index: int
    key: str
    curves: dict[str, dict[str, Tensor]]
    """method -> metric -> value of each predicted frame (of `reconstruction`: each given one); `best` of N by that
    metric, `single` the mean over samples."""
    best_sample: dict[str, int]
    real_D: Tensor | None
    generated: dict[int, Tensor]


@dataclass(frozen=True)
class Picture:
    """Frames of one clip for the eye, uint8: the true clip whole, the predictions without the given frames."""

    index: int
    truth_TCHW: Tensor
    best_TCHW: Tensor
    worst_TCHW: Tensor
    random: list[Tensor]
    rebuilt_TCHW: Tensor | None = None
    """The given frames as the first sample shows them."""


def by_clip(parts: Sequence[ClipPart]) -> dict[int, list[ClipPart]]:
    """The parts of each clip in the order of their samples; clips in their order."""
    found: dict[int, list[ClipPart]] = {}
    for part in sorted(parts, key=lambda part: (part.index, part.first_sample)):
        found.setdefault(part.index, []).append(part)
    return found


def join(parts: Sequence[ClipPart], higher_is_better: dict[str, bool]) -> tuple[ClipScores, Picture | None]:
    """One clip's scores from all its parts, in the order of their samples; of equal samples the first is best."""
    first, samples = parts[0], sum(part.num_samples for part in parts)
    best = {
        metric: (max if higher else min)((part.best[metric] for part in parts), key=lambda chosen: chosen.value)
        for metric, higher in higher_is_better.items()
    }
    curves = dict(first.once)
    curves[MODEL] = {metric: chosen.curve_T for metric, chosen in best.items()}
    curves[SINGLE] = {
        metric: torch.stack([part.sums[metric] for part in parts]).sum(dim=0) / samples for metric in first.sums
    }
    generated = {number: features for part in parts for number, features in part.generated.items()}
    numbers = {metric: chosen.sample for metric, chosen in best.items()}
    scores = ClipScores(first.index, first.key, curves, numbers, first.real_D, generated)
    return scores, _join_pictures(first.index, [part.picture for part in parts if part.picture is not None])


def _join_pictures(index: int, parts: Sequence[PicturePart]) -> Picture | None:
    if not parts:
        return None
    best = max(parts, key=lambda part: part.best)
    worst = min(parts, key=lambda part: part.worst)
    random = {number: frames for part in parts for number, frames in part.random.items()}
    return Picture(
        index,
        parts[0].truth_TCHW,
        best.best_TCHW,
        worst.worst_TCHW,
        [random[number] for number in sorted(random)],
        parts[0].rebuilt_TCHW,
    )


class PartStore:
    """A folder of finished parts: an evaluation that is stopped goes on from them, on any number of ranks.

    Each file is a list of parts as plain dicts of tensors and numbers, and appears only when complete. The folder's
    name is a digest of everything that the numbers depend on, so parts of another evaluation are never taken.
    """

    def __init__(self, parent: Path, identity: str) -> None:
        self.folder = parent / f".parts-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"

    def keep(self, parts: Sequence[ClipPart]) -> None:
        """Write one file. Any rank, at any time; a disk that refuses costs a warning, not the evaluation."""
        name = f"{parts[0].index:09d}-{parts[0].first_sample:06d}-{os.getpid()}"
        beside = self.folder / f".{name}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save([dataclasses.asdict(part) for part in parts], beside)
            beside.replace(self.folder / f"{name}.pt")
        except (OSError, RuntimeError) as error:  # torch's zip writer raises the latter when the disk is full
            print(f"WARNING: {self.folder}: {error}; a stop would cost the batch just scored", flush=True)

    def read(self, samples: int) -> list[ClipPart]:
        """Parts of those clips of which all `samples` samples are there."""
        parts: list[ClipPart] = []
        for path in sorted(self.folder.glob("*.pt")):
            try:
                parts += map(_part, torch.load(path, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                print(f"WARNING: {path} is damaged, its clips are scored again: {error}", flush=True)
        return [part for of_clip in by_clip(parts).values() for part in _whole(of_clip, samples)]

    def clear(self) -> None:
        """Delete the folder: the results are written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def others(self) -> list[Path]:
        """Folders of evaluations that were stopped and not gone on with: of other weights, or another protocol."""
        return [path for path in sorted(self.folder.parent.glob(".parts-*")) if path != self.folder]


def _whole(parts: Sequence[ClipPart], samples: int) -> list[ClipPart]:
    """Those that together hold each sample once, or none: attempts on other numbers of ranks cut them otherwise."""
    longest = {part.first_sample: part for part in sorted(parts, key=lambda part: part.num_samples)}
    chain: list[ClipPart] = []
    reached = 0
    while reached in longest:
        chain.append(longest[reached])
        reached += chain[-1].num_samples
    return chain if reached == samples else []


def _part(kept: dict[str, Any]) -> ClipPart:
    picture = kept.pop("picture")
    best = {metric: Chosen(**chosen) for metric, chosen in kept.pop("best").items()}
    return ClipPart(**kept, best=best, picture=None if picture is None else PicturePart(**picture))
