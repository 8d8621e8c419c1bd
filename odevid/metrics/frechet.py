"""Frechet distance between two sets of features, each taken as a Gaussian.

In: features, chunk by chunk and rank by rank. Out: their moments, which merge and can be kept in a file; and the
distance between two of them. Everything is float64 on the CPU.

Legend: N feature vectors, D features.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

EPSILON = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter (sum of outer products of deviations from the mean) of features; float64, CPU.

    Sets of features are merged with `+`, by the pairwise update of Chan, Golub and LeVeque (1983), which loses nothing
    but the last bits: how features were cut into batches and ranks does not matter.
    """

    count: int
    mean_D: Tensor
    scatter_DD: Tensor

    @classmethod
    def of(cls, features_ND: Tensor) -> Moments:
        """Moments of one batch of features ND, any float dtype, any device.

        Raises ValueError for other axes, an empty batch, or features that are NaN or infinite.
        """
        if features_ND.ndim != 2 or features_ND.numel() == 0:
            raise ValueError(f"features have shape {tuple(features_ND.shape)}; expected axes ND, not empty")
        features_ND = features_ND.detach().to("cpu", torch.float64)
        broken_N = ~features_ND.isfinite().all(dim=1)
        if broken_N.any():
            first = int(broken_N.nonzero()[0])
            raise ValueError(f"features of item {first} of {len(features_ND)} are not finite")
        mean_D = features_ND.mean(dim=0)
        centred_ND = features_ND - mean_D
        return cls(len(features_ND), mean_D, centred_ND.T @ centred_ND)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets together. Raises ValueError where the number of features differs."""
        if self.mean_D.shape != other.mean_D.shape:
            raise ValueError(
                f"moments of {len(self.mean_D)} features cannot be merged with {len(other.mean_D)} features"
            )
        count = self.count + other.count
        step_D = other.mean_D - self.mean_D
        between = self.count * other.count / count
        scatter_DD = self.scatter_DD + other.scatter_DD + between * torch.outer(step_D, step_D)
        return Moments(count, self.mean_D + step_D * (other.count / count), scatter_DD)

    @property
    def covariance_DD(self) -> Tensor:
        """Sample covariance (divisor N - 1, as TF-GAN has it). Raises ValueError for fewer than two feature vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 items, here is {self.count}")
        return self.scatter_DD / (self.count - 1)

    def save(self, path: str | Path) -> None:
        """Write an npz file (no pickle in it), which appears only when complete."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                np.savez(file, count=self.count, mean=self.mean_D.numpy(), scatter=self.scatter_DD.numpy())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Moments:
        """Read what `save` wrote, bit for bit. Raises FileNotFoundError, or ValueError for any other content."""
        try:
            with np.load(path, allow_pickle=False) as content:
                count, mean, scatter = int(content["count"]), content["mean"], content["scatter"]
        except (ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{path} does not hold moments of features ({error}): delete it, it is made anew"
            ) from error
        if mean.ndim != 1 or scatter.shape != 2 * mean.shape or mean.dtype != np.float64 or scatter.dtype != np.float64:
            raise ValueError(f"{path} holds a mean {mean.shape} and a scatter {scatter.shape}: not moments of features")
        return cls(count, torch.from_numpy(mean), torch.from_numpy(scatter))


def _factor(covariance_DD: Tensor) -> Tensor:
    """L with L L^T = covariance, from its eigenvectors; what is zero or below to rounding is zero."""
    values_D, vectors_DD = torch.linalg.eigh((covariance_DD + covariance_DD.T) / 2)
    noise = len(values_D) * EPSILON * values_D.abs().max()
    return vectors_DD * torch.where(values_D > noise, values_D, 0.0).sqrt()


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)): the squared 2-Wasserstein distance of two Gaussians.

    Dowson and Landau 1982; as a score of generators Heusel et al. 2017 (FID) and Unterthiner et al. 2018 (FVD).
    With C = L L^T the trace of the root is the sum of the singular values of L_a^T L_b. So no root is taken of a
    product's eigenvalues, which for covariances of few items (rank N - 1 < D) would turn rounding of 1e-16 into 1e-8.

    Args:
        mean_a, mean_b: D.
        cov_a, cov_b: DD, symmetric, positive semi-definite; they may be singular.

    Returns:
        The distance, at least 0, in the unit of the features squared.

    Raises:
        ValueError: shapes that do not fit each other, values that are not finite.
    """
    features = mean_a.numel()
    tensors = {"mean_a": mean_a, "cov_a": cov_a, "mean_b": mean_b, "cov_b": cov_b}
    for name, tensor in tensors.items():
        expected = (features,) if name.startswith("mean") else (features, features)
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; with mean_a of {features} features, {expected}")
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite")
    m_a, c_a, m_b, c_b = (tensor.detach().to("cpu", torch.float64) for tensor in tensors.values())
    root_trace = torch.linalg.svdvals(_factor(c_a).T @ _factor(c_b)).sum()
    distance = (m_a - m_b).square().sum() + c_a.trace() + c_b.trace() - 2 * root_trace
    return max(0.0, distance.item())


def distance_between(a: Moments, b: Moments) -> float:
    """Frechet distance of two sets of features.

    Warns (RuntimeWarning) where a set has no more items than features: its covariance is then singular and the distance
    biased upwards, as in every published FVD on BAIR's 256 videos; compare such numbers at equal N only.

    Raises ValueError for fewer than two items, or different numbers of features.
    """
    smallest, features = min(a.count, b.count), len(a.mean_D)
    covariances = a.covariance_DD, b.covariance_DD
    if smallest <= features:
        warnings.warn(
            f"Frechet distance of {a.count} and {b.count} items with {features} features: "
            f"a covariance of {smallest} items has rank {smallest - 1}; compare it with numbers of the same N only",
            RuntimeWarning,
            stacklevel=2,
        )
    return frechet_distance(a.mean_D, covariances[0], b.mean_D, covariances[1])
