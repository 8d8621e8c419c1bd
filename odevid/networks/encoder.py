"""Frame encoders of SRVP (Franceschi et al. 2020, appendix; after Denton & Fergus 2018): DCGAN-64 and VGG16-64.

In: frames of 64x64 pixels. Out: one code per frame, in (-1, 1), and the output of every stage for skip connections.
The module names are those of the released checkpoints.

Axes: M frames (clips times time), C channels, H height, W width, D size of a code.
"""

from torch import Tensor, nn

from odevid.networks.blocks import conv3, conv_block


class Encoder(nn.Module):
    """Four stages that halve the image, then a 4x4 convolution to the code.

    Args:
        stages: the stages, from the image inwards.
        head: from the last stage's output to the code, `[M, D, 1, 1]`.
        size: D.
    """

    def __init__(self, stages: list[nn.Sequential], head: nn.Sequential) -> None:
        super().__init__()
        self.conv = nn.ModuleList(stages)
        self.last_conv = head

    def forward(self, frames_MCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(codes_MD, outputs of the stages as MCHW, deepest first)."""
        features, outputs = frames_MCHW, []
        for stage in self.conv:
            features = stage(features)
            outputs.append(features)
        return self.last_conv(features).flatten(1), outputs[::-1]


def build_encoder(architecture: str, nc: int, nf: int, size: int) -> Encoder:
    """The encoder named `architecture` ("dcgan" or "vgg") for `nc` channels, `nf` first features, codes of `size`."""
    return {"dcgan": _dcgan, "vgg": _vgg}[architecture](nc, nf, size)


def _halve(in_channels: int, out_channels: int, batch_norm: bool = True) -> nn.Sequential:
    return conv_block(nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False), batch_norm=batch_norm)


def _to_code(in_channels: int, size: int) -> nn.Sequential:
    return conv_block(nn.Conv2d(in_channels, size, 4, 1, 0, bias=False), nn.Tanh())


def _dcgan(nc: int, nf: int, size: int) -> Encoder:
    stages = [
        _halve(nc, nf, batch_norm=False),
        _halve(nf, 2 * nf),
        _halve(2 * nf, 4 * nf),
        _halve(4 * nf, 8 * nf),
    ]
    return Encoder(stages, _to_code(8 * nf, size))


def _vgg(nc: int, nf: int, size: int) -> Encoder:
    stages = [
        nn.Sequential(conv3(nc, nf), conv3(nf, nf)),
        nn.Sequential(nn.MaxPool2d(2), conv3(nf, 2 * nf), conv3(2 * nf, 2 * nf)),
        nn.Sequential(nn.MaxPool2d(2), conv3(2 * nf, 4 * nf), conv3(4 * nf, 4 * nf), conv3(4 * nf, 4 * nf)),
        nn.Sequential(nn.MaxPool2d(2), conv3(4 * nf, 8 * nf), conv3(8 * nf, 8 * nf), conv3(8 * nf, 8 * nf)),
    ]
    return Encoder(stages, nn.Sequential(nn.MaxPool2d(2), _to_code(8 * nf, size)))
