"""Score a model on a split: every clip exactly once, split over the ranks, the same numbers at any world size.

In: a predictor, a clip source, a `Protocol`. Out: on every rank the `Evaluation` of all clips. A clip's samples come
from generator(seed, clip), so they depend neither on its batch mates nor on the rank that draws them; the
conditioning frames are encoded once for all samples, and memory is that of one chunk of samples.

Legend: N samples, B clips, T predicted frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hpc.config import Config, ConfigError
from hpc.data import to_unit_range
from hpc.distributed import World
from hpc.noise import step_generator
from odevid.baselines import constant_velocity, extrapolate_centroid, repeat_last_frame
from odevid.metrics.best_of import PSNR, SSIM, BestOf, Metric
from odevid.metrics.centroid import centroid_error, intensity_centroid
from odevid.metrics.interval import Interval, interval_over_videos
from odevid.metrics.psnr import EIGHT_BIT_CEILING_DB, psnr
from odevid.model import VideoModel, evaluating
from shards.loader import evaluation_indices
from shards.source import ClipSource

METRICS: tuple[Metric, ...] = (PSNR, SSIM)
MODEL, SINGLE, REPEAT, VELOCITY = "best", "single", "repeat_last", "constant_velocity"


@dataclass(frozen=True)
class Protocol:
    """What is scored and how; everything a number needs to be compared with another."""

    num_clips: int
    num_context: int
    num_frames: int
    """Frames of a clip, the given ones included."""
    samples: int
    batch: int
    chunk: int
    seed: int = 1
    centroid: bool = False
    pictures: int = 0

    @property
    def n_future(self) -> int:
        return self.num_frames - self.num_context


@dataclass(frozen=True)
class ClipScores:
    """Scores of one clip: curves over the predicted frames, by method and metric."""

    index: int
    key: str
    curves: dict[str, dict[str, list[float]]]
    """method -> metric -> value of each predicted frame; `best` of N by that metric, `single` the mean over samples."""
    best_sample: dict[str, int]


@dataclass(frozen=True)
class Picture:
    """Frames of one clip for the eye, uint8: the true clip whole, the predictions without the given frames."""

    index: int
    truth_TCHW: Tensor
    best_TCHW: Tensor
    worst_TCHW: Tensor


@dataclass
class Evaluation:
    protocol: Protocol
    clips: list[ClipScores]
    pictures: list[Picture] = field(default_factory=list)

    def curves(self, method: str, metric: str) -> Tensor:
        """Values (clips, predicted frames)."""
        return torch.tensor([clip.curves[method][metric] for clip in self.clips], dtype=torch.float64)

    def interval(self, method: str, metric: str) -> Interval:
        """Mean over clips of the mean over time, with its 95 % interval over clips."""
        return interval_over_videos(self.curves(method, metric).mean(dim=1))

    def methods(self, metric: str) -> list[str]:
        return [method for method, curves in self.clips[0].curves.items() if metric in curves]

    def median_centroid_error(self, method: str, first_frames: int = 5) -> float:
        """Median over clips and their first predicted frames of the distance of the centroids (pixels)."""
        errors = self.curves(method, "centroid")[:, :first_frames].flatten()
        return float(errors[~errors.isnan()].quantile(0.5))

    def scalars(self) -> dict[str, float]:
        """What a metrics line keeps."""
        found: dict[str, float] = {}
        for metric in METRICS:
            found[metric.name] = self.interval(MODEL, metric.name).mean
            found[f"{metric.name}_ci95"] = self.interval(MODEL, metric.name).half_width
            found[f"{metric.name}_single"] = self.interval(SINGLE, metric.name).mean
            found[f"{metric.name}_repeat_last"] = self.interval(REPEAT, metric.name).mean
        if self.protocol.centroid:
            for method in (SINGLE, REPEAT, VELOCITY):
                found[f"centroid_{method}"] = self.median_centroid_error(method)
        return found


def protocol_of(
    config: Config, source: ClipSource, option: str, num_clips: int, num_frames: int, samples: int
) -> Protocol:
    """The protocol of a validation or a test; `num_clips` 0 means the whole split, `option` is its name for messages.

    Raises:
        ConfigError: more clips are asked for than the split has.
    """
    if num_clips > len(source):
        raise ConfigError(f"{option}={num_clips}, but the split has {len(source)} clips; set {option}={len(source)}")
    settings = config.eval
    return Protocol(
        num_clips=num_clips or len(source),
        num_context=config.model.nt_cond,
        num_frames=num_frames,
        samples=samples,
        batch=settings.batch,
        chunk=settings.chunk,
        seed=settings.seed,
        centroid=settings.centroid,
        pictures=settings.pictures,
    )


class EvaluationStopped(Exception):
    """The ranks agreed to stop before the evaluation was complete."""


@torch.no_grad()
def evaluate(
    model: VideoModel,
    source: ClipSource,
    protocol: Protocol,
    world: World,
    *,
    autocast: Callable[[], Any],
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Evaluation:
    """Score `model` on the first `protocol.num_clips` clips. Collective.

    Args:
        autocast: makes the context that forward passes run in (the run's precision).
        stopping: agreed by all ranks, asked once per round of batches.
        progress: told after each round how many rounds are done, of how many.

    Raises:
        EvaluationStopped: `stopping` said so.
    """
    batches = list(evaluation_indices(protocol.num_clips, world.rank, world.size, protocol.batch))
    rounds = world.all_max([len(batches)])[0]
    clips: list[ClipScores] = []
    pictures: list[Picture] = []
    with evaluating(model):
        for number in range(rounds):
            if stopping():
                raise EvaluationStopped
            if number < len(batches):
                with autocast():
                    scored, seen = _score_batch(model, source, batches[number], protocol, world.device)
                clips += scored
                pictures += seen
            progress(number + 1, rounds)
    gathered = world.gather((clips, pictures))
    return Evaluation(
        protocol,
        sorted((clip for part, _ in gathered for clip in part), key=lambda clip: clip.index),
        sorted((picture for _, part in gathered for picture in part), key=lambda picture: picture.index),
    )


def _score_batch(
    model: VideoModel, source: ClipSource, indices: list[int], protocol: Protocol, device: torch.device
) -> tuple[list[ClipScores], list[Picture]]:
    fetched = source.read(indices)
    video_BTCHW = to_unit_range({"video": torch.from_numpy(fetched.arrays["video"])}, device)["video"]
    context, target = video_BTCHW[:, : protocol.num_context], video_BTCHW[:, protocol.num_context : protocol.num_frames]
    pictured = any(index < protocol.pictures for index in indices)
    best = BestOf(METRICS, target, keep_frames=pictured)
    singles: list[Tensor] = []
    for frames_NBTCHW in _sampled(model, context, indices, protocol):
        clamped = frames_NBTCHW.float().clamp(0, 1)
        best.update(clamped)
        if protocol.centroid:
            singles.append(centroid_error(clamped, target))
    curves = _baseline_curves(context, target, protocol)
    curves[MODEL] = {metric.name: best.best[metric.name].curves_BT for metric in METRICS}
    curves[SINGLE] = {metric.name: best.average[metric.name] for metric in METRICS}
    if protocol.centroid:
        curves[SINGLE]["centroid"] = torch.cat(singles).nanmean(dim=0)
    clips = [_clip_scores(curves, best, row, index, fetched.keys[row]) for row, index in enumerate(indices)]
    pictures = [
        _picture(video_BTCHW[row], best, row, index, protocol)
        for row, index in enumerate(indices)
        if index < protocol.pictures
    ]
    return clips, pictures


def _sampled(model: VideoModel, context: Tensor, indices: list[int], protocol: Protocol) -> Iterator[Tensor]:
    generators = [step_generator(protocol.seed, index, "evaluation") for index in indices]
    return model.predict_chunks(
        context, n_future=protocol.n_future, n_samples=protocol.samples, chunk=protocol.chunk, generator=generators
    )


def _baseline_curves(context: Tensor, target: Tensor, protocol: Protocol) -> dict[str, dict[str, Tensor]]:
    curves: dict[str, dict[str, Tensor]] = {}
    methods: dict[str, Tensor] = {REPEAT: repeat_last_frame(context, protocol.n_future)}
    if context.shape[1] >= 2:
        methods[VELOCITY] = constant_velocity(context, protocol.n_future)
    for method, frames in methods.items():
        curves[method] = {metric.name: metric.against(target)(frames[None])[0] for metric in METRICS}
        curves[method][PSNR.name] = psnr(frames, target, EIGHT_BIT_CEILING_DB)  # a video that stands still: not inf
    if protocol.centroid:
        curves[REPEAT]["centroid"] = centroid_error(methods[REPEAT], target)
        if VELOCITY in curves:
            ahead = extrapolate_centroid(context, protocol.n_future)
            curves[VELOCITY]["centroid"] = (ahead - intensity_centroid(target)).norm(dim=-1)
    return curves


def _clip_scores(
    curves: Mapping[str, Mapping[str, Tensor]], best: BestOf, row: int, index: int, key: str
) -> ClipScores:
    own = {
        method: {metric: [float(v) for v in curve_BT[row].tolist()] for metric, curve_BT in by_metric.items()}
        for method, by_metric in curves.items()
    }
    return ClipScores(index, key, own, {name: int(chosen.samples_B[row]) for name, chosen in best.best.items()})


def _picture(video_TCHW: Tensor, best: BestOf, row: int, index: int, protocol: Protocol) -> Picture:
    chosen, worst = best.best[PSNR.name].frames_BTCHW, best.worst[PSNR.name].frames_BTCHW
    assert chosen is not None and worst is not None
    truth = _to_uint8(video_TCHW[: protocol.num_frames])
    return Picture(index, truth, _to_uint8(chosen[row]), _to_uint8(worst[row]))


def _to_uint8(frames: Tensor) -> Tensor:
    return (frames * 255).round().to("cpu", torch.uint8)
