"""From names of metrics to what scores frames: which ones a run is evaluated with, and why others are not.

In: eval.metrics and the files of weights on this machine. Out: `Scorers`, the same on every rank.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from hpc.config import ConfigError, EvalConfig
from hpc.distributed import World
from hpc.evaluation.protocol import Protocol
from hpc.evaluation.scores import FvdScores
from odevid.metrics.best_of import PSNR, SSIM, Metric
from odevid.metrics.frechet import Moments
from odevid.metrics.fvd import BATCH, Features, FrechetVideoDistance, I3DFeatures
from odevid.metrics.i3d import MIN_FRAMES
from odevid.metrics.i3d_weights import load_i3d
from odevid.metrics.interval import interval_over_videos
from odevid.metrics.lpips import LPIPS
from odevid.metrics.ssim_svg import SsimSvgReference

FVD = "fvd"
ALWAYS = {"psnr": PSNR, "ssim": SSIM, "ssim_svg": Metric("ssim_svg", "", SsimSvgReference)}
LPIPS_NETS = {"lpips": "alex", "lpips_squeeze": "squeeze", "lpips_vgg": "vgg"}
USUAL = ("psnr", "ssim", "lpips", FVD)
"""Where eval.metrics is empty, as far as weights are found."""
OPTIONS = {
    "with weights=FILE": "with eval.i3d=FILE",
    "with weights=": "with eval.weights=",
    "run_code=True": "eval.run_weights_code=true",
}
"""Python arguments that messages of `odevid.metrics` name -> what is typed here."""
FRECHET_CACHE = Path("~/.cache/odevid/frechet")


@dataclass(frozen=True)
class Scorers:
    """Scores of frames, and the feature function of FVD if that is computed.

    absent: metric -> why it is not, and which file to put where.
    """

    metrics: tuple[Metric, ...] = (PSNR, SSIM)
    features: Features | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def higher_is_better(self) -> dict[str, bool]:
        return {metric.name: metric.higher_is_better for metric in self.metrics}

    def unit(self, name: str) -> str:
        return next((metric.unit for metric in self.metrics if metric.name == name), "")


@torch.no_grad()
def features_of(features: Features, videos_BTCHW: Tensor) -> Tensor:
    """Features BD of a few videos, on the CPU; `BATCH` of them go through the network at a time."""
    return torch.cat([features(videos).cpu() for videos in videos_BTCHW.split(BATCH)])


def scorers_for(settings: EvalConfig, protocol: Protocol, world: World) -> Scorers:
    """What eval.metrics asks for. Collective.

    Raises:
        ConfigError: a metric that was asked for by name cannot be computed here; the message says what is missing. Of
            the usual ones, where none was named, such are left out and listed in `absent`.
    """
    metrics: list[Metric] = []
    features: Features | None = None
    absent: dict[str, str] = {}
    for name in settings.metrics or USUAL:
        try:
            if name == FVD:
                features = _fvd_features(settings, protocol, world.device)
            elif name in ALWAYS:
                metrics.append(ALWAYS[name])
            else:
                net = LPIPS(LPIPS_NETS[name], settings.weights or None).to(world.device)
                metrics.append(Metric(name, "", net.against, higher_is_better=False))
        except (FileNotFoundError, PermissionError, ValueError) as error:
            absent[name] = _with_options(str(error))
    missing = {name: why for found in world.gather(absent) for name, why in found.items()}
    if settings.metrics and missing:
        name, why = next(iter(missing.items()))
        raise ConfigError(f"eval.metrics names {name}: {why}")
    kept = tuple(metric for metric in metrics if metric.name not in missing)
    return Scorers(kept, None if FVD in missing else features, missing)


def _with_options(message: str) -> str:
    """What to type here where a Python argument is named."""
    for argument, option in OPTIONS.items():
        message = message.replace(argument, option)
    return message


def _fvd_features(settings: EvalConfig, protocol: Protocol, device: torch.device) -> Features:
    if protocol.num_frames < MIN_FRAMES:
        raise ValueError(f"FVD needs videos of at least {MIN_FRAMES} frames, these have {protocol.num_frames}")
    if protocol.num_clips < 2:
        raise ValueError(f"FVD needs at least 2 videos, here is {protocol.num_clips}")
    return I3DFeatures(load_i3d(settings.i3d or settings.weights or None, run_code=settings.run_weights_code), device)


def _already_features(features_ND: Tensor) -> Tensor:
    return features_ND


def fvd_scores(real: Moments, generated_KND: Tensor) -> tuple[FvdScores, list[str]]:
    """FVD of K sets of samples, with its interval over the sets, and what there is to warn of."""
    distance = FrechetVideoDistance(_already_features)
    distance.set_real(real)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        sets = [distance(Moments.of(features_ND)) for features_ND in generated_KND]
    interval = interval_over_videos(sets)
    _, videos, dimension = generated_KND.shape
    said = sorted({str(warning.message) for warning in caught})
    half_width = interval.half_width if len(sets) > 1 else None
    return FvdScores(interval.mean, half_width, sets, videos, dimension), said
