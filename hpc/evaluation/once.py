"""What is found once for a clip, whatever the number of samples: baselines, the given frames rebuilt, the step halved.

In: a batch of clips with its `BestOf`, and of the model its first sample. Out: method -> metric -> curves. The first
sample is the same in all of them: its noise is that of generator(seed, clip).

Legend: N samples, B clips, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hpc.evaluation.protocol import Protocol
from hpc.evaluation.scores import CENTROID, REPEAT, VELOCITY
from hpc.noise import step_generator
from odevid.baselines import constant_velocity, extrapolate_centroid, repeat_last_frame
from odevid.metrics.best_of import PSNR, BestOf, Metric
from odevid.metrics.centroid import centroid_error, intensity_centroid
from odevid.metrics.psnr import EIGHT_BIT_CEILING_DB, psnr
from odevid.model import VideoModel

Curves = dict[str, Tensor]
"""metric -> values BT"""


def baselines(context_BTCHW: Tensor, target_BTCHW: Tensor, protocol: Protocol, best: BestOf) -> dict[str, Curves]:
    """Predictions that know nothing: by method."""
    methods = {REPEAT: repeat_last_frame(context_BTCHW, protocol.n_future)}
    if context_BTCHW.shape[1] >= 2:
        methods[VELOCITY] = constant_velocity(context_BTCHW, protocol.n_future)
    found: dict[str, Curves] = {}
    for method, frames in methods.items():
        found[method] = {name: curves[0] for name, curves in best.curves(frames[None]).items()}
        if PSNR.name in found[method]:  # a video that stands still: not inf
            found[method][PSNR.name] = psnr(frames, target_BTCHW, EIGHT_BIT_CEILING_DB)
    if protocol.centroid:
        found[REPEAT][CENTROID] = centroid_error(methods[REPEAT], target_BTCHW)
        if VELOCITY in found:
            ahead = extrapolate_centroid(context_BTCHW, protocol.n_future)
            found[VELOCITY][CENTROID] = (ahead - intensity_centroid(target_BTCHW)).norm(dim=-1)
    return found


def rebuilt(model: VideoModel, context_BTCHW: Tensor, protocol: Protocol, indices: Sequence[int]) -> Tensor:
    """The given frames as the model's first sample shows them: BTCHW, not clamped.

    The last frame of the future is asked for as well, and dropped: so as much noise is drawn as for the whole future,
    and the sample is the one whose future is scored.
    """
    given = protocol.num_context
    frames_NBTCHW = model.predict(
        context_BTCHW,
        times=[*range(given), given - 1 + protocol.n_future],
        substeps=protocol.substeps,
        generator=generators(protocol, indices),
    )
    return frames_NBTCHW[0, :, :given]


def score_rebuilt(rebuilt_BTCHW: Tensor, context_BTCHW: Tensor, metrics: Sequence[Metric], *, centroid: bool) -> Curves:
    """Every metric at each given frame."""
    scored = BestOf(metrics, context_BTCHW).curves(rebuilt_BTCHW[None])
    found = {name: curves_NBT[0] for name, curves_NBT in scored.items()}
    if centroid:
        found[CENTROID] = centroid_error(rebuilt_BTCHW, context_BTCHW)
    return found


def at_halved_step(model: VideoModel, context_BTCHW: Tensor, protocol: Protocol, indices: Sequence[int]) -> Tensor:
    """The future of the first sample with half the usual solver step: BTCHW, not clamped."""
    return model.predict(
        context_BTCHW,
        n_future=protocol.n_future,
        substeps=protocol.halved,
        generator=generators(protocol, indices),
    )[0]


def change_of_psnr(finer_BTCHW: Tensor, usual_BTCHW: Tensor, target_BTCHW: Tensor) -> Curves:
    """By how much PSNR (dB) is higher with the finer step; exact matches count as the error of rounding to 8 bits."""
    finer_BT, usual_BT = (
        psnr(frames, target_BTCHW, EIGHT_BIT_CEILING_DB).double() for frames in (finer_BTCHW, usual_BTCHW)
    )
    return {PSNR.name: finer_BT - usual_BT}


def generators(protocol: Protocol, indices: Sequence[int]) -> list[torch.Generator]:
    """Of the clips' noise, one for each."""
    return [step_generator(protocol.seed, index, "evaluation") for index in indices]
