"""Convolutional parts of the image classifiers whose activations LPIPS compares.

In: images (M, 3, H, W), normalised as for ImageNet. Out: the activations after chosen layers, first to last.
Layers are numbered, and their tensors named (`features.3.weight`), as in torchvision's `alexnet`, `squeezenet1_1` and
`vgg16`, so that its weight files fit; the classifiers behind are absent. The weights come from elsewhere.

Sources: Krizhevsky 2014 (AlexNet, one tower), Iandola et al. 2016 with the sizes of SqueezeNet 1.1, Simonyan and
Zisserman 2015 (VGG-16, without BatchNorm). Which activations: Zhang et al. 2018 and their published code, v0.1.

Legend: M images, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


class Fire(nn.Module):
    """SqueezeNet's unit: few channels by 1x1, then as many by 1x1 as by 3x3, side by side; ReLU after each."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        """From `channels` through `squeezed` to twice `expanded` channels."""
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x_MCHW: Tensor) -> Tensor:
        """(M, channels, H, W) -> (M, 2 expanded, H, W)."""
        squeezed = self.squeeze(x_MCHW).relu()
        return torch.cat((self.expand1x1(squeezed), self.expand3x3(squeezed)), dim=1).relu()


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


def _squeezenet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(64, 16, 64), Fire(128, 16, 64), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(128, 32, 128), Fire(256, 32, 128), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    ]


def _vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in VGG16_STAGES:
        layers += [nn.MaxPool2d(2)] if layers else []
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return layers


@dataclass(frozen=True)
class Architecture:
    """A network: its name, its layers, those whose output is compared with their channels, and the smallest image."""

    title: str
    layers: Callable[[], list[nn.Module]]
    taps: dict[int, int]
    """layer -> channels"""
    smallest: int
    """pixels, height and width"""


ARCHITECTURES = {
    "alex": Architecture("AlexNet", _alexnet, {1: 64, 4: 192, 7: 384, 9: 256, 11: 256}, 31),
    "squeeze": Architecture(
        "SqueezeNet 1.1", _squeezenet, {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}, 17
    ),
    "vgg": Architecture("VGG-16", _vgg16, {3: 64, 8: 128, 15: 256, 22: 512, 29: 512}, 16),
}


class Backbone(nn.Module):
    """The layers of an `Architecture`, with torch's random initialisation until weights are loaded."""

    def __init__(self, net: str) -> None:
        """Build "alex", "squeeze" or "vgg"; raises ValueError for another name."""
        if net not in ARCHITECTURES:
            raise ValueError(f"no network {net!r}; choose from {', '.join(ARCHITECTURES)}")
        super().__init__()
        self.architecture = ARCHITECTURES[net]
        self.features = nn.Sequential(*self.architecture.layers())

    def forward(self, images_MCHW: Tensor) -> list[Tensor]:
        """Activations of the tapped layers, each (M, C, h, w) with its own C, h and w."""
        activations = []
        x_MCHW = images_MCHW
        for index, layer in enumerate(self.features):
            x_MCHW = layer(x_MCHW)
            if index in self.architecture.taps:
                activations.append(x_MCHW)
        return activations
