"""Best of N, streamed in chunks of any size, equals choosing among all N samples at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from odevid.metrics.best_of import PSNR, SSIM, BestOf, Metric
from odevid.metrics.psnr import psnr
from odevid.metrics.ssim import ssim

N, B, T, SIZE = 7, 3, 4, 16
ERROR = Metric("error", "", lambda target: lambda frames: (frames - target).square().mean((-3, -2, -1)), False)


def make_videos() -> tuple[Tensor, Tensor]:
    """Samples NBTCHW of very different quality, and their target BTCHW."""
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(B, T, 1, SIZE, SIZE, generator=generator)
    noise = torch.randn(N, *target.shape, generator=generator) * torch.rand(N, B, T, 1, 1, 1, generator=generator)
    return (target + noise).clamp(0, 1), target


def stream(samples: Tensor, target: Tensor, chunk: int) -> BestOf:
    tracker = BestOf([PSNR, SSIM, ERROR], target, keep_frames=True)
    for frames in samples.split(chunk):
        tracker.update(frames)
    return tracker


@pytest.mark.parametrize("chunk", [1, 2, 3, N])
@pytest.mark.parametrize(("name", "score", "sign"), [("psnr", psnr, 1), ("ssim", ssim, 1), ("error", None, -1)])
def test_equals_brute_force_at_any_chunking(chunk, name, score, sign):
    samples, target = make_videos()
    tracker = stream(samples, target, chunk)
    curves_NBT = score(samples, target) if score else (samples - target).square().mean((-3, -2, -1))
    for selection, order in ((tracker.best[name], sign), (tracker.worst[name], -sign)):
        for video in range(B):
            means = [order * curves_NBT[sample, video].mean().item() for sample in range(N)]
            winner = means.index(max(means))
            assert selection.samples_B[video] == winner
            assert selection.values_B[video].item() == pytest.approx(order * means[winner], rel=1e-6)
            torch.testing.assert_close(selection.curves_BT[video], curves_NBT[winner, video])
            assert selection.frames_BTCHW is not None
            assert torch.equal(selection.frames_BTCHW[video], samples[winner, video])
    torch.testing.assert_close(tracker.average[name], curves_NBT.double().mean(0))
    assert tracker.num_samples == N


def test_each_metric_chooses_its_own_sample():
    target = torch.zeros(1, 1, 1, SIZE, SIZE)
    shifted = target + 0.05  # bad for SSIM on black (luminance), good for PSNR
    spotted = target.clone()
    spotted[..., :4, :4] = 0.4  # far in error, structure kept elsewhere
    tracker = stream(torch.stack((shifted, spotted)), target, 1)
    assert tracker.best["psnr"].samples_B.item() == 0
    assert tracker.best["ssim"].samples_B.item() == 1


def test_first_of_equal_samples_wins():
    samples, target = make_videos()
    for chunk in (1, 3):
        tracker = stream(samples[:1].repeat(3, 1, 1, 1, 1, 1), target, chunk)
        assert tracker.best["psnr"].samples_B.tolist() == tracker.worst["psnr"].samples_B.tolist() == [0] * B


def test_frames_are_kept_only_when_asked():
    samples, target = make_videos()
    tracker = BestOf([PSNR], target)
    tracker.update(samples)
    assert tracker.best["psnr"].frames_BTCHW is None


def test_keeps_nothing_of_a_chunk_alive_but_the_winners():
    samples, target = make_videos()
    tracker = stream(samples, target, 2)
    kept = tracker.best["psnr"].frames_BTCHW
    assert kept is not None
    assert kept.untyped_storage().nbytes() == target.untyped_storage().nbytes()


def test_nan_is_refused_with_metric_sample_and_video():
    samples, target = make_videos()
    samples[4, 2, 1] = float("nan")
    tracker = BestOf([PSNR], target)
    tracker.update(samples[:3])
    with pytest.raises(ValueError, match="psnr of sample 4, video 2"):
        tracker.update(samples[3:])
