"""Roll-outs between two videos' initial states (SRVP, Franceschi et al. 2020, figure 11).

In: the contexts of two clips. Out: frames for each weight between them.

Axes: W weights, T times, D size of the state, C channels, H height, W width of a frame (last axis only).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from odevid.model import Latent, LatentModel
from odevid.models.times import future_frames


@dataclass(frozen=True)
class Interpolation:
    """Roll-outs from (1 - weight) y_0 of the first clip + weight y_0 of the second."""

    weights: tuple[float, ...]
    states_WTD: Tensor
    frames_WTCHW: Tensor


def interpolate(
    model: LatentModel, contexts_2TCHW: Tensor, weights: Sequence[float], times: Sequence[float], *, seed: int = 0
) -> Interpolation:
    """Roll out and decode from initial states on the line between those of two clips.

    The states move freely from time 0 (`LatentModel.trajectory`), with the same noise at every weight, so that what
    differs is the initial state. Content, where the model has one, goes along the same line: weights 0 and 1 are the
    two clips' own free roll-outs. `seed` gives the noise, and the sample of y_0.

    Raises:
        ValueError: not two clips, or what the model refuses.
    """
    if contexts_2TCHW.ndim != 5 or len(contexts_2TCHW) != 2:
        raise ValueError(f"contexts have shape {tuple(contexts_2TCHW.shape)}; expected TCHW of two clips")
    same = [torch.Generator().manual_seed(seed) for _ in range(2)]
    latent = model.infer(contexts_2TCHW, n_future=future_frames(times, contexts_2TCHW.shape[1]), generator=same)
    along = Latent(
        _between(latent.initial_NBD.transpose(0, 1), weights).transpose(0, 1),
        {name: _between(part.transpose(0, 1), weights).transpose(0, 1) for name, part in latent.drive.items()},
        _all_between(latent.content, weights),
    )
    states_1WTD = model.trajectory(along, times, free=True)
    return Interpolation(tuple(weights), states_1WTD[0], model.decode(states_1WTD, along.content)[0])


def _between(ends_2: Tensor, weights: Sequence[float]) -> Tensor:
    """(1 - weight) first + weight second, for every weight, on axis 0."""
    return torch.stack([(1 - weight) * ends_2[0] + weight * ends_2[1] for weight in weights])


def _all_between(content: Mapping[str, Tensor], weights: Sequence[float]) -> dict[str, Tensor]:
    return {name: _between(tensor, weights) for name, tensor in content.items()}
