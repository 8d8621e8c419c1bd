"""Peak signal-to-noise ratio as SRVP defines it.

In: predicted and true frames, float in [0, 1]. Out: decibels, one value per frame.
SVG's published evaluation means the same number: scikit-image's PSNR of each channel with a range of 1, averaged over
the channels. (Its SSIM is another: see `ssim_svg`.) In float64 the two agree to 1e-6 dB
and better; in float32 rounding leaves about 1e-5 dB.

Legend: T time, C channels, H rows, W columns; `...` any leading axes (N samples, B videos), which broadcast.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from odevid.metrics.frames import check_frames, check_pair, check_scored

EIGHT_BIT_CEILING_DB = 10 * math.log10(12 * 255**2)
"""PSNR of an error as small as rounding to 8 bits makes it (MSE = (1/255)^2 / 12): 58.92 dB."""


class PsnrReference:
    """PSNR against one target, for any number of samples: see `psnr`, which is this with its values checked.

    It looks at shapes, not at values: for the loop over 100 samples, whose frames a model has kept in [0, 1].

    Raises TypeError for a target that is not float, ValueError for one with fewer than 4 axes.
    """

    def __init__(self, target: Tensor, ceiling_db: float = math.inf) -> None:
        """Take a target `...TCHW`, float in [0, 1]."""
        check_frames("target", target)
        self._target = target
        self._ceiling_db = ceiling_db

    def __call__(self, prediction: Tensor) -> Tensor:
        """PSNR per frame of `...TCHW` predictions, float in [0, 1]: `...T`, dB.

        Raises TypeError or ValueError where the frames do not fit the target's.
        """
        check_pair(prediction, self._target)
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        mse = (prediction.to(dtype) - self._target.to(dtype)).square().mean(dim=(-2, -1))
        return (-10 * torch.log10(mse)).clamp(max=self._ceiling_db).mean(dim=-1)


def psnr(prediction: Tensor, target: Tensor, ceiling_db: float = math.inf) -> Tensor:
    """PSNR per frame: 10 log10(1 / MSE) of each channel, averaged over the channels.

    Franceschi et al. 2020 (SRVP), evaluation of the published code: the mean squared error is taken per channel and
    frame, so for RGB this is not the PSNR of the joint MSE. Higher is better; papers print the mean over frames, then
    over videos.

        >>> from odevid.metrics import psnr
        >>> psnr(torch.full((2, 5, 1, 64, 64), 0.3), torch.full((2, 5, 1, 64, 64), 0.2)).shape
        torch.Size([2, 5])

    There each value is -20 log10(0.3 - 0.2) = 20 dB.

    Args:
        prediction: `...TCHW` float in [0, 1], such as BTCHW, or NBTCHW for N samples of each video.
        target: `...TCHW`, same frames; leading axes broadcast.
        ceiling_db: values per channel are cut here. The published code has no ceiling: a channel matched exactly
            (MSE 0) gives inf, and so does every mean that includes it. That happens to baselines (a digit that stands
            still, repeated); `EIGHT_BIT_CEILING_DB` keeps their means finite.

    Returns:
        `...T`, dB.

    Raises:
        TypeError: frames that are not float.
        ValueError: shapes that differ, values that are NaN or outside [0, 1] (by more than rounding).
    """
    check_scored(prediction, target)
    return PsnrReference(target, ceiling_db)(prediction)
