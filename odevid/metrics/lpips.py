"""LPIPS v0.1: how different two frames look to the layers of an image classifier.

In: predicted and true frames, float in [0, 1]. Out: LPIPS, one value per frame, float32; 0 for equal frames.
A frame becomes one vector, such that LPIPS is the squared Euclidean distance of two of them: the vectors of the target
are computed once and serve any number of samples.

Legend: T time, C channels, H rows, W columns, M images of one pass, F length of a frame's vector, c h w of one layer;
`...` any leading axes (N samples, B videos), which broadcast.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from odevid.metrics.backbones import ARCHITECTURES, Backbone
from odevid.metrics.frames import check_frames, check_pair, check_unit_range
from odevid.metrics.weights import WeightFile, find_weights, pick, read_tensors

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)  # ImageNet's mean and deviation, for images in [-1, 1] (rounded as published)
EPS = 1e-10  # beside the norm, not under its root
PIXELS_PER_PASS = 64 * 64 * 64

Weights = str | Path | tuple[str | Path, str | Path]
"""A folder, or the files (backbone, heads)."""

_TORCHVISION = {
    "alex": ("alexnet-owt-7be5be79.pth", "alexnet_features_torchvision.pth"),
    "squeeze": ("squeezenet1_1-b8a52dc0.pth", "squeezenet1_1_features_torchvision.pth"),
    "vgg": ("vgg16-397923af.pth", "vgg16_features_torchvision.pth"),
}
_HEADS_URL = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"


def weight_files(net: str) -> tuple[WeightFile, WeightFile]:
    """The published files of one network: its convolutions and LPIPS's heads.

    Heads are only looked for under names that say v0.1: v0.0's have the same shapes and give other numbers.
    """
    names = _TORCHVISION[net]
    backbone = WeightFile(ARCHITECTURES[net].title, names, f"https://download.pytorch.org/models/{names[0]}")
    places = tuple(f"{place}{net}.pth" for place in ("lpips/v0.1/", "weights/v0.1/", "v0.1/", "lin_v0.1_"))
    return backbone, WeightFile("LPIPS v0.1 heads", places, f"{_HEADS_URL}/{net}.pth")


def _paths(net: str, weights: Weights | None) -> tuple[Path, ...]:
    if net not in ARCHITECTURES:
        raise ValueError(f"no network {net!r}; choose from {', '.join(ARCHITECTURES)}")
    if isinstance(weights, tuple):
        return tuple(Path(path).expanduser() for path in weights)
    return find_weights(f"LPIPS ({net})", weight_files(net), weights)


class LPIPS(nn.Module):
    """Learned perceptual distance: Zhang et al. 2018 (CVPR), equation 1, with the v0.1 weights of the published code.

    Frames go to [-1, 1], are normalised per colour and pass through the network. After each tapped layer activations
    are divided by their norm over channels; the squared differences are weighted per channel (the head), averaged over
    space and summed over layers. Evaluated as Franceschi et al. 2020 (SRVP) do: at native resolution, a grey frame
    repeated to three channels, one value per frame.

    Frozen, on the CPU until moved with `.to(device)`; always float32, whatever autocast or TF32 settings are. Frames
    may be on another device and of another float type. No gradients. Memory is bounded by `pixels_per_pass`.
    """

    def __init__(
        self, net: str = "alex", weights: Weights | None = None, *, pixels_per_pass: int = PIXELS_PER_PASS
    ) -> None:
        """Read the weights of "alex" (what papers report), "squeeze" or "vgg".

        Args:
            net: the network.
            weights: a folder, or a pair of files: the network's (torchvision's, whole or `features.*` only) and the
                heads'. None: $ODEVID_WEIGHTS, then ~/.cache/odevid/weights.
            pixels_per_pass: images of at most so many pixels in all pass through the network together (at least one).

        Raises:
            FileNotFoundError: says which file to put where, and its address.
            ValueError: an unknown network, or a file that is not what it should be.
        """
        super().__init__()
        backbone_path, heads_path = _paths(net, weights)
        self.net = net
        self.pixels_per_pass = pixels_per_pass
        self.backbone = Backbone(net)
        shapes = {name: tensor.shape for name, tensor in self.backbone.state_dict().items()}
        title = self.backbone.architecture.title
        self.backbone.load_state_dict(pick(read_tensors(backbone_path), shapes, str(backbone_path), title))
        self._load_heads(heads_path)
        self.register_buffer("shift_C11", torch.tensor(SHIFT).reshape(3, 1, 1))
        self.register_buffer("scale_C11", torch.tensor(SCALE).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def _load_heads(self, path: Path) -> None:
        """Buffers `root_0`, ... (c, 1, 1): square roots of the weights, which move them inside the squares."""
        channels = self.backbone.architecture.taps.values()
        shapes = {f"lin{layer}.model.1.weight": torch.Size((1, c, 1, 1)) for layer, c in enumerate(channels)}
        heads = pick(read_tensors(path), shapes, str(path), f"the LPIPS heads of {self.net}")
        for layer, (name, head) in enumerate(heads.items()):
            if head.min() < 0:
                raise ValueError(f"{path}: {name} has negative weights; the heads of a distance have none")
            self.register_buffer(f"root_{layer}", head[0].sqrt())

    def _embed(self, images_MCHW: Tensor) -> Tensor:
        """(M, 1 or 3, H, W) in [0, 1] -> (M, F)."""
        shift_C11, scale_C11 = self.get_buffer("shift_C11"), self.get_buffer("scale_C11")
        images_MCHW = images_MCHW.to(shift_C11.device, torch.float32)
        exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with exact, torch.autocast(shift_C11.device.type, enabled=False):
            parts = []
            for layer, x_Mchw in enumerate(self.backbone((2 * images_MCHW - 1 - shift_C11) / scale_C11)):
                norm_M1hw = x_Mchw.square().sum(dim=1, keepdim=True).sqrt() + EPS
                area = x_Mchw.shape[-2] * x_Mchw.shape[-1]
                parts.append((x_Mchw / norm_M1hw * (self.get_buffer(f"root_{layer}") / area**0.5)).flatten(1))
            return torch.cat(parts, dim=1)

    def _check(self, name: str, frames: Tensor) -> None:
        """Refuse what is not one or three channels of [0, 1], large enough."""
        check_frames(name, frames)
        check_unit_range(name, frames)
        channels, height, width = frames.shape[-3:]
        if channels not in (1, 3):
            raise ValueError(f"{name} has {channels} channels; LPIPS takes 3 (RGB) or 1 (grey, repeated to 3)")
        architecture = self.backbone.architecture
        if min(height, width) < architecture.smallest:
            raise ValueError(
                f"{name} has frames of {height}x{width} pixels; LPIPS with {architecture.title} needs at least "
                f"{architecture.smallest}x{architecture.smallest}"
            )

    def _images_per_pass(self, frames: Tensor) -> int:
        return max(1, self.pixels_per_pass // (frames.shape[-2] * frames.shape[-1]))

    def _embed_all(self, frames: Tensor) -> Tensor:
        """`...CHW` -> (M, F), pass by pass."""
        images_MCHW = frames.flatten(0, -4)
        return torch.cat([self._embed(images) for images in images_MCHW.split(self._images_per_pass(frames))])

    @torch.no_grad()
    def features(self, frames: Tensor) -> Tensor:
        """Vectors of frames: `...TCHW` float in [0, 1] -> `...TF` float32, on the network's device.

        F grows with the frame: for 64x64 pixels 31 872 numbers (alex), 118 976 (squeeze), 499 712 (vgg).

        Raises TypeError for frames that are not float; ValueError for values that are NaN or outside [0, 1], for other
        than 1 or 3 channels and for frames too small for the network.
        """
        self._check("frames", frames)
        return self._embed_all(frames).unflatten(0, frames.shape[:-3])

    @staticmethod
    def distance(features_a: Tensor, features_b: Tensor) -> Tensor:
        """LPIPS of frames whose `features` these are: `...TF` twice, leading axes broadcast -> `...T`.

        Raises ValueError where T or F differ: frames of other sizes, or of another network.
        """
        if features_a.shape[-2:] != features_b.shape[-2:]:
            raise ValueError(
                f"features TF {tuple(features_a.shape[-2:])} and {tuple(features_b.shape[-2:])} differ: "
                "these are of other frames or of another network"
            )
        return (features_a - features_b).square().sum(dim=-1)

    def against(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """A score against one target, whose vectors are computed here, once.

        Args:
            target: `...TCHW` float in [0, 1]; for the errors see `features`.

        Returns:
            predictions `...TCHW` (the same frames; leading axes broadcast) -> LPIPS `...T`, float32, on the device of
            the predictions. It keeps the target's vectors and no others. It raises what `features` raises, and
            ValueError where the frames' shapes differ.
        """
        self._check("target", target)
        with torch.no_grad():
            target_MF = self._embed_all(target)
        lead = target.shape[:-3]

        @torch.no_grad()
        def score(prediction: Tensor) -> Tensor:
            check_pair(prediction, target)
            self._check("prediction", prediction)
            shape = torch.broadcast_shapes(prediction.shape[:-3], lead)
            images_MCHW = prediction.expand(*shape, *prediction.shape[-3:]).flatten(0, -4)
            rows_M = torch.arange(len(target_MF), device=target_MF.device).reshape(lead).expand(shape).flatten()
            size = self._images_per_pass(prediction)
            values = [
                self.distance(self._embed(images), target_MF[rows])
                for images, rows in zip(images_MCHW.split(size), rows_M.split(size), strict=True)
            ]
            return torch.cat(values).unflatten(0, shape).to(prediction.device)

        return score

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """LPIPS per frame: `...TCHW` twice -> `...T`; see `against`."""
        return self.against(target)(prediction)


@functools.lru_cache(maxsize=2)
def _built(net: str, paths: tuple[Path, Path], device: torch.device) -> LPIPS:
    return LPIPS(net, paths).to(device)


def lpips(prediction: Tensor, target: Tensor, *, net: str = "alex", weights: Weights | None = None) -> Tensor:
    """LPIPS per frame: Zhang et al. 2018 with the v0.1 weights, as SRVP reports it with AlexNet. Lower is better.

    The last networks used are kept; for many samples of one target build an `LPIPS` and use `against`.

        >>> from odevid.metrics import lpips
        >>> lpips(torch.zeros(2, 5, 1, 64, 64), torch.ones(2, 5, 1, 64, 64))  # 0.8140 each, with AlexNet

    Args:
        prediction: `...TCHW` float in [0, 1], 1 or 3 channels, such as BTCHW. The network runs on its device.
        target: `...TCHW`, same frames; leading axes broadcast.
        net: "alex", "squeeze" or "vgg".
        weights: folder of the published files, or (backbone, heads); default $ODEVID_WEIGHTS or
            ~/.cache/odevid/weights.

    Returns:
        `...T`, float32.

    Raises:
        FileNotFoundError: no weights; it says which file belongs where.
        TypeError, ValueError: frames that are not float in [0, 1], of other shapes, or too small for the network.
    """
    check_pair(prediction, target)
    backbone, heads = _paths(net, weights)
    return _built(net, (backbone, heads), prediction.device)(prediction, target)
