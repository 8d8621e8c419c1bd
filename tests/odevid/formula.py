"""Weights, clips and noise by formula, so that numbers can be pinned without files or random generators.

In: names and shapes. Out: the same float64 values on every machine (to about 1e-11).
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from odevid.config import SRVPConfig


def scatter(shape: tuple[int, ...], key: int) -> Tensor:
    """Numbers that look uniform in (-1, 1)."""
    place = np.arange(int(np.prod(shape)), dtype=np.float64)
    tangled = np.sin(12.9898 * place + 78.233 * key) * 43758.5453
    return torch.from_numpy(2 * (tangled - np.floor(tangled)) - 1).reshape(shape)


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict: each tensor from its rank in the order of the names, scaled to keep signals of order 1."""
    filled = {}
    for key, name in enumerate(sorted(shapes), start=1):
        values = scatter(shapes[name], key)
        if name.endswith("running_var"):
            values = 0.5 + 0.3 * values
        elif name.endswith("num_batches_tracked"):
            values = torch.zeros((), dtype=torch.int64)
        elif values.ndim == 1:  # biases; weights and means of BatchNorm
            values = (0.2 * values) + (1.0 if name.endswith("weight") else 0.0)
        else:
            values = values * (2.0 / (values.numel() / values.shape[0]) ** 0.5)
        filled[name] = values
    return filled


def video(clips: int, frames: int, channels: int) -> Tensor:
    """Clips BTCHW in (0, 1)."""
    return 0.5 + 0.5 * scatter((clips, frames, channels, 64, 64), 1000)


def noise(config: SRVPConfig, clips: int, frames: int) -> dict[str, Tensor]:
    """A step's noise, as `draw_noise` shapes it."""
    order = scatter((clips, frames), 1003).argsort(dim=1)
    drawn = {
        "eps_y0": 1.5 * scatter((clips, config.ny), 1001),
        "eps_z": 1.5 * scatter((clips, frames - 1, config.nz), 1002),
        "content_frames": order[:, : config.nt_inf],
    }
    if config.skip_connections:
        drawn["skip_frame"] = order[:, -1]
    return drawn


def tiny(**changes: object) -> SRVPConfig:
    """A config of a few thousand weights: DCGAN without skips unless `changes` say otherwise."""
    sizes: dict[str, object] = {
        "nf": 4, "nhx": 8, "nh_inf": 12, "nh_res": 10, "ny": 6, "nz": 5, "nt_inf": 3, "nt_cond": 3, "beta_z": 2.0,
    }  # fmt: skip
    return SRVPConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def tiny_vgg(**changes: object) -> SRVPConfig:
    """`tiny` as VGG with skips in three channels and two Euler steps."""
    vgg: dict[str, object] = {
        "architecture": "vgg", "skip_connections": True, "nc": 3, "n_euler_steps": 2, "nt_inf": 2, "obs_scale": 0.71,
    }  # fmt: skip
    return tiny(**{**vgg, **changes})
