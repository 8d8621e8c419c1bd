"""PSNR, SSIM, centroids and intervals equal closed forms, scikit-image and the published SRVP evaluation."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from odevid.metrics.centroid import centroid_error, intensity_centroid, median_centroid_error
from odevid.metrics.interval import interval_mean_of_frames, interval_over_videos, interval_per_frame
from odevid.metrics.psnr import EIGHT_BIT_CEILING_DB, PsnrReference, psnr
from odevid.metrics.ssim import C1, SsimReference, ssim
from odevid.metrics.ssim_svg import SsimSvgReference, ssim_svg
from tests.conftest import shared_data

# The published evaluation (edouardelasalles/srvp 05661fa, metrics/ssim.py and the PSNR line of test.py), run in float64
# on `waves(0.4)` against `waves(0.0)`: means over channels of the two frames.
PUBLISHED_SSIM = [0.8942794019169503, 0.894190655161195]
PUBLISHED_PSNR = [21.31938985358176, 21.32755060444546]


def waves(phase: float) -> torch.Tensor:
    """Two smooth 64x64 RGB frames TCHW in [0, 1], float64, different in every channel."""
    t, c, row, column = np.meshgrid(np.arange(2), np.arange(3), np.arange(64), np.arange(64), indexing="ij")
    slow = 0.3 * np.sin(0.37 * column + 0.21 * row + 1.3 * c + 0.7 * t + phase)
    return torch.from_numpy(0.5 + slow + 0.15 * np.cos(0.11 * column * (c + 1) - 0.29 * row + phase * phase))


def constant(value: float, channels: int = 1) -> torch.Tensor:
    return torch.full((2, channels, 64, 64), value)


def dot(row: int, column: int, frames: int = 1) -> torch.Tensor:
    video = torch.zeros(frames, 1, 64, 64)
    video[:, 0, row, column] = 1
    return video


def scikit_image(kind: str, x: np.ndarray, y: np.ndarray) -> float:
    """One channel of one frame, float64, as scikit-image scores it by the convention named."""
    if kind == "psnr":
        return peak_signal_noise_ratio(y, x, data_range=1)
    if kind == "ssim_svg":
        return structural_similarity(x, y, win_size=7, use_sample_covariance=True, data_range=2)
    full = structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )[1]
    return full[5:-5, 5:-5].mean()


def by_scikit_image(kind: str, prediction: torch.Tensor, target: torch.Tensor) -> list[float]:
    """One value per frame of TCHW frames, whatever their dtype."""
    pairs = zip(prediction.double().numpy(), target.double().numpy(), strict=True)
    return [float(np.mean([scikit_image(kind, x, y) for x, y in zip(*pair, strict=True)])) for pair in pairs]


class TestPsnr:
    def test_of_constant_images_is_minus_20_log10_of_their_difference(self):
        assert psnr(constant(0.3), constant(0.2)).tolist() == pytest.approx([20.0, 20.0], abs=1e-5)

    def test_averages_decibels_over_channels_not_errors(self):
        prediction = torch.stack((constant(0.1)[:, 0], constant(0.01)[:, 0]), dim=1)
        assert psnr(prediction, torch.zeros(2, 2, 64, 64)).tolist() == pytest.approx([30.0, 30.0], abs=1e-4)

    def test_equals_published_code(self):
        assert psnr(waves(0.4), waves(0.0)).tolist() == pytest.approx(PUBLISHED_PSNR, abs=1e-10)

    def test_of_exact_match_is_infinite_as_published_unless_a_ceiling_is_given(self):
        assert psnr(constant(0.3), constant(0.3)).tolist() == [math.inf, math.inf]
        capped = psnr(constant(0.3), constant(0.3), ceiling_db=EIGHT_BIT_CEILING_DB)
        assert capped.tolist() == pytest.approx([58.9226, 58.9226], abs=1e-4)


class TestSsim:
    def test_of_equal_frames_is_one(self):
        assert ssim(waves(0.0), waves(0.0)).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)

    def test_of_constant_images_is_the_luminance_term(self):
        expected = (2 * 0.3 * 0.7 + C1) / (0.3**2 + 0.7**2 + C1)
        assert ssim(constant(0.3), constant(0.7)).tolist() == pytest.approx([expected] * 2, abs=1e-6)

    def test_equals_published_code(self):
        assert ssim(waves(0.4), waves(0.0)).tolist() == pytest.approx(PUBLISHED_SSIM, abs=1e-7)

    def test_single_precision_holds_on_bright_flat_frames(self):
        target = 0.9 + 0.02 * waves(0.0)
        prediction = 0.9 + 0.02 * waves(0.1)
        exact = ssim(prediction, target)
        torch.testing.assert_close(ssim(prediction.float(), target.float()).double(), exact, atol=1e-6, rtol=0)

    def test_too_small_frames_are_refused(self):
        with pytest.raises(ValueError, match="10x64 pixels; SSIM needs at least 11x11"):
            ssim(torch.rand(1, 1, 10, 64), torch.rand(1, 1, 10, 64))


class TestSsimSvg:
    def test_of_constant_images_is_the_luminance_term_for_a_range_of_two(self):
        expected = (2 * 0.3 * 0.7 + 4e-4) / (0.3**2 + 0.7**2 + 4e-4)
        assert ssim_svg(constant(0.3), constant(0.7)).tolist() == pytest.approx([expected] * 2, abs=1e-6)

    def test_of_one_window_is_the_formula_with_sample_covariances(self):
        x, y = waves(0.4)[:1, :1, :7, :7], waves(0.0)[:1, :1, :7, :7]
        (vx, vxy), (_, vy) = np.cov(x.numpy().ravel(), y.numpy().ravel())
        mx, my = x.mean().item(), y.mean().item()
        luminance = (2 * mx * my + 0.02**2) / (mx**2 + my**2 + 0.02**2)
        assert ssim_svg(x, y).item() == pytest.approx(luminance * (2 * vxy + 0.06**2) / (vx + vy + 0.06**2), abs=1e-12)

    def test_is_not_the_one_of_srvp(self):
        assert (ssim_svg(waves(0.4), waves(0.0)) > ssim(waves(0.4), waves(0.0)) + 0.01).all()

    def test_too_small_frames_are_refused(self):
        assert ssim_svg(torch.rand(1, 1, 7, 7), torch.rand(1, 1, 7, 7)).shape == (1,)
        with pytest.raises(ValueError, match="6x64 pixels; SSIM as SVG computes it needs at least 7x7"):
            ssim_svg(torch.rand(1, 1, 6, 64), torch.rand(1, 1, 6, 64))


def random_frames(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two RGB frames and noisy copies, float64."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    noise = 0.2 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    return (target + noise).clamp(0, 1), target


def bair_frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Three frames of a real robot video and those two later, TCHW float64: RGB, 64x64."""
    with np.load(shared_data("bair", "bair_test_8x30x64x64_palette.npz")) as stored:
        video = torch.from_numpy(stored["bair_00026"]).permute(0, 3, 1, 2).double() / 255
    return video[3:6], video[5:8]


def kth_frames() -> tuple[torch.Tensor, torch.Tensor]:
    """Three frames of a real person and those two later, TCHW float64: grey, flat background, 120x160."""
    av = pytest.importorskip("av")
    with av.open(str(shared_data("kth", "person23_running_d3_uncomp.avi"))) as container:
        frames = [frame.to_ndarray(format="gray") for frame in islice(container.decode(video=0), 40)]
    video = torch.from_numpy(np.stack(frames)).unsqueeze(1).double() / 255
    return video[30:33], video[32:35]


@pytest.mark.parametrize(("metric", "kind"), [(psnr, "psnr"), (ssim, "ssim"), (ssim_svg, "ssim_svg")])
class TestAgainstScikitImage:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
    @pytest.mark.parametrize("size", [(64, 64), (11, 17)])
    def test_on_random_frames(self, metric, kind, dtype, tolerance, size):
        prediction, target = random_frames(size)
        expected = by_scikit_image(kind, prediction, target)
        limit = tolerance * (10 if kind == "psnr" else 1)  # dB are near 15; relative, as float32 rounds: to 1e-5 dB
        assert metric(prediction.to(dtype), target.to(dtype)).tolist() == pytest.approx(expected, abs=limit)

    @pytest.mark.parametrize("frames", [bair_frames, kth_frames])
    def test_on_real_frames(self, metric, kind, frames):
        prediction, target = frames()
        expected = by_scikit_image(kind, prediction, target)
        assert expected[0] > 0.5 and (kind == "psnr" or expected[0] < 0.999)  # the frames differ, and not wholly
        assert metric(prediction, target).tolist() == pytest.approx(expected, abs=1e-10)
        in_float32 = metric(prediction.float(), target.float()).tolist()
        assert in_float32 == pytest.approx(expected, abs=1e-6, rel=1e-6 if kind == "psnr" else 0)


@pytest.mark.parametrize(
    ("metric", "reference"), [(psnr, PsnrReference), (ssim, SsimReference), (ssim_svg, SsimSvgReference)]
)
class TestReference:
    def test_prepared_once_serves_any_number_of_samples(self, metric, reference):
        samples, target = torch.rand(3, 2, 4, 1, 16, 16), torch.rand(2, 4, 1, 16, 16)
        prepared = reference(target)
        each = torch.stack([metric(sample, target) for sample in samples])
        torch.testing.assert_close(prepared(samples), each)
        torch.testing.assert_close(prepared(samples[1]), each[1])

    def test_looks_at_shapes_and_not_at_values(self, metric, reference):
        beyond, target = torch.full((1, 1, 16, 16), 1.5), torch.rand(1, 1, 16, 16)
        assert reference(target)(beyond).isfinite().all()
        with pytest.raises(ValueError, match="expected"):
            metric(beyond, target)
        with pytest.raises(ValueError, match="must be equal"):
            reference(target)(beyond[..., 1:])

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu_is_that_on_the_cpu_even_where_tf32_is_allowed(self, metric, reference, monkeypatch):
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", True)
        prediction, target = (frames.float() for frames in random_frames((64, 64)))
        values = reference(target.cuda())(prediction.cuda())
        assert values.is_cuda and values.dtype == torch.float32
        torch.testing.assert_close(values.cpu(), metric(prediction, target), rtol=1e-5, atol=0)


@pytest.mark.parametrize("metric", [psnr, ssim, ssim_svg, centroid_error])
class TestEveryMetric:
    def test_refuses_bytes_and_says_what_to_type(self, metric):
        with pytest.raises(TypeError, match=r"prediction\.float\(\) / 255"):
            metric(torch.zeros(1, 1, 64, 64, dtype=torch.uint8), torch.zeros(1, 1, 64, 64))

    def test_refuses_frames_that_would_broadcast_by_accident(self, metric):
        with pytest.raises(ValueError, match="must be equal"):
            metric(torch.zeros(4, 1, 64, 64), torch.zeros(4, 3, 64, 64))


class TestCentroid:
    def test_is_row_and_column_of_the_light(self):
        two_dots = dot(10, 20) + dot(14, 40)
        assert intensity_centroid(two_dots).tolist() == [[12.0, 30.0]]

    def test_error_is_euclidean_in_pixels(self):
        assert centroid_error(dot(10, 20), dot(13, 24)).tolist() == [5.0]

    def test_of_empty_frame_is_nan(self):
        assert intensity_centroid(constant(0.0)).isnan().all()

    def test_predicting_nothing_costs_the_diagonal_and_empty_truth_is_left_out(self):
        nothing = torch.zeros(1, 1, 64, 64)
        assert centroid_error(nothing, dot(5, 5)).tolist() == pytest.approx([64 * math.sqrt(2)])
        assert centroid_error(dot(5, 5), nothing).isnan().all()
        truth = torch.cat((dot(10, 20), nothing, dot(5, 5)))
        assert median_centroid_error(dot(10, 20, frames=3), truth) == pytest.approx(math.hypot(5, 15) / 2)

    def test_without_any_light_in_the_truth_there_is_no_median(self):
        with pytest.raises(ValueError, match="every true frame"):
            median_centroid_error(dot(1, 1, frames=2), torch.zeros(2, 1, 64, 64))


class TestInterval:
    def test_over_videos_is_published_formula(self):
        interval = interval_over_videos([1.0, 2.0, 3.0, 6.0])  # population variance 3.5
        assert interval.mean == 3.0
        assert interval.half_width == pytest.approx(1.96 * math.sqrt(3.5) / 2)
        assert (interval.low, interval.high) == pytest.approx((3 - interval.half_width, 3 + interval.half_width))
        assert str(interval) == "3.00 ± 1.83"

    def test_per_frame_and_its_mean(self):
        values_BT = np.array([[1.0, 10.0], [3.0, 10.0]])
        first, second = interval_per_frame(values_BT)
        assert (first.mean, second.mean) == (2.0, 10.0)
        assert (first.half_width, second.half_width) == pytest.approx((1.96 / math.sqrt(2), 0.0))
        mean = interval_mean_of_frames(values_BT)
        assert (mean.mean, mean.half_width) == pytest.approx((6.0, 0.98 / math.sqrt(2)))

    def test_mean_of_frames_is_never_narrower_than_over_videos(self):
        values_BT = torch.rand(20, 7, dtype=torch.float64)
        assert interval_mean_of_frames(values_BT).half_width >= interval_over_videos(values_BT.mean(1)).half_width

    def test_wrong_axes_are_refused(self):
        with pytest.raises(ValueError, match="expected axes B"):
            interval_over_videos(torch.zeros(0))
        with pytest.raises(ValueError, match="expected axes BT"):
            interval_per_frame(torch.zeros(3))
