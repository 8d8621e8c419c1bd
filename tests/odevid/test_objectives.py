"""Objective terms against torch.distributions and closed forms, in float64."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import softplus

from odevid.objectives import (
    full_precision,
    gaussian_nll,
    kl_between,
    kl_to_standard,
    sample_gaussian,
    split_gaussian,
)
from tests.odevid.formula import scatter


def _normal(raw):
    mean, spread = raw.chunk(2, dim=-1)
    return Normal(mean, softplus(spread) + 1e-8)


def test_std_is_softplus_of_the_second_half_plus_a_floor():
    mean, std = split_gaussian(torch.tensor([1.0, 2.0, 0.0, -200.0], dtype=torch.float64))
    assert mean.tolist() == [1.0, 2.0]
    assert std.tolist() == pytest.approx([math.log(2) + 1e-8, 1e-8], rel=1e-12)


def test_kl_terms_equal_torch_distributions():
    raw_q, raw_p = 3 * scatter((4, 5, 14), 1), 3 * scatter((4, 5, 14), 2)
    torch.testing.assert_close(kl_between(raw_q, raw_p), kl_divergence(_normal(raw_q), _normal(raw_p)))
    torch.testing.assert_close(kl_to_standard(raw_q), kl_divergence(_normal(raw_q), Normal(0.0, 1.0)))


def test_kl_is_zero_between_equals_and_finite_in_fp32_at_extreme_spreads():
    raw = torch.tensor([0.3, -80.0])
    assert kl_between(raw, raw).item() == 0.0
    assert torch.isfinite(kl_to_standard(raw)).all()


def test_nll_equals_torch_distributions():
    data, mean = scatter((2, 3, 4), 3), scatter((2, 3, 4), 4)
    torch.testing.assert_close(gaussian_nll(data, mean, 0.71), -Normal(mean, 0.71).log_prob(data).sum())


@pytest.mark.parametrize(
    ("frames", "channels", "std", "constant"),
    [(15, 1, 1.0, 56459.6), (20, 1, 0.2, -56565.7), (16, 3, 0.2, -135757.7), (12, 3, 0.71, 85000.7)],
    ids=["smmnist", "kth", "human", "bair"],
)
def test_nll_of_a_perfect_reconstruction_is_the_published_constant_per_clip(frames, channels, std, constant):
    clip = torch.zeros(frames, channels, 64, 64)
    assert gaussian_nll(clip, clip, std).item() == pytest.approx(constant, abs=0.06)


def test_samples_are_mean_plus_std_times_noise():
    raw, noise = scatter((3, 8), 5), scatter((3, 4), 6)
    torch.testing.assert_close(sample_gaussian(raw, noise), _normal(raw).loc + _normal(raw).scale * noise)


def test_full_precision_lifts_halves_and_keeps_doubles():
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert full_precision(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
