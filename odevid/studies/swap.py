"""Motion of one video, content of another (SRVP, Franceschi et al. 2020, figure 9).

In: contexts of several clips. Out: frames of every pair of a motion and a content.

Axes: B clips, M motions, K contents, T times, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from odevid.model import Generators, LatentModel
from odevid.models.times import future_frames


def swap_content(
    model: LatentModel,
    context_BTCHW: Tensor,
    times: Sequence[float],
    *,
    generator: Generators = None,
) -> Tensor:
    """Frames `[M, K, T, C, H, W]`: the states of clip m, decoded with the content of clip k (of SRVP: w and the skips).

    Times inside the context are decoded from the states inferred there. Where m = k they are the plain prediction.

    Raises:
        ValueError: a model whose frames owe nothing to a content, or what `infer` refuses.
    """
    if not model.has_content:
        raise ValueError("this model decodes its frames from the state alone: it has no content to exchange")
    n_future = future_frames(times, context_BTCHW.shape[1])
    latent = model.infer(context_BTCHW, n_future=n_future, generator=generator)
    states_1MTD = model.trajectory(latent, times)
    clips = range(context_BTCHW.shape[0])
    columns = [model.decode(states_1MTD, latent.content_of([k] * len(clips)))[0] for k in clips]
    return torch.stack(columns, dim=1)
