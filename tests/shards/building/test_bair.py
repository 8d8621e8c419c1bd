"""BAIR from true TFRecords: every value as stored, the published splits, and damage that costs only what it must."""

from __future__ import annotations

import argparse
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from shards.building import bair
from shards.building.plan import BadSource, BuildPlan, Item
from shards.building.published import train_valid_split
from shards.cli import main
from shards.errors import ShardError
from shards.writer import Sample, check_sample
from tests.conftest import shared_data
from tests.shards.building.tfrecords import bair_features, example, frame, write_tfrecord


def no_survey(files):
    raise AssertionError("BAIR needs no lengths of videos")


def planned(raw: Path, *words: str, bad: str = "stop") -> BuildPlan:
    parser = argparse.ArgumentParser()
    bair.add_arguments(parser)
    args = parser.parse_args(words)
    args.raw, args.bad = raw, bad
    return bair.plan(args, no_survey)


def sample_of(plan: BuildPlan, item: Item) -> Sample:
    """The item's one sample, checked as the writer checks it, made by a copy as in a worker process."""
    (sample,) = pickle.loads(pickle.dumps(plan.make))(item)
    assert isinstance(sample, Sample)
    check_sample(sample, plan.arrays)
    return sample


def recording(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two cameras THWC, actions TA and positions TP of an invented recording."""
    rng = np.random.default_rng(number)
    aux1, main = rng.integers(0, 256, (2, 30, 64, 64, 3), np.uint8)
    return aux1, main, rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(30, 3)).astype(np.float32)


def record(number: int) -> bytes:
    aux1, main, actions, positions = recording(number)
    return example(bair_features(aux1, actions, positions, main))


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Three training files of 3, 2 and 1 videos, one test file of 2; numbered 0 to 7."""
    root = tmp_path_factory.mktemp("raw")
    train, test = root / "softmotion30_44k" / "train", root / "softmotion30_44k" / "test"
    write_tfrecord(train / "traj_256_to_511.tfrecords", [record(3), record(4)])
    write_tfrecord(train / "traj_0_to_255.tfrecords", [record(0), record(1), record(2)])
    write_tfrecord(train / "traj_9.part.tfrecords", [record(5)])
    write_tfrecord(test / "traj_0_to_255.tfrecords", [record(6), record(7)])
    return root


ORDER = [
    *(f"traj_0_to_255/{k:03d}" for k in (1, 2, 3)),
    *(f"traj_256_to_511/{k:03d}" for k in (1, 2)),
    "traj_9_part/001",
]


def test_train_and_valid_are_the_published_shares_of_the_sorted_list_and_test_is_all_of_test(raw):
    plan = planned(raw)
    train, valid = train_valid_split(6)
    assert [item.key for item in plan.splits["train"]] == [ORDER[i] for i in train]
    assert [item.key for item in plan.splits["valid"]] == [ORDER[i] for i in valid]
    assert (len(train), len(valid)) == (5, 1)
    assert [item.key for item in plan.splits["test"]] == ["traj_0_to_255/001", "traj_0_to_255/002"]
    assert plan.name == "bair-64"
    assert plan.fps is None


def test_without_validation_all_training_videos_train_as_svg_and_srvps_paper_have_it(raw, monkeypatch):
    plan = planned(raw, "--valid", "none")
    assert {split: [item.key for item in items] for split, items in plan.splits.items()} == {
        "train": ORDER,
        "test": ["traj_0_to_255/001", "traj_0_to_255/002"],
    }
    assert plan.notes[0].endswith("published train videos are here, in 3 files")
    monkeypatch.setattr(bair, "PUBLISHED", {"train": 6, "test": 2})
    assert planned(raw, "--valid", "none").notes == ()


def test_svg_trains_on_the_first_frames_only(raw):
    plan = planned(raw, "--train-frames", "12", "--valid", "none")
    for number, item in enumerate(plan.splits["train"]):
        sample, (aux1, _, actions, positions) = sample_of(plan, item), recording(number)
        assert np.array_equal(sample.arrays["video"], np.moveaxis(aux1[:12], 3, 1))
        assert np.array_equal(sample.arrays["actions"], actions[:12])
        assert np.array_equal(sample.arrays["endeffector_positions"], positions[:12])
        assert sum(array.nbytes for array in sample.arrays.values()) == item.num_bytes
    assert len(sample_of(plan, plan.splits["test"][0]).arrays["video"]) == 30
    for wrong in ("0", "31"):
        with pytest.raises(ShardError, match=f"--train-frames {wrong}: expected 1 to 30"):
            planned(raw, "--train-frames", wrong)


def test_every_stored_value_comes_out(raw):
    plan = planned(raw)
    items = {item.key: item for item in (*plan.splits["train"], *plan.splits["valid"])}
    for number, key in enumerate(ORDER):
        aux1, _, actions, positions = recording(number)
        sample = sample_of(plan, items[key])
        assert sample.key == key
        for t in (0, 1, 17, 29):
            for channel in range(3):
                assert np.array_equal(sample.arrays["video"][t, channel], aux1[t, :, :, channel])
        assert np.array_equal(sample.arrays["actions"], actions)
        assert np.array_equal(sample.arrays["endeffector_positions"], positions)
        assert sum(array.nbytes for array in sample.arrays.values()) == items[key].num_bytes
        assert items[key].num_samples == 1
    assert sample.meta == {"source": "train/traj_9.part.tfrecords", "record": 1}
    assert sample_of(plan, plan.splits["test"][1]).meta == {"source": "test/traj_0_to_255.tfrecords", "record": 2}


def test_the_other_camera_is_the_other_pictures(raw):
    plan = planned(raw, "--camera", "main")
    _, main, actions, _ = recording(6)
    sample = sample_of(plan, plan.splits["test"][0])
    assert np.array_equal(sample.arrays["video"], np.moveaxis(main, 3, 1))
    assert np.array_equal(sample.arrays["actions"], actions)
    assert plan.name == "bair-64-main"


def test_the_folder_itself_may_be_named_and_gives_the_same_samples(raw):
    outer, inner = planned(raw), planned(raw / "softmotion30_44k")
    for split in ("train", "valid", "test"):
        assert [i.key for i in outer.splits[split]] == [i.key for i in inner.splits[split]]
    a = sample_of(outer, outer.splits["test"][0])
    b = sample_of(inner, inner.splits["test"][0])
    assert a.meta == b.meta
    assert np.array_equal(a.arrays["video"], b.arrays["video"])


def test_missing_videos_are_said_loudly(raw):
    notes = planned(raw).notes
    assert notes == (
        "6 of 43,264 published train videos are here, in 3 files; so train and valid are not the published ones",
        "2 of 256 published test videos are here, in 1 files",
    )


def test_a_whole_set_gives_no_note(raw, monkeypatch):
    monkeypatch.setattr(bair, "PUBLISHED", {"train": 6, "test": 2})
    assert planned(raw).notes == ()


def test_a_folder_of_something_else_says_what_was_expected(tmp_path):
    with pytest.raises(ShardError, match=r"no BAIR record files.*\n.*softmotion30_44k/train/\*\.tfrecords"):
        planned(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(ShardError, match="no BAIR records here"):
        planned(tmp_path)


def test_test_alone_or_a_single_training_video_can_be_built(tmp_path):
    write_tfrecord(tmp_path / "test" / "a.tfrecords", [record(0)])
    assert list(planned(tmp_path).splits) == ["test"]
    write_tfrecord(tmp_path / "train" / "a.tfrecords", [record(0)])
    assert list(planned(tmp_path).splits) == ["train", "test"]


def test_two_files_that_keys_cannot_tell_apart_are_refused(tmp_path):
    for name in ("a.b.tfrecords", "a_b.tfrecords"):
        write_tfrecord(tmp_path / "train" / name, [record(0)])
    with pytest.raises(ShardError, match="'a_b'"):
        planned(tmp_path)


def test_a_flipped_bit_costs_that_video_only(tmp_path):
    path = tmp_path / "test" / "a.tfrecords"
    write_tfrecord(path, [record(0), record(1), record(2)])
    content = bytearray(path.read_bytes())
    offset = len(frame(record(0)))
    content[offset + 5000] ^= 64
    path.write_bytes(content)
    plan = planned(tmp_path)
    first, second, third = plan.splits["test"]
    with pytest.raises(BadSource, match=f"bad checksum: {path}, record 2, offset {offset}: ") as caught:
        sample_of(plan, second)
    assert caught.value.kind == "bad checksum"
    for number, item in ((0, first), (2, third)):
        assert np.array_equal(sample_of(plan, item).arrays["actions"], recording(number)[2])


@pytest.mark.parametrize("kind", ["broken link", "folder"])
def test_a_file_that_cannot_be_opened_stops_the_build_or_is_left_out_loudly(tmp_path, kind):
    write_tfrecord(tmp_path / "test" / "a.tfrecords", [record(0)])
    path = tmp_path / "test" / "b.tfrecords"
    path.mkdir() if kind == "folder" else path.symlink_to("nowhere")
    with pytest.raises(BadSource, match=f"unreadable: {path}: "):
        planned(tmp_path)
    plan = planned(tmp_path, bad="skip")
    assert [item.key for item in plan.splits["test"]] == ["a/001"]
    assert plan.notes[-1].startswith(f"unreadable: {path}: ")


def test_a_file_that_is_gone_when_its_records_are_read_is_a_bad_source(tmp_path):
    path = tmp_path / "test" / "a.tfrecords"
    write_tfrecord(path, [record(0)])
    plan = planned(tmp_path)
    path.unlink()
    with pytest.raises(BadSource, match=f"unreadable: {path}: No such file"):
        sample_of(plan, plan.splits["test"][0])


def test_a_file_that_is_cut_short_stops_the_build_or_gives_the_records_before_the_cut(tmp_path, capsys):
    path = tmp_path / "test" / "a.tfrecords"
    write_tfrecord(path, [record(0), record(1)])
    offset = len(frame(record(0)))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadSource, match=f"truncated: {path}, record 2, offset {offset}: "):
        planned(tmp_path)
    assert main(["build", "bair", "--raw", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert f"error: truncated: {path}, record 2, offset {offset}: " in said and said.count("--bad skip") == 1
    plan = planned(tmp_path, bad="skip")
    assert [item.key for item in plan.splits["test"]] == ["a/001"]
    assert plan.notes[-1].startswith(f"truncated: {path}, record 2, offset {offset}: ")
    assert plan.notes[-1].endswith("; 1 records before it are used")
    assert np.array_equal(sample_of(plan, plan.splits["test"][0]).arrays["actions"], recording(0)[2])


def without(features: dict, name: str) -> dict:
    return {key: value for key, value in features.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: without(f, "29/image_aux1/encoded"), "feature '29/image_aux1/encoded' is missing or empty"),
        (
            lambda f: f | {"3/image_aux1/encoded": b"\x89PNG" + bytes(96)},
            "the first of 100 bytes, expected 12288 bytes",
        ),
        (lambda f: f | {"3/image_aux1/encoded": [1.0]}, "is 1 numbers: 1, expected 12288 bytes"),
        (lambda f: f | {"0/action": [1.0, 2.0]}, "'0/action' is 2 numbers: 1, 2, expected 4 finite numbers"),
        (lambda f: f | {"7/endeffector_pos": [0.0, float("nan"), 1.0]}, "3 numbers: 0, nan, 1, expected 3 finite"),
        (lambda f: f | {"7/endeffector_pos": b"abc"}, "'7/endeffector_pos' is 1 strings"),
    ],
)
def test_a_record_of_another_kind_is_named_with_what_it_lacks(tmp_path, change, said):
    aux1, main, actions, positions = recording(0)
    features = change(bair_features(aux1, actions, positions, main))
    path = tmp_path / "test" / "a.tfrecords"
    write_tfrecord(path, [record(0), example(features)])
    plan = planned(tmp_path)
    with pytest.raises(BadSource, match=f"not a BAIR record: {path}, record 2, offset [0-9]+: ") as caught:
        sample_of(plan, plan.splits["test"][1])
    assert said in str(caught.value)


def test_a_record_that_is_no_message_is_named(tmp_path):
    write_tfrecord(tmp_path / "test" / "a.tfrecords", [struct.pack("<Q", 2**63)])
    plan = planned(tmp_path)
    with pytest.raises(BadSource, match=r"not an Example: .*a\.tfrecords, record 1, offset 0: "):
        sample_of(plan, plan.splits["test"][0])


def test_real_sequences_come_back_bit_for_bit(tmp_path):
    with np.load(shared_data("bair", "bair_test_8x30x64x64_palette.npz")) as real:
        videos_THWC = [real[name] for name in sorted(real.files)]
    actions, positions = recording(0)[2:]
    records = [example(bair_features(video, actions, positions)) for video in videos_THWC]
    write_tfrecord(tmp_path / "softmotion30_44k" / "test" / "traj_0_to_255.tfrecords", records)
    plan = planned(tmp_path)
    assert len(plan.splits["test"]) == 8
    for item, video_THWC in zip(plan.splits["test"], videos_THWC, strict=True):
        assert np.array_equal(sample_of(plan, item).arrays["video"], np.moveaxis(video_THWC, 3, 1))
