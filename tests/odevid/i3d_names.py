"""The names that public ports of I3D give its tensors, written down layer by layer.

In: weights of our network. Out: the same tensors under the names of piergiaj/pytorch-i3d (also VideoGPT's) or of
hassony2/kinetics_i3d_pytorch.
"""

from collections.abc import Mapping

from torch import Tensor

MIXED = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
OURS = ("0.0", "1.0", "1.1", "2.0", "2.1", "3.1")
UNIT_FIELDS = ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")

PIERGIAJ = {
    "trunk.conv3d_1a_7x7": "Conv3d_1a_7x7",
    "trunk.conv3d_2b_1x1": "Conv3d_2b_1x1",
    "trunk.conv3d_2c_3x3": "Conv3d_2c_3x3",
    **{
        f"trunk.mixed_{mixed}.branches.{ours}": f"Mixed_{mixed}.{theirs}"
        for mixed in MIXED
        for ours, theirs in zip(OURS, ("b0", "b1a", "b1b", "b2a", "b2b", "b3b"), strict=True)
    },
}
HASSONY2 = {
    "trunk.conv3d_1a_7x7": "conv3d_1a_7x7",
    "trunk.conv3d_2b_1x1": "conv3d_2b_1x1",
    "trunk.conv3d_2c_3x3": "conv3d_2c_3x3",
    **{
        f"trunk.mixed_{mixed}.branches.{ours}": f"mixed_{mixed}.branch_{theirs}"
        for mixed in MIXED
        for ours, theirs in zip(OURS, ("0", "1.0", "1.1", "2.0", "2.1", "3.1"), strict=True)
    },
}


def as_piergiaj(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Units as `NAME.conv3d.weight` and `NAME.bn.*`, the head as `logits.conv3d.*`."""
    return _renamed(weights, PIERGIAJ, "bn", "logits")


def as_hassony2(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Units as `NAME.conv3d.weight` and `NAME.batch3d.*`, the head as `conv3d_0c_1x1.conv3d.*`."""
    return _renamed(weights, HASSONY2, "batch3d", "conv3d_0c_1x1")


def _renamed(weights: Mapping[str, Tensor], units: Mapping[str, str], norm: str, head: str) -> dict[str, Tensor]:
    public = {f"{head}.conv3d.{field}": weights[f"logits.{field}"] for field in ("weight", "bias")}
    for ours, theirs in units.items():
        for field in UNIT_FIELDS:
            kind = field.replace("conv.", "conv3d.").replace("norm.", f"{norm}.")
            public[f"{theirs}.{kind}"] = weights[f"{ours}.{field}"]
    return public
