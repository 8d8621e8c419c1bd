"""The Frechet distance equals closed forms and scipy's matrix root; moments merge into those of the whole."""

from __future__ import annotations

import warnings
import zipfile

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from odevid.metrics.frechet import Moments, distance_between, frechet_distance


def random_covariance(features: int, rank: int, seed: int) -> Tensor:
    factor = torch.randn(features, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / rank


def features(count: int, size: int = 5, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return torch.randn(count, size, generator=generator, dtype=torch.float64) @ mixing + 100


def by_scipy(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    root = np.asarray(scipy.linalg.sqrtm(cov_a.numpy() @ cov_b.numpy()))
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace()) - 2 * float(np.trace(root).real)


class TestDistance:
    def test_of_one_feature_is_the_difference_of_means_and_of_deviations_squared(self):
        one = [torch.tensor([3.0]), torch.tensor([[4.0]]), torch.tensor([1.0]), torch.tensor([[25.0]])]
        assert frechet_distance(*one) == pytest.approx(2**2 + (2 - 5) ** 2, rel=1e-14)

    def test_of_diagonal_covariances_adds_up_over_features(self):
        deviations_a, deviations_b = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([4.0, 0.5, 3.0])
        mean_a, mean_b = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
        value = frechet_distance(mean_a, deviations_a.square().diag(), mean_b, deviations_b.square().diag())
        assert value == pytest.approx((1 + 4) + (9 + 2.25 + 9), rel=1e-14)

    def test_of_rotated_diagonal_covariances_is_the_same(self):
        rotation, _ = torch.linalg.qr(random_covariance(6, 6, 1))
        a, b = torch.arange(6.0).double(), torch.tensor([2.0, 0, 0, 1, 7, 3]).double()
        covs = [rotation @ deviations.square().diag() @ rotation.T for deviations in (a, b)]
        zero = torch.zeros(6)
        assert frechet_distance(zero, covs[0], zero, covs[1]) == pytest.approx((a - b).square().sum().item(), rel=1e-12)

    @pytest.mark.parametrize("seed", range(3))
    def test_equals_scipy_on_regular_covariances(self, seed):
        args = (torch.ones(12), random_covariance(12, 30, seed), torch.zeros(12), random_covariance(12, 40, seed + 9))
        assert frechet_distance(*args) == pytest.approx(by_scipy(*args), rel=1e-9)

    @pytest.mark.parametrize(("rank_a", "rank_b"), [(3, 12), (4, 5), (1, 1)])
    def test_equals_scipy_on_singular_covariances(self, rank_a, rank_b):
        args = (torch.ones(12), random_covariance(12, rank_a, 1), torch.zeros(12), random_covariance(12, rank_b, 2))
        assert frechet_distance(*args) == pytest.approx(by_scipy(*args), rel=1e-5)  # scipy's root is the inexact one

    def test_of_equal_singular_covariances_is_zero_to_rounding(self):
        covariance, mean = random_covariance(400, 50, 3), torch.randn(400)
        assert frechet_distance(mean, covariance, mean, covariance) < 1e-10 * covariance.trace()

    def test_of_covariances_on_orthogonal_subspaces_is_the_sum_of_their_traces(self):
        a, b = torch.zeros(2, 20, 20, dtype=torch.float64)
        a[:8, :8], b[8:, 8:] = random_covariance(8, 3, 4), random_covariance(12, 5, 5)
        zero = torch.zeros(20)
        assert frechet_distance(zero, a, zero, b) == pytest.approx((a.trace() + b.trace()).item(), rel=1e-13)

    def test_refuses_shapes_that_do_not_fit_and_what_is_not_finite(self):
        mean, covariance = torch.zeros(3), torch.eye(3)
        with pytest.raises(ValueError, match=r"cov_b has shape \(2, 2\)"):
            frechet_distance(mean, covariance, mean, torch.eye(2))
        with pytest.raises(ValueError, match="mean_b is not finite"):
            frechet_distance(mean, covariance, mean / 0, covariance)


class TestMoments:
    def test_equal_numpy(self):
        sample = features(50)
        moments = Moments.of(sample)
        np.testing.assert_allclose(moments.mean_D, sample.numpy().mean(0), rtol=1e-14)
        np.testing.assert_allclose(moments.covariance_DD, np.cov(sample.numpy(), rowvar=False), rtol=1e-11)

    @pytest.mark.parametrize("cuts", [(1,) * 50, (1, 49), (16, 16, 16, 2), (25, 25)])
    def test_of_parts_merge_into_those_of_the_whole(self, cuts):
        sample = features(50)
        parts = [Moments.of(part) for part in sample.split(cuts)]
        merged, whole = sum(parts[1:], parts[0]), Moments.of(sample)
        assert merged.count == 50
        torch.testing.assert_close(merged.mean_D, whole.mean_D, rtol=1e-14, atol=0)
        torch.testing.assert_close(merged.scatter_DD, whole.scatter_DD, rtol=1e-10, atol=1e-10)

    def test_far_from_zero_keep_their_covariance(self):
        sample = features(40, seed=1)
        parts = [Moments.of(part + 1e6) for part in sample.split(8)]
        merged = sum(parts[1:], parts[0])
        torch.testing.assert_close(merged.covariance_DD, Moments.of(sample).covariance_DD, rtol=1e-8, atol=1e-8)

    def test_come_back_from_a_file_bit_for_bit_without_pickle(self, tmp_path):
        moments = Moments.of(features(7))
        moments.save(tmp_path / "real.npz")
        loaded = Moments.load(tmp_path / "real.npz")
        assert loaded.count == 7
        assert torch.equal(loaded.mean_D, moments.mean_D) and torch.equal(loaded.scatter_DD, moments.scatter_DD)
        assert [path.name for path in tmp_path.iterdir()] == ["real.npz"]
        assert sorted(zipfile.ZipFile(tmp_path / "real.npz").namelist()) == ["count.npy", "mean.npy", "scatter.npy"]

    @pytest.mark.parametrize("harm", ["cut", "text", "other", "empty"])
    def test_of_a_damaged_file_are_an_error_that_names_it(self, tmp_path, harm):
        path = tmp_path / "real.npz"
        Moments.of(features(7)).save(path)
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:-200])
        elif harm == "other":
            np.savez(path, count=3, mean=np.zeros(2), scatter=np.zeros((3, 3)))
        else:
            path.write_text("not an archive" if harm == "text" else "")
        with pytest.raises(ValueError, match=r"real\.npz"):
            Moments.load(path)

    def test_refuse_other_axes_and_name_what_is_not_finite(self):
        with pytest.raises(ValueError, match="expected axes ND"):
            Moments.of(torch.zeros(3))
        sample = features(4)
        sample[2, 1] = torch.nan
        with pytest.raises(ValueError, match="item 2 of 4"):
            Moments.of(sample)
        with pytest.raises(ValueError, match="5 features"):
            Moments.of(features(4)) + Moments.of(features(4, size=3))


class TestDistanceBetween:
    def test_needs_two_items_a_side(self):
        with pytest.raises(ValueError, match="at least 2 items, here is 1"):
            distance_between(Moments.of(features(9)), Moments.of(features(1)))

    def test_warns_where_a_covariance_is_singular(self):
        with pytest.warns(RuntimeWarning, match="rank 4"):
            distance_between(Moments.of(features(9)), Moments.of(features(5)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            distance_between(Moments.of(features(9)), Moments.of(features(6)))
