"""Configs: checked when made, readable without torch."""

import subprocess
import sys

import pytest

from odevid.config import (
    MODELS,
    PUBLISHED_SRVP,
    EncODEConfig,
    RNNODEConfig,
    SRVPConfig,
    model_config,
    published_srvp,
)


def test_import_of_odevid_and_its_configs_leaves_torch_alone():
    code = "import odevid, odevid.config, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_unknown_name_of_the_package_names_what_there_is():
    import odevid

    with pytest.raises(AttributeError, match="build_model, load, save_model"):
        odevid.predict  # noqa: B018


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet"}, "model.architecture is 'resnet'; choose one of dcgan, vgg"),
        ({"dynamics": "ode"}, "choose one of residual, mlp, gru"),
        ({"name": "svg"}, "model.name is 'svg'"),
        ({"ny": 0}, "model.ny is 0"),
        ({"nz": -1}, "model.nz is -1"),
        ({"obs_scale": 0.0}, "model.obs_scale is 0.0; it must be positive"),
        ({"obs_scale": float("nan")}, "model.obs_scale is nan"),
        ({"n_euler_steps": 0}, "model.n_euler_steps is 0"),
        ({"nt_inf": 6, "nt_cond": 5}, "give nt_cond >= nt_inf"),
        ({"dynamics": "mlp", "l2_res": 0.0, "n_euler_steps": 2}, "set model.n_euler_steps=1"),
        ({"dynamics": "gru"}, "set model.l2_res=0"),
        ({"dynamics": "gru", "l2_res": 0.0, "nz": 0}, "gru dynamics take z as their input"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        SRVPConfig(**changes)


def test_published_settings_are_those_of_the_paper():
    observed = {
        name: (c.architecture, c.skip_connections, c.nc, c.ny, c.nz, c.n_euler_steps, c.nt_inf, c.nt_cond, c.res_gain,
               c.obs_scale, c.beta_z)
        for name, c in ((name, published_srvp(name)) for name in PUBLISHED_SRVP)
    }  # fmt: skip
    assert observed == {
        "smmnist": ("dcgan", False, 1, 20, 20, 1, 5, 5, 1.41, 1.0, 2.0),
        "mmnist": ("dcgan", False, 1, 20, 20, 1, 5, 5, 1.41, 1.0, 2.0),
        "kth": ("vgg", True, 1, 50, 50, 2, 3, 10, 1.2, 0.2, 1.0),
        "human": ("vgg", True, 3, 50, 50, 2, 3, 8, 1.2, 0.2, 1.0),
        "bair": ("vgg", True, 3, 50, 50, 2, 2, 2, 1.41, 0.71, 1.0),
    }


def test_an_unknown_published_setting_lists_the_known_ones():
    with pytest.raises(ValueError, match="smmnist, mmnist, kth, human, bair"):
        published_srvp("kitti")


@pytest.mark.parametrize("kind", [EncODEConfig, RNNODEConfig])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "resnet"}, "model.architecture is 'resnet'; choose one of dcgan, vgg"),
        ({"activation": "relu"}, "model.activation is 'relu'; choose one of tanh, elu, softplus"),
        ({"order": 3}, "model.order is 3; choose one of 1, 2"),
        ({"method": "rk45"}, "model.method is 'rk45'; choose one of euler, midpoint, heun, heun3, rk4, rk4_38, dopri5"),
        ({"gradient": "none"}, "model.gradient is 'none'; choose one of direct, checkpoint, adjoint"),
        ({"start": "middle"}, "model.start is 'middle'; choose one of first, last"),
        ({"name": "srvp"}, "model.name is 'srvp'; choose one of (enode|rnnode)$"),
        ({"nlatent": 0}, "model.nlatent is 0; it must be at least 1"),
        ({"nlayers_field": 0}, "model.nlayers_field is 0"),
        ({"substeps": 0}, "model.substeps is 0"),
        ({"nt_cond": 0}, "model.nt_cond is 0"),
        ({"augment": -1}, "model.augment is -1; it must not be negative"),
        ({"frame_time": 0.0}, "model.frame_time is 0.0; it must be positive"),
        ({"rtol": float("nan")}, "model.rtol is nan; it must be positive"),
        ({"atol": float("inf")}, "model.atol is inf; it must be positive and finite"),
        ({"rtol": 9e-7}, "model.rtol is 9e-07, but models are float32.*give model.rtol >= 1e-06, or fixed steps"),
        ({"method": "dopri5", "substeps": 2}, "model.substeps is 2, but dopri5 .* set model.substeps=1 and model.rtol"),
        ({"method": "bosh3", "gradient": "checkpoint"}, "bosh3 has no fixed steps .* set model.gradient=adjoint"),
        ({"gradient": "adjoint"}, "torchdiffeq.* has no classical rk4; set model.method=rk4_38"),
        ({"method": "dopri5", "compiled": True}, "model.compiled is true with model.method=dopri5.*only fixed steps"),
        ({"gradient": "checkpoint", "compiled": True}, "with model.gradient=direct are compiled"),
    ],
)
def test_what_a_neural_ode_model_cannot_be_is_refused_with_what_to_set(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (EncODEConfig, {"latent_weight": -1.0}, "model.latent_weight is -1.0; it must not be negative"),
        (RNNODEConfig, {"objective": "forecast"}, "choose one of reconstruct, predict, both"),
        (RNNODEConfig, {"obs_scale": 0.0}, "model.obs_scale is 0.0; it must be positive"),
        (RNNODEConfig, {"beta": -0.5}, "model.beta is -0.5"),
        (RNNODEConfig, {"nh_rnn": 0}, "model.nh_rnn is 0"),
        (RNNODEConfig, {"ncontent": -1}, "model.ncontent is -1"),
        (RNNODEConfig, {"nt_target": -1}, "model.nt_target is -1"),
        (RNNODEConfig, {"nt_obs": 5, "nt_cond": 4}, "model.nt_cond = 4 conditioning frames; give nt_obs <= nt_cond"),
        (RNNODEConfig, {"nt_target": 5, "nt_cond": 4}, "decodes the model.nt_cond = 4 .*; give nt_target <= nt_cond"),
        (RNNODEConfig, {"content_in_field": True}, "model.ncontent is 0: there is no content; set it"),
    ],
)
def test_what_one_neural_ode_model_cannot_be_is_refused_too(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**changes)


def test_the_sizes_of_the_neural_ode_models_and_of_what_they_take():
    assert EncODEConfig(nlatent=4, order=2, augment=3).state_size == 11
    assert [EncODEConfig(nt_cond=count).min_clip for count in (1, 2, 5)] == [2, 2, 5]
    clips = {
        objective: (config.min_clip, config.max_clip)
        for objective in ("reconstruct", "predict", "both")
        for config in [RNNODEConfig(nt_cond=4, objective=objective)]
    }
    assert clips == {"reconstruct": (4, 4), "predict": (5, None), "both": (5, None)}
    assert (EncODEConfig(substeps=3).own_substeps, EncODEConfig(method="dopri5").own_substeps) == (3, None)
    assert (EncODEConfig().stochastic, RNNODEConfig().stochastic) == (False, True)


def test_a_model_is_made_from_its_settings_and_what_does_not_fit_is_named():
    assert {name: type(model_config({"name": name})) for name in MODELS} == dict(MODELS)
    with pytest.raises(ValueError, match="no model is named 'ode'; known: srvp, enode, rnnode"):
        model_config({"name": "ode"})
    with pytest.raises(ValueError, match=r"these settings do not fit EncODEConfig: .*'nh_rnn'"):
        model_config({"name": "enode", "nh_rnn": 4})
