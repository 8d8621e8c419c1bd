"""Structural similarity as SRVP defines it: Gaussian window, valid region only.

In: predicted and true frames, float in [0, 1]. Out: SSIM, one value per frame.
The statistics of the target are computed once and serve any number of samples.

Legend: T time, C channels, H rows, W columns; h = H - 10, w = W - 10 (valid region); `...` any leading axes (N samples,
B videos), which broadcast.
"""

from __future__ import annotations

import torch
from torch import Tensor

from odevid.metrics.frames import check_frames, check_pair

WINDOW = 11  # pixels
SIGMA = 1.5  # pixels
C1 = 0.01**2  # (K1 L)^2, L = 1
C2 = 0.03**2  # (K2 L)^2


def _window_matrix(size: int) -> Tensor:
    """Banded matrix (size - 10, size), float64: row i averages entries i ... i + 10 with the Gaussian window."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    valid = size - WINDOW + 1
    matrix = torch.zeros(valid, size, dtype=torch.float64)
    for row in range(valid):
        matrix[row, row : row + WINDOW] = weights
    return matrix


def _working_dtype(frames: Tensor) -> torch.dtype:
    """float64 on an accelerator (float32 products may silently run in TF32 there), else at least float32."""
    return torch.float64 if frames.device.type != "cpu" else torch.promote_types(frames.dtype, torch.float32)


class SsimReference:
    """SSIM against one target: Wang et al. 2004, with the constants and the cropping of the published SRVP code.

    Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, L = 1, population covariances, valid convolution only (a 54x54
    map for 64x64 frames), per channel, averaged over space and channels. Libraries that average over a padded map give
    other numbers.

    The window is separable, so a local mean is two products with banded matrices. Each frame is taken
    relative to its own mean, which leaves variances as they are and spares float32 most of their cancellation.

    Raises TypeError for frames that are not float, ValueError for frames smaller than the window.
    """

    def __init__(self, target: Tensor) -> None:
        """Take a target `...TCHW`, float in [0, 1], and compute its local means and variances."""
        check_frames("target", target)
        height, width = target.shape[-2:]
        if min(height, width) < WINDOW:
            raise ValueError(f"target has frames of {height}x{width} pixels; SSIM needs at least {WINDOW}x{WINDOW}")
        self._dtype = _working_dtype(target)
        self._target = target
        self._rows_hH = _window_matrix(height).to(target.device, self._dtype)
        self._columns_Ww = _window_matrix(width).T.contiguous().to(target.device, self._dtype)
        with torch.autocast(target.device.type, enabled=False):
            self._origin, self._centred, self._mean, self._variance = self._statistics(target)

    def _local_mean(self, field: Tensor) -> Tensor:
        """`...HW` -> `...hw`."""
        return self._rows_hH @ (field @ self._columns_Ww)

    def _statistics(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean of each frame, frames relative to it, their local means and variances."""
        frames = frames.to(self._dtype)
        origin = frames.mean(dim=(-2, -1), keepdim=True)
        centred = frames - origin
        mean = self._local_mean(centred)
        return origin, centred, mean, self._local_mean(centred.square()) - mean.square()

    def __call__(self, prediction: Tensor) -> Tensor:
        """SSIM per frame of `...TCHW` predictions, float in [0, 1]: `...T`, in the dtype of the prediction.

        Raises TypeError or ValueError where the frames do not fit the target's.
        """
        check_pair(prediction, self._target)
        with torch.autocast(prediction.device.type, enabled=False):
            origin, centred, mean, variance = self._statistics(prediction)
            covariance = self._local_mean(centred * self._centred) - mean * self._mean
            mean_x, mean_y = mean + origin, self._mean + self._origin
            luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
            structure = (2 * covariance + C2) / (variance + self._variance + C2)
            return (luminance * structure).mean(dim=(-3, -2, -1)).to(prediction.dtype)


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """SSIM per frame of one prediction: `...TCHW` float in [0, 1] twice -> `...T`. See `SsimReference`."""
    return SsimReference(target)(prediction)
