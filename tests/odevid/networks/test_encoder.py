"""Frame encoders: shapes of codes and skips."""

import pytest
import torch

from odevid.networks import build_encoder


@pytest.mark.parametrize(
    ("architecture", "sizes"), [("dcgan", (4, 8, 16, 32)), ("vgg", (8, 16, 32, 64))], ids=["dcgan", "vgg"]
)
def test_codes_are_bounded_and_stages_come_deepest_first(architecture, sizes):
    codes, outputs = build_encoder(architecture, nc=3, nf=2, size=7)(torch.rand(5, 3, 64, 64))
    assert codes.shape == (5, 7)
    assert codes.abs().max() <= 1
    assert [tuple(output.shape) for output in outputs] == [
        (5, 2 * 2**depth, size, size) for depth, size in zip((3, 2, 1, 0), sizes, strict=True)
    ]
