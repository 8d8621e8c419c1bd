"""The schema is strict: what is misspelt, mistyped or contradictory is an error that says what to type."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from hpc import config as configs
from hpc.config import Config, ConfigError
from odevid.config import RNNODEConfig, published_srvp

ROOT = Path(configs.__file__).resolve().parent.parent
SCHEDULES = {  # burn-in, decay, batch, frames: the published README and arguments
    "smmnist": (1_000_000, 100_000, 128, 15),
    "mmnist": (800_000, 100_000, 128, 15),
    "kth": (150_000, 50_000, 100, 20),
    "human": (325_000, 25_000, 100, 16),
    "bair": (1_000_000, 500_000, 192, 12),
}


@pytest.mark.parametrize("dataset", SCHEDULES)
def test_experiments_are_the_published_models_and_schedules(dataset):
    config = configs.load(f"srvp_{dataset}")
    burnin, decay, batch, frames = SCHEDULES[dataset]
    assert asdict(config.model) == asdict(published_srvp(dataset))
    assert config.optimizer.constant_steps == burnin
    assert config.train.steps == burnin + decay
    assert (config.train.global_batch, config.data.num_frames) == (batch, frames)
    assert (config.optimizer.lr, config.optimizer.beta1, config.optimizer.beta2) == (3e-4, 0.9, 0.999)


@pytest.mark.parametrize("experiment", configs.available("experiment"))
@pytest.mark.parametrize("size", ["", *configs.available("size")])
def test_every_experiment_resolves_at_every_size(experiment, size):
    assert configs.load(experiment, size).experiment == experiment


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.step=5", "train.steps"),
        ("steps=5", "train.steps"),
        ("model.nff=5", "model.nf"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("train.zero_stage=3", "one of 0, 1, 2"),
        ("model.architecture=resnet", "dcgan, vgg"),
        ("optimizer.constant_steps=2000000", "train.steps"),
        ("train.steps", "key=value"),
        ("eval.num_frames=5", "eval.num_frames=5: expected at least 6"),
        ("eval.test_num_frames=3", "eval.test_num_frames=3"),
        ("data.num_frames=4", "model.nt_inf=5"),
        ("train.micro_batch=-1", "train.micro_batch=-1: expected at least 0"),
        ("train.threads=-1", "train.threads"),
        ("eval.test_clips=-1", "eval.test_clips"),
        ("eval.metrics=[psnrr]", "expected one of psnr, ssim, ssim_svg, lpips"),
        ("eval.metrics=[psnr,psnr]", "psnr is there twice"),
        ("eval.metrics=[fvd]", "add a metric of frames"),
        ("eval.substeps=[0]", "expected whole numbers >= 1"),
        ("checkpoint.keep_best=-1", "checkpoint.keep_best"),
        ("optimizer.beta1=1.5", "optimizer.beta1"),
        ("cluster.setup=['don't']", "command line"),
    ],
)
def test_a_wrong_override_is_an_error_that_names_the_right_one(override, message):
    with pytest.raises(ConfigError, match=message):
        configs.load("srvp_smmnist", overrides=[override])


def test_unknown_experiments_and_sizes_name_the_known_ones():
    with pytest.raises(ConfigError, match="srvp_bair"):
        configs.load("srvp_bear")
    with pytest.raises(ConfigError, match="demo"):
        configs.load("srvp_bair", size="tiny")


def test_the_command_line_wins_over_the_size_over_the_experiment():
    config = configs.load("srvp_kth", "demo", overrides=["train.global_batch=8"])
    assert (config.train.global_batch, config.model.nf, config.seed) == (8, 16, 1)


def test_a_saved_configuration_reads_back_equal(tmp_path):
    config = configs.load("srvp_bair", "test", overrides=["seed=9", "cluster.setup=['module load x']"])
    configs.save(config, tmp_path / "config.yaml")
    assert configs.load_file(tmp_path / "config.yaml") == config


def test_training_clips_are_as_long_as_the_model_uses_them_and_not_longer():
    """Of a model that looks at exactly model.nt_cond frames; its defaults alone need not fit those of the data."""
    paper = ["model.name=rnnode", "model.nt_cond=10"]
    for frames, message in (
        (15, "data.num_frames=15: expected at most 10 (model.objective=reconstruct with model.nt_cond=10)"),
        (9, "data.num_frames=9: expected at least 10 (model.objective=reconstruct with model.nt_cond=10)"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            _with_model(*paper, f"data.num_frames={frames}")
    config = _with_model(*paper, "data.num_frames=10")
    assert isinstance(config.model, RNNODEConfig)
    assert _with_model(*paper, "data.num_frames=15", "model.objective=predict").data.num_frames == 15
    with pytest.raises(ConfigError, match=r"data.num_frames=10: expected at least 11 \(model.objective=predict"):
        _with_model(*paper, "data.num_frames=10", "model.objective=predict")


def _with_model(*overrides: str) -> Config:
    """Resolved from the defaults of the schema and the overrides alone."""
    return configs.to_config(configs._merge([("command line", configs._parse_overrides(list(overrides)))]))


def test_no_option_is_inert():
    """Every leaf of the schema is read somewhere in the packages."""
    attributes = set()
    for package in ("hpc", "odevid", "shards"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            defines = path.name == "config.py" or path.parent == ROOT / "odevid" / "config"
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and not (defines and _is_self(node)):
                    attributes.add(node.attr)
    unread = [key for key in configs.all_keys() if key.split(".")[-1] not in attributes | {"name"}]
    read_by_name = {"cluster." + name for name in ("qos", "account", "comment", "constraint", "exclude", "partition")}
    assert set(unread) - read_by_name == set()


def _is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def test_resolving_a_configuration_imports_no_torch():
    code = (
        "import sys; from hpc import config, cli; config.load('srvp_bair', 'demo'); "
        "bad = {'torch', 'deepspeed', 'wandb', 'submitit', 'numpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
