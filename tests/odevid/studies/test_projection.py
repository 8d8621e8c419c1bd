"""Projections: PCA finds a plane that is known and its share of the variance, t-SNE keeps groups apart."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from odevid.studies.projection import has_umap, pca, sane_perplexity, tsne, umap


def _in_a_plane(points: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates P2 (the first wider), and the same points in a plane of 7 dimensions."""
    generator = torch.Generator().manual_seed(1)
    inside_P2 = torch.randn(points, 2, dtype=torch.float64, generator=generator) * torch.tensor([3.0, 1.0])
    basis_D2 = torch.linalg.qr(torch.randn(7, 2, dtype=torch.float64, generator=generator)).Q
    return inside_P2, inside_P2 @ basis_D2.T + 4


def test_pca_recovers_states_in_a_known_plane():
    inside_P2, points_PD = _in_a_plane()
    found = pca(points_PD)
    assert sum(found.shares) == pytest.approx(1)
    assert found.shares[0] > found.shares[1]
    torch.testing.assert_close(torch.cdist(found.points_P2, found.points_P2), torch.cdist(inside_P2, inside_P2))


def test_pca_is_scikit_learns_but_for_the_sign():
    points_PD = torch.randn(40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    theirs = PCA(2).fit(points_PD.numpy())
    found = pca(points_PD)
    np.testing.assert_allclose(found.shares, theirs.explained_variance_ratio_, rtol=1e-10)
    np.testing.assert_allclose(found.points_P2.abs(), np.abs(theirs.transform(points_PD.numpy())), atol=1e-10)


def test_pca_has_one_sign_however_the_points_are_turned_around():
    _, points_PD = _in_a_plane()
    torch.testing.assert_close(pca(points_PD).points_P2, pca(points_PD.flip(0)).points_P2.flip(0))


def test_states_that_never_move_are_one_point():
    assert pca(torch.ones(5, 4)).points_P2.abs().max() == 0


@pytest.mark.parametrize("points", [4, 30])
def test_tsne_keeps_two_far_groups_apart_even_with_few_points(points):
    generator = torch.Generator().manual_seed(4)
    groups = torch.arange(points) % 2
    points_PD = torch.randn(points, 5, generator=generator) * 0.1 + 20 * groups[:, None]
    found = tsne(points_PD, seed=1)
    distances = torch.cdist(found.points_P2, found.points_P2)
    distances.fill_diagonal_(torch.inf)
    assert (groups[distances.argmin(dim=1)] == groups).all()
    assert torch.equal(tsne(points_PD, seed=1).points_P2, found.points_P2)


def test_perplexity_is_far_below_the_number_of_points():
    assert [sane_perplexity(count) for count in (4, 40, 120, 5000)] == [1, 10, 30, 30]


def test_umap_is_there_or_says_that_it_is_not():
    _, points_PD = _in_a_plane()
    if has_umap():
        assert umap(points_PD).points_P2.shape == (50, 2)
    else:
        with pytest.raises(ModuleNotFoundError, match="umap"):
            umap(points_PD)


@pytest.mark.parametrize("points", [torch.zeros(2, 4), torch.zeros(5, 1), torch.full((5, 4), float("nan"))])
def test_what_cannot_be_projected_is_refused(points):
    with pytest.raises(ValueError, match="points"):
        pca(points)
