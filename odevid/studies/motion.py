"""How far a known digit moves from frame to frame, measured on frames, and how such moves are distributed.

In: frames with one digit, the digit's picture. Out: its corner in each frame, histograms of its moves (dx, dy), and
the distance between two such histograms.

The corner is where the digit's picture, laid on black, is nearest to the frame in least squares. The picture lies
within the frame wherever it is tried, so its energy is always the same, and the nearest place is that of the largest
correlation, which Fourier transforms give for all places at once. On frames of the generator this is exact: by the
inequality of Cauchy and Schwarz no other place correlates as well. On predicted frames the brightness does not
matter, and blur shifts nothing as long as it is even.

Source: E. Denton and R. Fergus, "Stochastic Video Generation with a Learned Prior" (ICML 2018), supplement, figures 3
and 4. How the moves were measured there is not stated.

Legend: N samples, T frames, H rows, W columns, h rows and w columns of the digit's picture, Y, X bins of dy, dx;
2 (row, column). Lengths in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FRAMES_AT_A_TIME = 1024


@dataclass(frozen=True)
class Found:
    """Where a digit was found.

    Attributes:
        corner_NT2: int64, row and column of its first pixel.
        match_NT: cosine of the angle between the frame and the digit laid there, 0 to 1; 1 is the digit itself.
    """

    corner_NT2: Tensor
    match_NT: Tensor


@dataclass(frozen=True)
class Moves:
    """How moves are distributed at each step.

    Attributes:
        share_TYX: share of the moves of step t with this dy and dx, from -reach to reach each.
        beyond_T: share of the moves that are larger.
        mean_T2: mean move (dy, dx), the larger ones included.
        spread_T: root of the mean squared distance from it.
    """

    share_TYX: NDArray[np.float64]
    beyond_T: NDArray[np.float64]
    mean_T2: NDArray[np.float64]
    spread_T: NDArray[np.float64]

    @property
    def reach(self) -> int:
        """Largest component that has a bin of its own."""
        return self.share_TYX.shape[-1] // 2


def find_digit(frames_NTHW: Tensor, digit_hw: Tensor) -> Found:
    """Where the digit is in each frame, in whole pixels.

    Args:
        frames_NTHW: float; one digit on black.
        digit_hw: float, in the same units or others; smaller than the frame, and not empty.

    Raises:
        ValueError: shapes that do not fit, or an empty digit.
    """
    (height, width), (h, w) = frames_NTHW.shape[-2:], digit_hw.shape
    if frames_NTHW.ndim != 4 or h > height or w > width:
        raise ValueError(
            f"frames of shape {tuple(frames_NTHW.shape)} and a digit of {h}x{w}: expected NTHW and a smaller digit"
        )
    energy = digit_hw.norm()
    if not energy > 0:
        raise ValueError("the digit is empty: there is nothing to look for")
    spectrum = torch.fft.rfft2(digit_hw.to(frames_NTHW), s=(height, width)).conj()
    places = (height - h + 1, width - w + 1)
    corners, matches = [], []
    for some_MHW in frames_NTHW.flatten(0, 1).split(_FRAMES_AT_A_TIME):
        correlation = torch.fft.irfft2(torch.fft.rfft2(some_MHW) * spectrum, s=(height, width))
        best, place = correlation[:, : places[0], : places[1]].flatten(1).max(dim=1)
        corners.append(torch.stack((place // places[1], place % places[1]), dim=-1))
        matches.append(best / (energy * some_MHW.flatten(1).norm(dim=1)).clamp_min(1e-12))
    shape = frames_NTHW.shape[:2]
    return Found(torch.cat(corners).unflatten(0, shape), torch.cat(matches).unflatten(0, shape))


def count_moves(corner_NT2: NDArray[np.int64], reach: int) -> Moves:
    """Histogram of the moves from each frame to the next: T - 1 steps of N moves.

    Raises:
        ValueError: no move, or corners that are not whole numbers of shape NT2.
    """
    if corner_NT2.ndim != 3 or corner_NT2.shape[-1] != 2 or corner_NT2.dtype.kind not in "iu":
        raise ValueError(f"corners have shape {corner_NT2.shape} and dtype {corner_NT2.dtype}; expected integers, NT2")
    num, frames = corner_NT2.shape[:2]
    if num < 1 or frames < 2:
        raise ValueError(f"{num} trajectories of {frames} frames have no move: expected at least 1 of 2 frames")
    moves_NT2 = np.diff(corner_NT2.astype(np.int64), axis=1)
    side = 2 * reach + 1
    inside_NT: NDArray[np.bool_] = np.abs(moves_NT2).max(axis=-1) <= reach
    bins_NT = (moves_NT2 + reach) @ np.array([side, 1])
    counts = [np.bincount(bins_NT[inside_NT[:, t], t], minlength=side**2) for t in range(frames - 1)]
    mean_T2 = moves_NT2.mean(axis=0)
    spread_T = np.sqrt(np.square(moves_NT2 - mean_T2).sum(axis=-1).mean(axis=0))
    beyond_T = 1 - inside_NT.mean(axis=0)
    return Moves(np.stack(counts).reshape(-1, side, side) / num, beyond_T, mean_T2, spread_T)


def total_variation(first: Moves, second: Moves) -> NDArray[np.float64]:
    """Distance of two distributions at each step: 0 where they are equal, 1 where they have no move in common.

    Half the sum of absolute differences; all moves beyond the reach count as one bin.

    Raises:
        ValueError: other steps or another reach.
    """
    if first.share_TYX.shape != second.share_TYX.shape:
        raise ValueError(f"moves of shapes {first.share_TYX.shape} and {second.share_TYX.shape}; expected the same")
    inside = np.abs(first.share_TYX - second.share_TYX).sum(axis=(1, 2))
    return np.asarray((inside + np.abs(first.beyond_T - second.beyond_T)) / 2)
