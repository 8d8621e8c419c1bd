"""Points of a latent space in two dimensions: PCA (linear, with its share of the variance), t-SNE, UMAP.

In: points as rows. Out: their two coordinates.

Axes: P points, D dimensions of the latent space.
"""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

MAX_PERPLEXITY = 30.0


@dataclass(frozen=True)
class Projection:
    """Points in the plane.

    Attributes:
        method: "PCA", "t-SNE" or "UMAP".
        points_P2: float64 on the CPU.
        shares: of the variance, per axis (PCA); empty for the others, whose axes mean nothing.
        settings: what it was made with, in words.
    """

    method: str
    points_P2: Tensor
    shares: tuple[float, ...] = ()
    settings: str = ""


def pca(points_PD: Tensor) -> Projection:
    """The two directions of largest variance; a direction points where its largest entry is positive.

    Raises:
        ValueError: fewer than 3 points, fewer than 2 dimensions, or values that are not finite.
    """
    points = _checked(points_PD)
    centred = points - points.mean(dim=0)
    _, singular, directions_DD = torch.linalg.svd(centred, full_matrices=False)
    axes_2D = directions_DD[:2]
    largest = axes_2D.gather(1, axes_2D.abs().argmax(dim=1, keepdim=True))
    axes_2D = axes_2D * torch.where(largest < 0, -1.0, 1.0)
    total = float(singular.square().sum())
    shares = singular[:2].square() / total if total else torch.zeros(2)
    return Projection("PCA", centred @ axes_2D.T, tuple(shares.tolist()))


def tsne(points_PD: Tensor, seed: int = 0) -> Projection:
    """t-SNE (van der Maaten & Hinton 2008) of scikit-learn, from a PCA start; perplexity 30, less for few points.

    Raises:
        ValueError: as for `pca`.
    """
    from sklearn.manifold import TSNE

    points = _checked(points_PD)
    perplexity = sane_perplexity(len(points))
    found = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points.numpy())
    return Projection("t-SNE", torch.from_numpy(found).double(), settings=f"perplexity {perplexity:g}")


def sane_perplexity(num_points: int) -> float:
    """30, or a quarter of the points: the neighbours that a point counts must be far fewer than all."""
    return min(MAX_PERPLEXITY, max(1.0, num_points / 4))


def has_umap() -> bool:
    """Whether the package umap-learn is installed; it is not required."""
    return find_spec("umap") is not None


def umap(points_PD: Tensor, seed: int = 0) -> Projection:
    """UMAP (McInnes et al. 2018) of umap-learn, 15 neighbours, fewer for few points.

    Raises:
        ValueError: as for `pca`.
        ModuleNotFoundError: umap-learn is not installed.
    """
    from umap import UMAP  # type: ignore[import-not-found]

    points = _checked(points_PD)
    neighbours = max(2, min(15, len(points) // 4))
    found = UMAP(n_components=2, n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(points.numpy())
    return Projection("UMAP", torch.as_tensor(found).double(), settings=f"{neighbours} neighbours")


def _checked(points_PD: Tensor) -> Tensor:
    """The points as float64 on the CPU."""
    if points_PD.ndim != 2 or points_PD.shape[0] < 3 or points_PD.shape[1] < 2:
        raise ValueError(f"points have shape {tuple(points_PD.shape)}; expected at least 3 points of 2 dimensions")
    if not points_PD.isfinite().all():
        raise ValueError("points hold NaN or infinite values")
    return points_PD.detach().to("cpu", torch.float64)
