"""Moving MNIST datasets: what is in them, that they are reproducible, and that idle options are refused."""

from __future__ import annotations

import argparse
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.building.moving_mnist import BuildOptions, add_arguments, build_moving_mnist, run
from shards.cli import main
from shards.dataset import ShardClips
from shards.digits import sklearn_banks
from shards.errors import ShardError
from shards.folder import LocalFolder
from shards.manifest import Manifest
from shards.mmnist_test_set import published_videos
from shards.moving_mnist import MotionRules, MovingMnistClips, is_endless, open_endless
from shards.opening import open_source
from shards.reader import ShardReader


@pytest.fixture(scope="module")
def endless(tmp_path_factory) -> Path:
    """The default dataset, with a short test set."""
    out = tmp_path_factory.mktemp("data") / "endless"
    build_moving_mnist(out, test_frames=6)
    return out


def reader(root: Path, split: str) -> ShardReader:
    return ShardReader(LocalFolder(root), Manifest.load(root), split)


def read(table: ShardReader, clip: int, name: str) -> np.ndarray:
    array = np.empty(table.shapes(clip)[name], dtype=table.arrays[name].dtype)
    table.read_into(clip, name, 0, array)
    return array


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--out", "nowhere", *words])


def test_the_default_dataset_holds_digits_for_training_and_the_published_construction_for_testing(endless):
    manifest = Manifest.load(endless)
    assert list(manifest.splits) == ["train", "valid", "test"]
    assert {split: is_endless(manifest, split) for split in manifest.splits} == {
        "train": True,
        "valid": True,
        "test": False,
    }
    test = reader(endless, "test")
    expected = list(published_videos(sklearn_banks()["test"], 6, 2, deterministic=False))
    assert len(test) == len(expected) == 150
    for clip in (0, 77, 149):
        np.testing.assert_array_equal(read(test, clip, "video")[:, 0], expected[clip].video_THW)
        np.testing.assert_array_equal(read(test, clip, "latents"), expected[clip].latents_TD4)
        assert test.meta(clip) == {"labels": expected[clip].labels_D.tolist()}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_endless_clips_are_those_of_the_bank(endless, split):
    manifest = Manifest.load(endless)
    source = open_endless(manifest, reader(endless, split), 15)
    direct = MovingMnistClips(sklearn_banks()[split], 15)
    assert source.fingerprint == direct.fingerprint
    positions = np.array([3, 500_001])
    np.testing.assert_array_equal(
        source.fetch(positions, 4).arrays["video"], direct.fetch(positions, 4).arrays["video"]
    )


def test_one_command_then_one_call_give_clips_of_every_split(tmp_path):
    assert main(["build", "moving-mnist", "--out", str(tmp_path / "built"), "--test-frames", "8"]) == 0
    sources = {split: open_source(tmp_path / "built", split, 8) for split in ("train", "valid", "test")}
    assert [type(source) for source in sources.values()] == [MovingMnistClips, MovingMnistClips, ShardClips]
    for source in sources.values():
        video = source.read([0, 5]).arrays["video"]
        assert video.shape == (2, 8, 1, 64, 64)
        assert source.arrays["video"].admits("uint8", video.shape[1:])


def test_a_manifest_without_rules_is_an_error(endless):
    manifest = Manifest.load(endless)
    for generator in (None, {"digits": 2}, manifest.provenance["generator"] | {"digits": "2"}):
        broken = replace(manifest, provenance={"generator": generator})
        with pytest.raises(ShardError, match=r"provenance\.generator[\s\S]*build moving-mnist"):
            open_endless(broken, reader(endless, "train"), 15)


def test_same_options_give_the_same_bytes(tmp_path):
    options = {"sequences": 130, "frames": 4, "seed": 3, "test_set": "generated", "test_sequences": 9, "test_frames": 5}
    for name in ("one", "two"):
        build_moving_mnist(tmp_path / name, **options)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 7
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)
    other = build_moving_mnist(tmp_path / "three", **options | {"seed": 4})
    assert other.fingerprint != Manifest.load(tmp_path / "one").fingerprint


def test_stored_training_clips_are_those_that_endless_training_would_draw(tmp_path):
    manifest = build_moving_mnist(tmp_path / "finite", sequences=100, frames=7, seed=5, test_set="none", digits=1)
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 100, "valid": 5}
    stored = reader(tmp_path / "finite", "train")
    drawn = MovingMnistClips(sklearn_banks()["train"], 7, MotionRules(digits=1)).fetch(np.arange(100), 5)
    np.testing.assert_array_equal(np.stack([read(stored, i, "video") for i in range(100)]), drawn.arrays["video"])


def test_validation_clips_may_be_longer_and_begin_as_the_short_ones(tmp_path):
    options = {"sequences": 40, "frames": 4, "test_set": "none", "digits": 1}
    build_moving_mnist(tmp_path / "short", **options)
    long = build_moving_mnist(tmp_path / "long", **options, valid_frames=9)
    assert {split: info.samples for split, info in long.splits.items()} == {"train": 40, "valid": 2}
    train, valid = (read(reader(tmp_path / "long", split), 1, "video") for split in ("train", "valid"))
    assert (len(train), len(valid)) == (4, 9)
    assert (train != valid[:4]).any()
    np.testing.assert_array_equal(valid[:4], read(reader(tmp_path / "short", "valid"), 1, "video"))
    assert long.split_fingerprint("train") != Manifest.load(tmp_path / "short").split_fingerprint("valid")


def test_no_split_shares_its_motion_with_another(tmp_path):
    options = {"sequences": 60, "frames": 5, "test_set": "generated", "test_sequences": 3, "test_frames": 5}
    build_moving_mnist(tmp_path / "finite", **options)
    latents = {split: reader(tmp_path / "finite", split) for split in ("train", "valid", "test")}
    first = {split: [read(table, i, "latents").tobytes() for i in range(3)] for split, table in latents.items()}
    assert len({clip for clips in first.values() for clip in clips}) == 9


def test_latents_tell_where_the_digits_are(tmp_path):
    options = {"digits": 1, "deterministic": True, "test_set": "generated", "test_sequences": 20, "test_frames": 30}
    build_moving_mnist(tmp_path / "one", **options)
    table = reader(tmp_path / "one", "test")
    for clip in range(20):
        video, latents = read(table, clip, "video")[:, 0], read(table, clip, "latents")[:, 0]
        pictures = [
            frame[row : row + 28, column : column + 28] for frame, (row, column, *_) in zip(video, latents, strict=True)
        ]
        assert all((picture == pictures[0]).all() for picture in pictures)
        assert video.sum() == 30 * pictures[0].sum(dtype=np.int64)


def test_splits_of_different_lengths_are_declared_as_such(tmp_path):
    options = {"sequences": 4, "frames": 5, "test_set": "generated", "test_sequences": 2}
    manifest = build_moving_mnist(tmp_path / "mixed", **options, test_frames=6)
    assert manifest.arrays["video"].shape == (None, 1, 64, 64)
    assert manifest.arrays["latents"].shape == (None, 2, 4)


def test_a_published_test_set_is_cut_from_its_beginning(tmp_path, endless):
    build_moving_mnist(tmp_path / "cut", test_frames=6, test_sequences=10)
    cut, whole = reader(tmp_path / "cut", "test"), reader(endless, "test")
    assert len(cut) == 10
    np.testing.assert_array_equal(read(cut, 9, "video"), read(whole, 9, "video"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 20}, "frames=20 would do nothing"),
        ({"valid_frames": 20}, r"valid_frames=20 would do nothing[\s\S]*leave --valid-frames out"),
        ({"sequences": 5, "valid_frames": 0}, "valid_frames=0"),
        ({"test_set": "none", "test_frames": 20}, "would do nothing"),
        ({"test_set": "none", "test_sequences": 20}, "would do nothing"),
        ({"test_set": "official"}, "published, generated, none"),
        ({"sequences": -1}, "sequences=-1"),
        ({"test_frames": 0}, "test_frames=0"),
        ({"test_sequences": 151}, r"150 clips of 2 of the 300 test digits, asked for 151[\s\S]*--test-set generated"),
        ({"digits": 0}, "digits=0"),
        ({"encoding": "gif"}, "gif"),
    ],
)
def test_options_that_do_nothing_or_cannot_be_are_errors(tmp_path, options, message):
    with pytest.raises(ShardError, match=message):
        build_moving_mnist(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_command_line_has_the_defaults_of_the_options():
    options = vars(parse())
    del options["out"]
    assert BuildOptions(**options) == BuildOptions()


def test_the_command_line_builds(tmp_path):
    words = "--deterministic --digits 1 --sequences 3 --frames 4 --seed 9 --test-set generated --test-sequences 2"
    args = parse(*words.split(), "--test-frames", "5", "--encoding", "raw")
    args.out = tmp_path / "built"
    manifest = run(args, "what was typed")
    assert manifest.name == "moving-mnist-sklearn-digits-1digit-deterministic"
    assert manifest.encoding == "raw"
    assert manifest.provenance["generator"] == {"digits": 1, "deterministic": True, "frame_size": 64, "max_speed": 4}
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 3, "valid": 1, "test": 2}


def test_stochastic_and_deterministic_exclude_each_other(capsys):
    assert parse("--stochastic").deterministic is False
    assert parse("--deterministic").deterministic is True
    with pytest.raises(SystemExit):
        parse("--stochastic", "--deterministic")
    assert "not allowed with" in capsys.readouterr().err


def test_nothing_about_this_machine_is_in_the_dataset(endless):
    text = (endless / "manifest.json").read_text()
    assert str(endless.parent) not in text
    with tarfile.open(fileobj=io.BytesIO((endless / "train-000000.tar").read_bytes())) as tar:
        assert {(member.uid, member.uname, member.mtime) for member in tar} == {(0, "", 0)}
