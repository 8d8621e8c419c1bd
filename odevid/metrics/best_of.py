"""Best of N samples, metric by metric, without keeping the N samples.

In: the true frames of a batch of videos, then predicted samples in chunks of any size. Out, for each metric: per video
the best and the worst sample (value, curve over time, index, frames if asked) and the average over all samples.
Memory is that of one chunk, whatever N.

Legend: N samples of one chunk, B videos, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odevid.metrics.psnr import PsnrReference
from odevid.metrics.ssim import SsimReference

Score = Callable[[Tensor], Tensor]
"""frames_NBTCHW -> values_NBT"""


@dataclass(frozen=True)
class Metric:
    """A score of frames: `against(target_BTCHW)` does what is done once per target and returns the `Score`."""

    name: str
    unit: str
    against: Callable[[Tensor], Score]
    higher_is_better: bool = True


PSNR = Metric("psnr", "dB", PsnrReference)
SSIM = Metric("ssim", "", SsimReference)


@dataclass
class Selection:
    """The sample chosen for each video: the mean over time of its metric decided.

    values_B: that mean. curves_BT: the metric frame by frame. samples_B: which sample (0 ... N - 1, the first of equal
    ones). frames_BTCHW: its frames, or None where they were not kept.
    """

    values_B: Tensor
    curves_BT: Tensor
    samples_B: Tensor
    frames_BTCHW: Tensor | None

    def replace(self, chosen_B: Tensor, other: Selection) -> None:
        """Take the videos `chosen_B` (bool) from `other`."""
        self.values_B[chosen_B] = other.values_B[chosen_B]
        self.curves_BT[chosen_B] = other.curves_BT[chosen_B]
        self.samples_B[chosen_B] = other.samples_B[chosen_B]
        if self.frames_BTCHW is not None and other.frames_BTCHW is not None:
            self.frames_BTCHW[chosen_B] = other.frames_BTCHW[chosen_B]


def _select(curves_NBT: Tensor, frames_NBTCHW: Tensor | None, first_sample: int, largest: bool) -> Selection:
    """The largest (or smallest) sample of one chunk for each video."""
    values_NB = curves_NBT.mean(dim=-1)
    winner_B = values_NB.argmax(dim=0) if largest else values_NB.argmin(dim=0)
    videos_B = torch.arange(values_NB.shape[1], device=values_NB.device)
    return Selection(
        values_NB[winner_B, videos_B],
        curves_NBT[winner_B, videos_B],
        winner_B + first_sample,
        None if frames_NBTCHW is None else frames_NBTCHW[winner_B, videos_B],
    )


class BestOf:
    """Running best, worst and average of the samples of one batch of videos.

    As SRVP evaluates (Franceschi et al. 2020, section 4 and published code): for each video and each metric separately,
    the sample whose time-averaged metric is best; of equal ones the first. What is reported is the mean of `best[name]`
    over videos. `worst` is the same at the other end, `average[name]` the mean over samples, which is what one sample
    scores on average. The results do not depend on how the samples were cut into chunks.

    Attributes:
        best, worst: name of metric -> `Selection`.
        average: name of metric -> curves_BT, float64; its mean over T is the value of each video.
        totals: the same before it is divided by the number of samples.
        num_samples: samples seen so far.
    """

    def __init__(self, metrics: Sequence[Metric], target_BTCHW: Tensor, keep_frames: bool = False) -> None:
        """Prepare for the true future `target_BTCHW` (float in [0, 1]); `keep_frames` keeps best and worst frames."""
        self._metrics = {metric.name: metric for metric in metrics}
        self._scores = {metric.name: metric.against(target_BTCHW) for metric in metrics}
        self._keep_frames = keep_frames
        self.totals: dict[str, Tensor] = {}
        self.best: dict[str, Selection] = {}
        self.worst: dict[str, Selection] = {}
        self.num_samples = 0

    @property
    def average(self) -> Mapping[str, Tensor]:
        """Mean over the samples seen so far: name of metric -> curves_BT."""
        return {name: total / self.num_samples for name, total in self.totals.items()}

    def curves(self, frames_NBTCHW: Tensor) -> dict[str, Tensor]:
        """Every metric of these frames, NBT, leaving best, worst and average as they are."""
        return {name: score(frames_NBTCHW) for name, score in self._scores.items()}

    def update(self, frames_NBTCHW: Tensor) -> None:
        """Score the next samples of the same videos.

        Raises ValueError for frames that do not fit the target, or whose score is NaN (naming metric, sample, video).
        """
        for name, curves_NBT in self.curves(frames_NBTCHW).items():
            self._refuse_nan(name, curves_NBT)
            self._accumulate(name, curves_NBT)
            kept = frames_NBTCHW if self._keep_frames else None
            higher = self._metrics[name].higher_is_better
            self._compete(self.best, name, _select(curves_NBT, kept, self.num_samples, higher), higher)
            self._compete(self.worst, name, _select(curves_NBT, kept, self.num_samples, not higher), not higher)
        self.num_samples += frames_NBTCHW.shape[0]

    def _refuse_nan(self, name: str, curves_NBT: Tensor) -> None:
        broken = curves_NBT.isnan().any(dim=-1).nonzero()
        if len(broken):
            sample, video = broken[0].tolist()
            raise ValueError(
                f"{name} of sample {self.num_samples + sample}, video {video} of the batch is NaN: "
                "the predicted frames or the true ones hold NaN"
            )

    def _accumulate(self, name: str, curves_NBT: Tensor) -> None:
        """Add one sample after the other, so that the sum does not depend on the chunks."""
        for curves_BT in curves_NBT.double():
            self.totals[name] = self.totals[name] + curves_BT if name in self.totals else curves_BT.clone()

    @staticmethod
    def _compete(running: dict[str, Selection], name: str, chunk: Selection, largest: bool) -> None:
        if name not in running:
            running[name] = chunk
            return
        now = running[name]
        now.replace(chunk.values_B > now.values_B if largest else chunk.values_B < now.values_B, chunk)
