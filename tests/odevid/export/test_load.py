"""Exported models: the same predictions after a round trip, and nothing in a file is run."""

import os

import pytest
import torch

import odevid
from odevid.config import SRVPConfig
from tests.odevid.formula import tiny, tiny_vgg, video


def _generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize("config", [tiny(), tiny_vgg()], ids=["dcgan", "vgg"])
def test_a_saved_model_predicts_the_same_after_loading(tmp_path, config):
    model, path = odevid.build_model(config), tmp_path / "model.pt"
    odevid.save_model(path, config, model.state_dict())
    loaded = odevid.load(path)
    assert loaded.config == config
    assert not loaded.training
    frames = video(2, 3, config.nc).float()
    expected = model.predict(frames, n_future=2, generator=_generators(2))
    assert torch.equal(loaded.predict(frames, n_future=2, generator=_generators(2)), expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt"]


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


def test_a_hostile_file_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "odevid-model", "version": 1, "config": {}, "weights": _Hostile()}, "model.pt")
    with pytest.raises(ValueError, match=r"model\.pt is not an exported model"):
        odevid.load("model.pt")
    assert not (tmp_path / "hostile-was-here").exists()


def _content(**changes):
    state = odevid.build_model(tiny()).state_dict()
    content = {"format": "odevid-model", "version": 1, "config": vars(tiny()), "weights": state}
    return {name: value for name, value in {**content, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": {}}, "is not an exported model"),
        (_content(version=2), "has version 2 of odevid-model; this code reads 1"),
        (_content(weights=None), "it lacks weights"),
        (_content(config={"name": "svg"}), "no model is named 'svg'; known: srvp"),
        (_content(config={**vars(tiny()), "hidden": 3}), "do not fit SRVPConfig: .*hidden"),
        (_content(config={**vars(tiny()), "ny": -1}), "model.ny is -1"),
        (_content(config=vars(tiny(ny=9))), "weights do not fit the config saved beside them"),
    ],
)
def test_a_file_that_is_not_a_usable_model_says_why(tmp_path, content, message):
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        odevid.load(path)


def test_a_text_file_and_a_missing_file_say_so(tmp_path):
    (tmp_path / "model.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"model\.pt is not an exported model"):
        odevid.load(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        odevid.load(tmp_path / "absent.pt")


def test_an_unknown_model_is_refused_by_the_registry():
    config = SRVPConfig()
    config.name = "unheard-of"
    with pytest.raises(ValueError, match="no model for a SRVPConfig named 'unheard-of'; models: srvp"):
        odevid.build_model(config)
