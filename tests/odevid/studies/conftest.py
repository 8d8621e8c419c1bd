"""Small models with weights by formula, in float64."""

import pytest
import torch

from odevid.models.srvp import SRVP
from tests.odevid.formula import tiny, tiny_vgg, video, weights

CLIPS, CONTEXT = 3, 4


def build(config) -> SRVP:
    model = SRVP(config).double()
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.eval()


def seeds(count: int = CLIPS) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.fixture(scope="package")
def vgg() -> SRVP:
    """With skips, w, z and two Euler steps."""
    return build(tiny_vgg())


@pytest.fixture(scope="package")
def bare() -> SRVP:
    """Without w and without skips: no content."""
    return build(tiny(content_variable=False))


@pytest.fixture(scope="package")
def context() -> torch.Tensor:
    return video(CLIPS, CONTEXT, 3)
