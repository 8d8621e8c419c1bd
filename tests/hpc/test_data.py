"""Where a dataset is, and that missing Moving MNIST is built once while anything else is an error that helps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpc import config as configs
from hpc.config import ConfigError, DataConfig, EvalConfig, MovingMnistConfig
from hpc.data import (
    build_command,
    dataset_root,
    ensure_dataset,
    open_split,
    open_validation,
    refuse_short_clips,
    refuse_unfit,
    to_unit_range,
)
from shards.cli import main
from shards.manifest import Manifest, video_spec
from shards.writer import Sample, write_dataset

ROOT = Path(__file__).resolve().parents[2]


def _one_digit(root: Path) -> DataConfig:
    return DataConfig(root=str(root), moving_mnist=MovingMnistConfig(digits=1, deterministic=True))


def test_the_default_folder_is_odevid_data_and_variants_do_not_share_one(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEVID_DATA", str(tmp_path))
    one, two = DataConfig(moving_mnist=MovingMnistConfig(digits=1)), DataConfig()
    assert Path(dataset_root(one)).parent == tmp_path
    assert dataset_root(one) != dataset_root(two)


def test_missing_moving_mnist_is_built_once_by_processes_that_start_together(tmp_path):
    code = (
        "import sys; from hpc.config import DataConfig, MovingMnistConfig as M; from hpc.data import ensure_dataset;"
        "print(ensure_dataset(DataConfig(root=sys.argv[1], moving_mnist=M(digits=1, deterministic=True))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) for _ in range(3)]
    roots = {process.communicate(timeout=120)[0].strip() for process in started}
    assert {process.returncode for process in started} == {0}
    assert len(roots) == 1
    assert (Path(roots.pop()) / "manifest.json").is_file()


def test_a_built_dataset_given_as_root_is_used_as_it_is(tmp_path):
    built = ensure_dataset(_one_digit(tmp_path))
    assert dataset_root(_one_digit(Path(built))) == built


def test_a_dataset_of_other_rules_or_another_kind_is_not_trained_on_in_silence(tmp_path):
    built = ensure_dataset(_one_digit(tmp_path))
    with pytest.raises(ConfigError, match=r"'digits': 1.*asks for.*'digits': 2"):
        ensure_dataset(DataConfig(root=built))
    with pytest.raises(ConfigError, match="holds Moving MNIST"):
        ensure_dataset(DataConfig(name="kth", root=built))


def test_a_finite_training_set_is_built_by_the_run_as_its_command_builds_it(tmp_path):
    data = _one_digit(tmp_path / "run")
    data.num_frames, data.moving_mnist.sequences = 6, 40
    built = Path(ensure_dataset(data))
    assert built.name == "moving-mnist-sklearn-1digit-deterministic-40x6"
    words = build_command(data).split()
    assert words[:4] == ["python", "-m", "shards", "build"]
    assert build_command(data).endswith("--sequences 40 --frames 6 --valid-frames 12")
    words[words.index("--out") + 1] = str(tmp_path / "typed")
    assert main(words[3:]) == 0
    ours, typed = (Manifest.load(root) for root in (built, tmp_path / "typed"))
    assert ours.fingerprint == typed.fingerprint
    assert {split: ours.splits[split].samples for split in ("train", "valid")} == {"train": 40, "valid": 2}
    assert [
        len(open_split(data, "train", 6, [])),
        open_split(data, "valid", 12, []).read([0]).arrays["video"].shape[1],
    ] == [
        40,
        12,
    ]


def test_endless_and_finite_sets_and_finite_ones_of_other_sizes_have_their_own_folders(tmp_path):
    variants = [{}, {"sequences": 40}, {"sequences": 50}, {"sequences": 40, "frames": 20}]
    variants += [{"sequences": 40, "valid_frames": 25}]
    roots = {dataset_root(DataConfig(root=str(tmp_path), moving_mnist=MovingMnistConfig(**v))) for v in variants}
    assert len(roots) == len(variants)


def test_a_finite_set_of_another_number_or_length_is_not_trained_on_in_silence(tmp_path):
    data = _one_digit(tmp_path)
    endless = ensure_dataset(data)
    data.num_frames, data.moving_mnist.sequences = 6, 40
    finite = ensure_dataset(data)
    assert ensure_dataset(_one_digit(Path(finite))) == finite, (
        "what data.root holds is taken where no number is asked for"
    )
    for root, wanted, found in (
        (endless, {"sequences": 40}, "'sequences': 0"),
        (finite, {"sequences": 50}, "'sequences': 40"),
        (finite, {"sequences": 40, "frames": 5}, "'frames': 6"),
        (finite, {"sequences": 40, "valid_frames": 6}, "'valid_frames': 12"),
    ):
        other = _one_digit(Path(root))
        other.moving_mnist = replace(other.moving_mnist, **wanted)
        with pytest.raises(ConfigError, match=rf"built with .*{found}.*set data\.moving_mnist\.{list(wanted)[-1]}= as"):
            ensure_dataset(other)


def test_stored_clips_that_are_too_short_for_the_run_are_told_with_the_option_that_makes_longer_ones():
    words = ["data.moving_mnist.sequences=40", "data.moving_mnist.frames=10"]
    with pytest.raises(ConfigError, match=r"data\.num_frames=15.*10 frames.*data\.moving_mnist\.frames=15"):
        refuse_unfit(configs.load("srvp_mmnist", overrides=words))
    words = ["data.moving_mnist.sequences=40", "data.moving_mnist.valid_frames=10"]
    with pytest.raises(ConfigError, match=r"eval\.num_frames=15.*10 frames.*data\.moving_mnist\.valid_frames=15"):
        refuse_unfit(configs.load("srvp_mmnist", overrides=words))


def test_lengths_of_stored_clips_are_refused_where_none_is_stored():
    with pytest.raises(ConfigError, match=r"data\.moving_mnist\.frames=10 would do nothing"):
        configs.load("srvp_mmnist", overrides=["data.moving_mnist.frames=10"])


@pytest.mark.parametrize("root", ["http://host/mmnist", "pipe:ssh host cat mmnist"])
def test_an_address_or_command_is_passed_on_and_nothing_is_built(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ensure_dataset(DataConfig(root=root)) == root
    assert not list(tmp_path.iterdir())


def test_another_missing_dataset_is_an_error_with_the_command_that_builds_it(tmp_path):
    data = DataConfig(name="kth", root=str(tmp_path))
    with pytest.raises(ConfigError, match="python -m shards build kth"):
        ensure_dataset(data)
    assert build_command(_one_digit(tmp_path)).endswith("--digits 1 --deterministic")


def test_uint8_becomes_the_unit_range_on_the_device_and_fields_stay_as_they_are():
    fields = torch.tensor([[-3.5, 260.0]])
    video = torch.tensor([0, 51, 255], dtype=torch.uint8)
    moved = to_unit_range({"video": video, "field": fields}, torch.device("cpu"))
    torch.testing.assert_close(moved["video"], torch.tensor([0.0, 0.2, 1.0]))
    assert torch.equal(moved["field"], fields)


def _grey_videos(root: Path, lengths: list[int], size: int = 64) -> DataConfig:
    """A dataset of black videos; the numbers of their frames are given."""
    samples = [
        Sample(f"v{number}", {"video": np.zeros((length, 1, size, size), np.uint8)})
        for number, length in enumerate(lengths)
    ]
    write_dataset(root, "videos", {"train": samples, "valid": samples}, {"video": video_spec(None, 1, size, size)})
    return DataConfig(name="videos", root=str(root), num_frames=5)


def test_frames_that_the_model_does_not_take_are_refused_before_a_job_is_queued(tmp_path):
    config = configs.load("srvp_videos")
    config.data = _grey_videos(tmp_path / "grey", [6])
    with pytest.raises(ConfigError, match=r"has 1 channels, model\.nc=3: set model\.nc=1"):
        refuse_unfit(config)
    config.model.nc = 1
    refuse_unfit(config)
    config.data = _grey_videos(tmp_path / "large", [6], size=128)
    with pytest.raises(ConfigError, match=r"128 x 128 pixels.*--size 64"):
        refuse_unfit(config)


def test_short_clips_are_found_before_training(tmp_path):
    data = _grey_videos(tmp_path / "videos", [6, 4, 9])
    source = open_split(data, "train", 5, [])
    with pytest.raises(
        ConfigError, match=r"1 clips of split 'train'.*fewer frames than data.num_frames=5 \(first: v1\)"
    ):
        refuse_short_clips(data, source, "train", "data.num_frames=5")


def test_a_validation_has_as_many_clips_as_asked_for_from_few_videos(tmp_path):
    data = _grey_videos(tmp_path / "videos", [30, 40])
    validation = open_validation(data, EvalConfig(clips=20, num_frames=8), [])
    assert len(validation) == 20
    assert set(validation.read(range(20)).keys) == {"v0", "v1"}


def test_a_dataset_without_validation_trains_without_and_is_refused_with(tmp_path):
    sample = Sample("v0", {"video": np.zeros((9, 3, 64, 64), np.uint8)})
    write_dataset(tmp_path / "videos", "videos", {"train": [sample]}, {"video": video_spec(None, 3, 64, 64)})
    config = configs.load("srvp_videos", overrides=[f"data.root={tmp_path / 'videos'}"])
    with pytest.raises(ConfigError, match=r"no split 'valid' \(it has: train\): set eval\.every=0"):
        refuse_unfit(config)
    config.eval.every = 0
    refuse_unfit(config)
