"""Structural similarity as SVG's published evaluation computes it: uniform window, range 2.

In: predicted and true frames, float in [0, 1]. Out: SSIM, one value per frame. It is higher than SRVP's SSIM of the
same frames (`odevid.metrics.ssim`): numbers of the two conventions must not stand in one column.

Legend: T time, C channels, H rows, W columns; `...` any leading axes (N samples, B videos), which broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from odevid.metrics.frames import check_scored
from odevid.metrics.ssim import WindowedSsim

WINDOW = 7  # pixels
RANGE = 2.0  # what scikit-image took for floats, whose range it held to be [-1, 1]
C1 = (0.01 * RANGE) ** 2
C2 = (0.03 * RANGE) ** 2
SAMPLE = WINDOW**2 / (WINDOW**2 - 1)  # sample covariance / population covariance


class SsimSvgReference(WindowedSsim):
    """SSIM against one target by the convention of SVG's published evaluation; see `ssim_svg`.

    Uniform window 7x7, K1 0.01, K2 0.03, L = 2, sample covariances (divisor 48), the border of 3 pixels cropped.
    Values are not checked, which `ssim_svg` does.
    """

    title = "SSIM as SVG computes it"
    window = torch.full((WINDOW,), 1 / WINDOW, dtype=torch.float64)
    c1 = C1
    c2 = C2 / SAMPLE


def ssim_svg(prediction: Tensor, target: Tensor) -> Tensor:
    """SSIM per frame as Denton and Fergus 2018 (SVG) compute it in their published code.

    That is `compare_ssim` of scikit-image before 0.16 with its defaults on float frames: a uniform window of 7x7
    pixels, sample covariances, and a range of 2, since floats were held to lie in [-1, 1]; per channel, then averaged
    over channels. It equals today's scikit-image with `win_size=7, use_sample_covariance=True, data_range=2`. The range
    makes it higher than `ssim`, which is SRVP's. For PSNR the two papers mean the same (`psnr`).

        >>> from odevid.metrics import ssim_svg
        >>> ssim_svg(torch.rand(2, 5, 1, 64, 64), torch.rand(2, 5, 1, 64, 64)).shape
        torch.Size([2, 5])

    For many samples of one target build a `SsimSvgReference`, which computes the target's statistics once.

    Args:
        prediction: `...TCHW` float in [0, 1], such as BTCHW, or NBTCHW for N samples of each video.
        target: `...TCHW`, same frames, at least 7x7 pixels; leading axes broadcast.

    Returns:
        `...T`, in the dtype of the prediction.

    Raises:
        TypeError: frames that are not float.
        ValueError: shapes that differ, frames smaller than the window, values that are NaN or outside [0, 1] (by more
            than rounding).
    """
    check_scored(prediction, target)
    return SsimSvgReference(target)(prediction)
