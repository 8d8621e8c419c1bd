"""Configs: checked when made, readable without torch."""

import subprocess
import sys

import pytest

from odevid.config import PUBLISHED_SRVP, SRVPConfig, published_srvp


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
