"""I3D: Inception-v1 inflated to three dimensions, the network whose logits FVD compares.

In: videos (B, 3, T, 224, 224) in [-1, 1]. Out: logits (B, 400) over the classes of Kinetics-400, averaged over time.
The weights come from elsewhere (`odevid.metrics.i3d_weights`).

Source: Carreira and Zisserman 2017, with the sizes, strides and constants of the TensorFlow graph that FVD was defined
with (TF-Hub deepmind/i3d-kinetics-400/1, output `RGB/inception_i3d/Mean`).

Legend: B videos, C channels, T time, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 400
SIDE = 224  # pixels
MIN_FRAMES = 9  # the last average is over 2 steps of ceil(T / 8)
BATCH_NORM_EPS = 1e-3

Triple = tuple[int, int, int]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and after one axis under TensorFlow's SAME: ceil(size / stride) results, an odd pixel behind."""
    results = -(-size // stride)
    total = max((results - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x_BCTHW: Tensor, kernel: Triple, stride: Triple) -> Tensor:
    """Zeros around T, H and W such that a window without padding gives TensorFlow's SAME result."""
    sides = [same_padding(*axis) for axis in zip(x_BCTHW.shape[-3:], kernel, stride, strict=True)]
    padding = [pixels for side in reversed(sides) for pixels in side]  # F.pad starts from the last axis
    return F.pad(x_BCTHW, padding) if any(padding) else x_BCTHW


class Unit(nn.Module):
    """Convolution (SAME, no bias), BatchNorm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        """A cubic kernel, the same stride along all axes."""
        super().__init__()
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride, bias=False)
        self.norm = nn.BatchNorm3d(channels_out, eps=BATCH_NORM_EPS)
        self._kernel: Triple = (kernel, kernel, kernel)
        self._stride: Triple = (stride, stride, stride)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """BCTHW -> BCTHW, sizes divided by the stride and rounded up."""
        return F.relu(self.norm(self.conv(pad_same(x_BCTHW, self._kernel, self._stride))))


class Pool(nn.Module):
    """Maximum over a window (SAME). Padding with zeros is right because what comes in has passed a ReLU."""

    def __init__(self, kernel: Triple, stride: Triple) -> None:
        """Window and stride along T, H, W."""
        super().__init__()
        self._kernel, self._stride = kernel, stride

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """BCTHW, not negative -> BCTHW, sizes divided by the stride and rounded up."""
        return F.max_pool3d(pad_same(x_BCTHW, self._kernel, self._stride), self._kernel, self._stride)


class Mixed(nn.Module):
    """Inception module: four branches side by side, concatenated over channels."""

    def __init__(self, channels_in: int, widths: tuple[int, int, int, int, int, int]) -> None:
        """Widths: branch 0; branch 1 narrow, wide; branch 2 narrow, wide; branch 3 after its pooling."""
        super().__init__()
        direct, narrow_1, wide_1, narrow_2, wide_2, pooled = widths
        self.branches = nn.ModuleList(
            [
                nn.Sequential(Unit(channels_in, direct, 1)),
                nn.Sequential(Unit(channels_in, narrow_1, 1), Unit(narrow_1, wide_1, 3)),
                nn.Sequential(Unit(channels_in, narrow_2, 1), Unit(narrow_2, wide_2, 3)),
                nn.Sequential(Pool((3, 3, 3), (1, 1, 1)), Unit(channels_in, pooled, 1)),
            ]
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """BCTHW -> BCTHW, same T, H, W."""
        return torch.cat([branch(x_BCTHW) for branch in self.branches], dim=1)


def _trunk() -> nn.Sequential:
    """The layers up to the last average, named as in the TensorFlow graph."""
    layers: list[tuple[str, nn.Module]] = [
        ("conv3d_1a_7x7", Unit(3, 64, 7, stride=2)),
        ("maxpool3d_2a_3x3", Pool((1, 3, 3), (1, 2, 2))),
        ("conv3d_2b_1x1", Unit(64, 64, 1)),
        ("conv3d_2c_3x3", Unit(64, 192, 3)),
        ("maxpool3d_3a_3x3", Pool((1, 3, 3), (1, 2, 2))),
        ("mixed_3b", Mixed(192, (64, 96, 128, 16, 32, 32))),
        ("mixed_3c", Mixed(256, (128, 128, 192, 32, 96, 64))),
        ("maxpool3d_4a_3x3", Pool((3, 3, 3), (2, 2, 2))),
        ("mixed_4b", Mixed(480, (192, 96, 208, 16, 48, 64))),
        ("mixed_4c", Mixed(512, (160, 112, 224, 24, 64, 64))),
        ("mixed_4d", Mixed(512, (128, 128, 256, 24, 64, 64))),
        ("mixed_4e", Mixed(512, (112, 144, 288, 32, 64, 64))),
        ("mixed_4f", Mixed(528, (256, 160, 320, 32, 128, 128))),
        ("maxpool3d_5a_2x2", Pool((2, 2, 2), (2, 2, 2))),
        ("mixed_5b", Mixed(832, (256, 160, 320, 32, 128, 128))),
        ("mixed_5c", Mixed(832, (384, 192, 384, 48, 128, 128))),
    ]
    return nn.Sequential(OrderedDict(layers))


class I3D(nn.Module):
    """RGB stream of I3D with the head of Kinetics-400. Use it in eval mode."""

    def __init__(self) -> None:
        """Weights are random until they are loaded."""
        super().__init__()
        self.trunk = _trunk()
        self.logits = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, videos_BCTHW: Tensor) -> Tensor:
        """Logits BK before the softmax, averaged over time, of videos (B, 3, T, 224, 224) in [-1, 1].

        Raises ValueError for other shapes, or fewer than 9 frames: T is divided by 8 and rounded up, and the last
        average is over two of these steps.
        """
        if videos_BCTHW.ndim != 5 or videos_BCTHW.shape[1] != 3 or videos_BCTHW.shape[-2:] != (SIDE, SIDE):
            raise ValueError(f"videos have shape {tuple(videos_BCTHW.shape)}; I3D takes (B, 3, T, {SIDE}, {SIDE})")
        if videos_BCTHW.shape[2] < MIN_FRAMES:
            raise ValueError(f"videos have {videos_BCTHW.shape[2]} frames; I3D needs at least {MIN_FRAMES}")
        averaged_BCT11 = F.avg_pool3d(self.trunk(videos_BCTHW), (2, 7, 7), stride=1)
        return self.logits(averaged_BCT11).mean(dim=(2, 3, 4))
