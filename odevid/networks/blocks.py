"""Convolution blocks: a bias-free convolution, BatchNorm, an activation; and how to take one apart.

The position of each part in its `nn.Sequential` (0 the convolution, 1 the BatchNorm) is part of the checkpoint format.
"""

from typing import cast

from torch import nn

Conv = nn.Conv2d | nn.ConvTranspose2d
SLOPE = 0.2  # of LeakyReLU


def conv_block(conv: Conv, activation: nn.Module | None = None, batch_norm: bool = True) -> nn.Sequential:
    """`conv` -> BatchNorm -> `activation`, by default a LeakyReLU that overwrites BatchNorm's output."""
    parts: list[nn.Module] = [conv]
    if batch_norm:
        parts.append(nn.BatchNorm2d(conv.out_channels))
    parts.append(nn.LeakyReLU(SLOPE, inplace=True) if activation is None else activation)
    return nn.Sequential(*parts)


def conv3(in_channels: int, out_channels: int) -> nn.Sequential:
    """Block of a 3x3 convolution that keeps the size of the image."""
    return conv_block(nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False))


def first_conv(stage: nn.Module) -> Conv:
    """The convolution that sees the input of `stage`."""
    while isinstance(stage, nn.Sequential):
        stage = stage[0]
    return cast(Conv, stage)


def after_first_conv(stage: nn.Module) -> list[nn.Module]:
    """The modules of `stage` that follow `first_conv(stage)`, in order."""
    if not isinstance(stage, nn.Sequential):
        return []
    return after_first_conv(stage[0]) + list(stage)[1:]
