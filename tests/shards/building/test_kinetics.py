"""Kinetics and folders like it: class folders or CSV files, labels, resampling, pieces of long videos, dead videos."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest

from shards.building import kinetics
from shards.building.plan import BadSource
from shards.building.published import train_valid_split
from shards.building.run import BuildOptions, build
from shards.errors import ShardError
from shards.opening import open_source
from tests.shards.building.colour_videos import no_survey, numbered, numbers_of, options, split_up, write_video

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"


@pytest.fixture
def folders(tmp_path):
    """Class folders of train, val and test; a class that only val has, and an empty one."""
    raw = tmp_path / "raw"
    for place in (
        "train/zumba/a_000000_000010.mp4",
        "train/air drumming/b_000000_000010.mp4",
        "train/air drumming/c_000002_000012.mp4",
        "val/air drumming/d_000000_000010.mp4",
        "val/yoga/e_000000_000010.mp4",
        "test/zumba/f_000000_000010.mp4",
    ):
        (raw / place).parent.mkdir(parents=True, exist_ok=True)
        (raw / place).touch()
    (raw / "train" / "beekeeping").mkdir()
    (raw / "train" / "notes.txt").touch()
    return raw


@pytest.fixture
def annotated(tmp_path):
    """Videos in one folder per class but of all splits, and CSV files that say which is where."""
    raw = tmp_path / "raw"
    (raw / "annotations").mkdir(parents=True)
    (raw / "annotations" / "train.csv").write_text(
        HEADER + "zumba,-abc_DEF123,3,13,train,0\nair drumming,bbbbbbbbbbb,100,110,train,1\nyoga,gone,0,10,train,0\n"
    )
    (raw / "annotations" / "val.csv").write_text(HEADER + '"zumba","ccccccccccc",0,10,validate,0\n')
    (raw / "annotations" / "test.csv").write_text("youtube_id,time_start,time_end,split\nddddddddddd,0,10,test\n")
    for place in (
        "zumba/-abc_DEF123_000003_000013.mp4",
        "zumba/ccccccccccc_000000_000010.mp4",
        "air_drumming/bbbbbbbbbbb_000100_000110.mp4",
        "air_drumming/bbbbbbbbbbb_000200_000210.mp4",
        "ddddddddddd_000000_000010.webm",
    ):
        (raw / place).parent.mkdir(exist_ok=True)
        (raw / place).touch()
    return raw


def labels(plan):
    return {split: {item.key: item.args["label"] for item in items} for split, items in plan.splits.items()}


def one_video(tmp_path, count, *words, rate=25):
    """A plan of one training video."""
    write_video(tmp_path / "train" / "x" / "v_000000_000010.mp4", numbered(count, 16, 16), rate=rate)
    plan = kinetics.plan(options(kinetics, tmp_path, "--size", 8, *words), no_survey)
    return plan, plan.splits["train"][0]


def test_class_folders_give_splits_and_labels_in_sorted_order(folders):
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    assert plan.provenance["classes"] == ["air drumming", "beekeeping", "yoga", "zumba"]
    assert labels(plan) == {
        "train": {"air_drumming/b_000000_000010": 0, "air_drumming/c_000002_000012": 0, "zumba/a_000000_000010": 3},
        "valid": {"air_drumming/d_000000_000010": 0, "yoga/e_000000_000010": 2},
        "test": {"zumba/f_000000_000010": 3},
    }
    assert plan.arrays["label"].range == (0, 3)
    assert plan.splits["train"][0].args["about"] == {
        "class": "air drumming",
        "label": 0,
        "source": "train/air drumming/b_000000_000010.mp4",
    }
    assert (plan.fps, plan.notes) == (25, ())


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_val_by_any_of_its_names_is_the_split_valid(folders, name):
    (folders / "val").rename(folders / name)
    assert len(kinetics.plan(options(kinetics, folders), no_survey).splits["valid"]) == 2


def test_no_test_folder_is_said_with_the_way_out(folders):
    (folders / "test").rename(folders.parent / "elsewhere")
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    assert list(plan.splits) == ["train", "valid"]
    assert any("no split test" in note and "--test-from val" in note for note in plan.notes)


def test_val_as_test_takes_valid_from_train(folders):
    for number in range(40):
        (folders / "train" / "beekeeping" / f"{number:02d}.mp4").touch()
    before = kinetics.plan(options(kinetics, folders), no_survey)
    plan = kinetics.plan(options(kinetics, folders, "--test-from", "val"), no_survey)
    keys = [item.key for item in before.splits["train"]]
    train, valid = train_valid_split(43)
    assert [item.key for item in plan.splits["train"]] == [keys[i] for i in train]
    assert [item.key for item in plan.splits["valid"]] == [keys[i] for i in valid]
    assert plan.splits["test"] == before.splits["valid"]
    assert any("valid is 3 of its 43 training videos" in note for note in plan.notes)
    assert any("1 videos of the dataset's own test split are left out" in note for note in plan.notes)


def test_csv_files_give_splits_and_labels(annotated):
    plan = kinetics.plan(options(kinetics, annotated), no_survey)
    assert plan.provenance["classes"] == ["air drumming", "yoga", "zumba"]  # yoga's only video is not here
    assert labels(plan) == {
        "train": {"zumba/-abc_DEF123_000003_000013": 2, "air_drumming/bbbbbbbbbbb_000100_000110": 0},
        "valid": {"zumba/ccccccccccc_000000_000010": 2},
    }
    assert plan.splits["train"][1].args["about"]["source"] == "air_drumming/bbbbbbbbbbb_000100_000110.mp4"
    assert set(plan.provenance["annotations"]) == {"train.csv", "val.csv", "test.csv"}
    assert plan.notes[:3] == (
        "3 of 4 annotated videos are here: 1 missing (first: gone_000000_000010)",
        "2 videos are not annotated with a class and are left out (first: bbbbbbbbbbb_000200_000210.mp4)",
        "1 annotated videos have no label and are left out",
    )


def test_csv_files_may_be_named(annotated, tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("﻿" + HEADER + "zumba,ccccccccccc,0.0,10.0,test,0\n", encoding="utf-8")
    plan = kinetics.plan(options(kinetics, annotated, "--annotations", table), no_survey)
    assert labels(plan) == {"test": {"zumba/ccccccccccc_000000_000010": 0}}
    assert {"no split train: there are no videos for it", "no split valid: there are no videos for it"} < set(
        plan.notes
    )


def test_repeated_rows_and_repeated_files_are_counted(annotated):
    with (annotated / "annotations" / "val.csv").open("a") as table:
        table.write("zumba,ccccccccccc,0,10,val,0\nyoga,ccccccccccc,0,10,val,0\n")
    (annotated / "zz").mkdir()
    (annotated / "zz" / "ccccccccccc_000000_000010.mp4").touch()
    plan = kinetics.plan(options(kinetics, annotated), no_survey)
    assert labels(plan)["valid"] == {"zumba/ccccccccccc_000000_000010": 2}
    assert "1 rows name a clip again with another class or split: the first row counts" in plan.notes
    assert "1 files have the name of another one and are left out" in plan.notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("youtube_id,time_start,split\nabc,0,train\n", "lacks the columns time_end; found youtube_id,time_start,split"),
        ("", "lacks the columns .*; found nothing"),
        (
            HEADER + "zumba,abc,0,10,train,0\nzumba,abc,zero,10,train,0\n",
            "line 3 is zumba,abc,zero,10,train,0, expected",
        ),
        (HEADER + "zumba,abc,0,10,holdout,0\n", "line 2 is"),
        (HEADER + "zumba,abc,0\n", "line 2 is"),
        (HEADER + "zumba,,0,10,train,0\n", "line 2 is"),
    ],
)
def test_a_malformed_csv_file_is_named_with_its_line(annotated, text, message):
    (annotated / "annotations" / "val.csv").write_text(text)
    with pytest.raises(ShardError, match=f"val.csv: {message}"):
        kinetics.plan(options(kinetics, annotated), no_survey)


def test_a_csv_file_that_is_none_is_refused(annotated, tmp_path):
    (annotated / "annotations" / "val.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ShardError, match=r"val.csv: not a CSV file"):
        kinetics.plan(options(kinetics, annotated), no_survey)
    with pytest.raises(ShardError, match=r"nothing.csv: no such file"):
        kinetics.plan(options(kinetics, annotated, "--annotations", tmp_path / "nothing.csv"), no_survey)


def test_a_folder_of_another_layout_says_what_was_expected(tmp_path):
    (tmp_path / "zumba").mkdir()
    (tmp_path / "zumba" / "a.mp4").touch()
    with pytest.raises(ShardError, match=r"neither class folders nor CSV files here; expected DIR/train/CLASS/\*.mp4"):
        kinetics.plan(options(kinetics, tmp_path), no_survey)
    (tmp_path / "train" / "zumba").mkdir(parents=True)
    with pytest.raises(ShardError, match="no video to build from"):
        kinetics.plan(options(kinetics, tmp_path), no_survey)
    with pytest.raises(ShardError, match="not a folder"):
        kinetics.plan(options(kinetics, tmp_path / "zumba" / "a.mp4"), no_survey)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max-frames", 15), "--max-frames 15 is less than --min-frames 16"),
        (("--fps", -1), "--fps -1"),
        (("--min-frames", 0), "--min-frames 0"),
    ],
)
def test_options_out_of_range_are_refused(folders, words, message):
    with pytest.raises(ShardError, match=message):
        kinetics.plan(options(kinetics, folders, *words), no_survey)


def test_videos_of_all_rates_are_resampled_to_one(tmp_path):
    plan, item = one_video(tmp_path, 40, rate=50)
    ((sample,), notices) = split_up(plan.make(item))
    assert numbers_of(sample.arrays["video"]) == list(range(0, 40, 2))
    assert notices == []
    assert sample.meta["first_frame"] == 0


def test_a_long_video_becomes_consecutive_samples(tmp_path):
    plan, item = one_video(tmp_path, 50, "--max-frames", 20, "--min-frames", 10)
    samples, notices = split_up(plan.make(item))
    assert [numbers_of(sample.arrays["video"]) for sample in samples] == [
        list(range(20)),
        list(range(20, 40)),
        list(range(40, 50)),
    ]
    assert [sample.meta["first_frame"] for sample in samples] == [0, 20, 40]
    assert [sample.key for sample in samples] == [item.key, f"{item.key}=piece1", f"{item.key}=piece2"]
    assert notices == []
    assert item.num_samples == 3


def test_a_rest_that_is_too_short_is_left_out_and_said(tmp_path):
    plan, item = one_video(tmp_path, 45, "--max-frames", 20, "--min-frames", 10)
    samples, (notice,) = split_up(plan.make(item))
    assert [len(sample.arrays["video"]) for sample in samples] == [20, 20]
    assert (notice.kind, notice.detail) == ("end left out", "the last 5 frames, --min-frames is 10")


def test_a_video_of_exactly_the_longest_length_is_one_sample(tmp_path):
    plan, item = one_video(tmp_path, 20, "--max-frames", 20)
    samples, notices = split_up(plan.make(item))
    assert [len(sample.arrays["video"]) for sample in samples] == [20] and notices == []


def test_a_short_video_is_too_short(tmp_path):
    plan, item = one_video(tmp_path, 15)
    with pytest.raises(BadSource, match="15 frames, --min-frames is 16") as error:
        list(plan.make(item))
    assert error.value.kind == "too short"


def cut_short(file, num_frames):
    """Keep the header, which announces all frames, and the first few of an uncompressed 16x16 .avi."""
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"movi") + 4 + num_frames * (8 + 16 * 16 * 3)])


@pytest.mark.parametrize(("max_frames", "kept"), [(1000, 0), (20, 40)])
def test_a_truncated_video_gives_its_complete_pieces_or_nothing(tmp_path, max_frames, kept):
    file = write_video(tmp_path / "train" / "x" / "v.avi", numbered(100, 16, 16))
    cut_short(file, 50)
    plan = kinetics.plan(options(kinetics, tmp_path, "--size", 8, "--max-frames", max_frames), no_survey)
    (item,) = plan.splits["train"]
    if not kept:
        with pytest.raises(BadSource) as error:
            list(plan.make(item))
        assert error.value.kind == "truncated"
        return
    samples, notices = split_up(plan.make(item))
    assert sum(len(sample.arrays["video"]) for sample in samples) == kept
    assert [notice.kind for notice in notices] == ["truncated"]
    assert "the 40 frames before it are used" in notices[0].detail


def test_a_build_that_may_leave_nothing_out_stops_at_damage_after_a_complete_piece(tmp_path):
    cut_short(write_video(tmp_path / "raw" / "train" / "x" / "v.avi", numbered(100, 16, 16)), 50)
    words = ("--size", 8, "--max-frames", 20)
    plan = kinetics.plan(options(kinetics, tmp_path / "raw", *words, bad="stop"), no_survey)
    with pytest.raises(BadSource, match="truncated"):
        list(plan.make(plan.splits["train"][0]))
    with pytest.raises(ShardError):
        build(plan, BuildOptions(tmp_path / "out", bad="stop"))
    assert not (tmp_path / "out").exists()


def test_a_broken_link_is_a_source_that_cannot_be_read(folders):
    (folders / "train" / "zumba" / "lost.mp4").symlink_to(folders / "nowhere.mp4")
    os.mkfifo(folders / "train" / "zumba" / "pipe.mp4")
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    found = {item.key: item for item in plan.splits["train"]}
    assert "zumba/pipe" not in found
    with pytest.raises(BadSource, match=r"unreadable: .*No such file"):
        list(plan.make(found["zumba/lost"]))


def test_the_manifest_counts_what_was_planned(folders):
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    assert plan.provenance["videos planned"] == {"train": 3, "valid": 2, "test": 1}


def test_dead_videos_are_left_out_by_default_and_the_rest_trains(tmp_path):
    raw = tmp_path / "raw"
    for number in range(3):
        write_video(raw / "train" / f"class {number % 2}" / f"{number}.mp4", numbered(20 + number, 16, 16))
        write_video(raw / "val" / f"class {number % 2}" / f"{number}.mp4", numbered(20, 16, 16))
    (raw / "train" / "class 0" / "dead.mp4").write_text("video unavailable")
    assert kinetics.DEFAULT_BAD == "skip"
    plan = kinetics.plan(options(kinetics, raw, "--size", 8), no_survey)
    out = tmp_path / "out"
    manifest = build(plan, BuildOptions(out, bad=kinetics.DEFAULT_BAD))
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 3, "valid": 3}
    assert "dead.mp4,unreadable" in (out / "report.csv").read_text()
    fetched = open_source(out, "train", 16).fetch(np.arange(3), seed=0)
    assert dict(zip(fetched.keys, fetched.arrays["label"].tolist(), strict=True)) == {
        "class_0/0": 0,
        "class_0/2": 0,
        "class_1/1": 1,
    }


def test_links_to_folders_are_followed_but_not_in_circles(folders):
    (folders / "train" / "yoga").symlink_to(folders / "val" / "yoga")
    (folders / "train" / "zumba" / "again").symlink_to(folders / "train" / "zumba")
    (folders / "train" / "zumba" / ".hidden.mp4").touch()
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    assert {key for key in labels(plan)["train"] if not key.startswith("air")} == {
        "yoga/e_000000_000010",
        "zumba/a_000000_000010",
    }


def test_what_makes_samples_can_be_sent_to_workers(folders):
    plan = kinetics.plan(options(kinetics, folders), no_survey)
    assert pickle.loads(pickle.dumps(plan.make)) == plan.make
    assert json.loads(json.dumps(plan.provenance)) == plan.provenance
