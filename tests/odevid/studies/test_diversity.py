"""Diversity: none among equal samples, the closed form for Gaussian noise, every pair counted once."""

import itertools
import math

import pytest
import torch

from odevid.studies.diversity import deviation, pixel_rms, spread

SHAPE = (5, 3, 64, 64)  # TCHW


def noise(samples: int, sigma: float) -> torch.Tensor:
    return sigma * torch.randn(samples, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_equal_samples_have_no_diversity_but_a_distance_from_the_truth():
    found = spread(torch.full((4, *SHAPE), 0.75), torch.full(SHAPE, 0.5))
    assert torch.equal(found.between_T, torch.zeros(5))
    torch.testing.assert_close(found.to_truth_T, torch.full((5,), 0.25))
    assert torch.equal(deviation(torch.full((4, *SHAPE), 0.75)), torch.zeros(5, 64, 64))


def test_gaussian_noise_of_growing_width_has_its_closed_form():
    sigma_T = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2], dtype=torch.float64)
    samples = noise(12, 1.0) * sigma_T[:, None, None, None]
    found = spread(samples, torch.zeros(SHAPE, dtype=torch.float64))
    torch.testing.assert_close(found.between_T, math.sqrt(2) * sigma_T, rtol=0.01, atol=0)  # of 12 288 pixels
    torch.testing.assert_close(found.to_truth_T, sigma_T, rtol=0.01, atol=0)
    torch.testing.assert_close(deviation(samples).square().mean(dim=(1, 2)), sigma_T.square(), rtol=0.02, atol=0)


def test_it_is_the_mean_over_all_pairs():
    samples = noise(4, 0.1)
    pairs = [(a - b).square().flatten(1).mean(1).sqrt() for a, b in itertools.combinations(samples, 2)]
    assert len(pairs) == 6
    torch.testing.assert_close(spread(samples, samples[0]).between_T, torch.stack(pairs).mean(0))


def test_another_distance_works_on_what_it_is_given():
    features_NTF = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 0.0]]])
    found = spread(features_NTF, torch.zeros(1, 2), lambda a, b: (a - b).square().sum(-1))
    torch.testing.assert_close(found.between_T, torch.tensor([50 / 3]))
    torch.testing.assert_close(found.to_truth_T, torch.tensor([25 / 3]))


def test_deviation_is_numpys_unbiased_one():
    samples = noise(6, 0.3)[:, :, :1]
    expected = samples.numpy().std(axis=0, ddof=1)[:, 0]
    torch.testing.assert_close(deviation(samples), torch.from_numpy(expected))


def test_one_sample_and_a_truth_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="give at least 2"):
        spread(noise(1, 1.0), torch.zeros(SHAPE))
    with pytest.raises(ValueError, match="give at least 2"):
        deviation(noise(1, 1.0))
    with pytest.raises(ValueError, match="the truth"):
        spread(noise(2, 1.0), torch.zeros(4, 3, 64, 64))
    assert pixel_rms(torch.zeros(SHAPE), torch.ones(SHAPE)).tolist() == [1.0] * 5
