"""The experiments of the two neural-ODE models have the numbers that their paper states, and tell where each is from.

Numbers that are `unstated` there are only asked for their reason.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hpc import cli
from hpc import config as configs
from hpc.config import ConfigError
from odevid.config import RNNODEConfig

STATED = {  # Kanaa, Voleti et al. 2019: digits, training clips, their frames, batch, frames given
    "enode_1digit": (1, 1_000, 10, 100, 1),
    "enode_2digit": (2, 1_000, 10, 100, 1),
    "rnnode_1digit": (1, 10_000, 10, 128, 10),
    "rnnode_2digit": (2, 10_000, 10, 128, 10),
}
EXPERIMENTS = [name for name in configs.available("experiment") if "ode_" in name]
EPOCHS = 2000


@pytest.mark.parametrize("experiment", STATED)
def test_the_numbers_that_the_paper_states(experiment):
    config = configs.load(experiment)
    clips = config.data.moving_mnist
    found = (clips.digits, clips.sequences, config.data.num_frames, config.train.global_batch, config.model.nt_cond)
    assert found == STATED[experiment]
    assert config.train.steps * config.train.global_batch == EPOCHS * clips.sequences
    assert config.eval.test_num_frames == 20
    assert (config.optimizer.lr, config.optimizer.constant_steps, config.optimizer.decay) == (1e-3, 0, "cosine")
    assert (config.model.start, config.model.order, config.model.augment) == ("first", 1, 0)
    assert config.model.frame_time == 1 / 9


def test_the_two_models_are_those_of_equations_1_and_2():
    one, two = configs.load("enode_1digit"), configs.load("rnnode_1digit")
    assert (one.model.latent_weight, one.model.stop_gradient) == (1.0, False)
    assert (two.model.objective, two.model.obs_scale, two.model.beta) == ("reconstruct", 1.0, 1.0)
    assert (one.eval.samples, one.eval.test_samples) == (1, 1)
    assert (one.eval.given, two.eval.given) == (False, True), "(b) is trained to rebuild the given frames"
    assert one.eval.halve_step
    assert two.eval.halve_step


def test_two_digits_are_the_same_model_and_training_as_one():
    for name in ("enode", "rnnode"):
        one, two = (configs.load(f"{name}_{digits}digit") for digits in (1, 2))
        assert (one.model, one.optimizer, one.train) == (two.model, two.optimizer, two.train)


def test_kth_is_trained_to_predict_by_the_protocol_of_srvp():
    ours, srvp = configs.load("rnnode_kth"), configs.load("srvp_kth")
    assert ours.model.objective == "predict"
    assert ours.model.nt_cond == srvp.model.nt_cond
    assert ours.data == srvp.data
    assert replace(ours.eval, given=False, halve_step=False) == srvp.eval
    assert (ours.train.steps, ours.train.global_batch) == (srvp.train.steps, srvp.train.global_batch)


def test_on_ones_own_videos_it_is_trained_and_scored_as_on_kth_from_five_frames():
    ours, kth = configs.load("rnnode_videos"), configs.load("rnnode_kth")
    assert (ours.model.objective, ours.eval.given, ours.eval.halve_step) == ("predict", True, True)
    assert (kth.model.objective, kth.eval.given, kth.eval.halve_step) == ("predict", True, True)
    text = (configs.CONFIG_ROOT / "experiment" / "rnnode_videos.yaml").read_text()
    assert ours.model.nt_cond == 5
    assert "given five" in text
    assert "given ten" not in text


def test_a_solver_without_a_fixed_step_has_none_to_halve_and_that_is_said_before_anything_starts(capsys):
    with pytest.raises(
        ConfigError, match=r"model\.name=rnnode .*see model\.method.*model\.method, or set eval\.halve_step"
    ):
        configs.load("rnnode_1digit", overrides=["model.method=dopri5"])
    assert cli.main(["--dry-run", "experiment=rnnode_1digit", "model.method=dopri5"]) != 0
    assert "set eval.halve_step=false" in capsys.readouterr().err
    config = configs.load("rnnode_1digit", overrides=["model.method=dopri5", "eval.halve_step=false"])
    assert config.model.own_substeps is None
    with pytest.raises(ConfigError, match=r"one frame to the next.*: set eval\.halve_step=false"):
        replace(config, model=_Mapping(), eval=replace(config.eval, halve_step=True))


class _Mapping(RNNODEConfig):
    """A model from one frame to the next, whatever it says of its steps."""

    own_substeps = 1
    continuous = False


def test_the_models_of_settings_are_told_apart():
    with pytest.raises(ConfigError, match=r"^command line: model.nh_rnn is a setting of model rnnode, while .* enode"):
        configs.load("enode_1digit", overrides=["model.nh_rnn=3"])
    with pytest.raises(ConfigError, match=r"model.method is a setting of model enode and rnnode, while .* is srvp"):
        configs.load("srvp_kth", overrides=["model.method=rk4"])
    with pytest.raises(ConfigError, match=r"unknown key 'model\.n_rnn'; did you mean 'model\.nh_rnn'\?$"):
        configs.load("rnnode_1digit", overrides=["model.n_rnn=3"])
    with pytest.raises(ConfigError, match=r"unknown key 'model\.n_rnn'") as caught:
        configs.load("srvp_kth", overrides=["model.n_rnn=3"])
    assert "nh_rnn" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"unknown key 'model\.nf\.x'"):
        configs.load("srvp_kth", overrides=["model.nf.x=3"])


def test_an_experiment_of_another_model_is_refused_with_those_of_the_model():
    said = r"model\.name=enode: experiment=rnnode_1digit is one of model rnnode.*: enode_1digit, enode_2digit$"
    for size in ("", "test"):
        with pytest.raises(ConfigError, match=said):
            configs.load("rnnode_1digit", size, overrides=["model.name=enode"])
    assert configs.load("enode_1digit", "test", overrides=["model.name=enode"]).model.name == "enode"


def test_the_size_is_that_of_the_model_that_results(tmp_path, monkeypatch):
    for name in ("experiment", "size/test"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "experiment" / "mine.yaml").write_text("seed: 3\ndata: {num_frames: 10}\n")
    for model, nf in (("srvp", 5), ("enode", 6)):
        (tmp_path / "size" / "test" / f"{model}.yaml").write_text(f"model: {{nf: {nf}}}\n")
    monkeypatch.setattr(configs, "CONFIG_ROOT", tmp_path)
    assert configs.load("mine", "test").model.nf == 5
    assert configs.load("mine", "test", overrides=["model.name=enode"]).model.nf == 6


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_number_tells_where_it_is_from(experiment):
    text = (configs.CONFIG_ROOT / "experiment" / f"{experiment}.yaml").read_text()
    values = [line for line in text.splitlines() if re.match(r"\s*\w+: *[^\s#]", line)]
    assert len(values) > 50
    untold = [line for line in values if not re.search(r"# (paper|unstated|ours|srvp)\b", line)]
    assert untold == []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_setting_of_the_model_is_written_down(experiment):
    written = configs._read_named("experiment", experiment).model
    unsaid = set(configs.to_dict(configs.load(experiment))["model"]) - set(map(str, written))
    assert unsaid <= {"rtol", "atol", "max_steps", "compiled"}, "but for what rk4 has not, and speed"


def test_small_keeps_the_data_and_the_frames_and_test_and_demo_bring_their_own():
    whole, small = configs.load("rnnode_kth"), configs.load("rnnode_kth", "small")
    assert (small.data, small.model.objective, small.eval.num_frames) == (
        whole.data,
        whole.model.objective,
        whole.eval.num_frames,
    )
    for size in ("test", "demo"):
        config = configs.load("rnnode_kth", size)
        assert (config.data.name, config.data.moving_mnist.digits) == ("moving-mnist", 1)
        assert config.data.moving_mnist.sequences == 0, "drawn without end: nothing to store"


def test_training_clips_longer_than_the_objective_looks_at_are_refused():
    with pytest.raises(ConfigError, match=r"data\.num_frames=20: expected at most 10 \(model\.objective=reconstruct"):
        configs.load("rnnode_1digit", overrides=["data.num_frames=20"])
    longer = configs.load("rnnode_1digit", overrides=["data.num_frames=20", "model.objective=predict"])
    assert longer.data.num_frames == 20


def test_a_dry_run_tells_of_the_training_set_that_the_run_will_build(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ODEVID_DATA", str(tmp_path / "data"))
    words = ["experiment=rnnode_1digit", "data.moving_mnist.mnist=digits", f"run={tmp_path / 'run'}"]
    assert cli.main(["--dry-run", "--nodes", "4", *words]) == 0
    told = capsys.readouterr().out
    folder = tmp_path / "data" / "moving-mnist-mnist-1digit-deterministic-10000x10"
    assert f"{folder}: not built yet; python -m shards build moving-mnist --out {folder}" in told
    assert "--deterministic --mnist" in told
    assert "--sequences 10000 --frames 10 --valid-frames 20\n" in told
    assert "global batch 128 = micro-batch 4 x accumulation 1 x ranks 32" in told
    assert "100 validation clips x 10 samples: 10,000 predicted frames, 31 times" in told
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()
