"""Structural similarity as SRVP defines it: Gaussian window, valid region only.

In: predicted and true frames, float in [0, 1]. Out: SSIM, one value per frame.
The statistics of the target are computed once and serve any number of samples.

Legend: T time, C channels, H rows, W columns; h = H - K + 1, w = W - K + 1 for a window of KxK pixels (valid region);
`...` any leading axes (N samples, B videos), which broadcast.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from odevid.metrics.frames import check_frames, check_pair, check_scored

WINDOW = 11  # pixels
SIGMA = 1.5  # pixels
C1 = 0.01**2  # (K1 L)^2, L = 1
C2 = 0.03**2  # (K2 L)^2


def gaussian_window(size: int, sigma: float) -> Tensor:
    """Weights of `size` pixels about the middle one, float64; their sum is 1."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _window_matrix(weights: Tensor, size: int) -> Tensor:
    """Banded matrix (size - K + 1, size), float64: row i averages entries i ... i + K - 1 with the K weights."""
    valid = size - len(weights) + 1
    matrix = torch.zeros(valid, size, dtype=torch.float64)
    for row in range(valid):
        matrix[row, row : row + len(weights)] = weights
    return matrix


def _working_dtype(frames: Tensor) -> torch.dtype:
    """float64 on an accelerator (float32 products may silently run in TF32 there), else at least float32."""
    return torch.float64 if frames.device.type != "cpu" else torch.promote_types(frames.dtype, torch.float32)


class WindowedSsim:
    """SSIM against one target with some separable window: Wang et al. 2004, equation 13, valid convolution only.

    A subclass says which window and constants. Per channel, averaged over space and channels.

    The window is separable, so a local mean is two products with banded matrices. Each frame is taken
    relative to its own mean, which leaves variances as they are and spares float32 most of their cancellation.

    It looks at shapes, not at values. Raises TypeError for frames that are not float, ValueError for frames smaller
    than the window.
    """

    title: ClassVar[str]
    window: ClassVar[Tensor]
    """K weights, rows and columns alike; their sum is 1."""
    c1: ClassVar[float]
    c2: ClassVar[float]
    """For population variances and covariances. Those of a sample are M / (M - 1) times as large, for a window of M
    pixels: dividing numerator and denominator by that factor leaves c2 divided by it."""

    def __init__(self, target: Tensor) -> None:
        """Take a target `...TCHW`, float in [0, 1], and compute its local means and variances."""
        check_frames("target", target)
        height, width = target.shape[-2:]
        smallest = len(self.window)
        if min(height, width) < smallest:
            raise ValueError(
                f"target has frames of {height}x{width} pixels; {self.title} needs at least {smallest}x{smallest}"
            )
        self._dtype = _working_dtype(target)
        self._target = target
        self._rows_hH = _window_matrix(self.window, height).to(target.device, self._dtype)
        self._columns_Ww = _window_matrix(self.window, width).T.contiguous().to(target.device, self._dtype)
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
        if prediction.ndim > self._target.ndim and prediction.device.type == "cpu":  # caches like small pieces
            return torch.stack([self(sample) for sample in prediction])
        with torch.autocast(prediction.device.type, enabled=False):
            origin, centred, mean, variance = self._statistics(prediction)
            covariance = self._local_mean(centred * self._centred) - mean * self._mean
            mean_x, mean_y = mean + origin, self._mean + self._origin
            luminance = (2 * mean_x * mean_y + self.c1) / (mean_x.square() + mean_y.square() + self.c1)
            structure = (2 * covariance + self.c2) / (variance + self._variance + self.c2)
            return (luminance * structure).mean(dim=(-3, -2, -1)).to(prediction.dtype)


class SsimReference(WindowedSsim):
    """SSIM against one target, with the constants and the cropping of the published SRVP code; see `ssim`.

    Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03, L = 1, population covariances, valid convolution only (a 54x54
    map for 64x64 frames). Values are not checked, which `ssim` does.
    """

    title = "SSIM"
    window = gaussian_window(WINDOW, SIGMA)
    c1 = C1
    c2 = C2


def ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """SSIM per frame: Wang et al. 2004 as Franceschi et al. 2020 (SRVP) evaluate it.

    Gaussian window 11x11, sigma 1.5, population covariances, averaged over the region that the window fits into, over
    channels, and for a range of 1. It equals scikit-image with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1` on that region. Libraries that average over a padded map give other
    numbers, and so does SVG's evaluation (`ssim_svg`). Higher is better, 1 for equal frames; papers print the mean over
    frames, then over videos.

        >>> from odevid.metrics import ssim
        >>> ssim(torch.rand(2, 5, 3, 64, 64), torch.rand(2, 5, 3, 64, 64)).shape
        torch.Size([2, 5])

    For many samples of one target build a `SsimReference`, which computes the target's statistics once.

    Args:
        prediction: `...TCHW` float in [0, 1], such as BTCHW, or NBTCHW for N samples of each video.
        target: `...TCHW`, same frames, at least 11x11 pixels; leading axes broadcast.

    Returns:
        `...T`, in the dtype of the prediction.

    Raises:
        TypeError: frames that are not float.
        ValueError: shapes that differ, frames smaller than the window, values that are NaN or outside [0, 1] (by more
            than rounding).
    """
    check_scored(prediction, target)
    return SsimReference(target)(prediction)
