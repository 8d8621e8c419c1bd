"""Frame decoders of SRVP (Franceschi et al. 2020): DCGAN-64 and VGG16-64, with and without skip connections.

In: a content vector and skip features per clip, a state per frame. Out: frames in (0, 1). The module names are those of
the released checkpoints.

The first convolution of each stage sees features of the frame beside skip features of the clip. Convolution is linear,
so the clip's part is computed once per clip (`Decoder.share`) and added to each frame's part: the same numbers to
rounding, a third of VGG's arithmetic saved, and no copy of the skips per frame. `split=False` concatenates instead.
VGG's doubling of the image (nearest neighbour) before a 3x3 convolution is one transposed 4x4 convolution of stride 2
(`doubling_kernel`): exact too, 4 products for a pixel and channel where there were 9, and no doubled copy.

Axes: B clips, T frames, M = B T, C channels, H height, W width, D size of the state, E size of the content vector.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odevid.networks.blocks import Conv, after_first_conv, conv3, conv_block, first_conv
from odevid.networks.clips import add_per_clip


@dataclass(frozen=True)
class Shared:
    """What all frames of a clip have in common, in the form that the decoder wants.

    Attributes:
        content: content vectors BE (None without), or their part of the first convolution `[B, C * 16]` when split.
        skips: per stage, skip features BCHW, or their part of the stage's first convolution; empty without skips.
    """

    content: Tensor | None
    skips: list[Tensor]


class Decoder(nn.Module):
    """A transposed convolution from a vector to 4x4, then four stages that double the image.

    Args:
        first: block from a 1x1 image of content and state channels, in this order, to 4x4.
        stages: the stages, from 4x4 outwards. When `skips`, each takes its features followed by as many skip features.
        doubles: whether images are doubled by nearest neighbour before every stage (else the stages do so themselves).
        split: whether what a clip shares is convolved once per clip.
    """

    def __init__(
        self, first: nn.Sequential, stages: list[nn.Module], *, skips: bool, doubles: bool, split: bool
    ) -> None:
        super().__init__()
        self.first_upconv = first
        self.conv = nn.ModuleList(stages)
        self.skips = skips
        self.doubles = doubles
        self.split = split

    def share(self, content_BE: Tensor | None, skips_BCHW: list[Tensor]) -> Shared:
        """Prepare what the frames of each clip have in common; `skips_BCHW` deepest first, empty without skips."""
        if not self.split:
            return Shared(content_BE, skips_BCHW)
        content = None
        if content_BE is not None:
            weight = first_conv(self.first_upconv).weight
            content = content_BE @ weight[: content_BE.shape[1]].flatten(1)
        skips = [
            _convolve(first_conv(stage), skip, start=first_conv(stage).in_channels - skip.shape[1])
            for stage, skip in zip(self.conv, skips_BCHW, strict=bool(skips_BCHW))
        ]
        return Shared(content, skips)

    def forward(self, states_BTD: Tensor, shared: Shared) -> Tensor:
        """Frames BTCHW in (0, 1), one per state."""
        num_clips = states_BTD.shape[0]
        features = self._first(states_BTD, shared.content)
        for index, stage in enumerate(self.conv):
            features = self._enter(stage, features, shared.skips[index] if shared.skips else None, num_clips)
            for module in after_first_conv(stage):
                features = module(features)
        return torch.sigmoid(features).unflatten(0, states_BTD.shape[:2])

    def _first(self, states_BTD: Tensor, content: Tensor | None) -> Tensor:
        """Features `[M, C, 4, 4]`: on a 1x1 image the transposed convolution is a matrix product."""
        conv = first_conv(self.first_upconv)
        if content is not None and not self.split:
            content_BTE = content.unsqueeze(1).expand(-1, states_BTD.shape[1], -1)
            states_BTD, content = torch.cat([content_BTE, states_BTD], dim=-1), None
        flat = states_BTD @ conv.weight[-states_BTD.shape[-1] :].flatten(1)
        if content is not None:
            flat = flat + content.unsqueeze(1)
        features = flat.reshape(-1, conv.out_channels, *conv.kernel_size).contiguous(memory_format=torch.channels_last)
        for module in after_first_conv(self.first_upconv):
            features = module(features)
        return features

    def _enter(self, stage: nn.Module, features_MCHW: Tensor, skip: Tensor | None, num_clips: int) -> Tensor:
        """The stage's first convolution on the frames' features and the clips' skips."""
        conv = first_conv(stage)
        if skip is None:
            return _convolve(conv, features_MCHW, doubled=self.doubles)
        if self.split:
            own = _convolve(conv, features_MCHW, doubled=self.doubles)
            return add_per_clip(own, skip)
        if self.doubles:
            features_MCHW = F.interpolate(features_MCHW, scale_factor=2.0, mode="nearest")
        repeated = skip.repeat_interleave(features_MCHW.shape[0] // num_clips, dim=0)
        return _convolve(conv, torch.cat([features_MCHW, repeated], dim=1))


def doubling_kernel(weight_OI33: Tensor) -> Tensor:
    """Kernel `[I, O, 4, 4]` of the transposed convolution (stride 2, padding 1) that equals "double, convolve by 3x3".

    In one dimension, with weights (a, b, c): an output pixel at an even place sees a on the pixel before its own and
    b + c on its own, at an odd place a + b on its own and c on the one after: the kernel is (c, b + c, a + b, a).
    """
    spread = weight_OI33.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    with torch.autocast(weight_OI33.device.type, enabled=False):
        plane = torch.kron(spread, spread)  # [16, 9]
        kernel = weight_OI33.transpose(0, 1).flatten(2) @ plane.T
    return kernel.unflatten(2, (4, 4))


def _convolve(conv: Conv, features_MCHW: Tensor, start: int = 0, doubled: bool = False) -> Tensor:
    """The part of `conv` that falls on its input channels from `start` on, as many as there are features."""
    stop = start + features_MCHW.shape[1]
    if isinstance(conv, nn.ConvTranspose2d):
        padding = cast(tuple[int, ...], conv.padding)
        return F.conv_transpose2d(features_MCHW, conv.weight[start:stop], stride=conv.stride, padding=padding)
    weight = conv.weight[:, start:stop]
    if doubled:
        return F.conv_transpose2d(features_MCHW, doubling_kernel(weight), stride=2, padding=1)
    return F.conv2d(features_MCHW, weight, stride=conv.stride, padding=conv.padding)


def build_decoder(architecture: str, nc: int, nf: int, size: int, *, skips: bool, split: bool) -> Decoder:
    """The decoder named `architecture` ("dcgan" or "vgg"): vectors of `size` to frames of `nc` channels."""
    first = conv_block(nn.ConvTranspose2d(size, 8 * nf, 4, 1, 0, bias=False))
    build = {"dcgan": _dcgan_stages, "vgg": _vgg_stages}[architecture]
    if architecture == "vgg":
        first = nn.Sequential(first)
    stages = build(nc, nf, 2 if skips else 1)
    return Decoder(first, stages, skips=skips, doubles=architecture == "vgg", split=split)


def _double(in_channels: int, out_channels: int) -> nn.Sequential:
    return conv_block(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False))


def _dcgan_stages(nc: int, nf: int, inputs: int) -> list[nn.Module]:
    return [
        _double(8 * nf * inputs, 4 * nf),
        _double(4 * nf * inputs, 2 * nf),
        _double(2 * nf * inputs, nf),
        nn.ConvTranspose2d(nf * inputs, nc, 4, 2, 1, bias=False),
    ]


def _vgg_stages(nc: int, nf: int, inputs: int) -> list[nn.Module]:
    return [
        nn.Sequential(conv3(8 * nf * inputs, 8 * nf), conv3(8 * nf, 8 * nf), conv3(8 * nf, 4 * nf)),
        nn.Sequential(conv3(4 * nf * inputs, 4 * nf), conv3(4 * nf, 4 * nf), conv3(4 * nf, 2 * nf)),
        nn.Sequential(conv3(2 * nf * inputs, 2 * nf), conv3(2 * nf, nf)),
        nn.Sequential(conv3(nf * inputs, nf), nn.ConvTranspose2d(nf, nc, 3, 1, 1, bias=False)),
    ]
