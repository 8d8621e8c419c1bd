"""FVD prepares videos as published, takes any features, and computes those of the real videos once."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from odevid.metrics.frechet import frechet_distance
from odevid.metrics.fvd import FrechetVideoDistance, I3DFeatures, fvd, preprocess
from odevid.metrics.i3d_weights import load_i3d

SIZE = 16


def make_videos(count: int, seed: int, channels: int = 1, frames: int = 10) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 1, 1, 1, 1, generator=generator) / 2
    return low + torch.rand(count, frames, channels, SIZE, SIZE, generator=generator) / 2


def simple_features(videos_BTCHW: Tensor) -> Tensor:
    """Mean, deviation, corner."""
    flat = videos_BTCHW.float().flatten(1)
    return torch.stack((flat.mean(1), flat.std(1), flat[:, 0]), dim=1)


def by_hand(real_ND: Tensor, generated_ND: Tensor) -> float:
    moments = [
        (torch.from_numpy(values.mean(0)), torch.from_numpy(np.cov(values, rowvar=False)))
        for values in (real_ND.double().numpy(), generated_ND.double().numpy())
    ]
    return frechet_distance(*moments[0], *moments[1])


class Corners(nn.Module):
    """Small features of preprocessed videos, with the interface of StyleGAN-V's scripted network."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        return torch.stack((x[:, 0].mean(dim=(1, 2, 3)), x[:, 2, -1, 5, 7]), dim=1)


@pytest.fixture
def script(tmp_path) -> Path:
    torch.jit.save(torch.jit.script(Corners()), tmp_path / "corners.pt")
    return tmp_path / "corners.pt"


class TestPreprocess:
    def test_repeats_grey_and_scales_bytes_to_minus_one_and_one(self):
        videos = torch.zeros(2, 3, 1, 4, 4, dtype=torch.uint8)
        videos[1] = 255
        prepared = preprocess(videos)
        assert prepared.shape == (2, 3, 3, 224, 224) and prepared.dtype == torch.float32
        assert prepared[0].unique().tolist() == [-1] and prepared[1].unique().tolist() == [1]

    def test_resizes_as_tensorflow_1_did_keeping_channels_and_time(self):
        """A ramp over columns of 8 pixels, one per 28 pixels; frame and channel are told apart by their offset."""
        offset = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3, 1, 1) * 40
        videos = offset + torch.arange(8, dtype=torch.uint8) * torch.ones(1, 1, 1, 8, 1, dtype=torch.uint8)
        prepared = preprocess(videos)
        for frame in range(2):
            for channel in range(3):
                levels = 40.0 * (3 * frame + channel) + (torch.arange(224) / 28).clamp(max=7)
                expected = (2 * levels / 255 - 1).expand(224, 224)
                torch.testing.assert_close(prepared[0, channel, frame], expected, rtol=0, atol=1e-6)

    def test_cuts_floats_to_bytes_unless_told_not_to(self):
        between = torch.full((1, 1, 1, 2, 2), 100.9 / 255)
        assert preprocess(between)[0, 0, 0, 0, 0].item() == pytest.approx(2 * 100 / 255 - 1, abs=1e-6)
        kept = preprocess(between, eight_bit=False)[0, 0, 0, 0, 0].item()
        assert kept == pytest.approx(2 * 100.9 / 255 - 1, abs=1e-6)

    def test_of_every_byte_is_the_same_whether_it_came_as_byte_or_float(self):
        levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 1, 16, 16)
        for dtype in (torch.float32, torch.float64):
            assert torch.equal(preprocess(levels), preprocess(levels.to(dtype) / 255))

    @pytest.mark.parametrize(
        ("videos", "error", "message"),
        [
            (torch.full((2, 9, 1, 4, 4), 1.5), ValueError, r"\[1.5, 1.5\]; expected \[0, 1\]"),
            (torch.full((2, 9, 1, 4, 4), 200.0), ValueError, "Write videos / 255"),
            (torch.full((2, 9, 1, 4, 4), -0.1), ValueError, r"expected \[0, 1\]"),
            (
                torch.cat((torch.zeros(1, 9, 1, 4, 4), torch.full((1, 9, 1, 4, 4), torch.nan))),
                ValueError,
                r"first broken frame is videos\[1, 0\]",
            ),
            (torch.zeros(2, 9, 2, 4, 4), ValueError, "1 or 3 channels"),
            (torch.zeros(9, 1, 4, 4), ValueError, "BTCHW"),
            (torch.zeros(2, 9, 1, 4, 4, dtype=torch.int64), TypeError, "int64"),
        ],
    )
    def test_refuses_other_ranges_axes_and_dtypes(self, videos, error, message):
        with pytest.raises(error, match=message):
            preprocess(videos)


class TestFrechetVideoDistance:
    @pytest.mark.parametrize("batch", [1, 4, 16])
    def test_equals_the_distance_of_all_features_at_any_batch(self, batch):
        real, generated = make_videos(12, 0), make_videos(9, 1)
        distance = FrechetVideoDistance(simple_features, batch)
        distance.set_real(real)
        expected = by_hand(simple_features(real), simple_features(generated))
        assert distance(generated) == pytest.approx(expected, rel=1e-9)
        assert distance(generated.split(2)) == pytest.approx(expected, rel=1e-9)

    def test_over_ranks_is_that_of_the_sum_of_their_moments(self):
        real, generated = make_videos(12, 0), make_videos(9, 1)
        distance = FrechetVideoDistance(simple_features)
        distance.set_real(distance.moments(real[:5]) + distance.moments(real[5:]))
        summed = distance.moments(generated[:1]) + distance.moments(generated[1:])
        expected = by_hand(simple_features(real), simple_features(generated))
        assert distance(summed) == pytest.approx(expected, rel=1e-9)

    def test_of_several_sets_has_a_mean_and_an_interval(self):
        distance = FrechetVideoDistance(simple_features)
        distance.set_real(make_videos(12, 0))
        sets = [make_videos(9, seed) for seed in range(1, 6)]
        values = [distance(videos) for videos in sets]
        interval = distance.interval(sets)
        assert interval.mean == pytest.approx(np.mean(values)) and interval.count == 5
        assert interval.half_width == pytest.approx(1.96 * np.std(values) / 5**0.5)

    def test_reads_the_real_videos_once_per_fingerprint_and_features(self, tmp_path):
        def counted():
            seen.append(1)
            yield make_videos(12, 0)

        seen: list[int] = []
        values = []
        for _ in range(2):
            distance = FrechetVideoDistance(simple_features)
            distance.set_real(counted(), tmp_path / "cache", "kth-test")
            values.append(distance(make_videos(9, 1)))
        assert seen == [1] and values[0] == values[1]
        FrechetVideoDistance(simple_features).set_real(counted(), tmp_path / "cache", "bair-test")
        other = lambda videos: simple_features(videos)  # noqa: E731
        other.fingerprint = "other weights"  # type: ignore[attr-defined]
        FrechetVideoDistance(other).set_real(counted(), tmp_path / "cache", "kth-test")
        assert seen == [1, 1, 1] and len(list((tmp_path / "cache").iterdir())) == 3

    def test_asks_for_what_is_missing(self, tmp_path):
        distance = FrechetVideoDistance(simple_features)
        with pytest.raises(RuntimeError, match="set_real"):
            distance(make_videos(9, 1))
        with pytest.raises(ValueError, match="fingerprint"):
            distance.set_real(make_videos(9, 1), tmp_path)
        with pytest.raises(ValueError, match="no videos"):
            distance.set_real([])
        with pytest.raises(ValueError, match="batch is 0"):
            FrechetVideoDistance(simple_features, 0)


class TestFvd:
    def test_is_the_distance_of_the_features_of_prepared_videos(self, script):
        real, generated = make_videos(7, 0, channels=3), make_videos(6, 1, channels=3)
        expected = by_hand(*(Corners()(preprocess(videos)) for videos in (real, generated)))
        assert fvd(real, generated, weights=script, run_code=True, batch=4) == pytest.approx(expected, rel=1e-6)

    def test_puts_the_conditioning_frames_before_both_sides(self, script):
        conditioning, real, generated = (make_videos(6, seed, frames=5) for seed in range(3))
        value = fvd(real, generated, conditioning=conditioning, weights=script, run_code=True)
        whole = [torch.cat((conditioning, future), dim=1) for future in (real, generated)]
        assert value == fvd(*whole, weights=script, run_code=True)
        assert value != fvd(real.repeat(1, 2, 1, 1, 1), generated.repeat(1, 2, 1, 1, 1), weights=script, run_code=True)

    def test_warns_of_few_videos(self, script):
        with pytest.warns(RuntimeWarning, match="rank 1"):
            fvd(make_videos(2, 0), make_videos(6, 1), weights=script, run_code=True)

    def test_refuses_what_cannot_be_compared(self, script):
        real = make_videos(4, 0)
        with pytest.raises(ValueError, match="differ beyond B"):
            fvd(real, make_videos(4, 1, channels=3), weights=script, run_code=True)
        with pytest.raises(TypeError, match=r"real is builtins.list; expected a tensor: write torch.as_tensor\(real\)"):
            fvd([1], [2])
        with pytest.raises(TypeError, match=r"conditioning is numpy\.ndarray; expected a tensor"):
            fvd(real, real, conditioning=real.numpy(), weights=script, run_code=True)
        with pytest.raises(ValueError, match="8 frames; FVD needs at least 9"):
            fvd(real[:, :8], real[:, :8], weights=script, run_code=True)
        with pytest.raises(ValueError, match="at least 2 videos a side, here are 4 and 1"):
            fvd(real, real[:1], weights=script, run_code=True)
        with pytest.raises(ValueError, match="conditioning"):
            fvd(real, real, conditioning=real[:3], weights=script, run_code=True)
        with pytest.raises(PermissionError):
            fvd(real, real, weights=script)

    def test_names_the_weights_in_the_fingerprint(self):
        torch.manual_seed(0)
        first, second = nn.Linear(2, 2), nn.Linear(2, 2)
        names = {I3DFeatures(net).fingerprint for net in (first, second, first)}
        assert len(names) == 2
        assert I3DFeatures(first, eight_bit=False).fingerprint not in names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "frames", "published", "tolerance"),
    [
        (8, 30, 151.39244, 0.5),  # calculate_fvd_tensorflow.py of JunyaoHu/common_metrics_on_video_quality, README
        (16, 15, 131, 1),  # example.py of google-research/frechet_video_distance: "around 131"
    ],
)
def test_of_zeros_against_ones_is_the_published_value(count, frames, published, tolerance):
    """Only where the published weights are at hand."""
    try:
        net = load_i3d()
    except FileNotFoundError as error:
        pytest.skip(f"no published I3D weights on this machine: {error}")
    distance = FrechetVideoDistance(I3DFeatures(net), batch=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        distance.set_real(torch.zeros(count, frames, 3, 64, 64, dtype=torch.uint8))
        value = distance(torch.full((count, frames, 3, 64, 64), 255, dtype=torch.uint8))
    assert value == pytest.approx(published, abs=tolerance)
