"""UCF101: from the original files and lists, complete or not, to labelled samples as the video GANs prepare them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from fractions import Fraction

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from shards.building import ucf101
from shards.building.class_folders import hold_out, plain_keys
from shards.building.plan import BadSource
from shards.building.published import train_valid_split
from shards.building.run import BuildOptions, build
from shards.errors import ShardError
from shards.folder import LocalFolder
from shards.loader import Loader
from shards.manifest import ArraySpec, Manifest
from shards.opening import open_source
from shards.reader import ShardReader
from shards.writer import write_dataset
from tests.conftest import shared_data
from tests.shards.building.colour_videos import no_survey, numbered, numbers_of, options, split_up, write_video

CLASSES = ("ApplyEyeMakeup", "BaseballPitch", "HandstandPushups")
# Shortened lists with everything that the official ones have: labels in train only, other capitals in the file names of
# HandstandPushups, Windows line ends.
TRAIN = [
    ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", 1),
    ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi", 1),
    ("BaseballPitch/v_BaseballPitch_g08_c01.avi", 2),
    ("HandstandPushups/v_HandStandPushups_g08_c01.avi", 3),
]
TEST = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "BaseballPitch/v_BaseballPitch_g01_c01.avi"]


def write_lists(folder, *, train=TRAIN, test=TEST, number=1, end="\r\n"):
    folder.mkdir(parents=True, exist_ok=True)

    def write(name, lines):
        (folder / name).write_bytes("".join(f"{line}{end}" for line in lines).encode())

    write("classInd.txt", [f"{number} {name}" for number, name in enumerate(CLASSES, start=1)])
    write(f"trainlist{number:02d}.txt", [f"{name} {label}" for name, label in train])
    write(f"testlist{number:02d}.txt", test)
    return folder


@pytest.fixture
def raw(tmp_path):
    """All six listed videos in class folders, of 20 to 25 frames, with the lists beside them."""
    root = tmp_path / "raw"
    write_lists(root / "ucfTrainTestlist")
    for extra, name in enumerate([name for name, _ in TRAIN] + TEST):
        write_video(root / "UCF-101" / name, numbered(20 + extra))
    return root


def names(plan):
    return {split: [item.key for item in items] for split, items in plan.splits.items()}


def samples_of(plan):
    return {
        split: [sample for item in items for sample in split_up(plan.make(item))[0]]
        for split, items in plan.splits.items()
    }


def test_train_and_test_are_those_of_the_list(raw):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0), no_survey)
    assert names(plan) == {
        "train": [name.removesuffix(".avi") for name, _ in TRAIN],
        "test": [name.removesuffix(".avi") for name in TEST],
    }
    assert plan.name == "ucf101-64" and plan.fps == 25
    assert plan.notes == ("no split valid, as published (--valid 0): train with eval.every=0, or give --valid a share",)


def test_another_list_gives_other_splits(raw):
    write_lists(raw / "ucfTrainTestlist", train=[(TEST[0], 1)], test=[TRAIN[2][0]], number=3)
    plan = ucf101.plan(options(ucf101, raw, "--list", 3), no_survey)
    assert names(plan) == {
        "train": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"],
        "test": ["BaseballPitch/v_BaseballPitch_g08_c01"],
    }
    assert plan.name == "ucf101-64-list3"
    assert any(note.startswith("4 videos are in neither list") for note in plan.notes)
    assert any(note.startswith("no split valid: there are no videos") for note in plan.notes)


def test_labels_count_from_zero_and_metadata_keeps_the_number_of_the_list(raw):
    samples = samples_of(ucf101.plan(options(ucf101, raw, "--valid", 0), no_survey))
    labels = [sample.arrays["label"] for sample in samples["train"] + samples["test"]]
    assert [label.item() for label in labels] == [0, 0, 1, 2, 0, 1]
    assert {(label.dtype.name, label.shape) for label in labels} == {("int32", ())}
    assert samples["train"][3].meta == {
        "class": "HandstandPushups",
        "label": 2,
        "class_number": 3,
        "source": "UCF-101/HandstandPushups/v_HandStandPushups_g08_c01.avi",
    }


def test_a_sample_is_a_whole_video_frame_by_frame(raw):
    samples = samples_of(ucf101.plan(options(ucf101, raw, "--valid", 0, "--size", 8), no_survey))
    videos = [sample.arrays["video"] for sample in samples["train"] + samples["test"]]
    assert [numbers_of(video_TCHW) for video_TCHW in videos] == [list(range(20 + extra)) for extra in range(6)]
    assert {video_TCHW.shape[1:] for video_TCHW in videos} == {(3, 8, 8)}


def test_names_in_other_capitals_and_flat_folders_are_found(tmp_path):
    raw = tmp_path / "flat"
    write_lists(tmp_path / "lists")
    for name in ("v_HandstandPushups_g08_c01.avi", "v_ApplyEyeMakeup_g01_c01.AVI"):
        raw.mkdir(exist_ok=True)
        (raw / name).touch()
    plan = ucf101.plan(options(ucf101, raw, "--lists", tmp_path / "lists"), no_survey)
    assert names(plan) == {
        "train": ["HandstandPushups/v_HandStandPushups_g08_c01"],
        "test": ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"],
    }


def test_the_validation_share_follows_the_published_rule_on_the_list():
    for num in (2, 3, 19, 20, 21, 600, 9537):
        assert hold_out(num, 0.05) == train_valid_split(num)
    order = list(range(100))
    np.random.RandomState(42).shuffle(order)
    assert hold_out(100, 0.2) == (sorted(order[:80]), sorted(order[80:]))
    assert hold_out(7, 0) == (list(range(7)), [])
    assert hold_out(1, 0.05) == ([0], [])
    assert hold_out(2, 0.99) == (hold_out(2, 0.5)[0], hold_out(2, 0.5)[1])  # at least one trains


def test_validation_videos_leave_train(raw):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0.25), no_survey)
    order = list(range(4))
    np.random.RandomState(42).shuffle(order)
    listed = [name.removesuffix(".avi") for name, _ in TRAIN]
    assert names(plan)["valid"] == [listed[order[3]]]
    assert names(plan)["train"] == [name for name in listed if name != listed[order[3]]]


def test_missing_and_unlisted_videos_are_counted(raw):
    (raw / "UCF-101" / TRAIN[0][0]).unlink()
    write_video(raw / "UCF-101/Archery/v_Archery_g01_c01.avi", numbered(2))
    plan = ucf101.plan(options(ucf101, raw), no_survey)
    assert plan.notes == (
        "5 of 6 listed videos are here: 1 missing (first: ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01)",
        "1 videos are in neither list and are left out (first: v_Archery_g01_c01.avi)",
    )
    assert plan.provenance["videos"] == {"found": 5, "listed": 6}


@pytest.mark.parametrize("gone", ["classInd.txt", "trainlist01.txt", "testlist01.txt"])
def test_a_missing_list_says_where_to_get_it(raw, gone):
    (raw / "ucfTrainTestlist" / gone).unlink()
    with pytest.raises(ShardError, match=rf"no {gone} here\n.*https://www.crcv.ucf.edu/.*RecognitionTask.zip.*--lists"):
        ucf101.plan(options(ucf101, raw), no_survey)


def test_lists_may_lie_in_the_raw_folder_itself(raw):
    for file in (raw / "ucfTrainTestlist").iterdir():
        file.rename(raw / file.name)
    (raw / "ucfTrainTestlist").rmdir()
    assert len(ucf101.plan(options(ucf101, raw, "--valid", 0), no_survey).splits["train"]) == 4


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("trainlist01.txt", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 2\n", "line 1 .* then its number"),
        ("trainlist01.txt", "\nArchery/v_Archery_g08_c01.avi 1\n", "line 2 is 'Archery"),
        ("testlist01.txt", "v_ApplyEyeMakeup_g01_c01.avi\n", "line 1"),
        ("classInd.txt", "1 ApplyEyeMakeup\n3 BaseballPitch\n", "line 2 is '3 BaseballPitch', expected '2 "),
        ("classInd.txt", "\n", "is empty"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(raw, file, text, message):
    (raw / "ucfTrainTestlist" / file).write_text(text)
    with pytest.raises(ShardError, match=rf"{file}: {message}"):
        ucf101.plan(options(ucf101, raw), no_survey)


def test_no_listed_video_says_what_was_expected(tmp_path):
    write_lists(tmp_path / "ucfTrainTestlist")
    with pytest.raises(ShardError, match=r"none of the 6 listed videos is here; found 0 videos\n.*Archery/v_Archery"):
        ucf101.plan(options(ucf101, tmp_path), no_survey)


def test_a_video_that_is_here_twice_is_refused(raw):
    (raw / "copy").mkdir()
    (raw / "copy" / "v_ApplyEyeMakeup_g01_c01.avi").touch()
    with pytest.raises(ShardError, match=r"v_ApplyEyeMakeup_g01_c01 is here twice: UCF-101/.* and copy/"):
        ucf101.plan(options(ucf101, raw), no_survey)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--valid", 1), "--valid 1"),
        (("--valid", -0.1), "--valid -0.1"),
        (("--fps", 0), "--fps 0"),
        (("--min-frames", 0), "--min-frames 0"),
        (("--size", 0), "size 0"),
    ],
)
def test_options_out_of_range_are_refused(raw, words, message):
    with pytest.raises(ShardError, match=message):
        ucf101.plan(options(ucf101, raw, *words), no_survey)


def test_a_short_video_is_too_short(raw):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0, "--min-frames", 21), no_survey)
    with pytest.raises(BadSource, match="20 frames, --min-frames is 21") as error:
        list(plan.make(plan.splits["train"][0]))
    assert error.value.kind == "too short"
    assert len(split_up(plan.make(plan.splits["train"][1]))[0]) == 1


def test_a_broken_link_is_a_source_that_cannot_be_read(raw):
    file = raw / "UCF-101" / TEST[0]
    file.unlink()
    file.symlink_to(raw / "nowhere.avi")
    os.mkfifo(raw / "UCF-101" / "v_Pipe_g01_c01.avi")
    plan = ucf101.plan(options(ucf101, raw, "--size", 8), no_survey)
    assert plan.notes == ()
    with pytest.raises(BadSource, match=r"unreadable: .*No such file"):
        samples_of(plan)


def test_another_stored_rate_is_a_notice_or_resampled(raw):
    write_video(raw / "UCF-101" / TRAIN[0][0], numbered(60), rate=Fraction(30000, 1001))
    stored = ucf101.plan(options(ucf101, raw, "--valid", 0), no_survey)
    ((sample,), (notice,)) = split_up(stored.make(stored.splits["train"][0]))
    assert notice.kind == "other frame rate" and "29.97 frames per second, the manifest says 25" in notice.detail
    assert numbers_of(sample.arrays["video"]) == list(range(60))
    assert split_up(stored.make(stored.splits["train"][1]))[1] == []
    resampled = ucf101.plan(options(ucf101, raw, "--valid", 0, "--fps", 10), no_survey)
    assert resampled.fps == 10
    ((sample,), notices) = split_up(resampled.make(resampled.splits["train"][0]))
    assert notices == []
    shown = [int(Fraction(k, 10) * Fraction(30000, 1001)) for k in range(100)]  # frame n is shown from n / 29.97 s on
    assert numbers_of(sample.arrays["video"]) == [n for n in shown if n < 60]


def test_a_picture_is_the_published_centre_cut(tmp_path):
    """320x240 to 85x64 by cubic convolution with a = -0.75 (torch's bicubic has the same kernel), columns 10 to 73."""
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    frame_HWC = np.kron(noise, np.ones((4, 4, 1), np.uint8))
    write_lists(tmp_path / "ucfTrainTestlist")
    write_video(tmp_path / TEST[0], [frame_HWC] * 2)
    plan = ucf101.plan(options(ucf101, tmp_path, "--min-frames", 1), no_survey)
    ((sample,), _) = split_up(plan.make(plan.splits["test"][0]))
    image = torch.from_numpy(frame_HWC.transpose(2, 0, 1).copy())[None].double()
    scaled = torch.nn.functional.interpolate(image, (64, 85), mode="bicubic", align_corners=False)[0]
    expected = scaled.round().clamp(0, 255)[:, :, 10:74].numpy()
    found = sample.arrays["video"][0].astype(float)
    assert found.shape == (3, 64, 64)
    assert np.abs(found - expected).max() <= 1


def test_the_estimate_of_the_size_is_near(raw):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0), no_survey)
    written = sum(sample.arrays["video"].nbytes for some in samples_of(plan).values() for sample in some)
    assert plan.num_samples == 6
    assert abs(plan.num_bytes / written - 1) < 0.1


def test_what_makes_samples_can_be_sent_to_workers(raw):
    plan = ucf101.plan(options(ucf101, raw), no_survey)
    assert pickle.loads(pickle.dumps(plan.make)) == plan.make
    assert json.loads(json.dumps(plan.provenance))["classes"] == list(CLASSES)
    assert plan.arrays["label"] == ArraySpec("int32", "", (), (0, 2))


def test_labels_reach_the_training_batch(raw, tmp_path):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0, "--size", 8), no_survey)
    out = tmp_path / "written"
    samples = samples_of(plan)
    write_dataset(out, plan.name, samples, plan.arrays, fps=plan.fps, provenance=plan.provenance)
    table = ShardReader(LocalFolder(out), Manifest.load(out), "train")
    label_of = {sample.key: sample.arrays["label"].item() for sample in samples["train"]}
    source = open_source(out, "train", 16)
    fetched = source.fetch(np.arange(8), seed=3)
    assert fetched.arrays["label"].dtype == np.int32 and fetched.arrays["label"].shape == (8,)
    assert fetched.arrays["label"].tolist() == [label_of[key] for key in fetched.keys]
    assert len(set(fetched.keys)) == len(table) == 4  # two passes over the split
    with Loader(source, seed=3, global_batch=4, micro_batch=2, rank=0, world_size=1, workers=0) as loader:
        batches = loader.batches(0)
        for start in (0, 2, 4):
            batch = next(batches)
            assert batch.arrays["label"].dtype == torch.int32
            assert batch.arrays["label"].tolist() == fetched.arrays["label"][start : start + 2].tolist()
            assert batch.arrays["video"].shape == (2, 16, 3, 8, 8)


def test_labels_out_of_the_declared_range_are_refused(raw, tmp_path):
    plan = ucf101.plan(options(ucf101, raw, "--valid", 0, "--size", 8), no_survey)
    narrow = plan.arrays | {"label": ArraySpec("int32", "", (), (0, 1))}
    with pytest.raises(ShardError, match=r"'label' .*values from 2 to 2, expected 0 to 1"):
        write_dataset(tmp_path / "out", plan.name, samples_of(plan), narrow)


def test_the_whole_way_through_the_engine(raw, tmp_path):
    out = tmp_path / "built"
    manifest = build(ucf101.plan(options(ucf101, raw, "--size", 8), no_survey), BuildOptions(out))
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 3, "valid": 1, "test": 2}
    read = open_source(out, "test", 20).read([0, 1])
    assert read.arrays["label"].tolist() == [0, 1]
    assert [numbers_of(video_TCHW) for video_TCHW in read.arrays["video"]] == [list(range(20))] * 2


def test_keys_stay_apart_when_their_odd_characters_go():
    assert plain_keys(["a b/c.d", "a_b/c_d", "a=b/c_d", "-x+1"]) == ["a_b/c_d", "a_b/c_d=2", "a_b/c_d=3", "-x+1"]


def test_the_two_real_clips(tmp_path):
    folder = shared_data("ucf101")
    write_lists(tmp_path / "lists")
    plan = ucf101.plan(options(ucf101, folder, "--lists", tmp_path / "lists"), no_survey)
    assert names(plan) == {"test": [name.removesuffix(".avi") for name in TEST]}
    assert any("2 of 6 listed videos are here" in note for note in plan.notes)
    made = [split_up(plan.make(item)) for item in plan.splits["test"]]
    assert [sample.arrays["video"].shape for (sample,), _ in made] == [(164, 3, 64, 64), (107, 3, 64, 64)]
    # not every file has 25 frames per second
    assert [[notice.kind for notice in notices] for _, notices in made] == [[], ["other frame rate"]]
    for item, ((sample,), _) in zip(plan.splits["test"], made, strict=True):
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(item.source), "-fps_mode", "passthrough"]
        command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        pixels = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
        frames_THWC = torch.from_numpy(pixels.reshape(-1, 240, 320, 3)[::20].copy())
        images = frames_THWC.permute(0, 3, 1, 2).double()
        scaled = torch.nn.functional.interpolate(images, (64, 85), mode="bicubic", align_corners=False)
        expected = scaled.round().clamp(0, 255)[..., 10:74].numpy()
        assert np.abs(sample.arrays["video"][::20].astype(float) - expected).max() <= 1
