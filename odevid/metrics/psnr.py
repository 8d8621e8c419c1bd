"""Peak signal-to-noise ratio as SRVP defines it.

In: predicted and true frames, float in [0, 1]. Out: decibels, one value per frame.

Legend: T time, C channels, H rows, W columns; `...` any leading axes (N samples, B videos), which broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from odevid.metrics.frames import check_pair

EIGHT_BIT_CEILING_DB = 10 * math.log10(12 * 255**2)
"""PSNR of an error as small as rounding to 8 bits makes it (MSE = (1/255)^2 / 12): 58.92 dB."""


def psnr(prediction: Tensor, target: Tensor, ceiling_db: float = math.inf) -> Tensor:
    """PSNR per frame: 10 log10(1 / MSE) of each channel, averaged over the channels.

    Franceschi et al. 2020 (SRVP), evaluation of the published code: the mean squared error is taken per channel and
    frame, so for RGB this is not the PSNR of the joint MSE.

    Args:
        prediction: `...TCHW` float in [0, 1].
        target: `...TCHW`, same frames; leading axes broadcast.
        ceiling_db: values per channel are cut here. The published code has no ceiling: a channel matched exactly
            (MSE 0) gives inf, and so does every mean that includes it. That happens to baselines (a digit that stands
            still, repeated); `EIGHT_BIT_CEILING_DB` keeps their means finite.

    Returns:
        `...T`, dB.

    Raises:
        TypeError, ValueError: frames that are not float, or whose shapes differ.
    """
    check_pair(prediction, target)
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    mse = (prediction.to(dtype) - target.to(dtype)).square().mean(dim=(-2, -1))
    return (-10 * torch.log10(mse)).clamp(max=ceiling_db).mean(dim=-1)
