"""eval.split: clips of training and validation are scored as those of the test are, and kept beside them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hpc import config as configs
from hpc.config import ConfigError
from hpc.distributed import World
from hpc.evaluation import verb
from hpc.evaluation.scores import evaluations_in, read_scores, splits_in
from hpc.rendezvous import Ranks
from hpc.run_folder import RunFolder
from hpc.tracking.evaluation_mirror import findings_of
from odevid import build_model
from shards.building.moving_mnist import build_moving_mnist
from shards.errors import ShardError

ALONE = World(Ranks(0, 0, 1, 1, "127.0.0.1", 0), torch.device("cpu"), None)
QUICK = ("eval.test_clips=2", "eval.test_samples=1", "eval.pictures=0", "eval.metrics=[psnr]")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("endless") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True, test_set="generated", test_sequences=3, test_frames=5)
    return root


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training clips of four frames, test clips of five."""
    root = tmp_path_factory.mktemp("stored") / "digits"
    clips = {"sequences": 20, "frames": 4, "valid_frames": 5}
    build_moving_mnist(
        root, digits=1, deterministic=True, test_set="generated", test_sequences=3, test_frames=5, **clips
    )
    return root


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """`evaluate` of a run in this process, with weights of step 7; the run's folder."""
    torch.manual_seed(0)
    model = build_model(configs.load("srvp_smmnist", "test").model)
    monkeypatch.setattr(verb, "load_predictor", lambda *_: (model, 7))
    stop = SimpleNamespace(agree=lambda _: None)
    watchdog = SimpleNamespace(beat=lambda *_: None)
    folder = RunFolder(tmp_path)

    def run(root: Path, *overrides: str) -> RunFolder:
        config = configs.load("srvp_smmnist", "test", overrides=[f"data.root={root}", *QUICK, *overrides])
        verb.evaluate_run(config, folder, ALONE, stop, watchdog)  # type: ignore[arg-type]
        return folder

    return run


def test_each_split_has_its_results_and_the_tests_stay_where_they_are(evaluate, stored, capsys):
    evaluate(stored)
    evaluate(stored, "eval.split=train", "eval.test_num_frames=4")
    assert "2 of 20 train clips" in capsys.readouterr().out
    folder = evaluate(stored, "eval.split=train", "eval.test_num_frames=4", "eval.substeps=[2]")
    assert splits_in(folder.evaluation) == {"train": folder.evaluation / "split-train"}
    train = folder.evaluation / "split-train"
    assert evaluations_in(folder.evaluation) == [folder.evaluation], "the report's numbers are of the test"
    assert evaluations_in(train) == [train, train / "substeps-2"]
    protocols = {where: read_scores(where).protocol for where in (folder.evaluation, train)}
    assert [(protocol["split"], protocol["num_frames"]) for protocol in protocols.values()] == [
        ("test", 5),
        ("train", 4),
    ]
    names = [next(iter(findings_of(read_scores(where), where)["values"])) for where in (train, train / "substeps-2")]
    assert names == ["split-train/psnr", "split-train-substeps-2/psnr"]


def test_training_clips_that_are_shorter_than_the_tests_are_refused_by_name(evaluate, stored):
    with pytest.raises(ConfigError, match=r"20 clips of split 'train' .* than eval.test_num_frames=5 .*lower"):
        evaluate(stored, "eval.split=train")


def test_digits_that_are_drawn_for_ever_are_scored_as_many_as_are_asked_for(evaluate, endless):
    folder = evaluate(endless, "eval.split=train", "eval.test_num_frames=7")
    scores = read_scores(folder.evaluation / "split-train")
    assert (scores.protocol["num_clips"], scores.protocol["clips_of_split"]) == (2, 500_000)
    with pytest.raises(ConfigError, match=re.escape("eval.split=valid is made as it is read and has no end")):
        evaluate(endless, "eval.split=valid", "eval.test_clips=0")


def test_another_word_is_no_split_and_a_split_that_is_not_there_is_named(evaluate, tmp_path):
    with pytest.raises(ConfigError, match=r"eval.split='training': expected one of test, valid, train"):
        configs.load("srvp_smmnist", "test", overrides=["eval.split=training"])
    root = tmp_path / "without"
    build_moving_mnist(root, digits=1, deterministic=True, test_set="none")
    with pytest.raises(ShardError, match="no split 'test'"):
        evaluate(root)
