"""Prediction at a multiple of the frame rate of the data (SRVP, Franceschi et al. 2020, figures 10 and 27).

In: contexts. Out: frames at times 1/2, 1/3, ... of a frame apart, and which of them the data could have.

Axes: B clips, T times, C channels, H height, W width.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from odevid.model import Generators, VideoModel


@dataclass(frozen=True)
class FineFrames:
    """`factor` frames for every frame of the data.

    Attributes:
        factor: times the frame rate.
        substeps: solver steps per frame of the data; None: the solver chooses them.
        times: of each frame, in frames of the data; frame 0 is the first of the context.
        is_whole: whether that is a time of the data.
        frames_BTCHW: what was predicted there.
    """

    factor: int
    substeps: int | None
    times: tuple[float, ...]
    is_whole: tuple[bool, ...]
    frames_BTCHW: Tensor


def matching_substeps(own: int | None, factor: int) -> int | None:
    """The smallest refinement of the model's `own` solver steps that has a step at every `1 / factor` of a frame.

    None of None: a solver that chooses its steps reaches any time.
    """
    return None if own is None else math.lcm(own, factor)


def predict_fine(
    model: VideoModel,
    context_BTCHW: Tensor,
    n_future: int,
    factor: int,
    substeps: int | None,
    *,
    generator: Generators = None,
) -> FineFrames:
    """Frames at `factor` times the frame rate, for the time of `n_future` frames after the context.

    Args:
        substeps: solver steps per frame of the data; None for a model whose solver chooses them.

    Raises:
        ValueError: `substeps` is no multiple of `factor`; what `predict` refuses.
    """
    if factor < 1:
        raise ValueError(f"factor is {factor}: expected at least 1")
    if substeps is not None and substeps % factor:
        raise ValueError(f"substeps is {substeps}: expected a multiple of the factor {factor}")
    last = context_BTCHW.shape[1] - 1
    times = tuple(last + index / factor for index in range(1, n_future * factor + 1))
    frames_1BTCHW = model.predict(context_BTCHW, times, substeps=substeps, generator=generator)
    return FineFrames(factor, substeps, times, tuple(time.is_integer() for time in times), frames_1BTCHW[0])
