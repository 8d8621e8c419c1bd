"""Initialisations of the released code: what is drawn from which law, and what is left at torch's defaults."""

import math

import pytest
import torch
from torch import nn

from odevid.config import SRVPConfig
from odevid.models.srvp import SRVP


@pytest.fixture(scope="module", params=[1.41, 1.2])
def model(request):
    torch.manual_seed(0)
    return SRVP(SRVPConfig(nf=16, res_gain=request.param))


def test_convolutions_are_normal_with_std_002(model):
    for module in [*model.encoder.modules(), *model.decoder.modules()]:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 10_000:
            assert module.bias is None
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert abs(module.weight.mean().item()) < 0.001


def test_batchnorm_weights_are_around_one_and_biases_zero(model):
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    pooled = torch.cat([norm.weight for norm in norms])
    assert pooled.std().item() == pytest.approx(0.02, rel=0.15)
    assert pooled.mean().item() == pytest.approx(1.0, abs=0.005)
    assert all(norm.bias.abs().max() == 0 for norm in norms)


def test_every_layer_of_f_is_orthogonal_times_the_gain_with_no_bias(model):
    layers = [module for module in model.dynamics.modules() if isinstance(module, nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        weight = layer.weight if layer.in_features >= layer.out_features else layer.weight.T
        identity = model.config.res_gain**2 * torch.eye(len(weight))
        torch.testing.assert_close(weight @ weight.T, identity, atol=1e-4, rtol=0)
        assert layer.bias.abs().max() == 0


def test_inference_networks_keep_torch_defaults(model):
    bound = 1 / math.sqrt(512)
    hidden = model.p_z.module[1][1]
    assert hidden.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert 0 < hidden.bias.abs().max() <= bound
    assert model.inf_z.weight_hh_l0.abs().max().item() == pytest.approx(1 / 16, rel=1e-3)
