"""Human3.6M: from the original folders, complete or not, to samples as SRVP prepares and draws them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from shards.building import human
from shards.building.human import draw_clips, find_videos
from shards.building.picture import Look
from shards.building.plan import BadSource
from shards.building.run import BuildOptions, build
from shards.errors import ShardError
from shards.manifest import Manifest
from shards.opening import open_source
from tests.shards.building.colour_videos import (
    no_survey,
    numbered,
    numbers_of,
    options,
    split_up,
    survey,
    write_video,
)

ACTIONS = ["Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting"]
ACTIONS += ["SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking"]
CAMERAS = ("54138969", "55011271", "58860488", "60457274")
SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
# SRVP's make_test_set.py itself, run with numpy 2.4 on a stand-in for its folder of prepared test videos, one array of
# length(number) frames for each name of stems(): [subject, name, first frame] of its 1000 clips as JSON.
PUBLISHED = "6f0dcf237cafc75c59a320ef0c993a7f6af2cc86d4249306d9155043c52bd988"
FIRST = [
    [11, "WalkDog.58860488", 860],
    [11, "Discussion.58860488", 106],
    [11, "Sitting.60457274", 1724],
    [11, "Eating.54138969", 1638],
    [9, "Directions 1.55011271", 466],
    [9, "Waiting.58860488", 330],
]


def stems():
    return [f"{action}{trial}.{camera}" for action in ACTIONS for trial in ("", " 1") for camera in CAMERAS]


def length(number):
    return 417 + number * 7919 % 3000


@pytest.fixture
def full(tmp_path):
    """All 840 names, with nothing in the files, and what must be left out."""
    for subject in SUBJECTS:
        folder = tmp_path / f"S{subject}" / "Videos"
        folder.mkdir(parents=True)
        for stem in [*stems(), "_ALL.54138969", "_ALL 1.54138969"]:
            (folder / f"{stem}.mp4").touch()
        (folder / "Thumbs.db").touch()
    return tmp_path


def lengths_by_formula(files):
    """Lengths as in the stand-in for the published script: numbered subject by subject, in the order of stems()."""
    number = {(f"S{s}", stem): n for n, (s, stem) in enumerate((s, stem) for s in (9, 11) for stem in stems())}
    return {file: length(number[file.parts[-3], file.stem]) for file in files}


def scene(count):
    """Numbered 900x900 frames with noise outside of the box of the published crop."""
    frames = [frame.copy() for frame in numbered(count, 900, 900)]
    for frame in frames:
        frame[:100] = frame[:, :100] = (1, 2, 3)
    return frames


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two training videos and one of each test subject, a few frames long."""
    raw = tmp_path_factory.mktemp("human")
    for place, count in {
        "S1/Videos/Directions 1.54138969.mp4": 37,
        "S5/Videos/Walking.60457274.mp4": 26,
        "S9/Videos/Eating 2.55011271.mp4": 28,
        "S11/Videos/Posing.58860488.mp4": 30,
    }.items():
        write_video(raw / place, scene(count), rate=50)
    return raw


SHORT = ("--min-frames", 3, "--test-frames", 3)


def plan_small(small, *words, bad=None):
    return human.plan(options(human, small, *SHORT, *words, bad=bad), survey)


def test_the_test_clips_are_those_of_the_published_script(full):
    plan = human.plan(options(human, full), lengths_by_formula)
    drawn = [[item.args["about"]["subject"], item.source.stem, item.args["start"]] for item in plan.splits["test"]]
    assert drawn[:6] == FIRST
    assert hashlib.sha256(json.dumps(drawn).encode()).hexdigest() == PUBLISHED
    assert plan.notes == ()
    assert plan.provenance["test_draw"]["differs"] == []


def test_the_draw_is_one_stream_of_video_and_start_as_published():
    lengths = [500, 417, 2000]
    np.random.seed(42)
    expected = []
    for _ in range(50):
        video = np.random.randint(3)
        expected.append((video, np.random.randint(lengths[video] - 416)))
    assert draw_clips(lengths, 50, 53, 8) == expected
    assert draw_clips(lengths, 20, 53, 8) == expected[:20]


def test_videos_are_sorted_by_the_published_file_names(tmp_path):
    files = [
        (1, "Directions"),
        (1, "Directions 1"),
        (1, "Directions.5"),
        (9, "A"),
        (11, "Z"),
        (5, "B"),
        (1, "directions"),
    ]
    for subject, stem in files:
        folder = tmp_path / f"S{subject}" / "Videos"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.mp4").touch()
    found = [(v.subject, v.file.stem) for v in find_videos(tmp_path, (1, 5, 9, 11))]
    assert found == sorted(files, key=lambda pair: f"S{pair[0]}-{pair[1]}.npz")
    # a space sorts before a dot and a dot before letters; "S11-" sorts before "S9-"; capitals come first
    assert found[:3] == [(1, "Directions 1"), (1, "Directions.5"), (1, "Directions")]
    assert [subject for subject, _ in found] == [1, 1, 1, 1, 11, 5, 9]


def test_the_training_videos_are_split_as_published(full):
    plan = human.plan(options(human, full, "--test-set", "none"), no_survey)
    names = sorted(f"S{s}-{stem}.npz" for s in (1, 5, 6, 7, 8) for stem in stems())
    order = list(range(600))
    np.random.RandomState(42).shuffle(order)
    valid = set(order[570:])
    expected = {
        "train": [name for i, name in enumerate(names) if i not in valid],
        "valid": [name for i, name in enumerate(names) if i in valid],
    }
    found = {
        split: [f"S{item.args['about']['subject']}-{item.source.stem}.npz" for item in items]
        for split, items in plan.splits.items()
    }
    assert found == expected
    assert (len(found["train"]), len(found["valid"])) == (570, 30)
    assert plan.notes == ()


def test_without_validation_all_600_training_videos_train(full):
    plan = human.plan(options(human, full, "--valid", "none", "--test-set", "none"), no_survey)
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 600}
    assert plan.notes == () and plan.provenance["settings"]["valid"] == "none"


def test_a_missing_test_video_is_said_and_its_draw_not_called_published(full):
    (full / "S11" / "Videos" / "Directions.54138969.mp4").unlink()
    plan = human.plan(options(human, full), lengths_by_formula)
    assert any("test: 239 of 240 videos are here (S11: 119" in note for note in plan.notes)
    assert any("NOT the published clips: videos 239, published 240" in note for note in plan.notes)
    assert plan.provenance["test_draw"]["differs"] == ["videos 239, published 240"]


@pytest.mark.parametrize(
    ("words", "differs"),
    [(("--stride", 4), "stride 4, published 8"), (("--test-frames", 40), "frames 40, published 53")],
)
def test_another_stride_or_length_is_not_called_published(full, words, differs):
    plan = human.plan(options(human, full, *words), lengths_by_formula)
    assert plan.provenance["test_draw"]["differs"] == [differs]
    assert any(differs in note for note in plan.notes)


def test_fewer_clips_are_the_first_published_ones(full):
    plan = human.plan(options(human, full, "--test-clips", 6), lengths_by_formula)
    assert [item.args["start"] for item in plan.splits["test"]] == [start for _, _, start in FIRST]
    assert plan.provenance["test_draw"]["differs"] == []


def test_a_missing_training_video_is_said(full):
    (full / "S7" / "Videos" / "Eating.54138969.mp4").unlink()
    (note,) = human.plan(options(human, full, "--test-set", "none"), no_survey).notes
    assert note.startswith("train: 599 of 600 videos are here (S7: 119; expected 120 each)")
    assert "validation videos are not the published ones" in note


def test_every_eighth_frame_is_stored_at_its_rate(small):
    plan = plan_small(small, "--size", 16)
    assert plan.fps == 6.25
    (item,) = plan.splits["train"]  # of two videos the published shuffle gives one to valid
    ((sample,), notices) = split_up(plan.make(item))
    assert notices == []
    count = {1: 37, 5: 26}[item.args["about"]["subject"]]
    assert numbers_of(sample.arrays["video"]) == list(range(0, count, 8))
    assert sample.arrays["video"].shape[1:] == (3, 16, 16)


def test_phases_are_spread_over_the_stride_and_eight_have_every_frame_once(small):
    starts = {}
    for phases in (1, 2, 3, 8):
        plan = plan_small(small, "--phases", phases, "--size", 8)
        (item,) = plan.splits["train"]
        samples, _ = split_up(plan.make(item))
        starts[phases] = [sample.meta["start"] for sample in samples]
        assert len({sample.key for sample in samples}) == phases == item.num_samples
        for sample in samples:
            frames = numbers_of(sample.arrays["video"])
            assert frames[0] == sample.meta["start"] and set(np.diff(frames)) == {8}
    assert starts == {1: [0], 2: [0, 4], 3: [0, 2, 5], 8: list(range(8))}
    everything = sorted(n for sample in samples for n in numbers_of(sample.arrays["video"]))
    assert everything == list(range({1: 37, 5: 26}[item.args["about"]["subject"]]))
    (valid,) = plan.splits["valid"]
    assert valid.args["phases"] == [0]


def test_test_clips_are_cut_where_they_were_drawn(small):
    plan = plan_small(small, "--test-clips", 12, "--size", 8)
    expected = draw_clips([30, 28], 12, 3, 8)  # S11 before S9
    for number, (item, (video, start)) in enumerate(zip(plan.splits["test"], expected, strict=True)):
        ((sample,), _) = split_up(plan.make(item))
        assert numbers_of(sample.arrays["video"]) == [start, start + 8, start + 16]
        assert sample.key == f"test_{number:04d}"
        assert sample.meta["subject"] == (11, 9)[video]
        assert (sample.meta["start"], sample.meta["draw"]) == (start, number)
    assert {start for _, start in expected} != {0}


def test_a_picture_is_cropped_then_resized_by_pillow_as_published(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    file = write_video(tmp_path / "S1/Videos/Photo.54138969.mp4", [np.kron(noise, np.ones((32, 32, 1), np.uint8))])
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        str(file),
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    pixels = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    image = Image.fromarray(pixels.reshape(960, 960, 3)).crop((100, 100, 900, 900))
    expected = np.asarray(image.resize((64, 64), resample=Image.LANCZOS)).transpose(2, 0, 1)
    plan = human.plan(options(human, tmp_path, "--min-frames", 1), no_survey)
    ((sample,), notices) = split_up(plan.make(plan.splits["train"][0]))
    np.testing.assert_array_equal(sample.arrays["video"][0], expected)
    assert [notice.kind for notice in notices] == ["other frame rate"]  # this file has 25


def test_metadata_tells_subject_action_and_camera(small):
    plan = plan_small(small)
    samples = [
        one for split in ("train", "valid") for item in plan.splits[split] for one in split_up(plan.make(item))[0]
    ]
    found = {sample.key: sample.meta for sample in samples}
    assert found == {
        "S1/Directions_1_54138969": {
            "subject": 1,
            "class": "Directions",
            "action": "Directions 1",
            "camera": "54138969",
            "source": "S1/Videos/Directions 1.54138969.mp4",
            "start": 0,
            "stride": 8,
        },
        "S5/Walking_60457274": {
            "subject": 5,
            "class": "Walking",
            "action": "Walking",
            "camera": "60457274",
            "source": "S5/Videos/Walking.60457274.mp4",
            "start": 0,
            "stride": 8,
        },
    }


def test_a_video_is_too_short_only_for_the_split_that_needs_it(small):
    """Of 37 and 26 frames every eighth: 5 and 4; training asks for 4, validation for 6."""
    words = ("--min-frames", 4, "--test-frames", 6, "--test-set", "none")
    plan = human.plan(options(human, small, *words), no_survey)
    (train,), (valid,) = plan.splits["train"], plan.splits["valid"]
    ((sample,), _) = split_up(plan.make(train))
    assert len(sample.arrays["video"]) == {1: 5, 5: 4}[sample.meta["subject"]]
    with pytest.raises(BadSource, match=r"[54] frames at a stride of 8 from frame 0, its split needs 6") as error:
        list(plan.make(valid))
    assert error.value.kind == "too short"
    strict = human.plan(options(human, small, "--min-frames", 6, "--test-frames", 4, "--test-set", "none"), no_survey)
    with pytest.raises(BadSource, match="its split needs 6"):
        list(strict.make(strict.splits["train"][0]))
    assert len(split_up(strict.make(strict.splits["valid"][0]))[0]) == 1


def test_a_test_video_too_short_to_draw_from_stops_or_is_left_out(small):
    words = ("--test-frames", 4, "--test-clips", 5)  # 25 frames; make one video shorter than that
    lengths = {"Eating 2.55011271": 24, "Posing.58860488": 30}
    short = lambda files: {file: lengths[file.stem] for file in files}  # noqa: E731
    with pytest.raises(ShardError, match=r"1 of 2 test videos .*Eating 2.*too short: 24 frames, a clip spans 25"):
        human.plan(options(human, small, *words), short)
    plan = human.plan(options(human, small, *words, bad="skip"), short)
    assert {item.source.stem for item in plan.splits["test"]} == {"Posing.58860488"}
    assert any("1 of 2 test videos" in note for note in plan.notes)
    assert any("NOT the published" in note for note in plan.notes)


def test_an_unreadable_test_video_stops_the_plan(small):
    broken = lambda files: dict.fromkeys(files, BadSource("unreadable", "no moov atom"))  # noqa: E731
    with pytest.raises(ShardError, match="no moov atom"):
        human.plan(options(human, small), broken)
    with pytest.raises(ShardError, match="2 of 2 test videos"):
        human.plan(options(human, small, bad="skip"), broken)


def test_whole_test_videos_and_no_test_set(small):
    plan = human.plan(options(human, small, *SHORT, "--test-set", "videos"), no_survey)
    assert [item.key for item in plan.splits["test"]] == ["S11/Posing_58860488", "S9/Eating_2_55011271"]
    none = human.plan(options(human, small, *SHORT, "--test-set", "none"), no_survey)
    assert list(none.splits) == ["train", "valid"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stride", 0), "--stride 0: expected at least 1"),
        (("--phases", 9), "a stride of 8 has only 8 phases"),
        (("--test-clips", 0), "--test-clips 0"),
        (("--test-set", "none", "--test-clips", 5), "would do nothing"),
        (("--size", 0), "--size 0"),
    ],
)
def test_options_out_of_range_are_refused(small, words, message):
    with pytest.raises(ShardError, match=message):
        human.plan(options(human, small, *words), no_survey)


def test_a_folder_without_videos_says_what_was_expected(tmp_path):
    (tmp_path / "S1" / "Videos").mkdir(parents=True)
    (tmp_path / "S1" / "Videos" / "_ALL.54138969.mp4").touch()
    with pytest.raises(ShardError, match=r"no Human3.6M video here; expected folders S1, .*Videos/\*.mp4"):
        human.plan(options(human, tmp_path), no_survey)


def test_only_test_videos_make_a_test_split_or_nothing(small, tmp_path):
    (tmp_path / "S9").symlink_to(small / "S9")
    plan = human.plan(options(human, tmp_path, *SHORT, "--test-clips", 4), survey)
    assert list(plan.splits) == ["test"]
    assert {"no split train: there are no videos for it", "no split valid: there are no videos for it"} < set(
        plan.notes
    )
    with pytest.raises(ShardError, match="Leave --test-set out"):
        human.plan(options(human, tmp_path, "--test-set", "none"), no_survey)


def test_what_makes_samples_can_be_sent_to_workers(small):
    plan = plan_small(small)
    assert pickle.loads(pickle.dumps(plan.make)) == human.MakeHuman(Look(64, (100, 100, 900, 900), "lanczos"), 8)
    assert json.loads(json.dumps(plan.provenance))["settings"] == plan.provenance["settings"]


def test_the_whole_way_to_a_training_batch(small, tmp_path):
    out = tmp_path / "human"
    build(plan_small(small, "--size", 16, "--test-clips", 3, "--phases", 2), BuildOptions(out))
    manifest = Manifest.load(out)
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 2, "valid": 1, "test": 3}
    assert manifest.fps == 6.25
    fetched = open_source(out, "train", 3).fetch(np.arange(4), seed=1)
    assert fetched.arrays["video"].shape == (4, 3, 3, 16, 16)
    for video_TCHW in fetched.arrays["video"]:
        assert set(np.diff(numbers_of(video_TCHW))) == {8}


def test_a_broken_link_is_a_source_that_cannot_be_read(small, tmp_path):
    (tmp_path / "S1").symlink_to(small / "S1")
    folder = tmp_path / "S5" / "Videos"
    folder.mkdir(parents=True)
    (folder / "Lost 1.54138969.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(folder / "Pipe 1.54138969.mp4")
    plan = human.plan(options(human, tmp_path, *SHORT, "--test-set", "none"), no_survey)
    items = {item.source.name: item for items in plan.splits.values() for item in items}
    assert sorted(items) == ["Directions 1.54138969.mp4", "Lost 1.54138969.mp4"]
    with pytest.raises(BadSource, match=r"unreadable: .*No such file"):
        list(plan.make(items["Lost 1.54138969.mp4"]))
