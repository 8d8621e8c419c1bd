"""KTH: from the original files, all of them or a few, to samples as SRVP and SVG prepare them."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import shutil
import subprocess

import numpy as np
import pytest

from shards.building import kth
from shards.building.kth_sequences import ALL_CLIPS, CLASSES, ClipName, read_annotations
from shards.building.kth_test_set import NUM_CLIPS, draw_clips
from shards.building.plan import BadSource, Notice
from shards.building.video import count_frames
from shards.errors import ShardError
from tests.conftest import shared_data

# The seven real clips and their frames, as the ffmpeg program counts them.
REAL = {
    "person01_walking_d1": 555,
    "person04_boxing_d1": 328,
    "person07_walking_d2": 636,
    "person09_running_d1": 325,
    "person16_boxing_d4": 460,
    "person21_boxing_d1": 365,
    "person23_running_d3": 280,
}
# SRVP's make_test_set.py itself, run on a stand-in for its folder of pictures with the lengths of 00sequences.txt and
# numpy 2.4: [class, person, trial, start] of its 1000 clips as JSON.
PUBLISHED = "c6c57c5e5394cc14bdd20c0a4137c4cc09fc906efa4072ff800cdc2df8f5fd1c"
FIRST = [
    ["jogging", 25, 3, 106],
    ["running", 25, 3, 121],
    ["handwaving", 23, 3, 87],
    ["running", 24, 4, 151],
    ["handwaving", 25, 2, 343],
    ["jogging", 22, 4, 276],
]
# Positions among the 1000 of the clips of person21_boxing_d1 and person23_running_d3, by the same script.
PRESENT = [41, 161, 190, 277, 281, 369, 441, 555, 561, 564, 643, 717, 776, 795, 870, 918, 923]


def options(raw, *words, bad="stop"):
    parser = argparse.ArgumentParser()
    kth.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    args.raw, args.bad = raw, bad
    return args


def survey(files):
    """Lengths as the engine's survey gives them."""
    found = {}
    for file in files:
        try:
            found[file] = count_frames(file)
        except BadSource as error:
            found[file] = error
    return found


def no_survey(files):
    pytest.fail("lengths are not needed here")


def stub(folder, *names):
    """Files with the names of clips and nothing in them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}_uncomp.avi").touch()
    return folder


def constant_survey(length):
    return lambda files: dict.fromkeys(files, length)


def rows(clips):
    return [[clip.name.action, clip.name.person, clip.name.trial, clip.start] for clip in clips]


@pytest.fixture(scope="module")
def real():
    return shared_data("kth")


@pytest.fixture(scope="module")
def inferred():
    annotations = read_annotations(shared_data("kth", "00sequences.txt"))
    return {name: annotations.inferred_length(name) for name in ALL_CLIPS}


# ---- the published draw


def test_the_draw_is_that_of_the_published_script(inferred):
    clips = draw_clips(inferred)
    assert rows(clips[:6]) == FIRST
    assert hashlib.sha256(json.dumps(rows(clips)).encode()).hexdigest() == PUBLISHED
    assert [clip.draw for clip in clips] == list(range(1000))
    assert clips[0].key == "0000-person25_jogging_d3-0106"


def test_the_draw_is_class_person_trial_start_of_one_stream():
    lengths = {name: 200 + 7 * number for number, name in enumerate(ALL_CLIPS) if name.is_test}
    np.random.seed(42)
    expected = []
    for _ in range(1000):
        action, person, trial = CLASSES[np.random.randint(6)], np.random.randint(21, 26), np.random.randint(1, 5)
        expected.append([action, person, trial, np.random.randint(lengths[ClipName(action, person, trial)] - 40 + 1)])
    assert rows(draw_clips(lengths)) == expected


def test_a_length_changes_the_draws_that_follow_and_only_those(inferred):
    expected, sixth = rows(draw_clips(inferred)), ClipName("jogging", 22, 4)
    other = rows(draw_clips({**inferred, sixth: 45}))
    assert other[:5] == expected[:5] and other[5][:3] == expected[5][:3] and other[5][3] <= 5
    assert other[6] != expected[6]


def test_the_draw_from_some_videos_passes_over_the_others():
    there = {ClipName("boxing", 21, 1): 100, ClipName("running", 23, 3): 40}
    random = np.random.RandomState(42)
    expected = []
    while len(expected) < 1000:
        triple = CLASSES[random.randint(6)], random.randint(21, 26), random.randint(1, 5)
        if triple in {("boxing", 21, 1), ("running", 23, 3)}:
            expected.append([*triple, random.randint(61 if triple[0] == "boxing" else 1)])
    assert rows(draw_clips(there)) == expected


def test_a_clip_may_end_with_the_last_frame_and_a_shorter_video_is_refused():
    name = ClipName("boxing", 21, 1)
    assert {clip.start for clip in draw_clips({name: 41})} == {0, 1}
    with pytest.raises(ShardError, match="has 39 frames, a test clip needs 40"):
        draw_clips({name: 39})
    with pytest.raises(ShardError, match="no test video"):
        draw_clips({ClipName("boxing", 1, 1): 100})


# ---- the full dataset, by names


def test_counts_of_the_full_dataset(tmp_path, inferred):
    raw = stub(tmp_path, *map(str, ALL_CLIPS))
    lengths = {raw / f"{name}_uncomp.avi": length for name, length in inferred.items()}
    plan = kth.plan(options(raw), lambda files: {file: lengths[file] for file in files})
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 455, "valid": 24, "test": 1000}
    assert plan.notes == ()
    assert plan.provenance["lengths"] == {"decoded": 120, "inferred from 00sequences.txt": 0}
    assert [list(item.args["about"].values())[i] for item in plan.splits["test"][:1] for i in (0, 2, 3)] == FIRST[0][:3]
    assert [item.args["start"] for item in plan.splits["test"][:6]] == [row[3] for row in FIRST]
    people = {split: {item.args["about"]["person"] for item in items} for split, items in plan.splits.items()}
    assert people["train"] | people["valid"] == set(range(1, 21)) and people["test"] == set(range(21, 26))


def test_counts_of_the_full_dataset_by_the_rule_of_its_names(tmp_path):
    names = [f"person{p:02d}_{c}_d{t}" for c in CLASSES for p in range(1, 26) for t in range(1, 5)]
    raw = stub(tmp_path, *(set(names) - {"person13_handclapping_d3"}))
    plan = kth.plan(options(raw), constant_survey(300))
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 455, "valid": 24, "test": 1000}
    listing = [name for name in names if name < "person21" and name != "person13_handclapping_d3"]
    assert [item.key for item in plan.splits["valid"]][:3] == [listing[20], listing[71], listing[87]]


def test_without_validation_all_479_training_videos_train_as_svg_has_it(tmp_path, inferred):
    raw = stub(tmp_path, *map(str, ALL_CLIPS))
    plan = kth.plan(options(raw, "--valid", "none"), constant_survey(300))
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 479, "test": 1000}
    assert plan.notes == ()
    assert "valid" not in plan.provenance["subjects"] and plan.provenance["settings"]["valid"] == "none"


def test_annotated_sub_sequences_of_the_full_dataset(tmp_path, real):
    raw = stub(tmp_path, *map(str, ALL_CLIPS))
    words = ("--clips", "annotated", "--test-set", "videos", "--sequences", real / "00sequences.txt", "--size", 128)
    plan = kth.plan(options(raw, *words), no_survey)
    samples = {split: sum(item.num_samples for item in items) for split, items in plan.splits.items()}
    assert samples["train"] + samples["valid"] == 479 * 4 - 4
    assert samples["test"] == 120
    assert plan.name == "kth-128-annotated"
    assert plan.provenance["00sequences.txt"]["irregular"]["person11_boxing_d4"] == "3 ranges"


def test_how_uniform_sub_sequences_differ_from_svgs_draw_is_as_the_help_says(real):
    annotations = read_annotations(real / "00sequences.txt")
    training = {name: ranges for name, ranges in annotations.ranges.items() if not name.is_test}
    videos = {action: sum(name.action == action for name in training) for action in CLASSES}
    total = sum(len(ranges) for ranges in training.values())
    ratios = {round(total / (6 * videos[name.action] * len(ranges)), 3) for name, ranges in training.items()}
    assert total == 1912 and sum(len(ranges) == 3 for ranges in training.values()) == 4
    assert ratios == {1.328, 1.008, 0.996}
    assert all(f"{ratio} times" in " ".join(kth.__doc__.split()) for ratio in ratios)


def test_videos_too_long_for_three_digits_are_as_the_help_says(inferred):
    assert [name.is_test for name, length in inferred.items() if length > 999] == [False] * 6


# ---- a part of the dataset


def test_a_part_says_what_is_missing(tmp_path):
    raw = stub(tmp_path, "person01_boxing_d1", "person02_boxing_d1", "person21_boxing_d1")
    plan = kth.plan(options(raw, "--test-set", "videos"), no_survey)
    assert {split: [item.key for item in items] for split, items in plan.splits.items()} == {
        "train": ["person02_boxing_d1"],
        "valid": ["person01_boxing_d1"],
        "test": ["person21_boxing_d1"],
    }
    assert plan.notes == (
        "3 of 599 videos are here (training 2 of 479, test 1 of 120); 596 are missing: person01_boxing_d2, "
        "person01_boxing_d3, person01_boxing_d4, ...",
    )
    assert plan.provenance["videos"] == {"found": 3, "published": 599}


def test_a_single_training_video_trains(tmp_path):
    plan = kth.plan(options(stub(tmp_path, "person01_boxing_d1")), no_survey)
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 1}
    assert [note for note in plan.notes if note.startswith("no split")] == [
        "no split 'valid': too few videos for it",
        "no split 'test': too few videos for it",
    ]


def test_only_test_videos_make_a_test_set_or_nothing(tmp_path):
    raw = stub(tmp_path, "person25_walking_d4")
    assert list(kth.plan(options(raw, "--test-set", "videos"), no_survey).splits) == ["test"]
    with pytest.raises(ShardError, match="none of the wanted splits has a video"):
        kth.plan(options(raw, "--test-set", "none"), no_survey)


def test_flat_and_foldered_files_mix_and_others_are_left_aside(tmp_path):
    stub(tmp_path, "person02_boxing_d1")
    stub(tmp_path / "walking", "person01_walking_d1")
    stub(tmp_path / "boxing", "person01_boxing_d1", "person13_handclapping_d3", "person30_boxing_d1")
    (tmp_path / "boxing" / "boxing.zip").touch()
    (tmp_path / "00sequences.txt").write_text("person01_boxing_d1\tframes\t1-95\n")
    plan = kth.plan(options(tmp_path, "--test-set", "none"), no_survey)
    sources = {item.args["about"]["source"] for items in plan.splits.values() for item in items}
    assert sources == {
        f"{name}_uncomp.avi" for name in ("walking/person01_walking_d1", "boxing/person01_boxing_d1")
    } | {"person02_boxing_d1_uncomp.avi"}
    assert plan.notes[1] == (
        "files that are no KTH video were left aside: 3 (boxing/boxing.zip, "
        "boxing/person13_handclapping_d3_uncomp.avi, boxing/person30_boxing_d1_uncomp.avi)"
    )


def test_a_clip_in_two_places_is_an_error(tmp_path):
    stub(tmp_path, "person01_boxing_d1")
    stub(tmp_path / "boxing", "person01_boxing_d1")
    with pytest.raises(ShardError, match=r"person01_boxing_d1 is there twice: .*boxing/person01_boxing_d1_unc.* and "):
        kth.plan(options(tmp_path), no_survey)


def test_no_video_says_what_was_expected(tmp_path):
    with pytest.raises(ShardError, match=r"no KTH video among its 0 files; expected files like person01_boxing_d1_unc"):
        kth.plan(options(tmp_path), no_survey)
    with pytest.raises(ShardError, match="no such folder"):
        kth.plan(options(tmp_path / "none"), no_survey)


# ---- the test set of a part


def test_published_clips_need_the_lengths_of_absent_videos(tmp_path):
    raw = stub(tmp_path, "person01_boxing_d1", "person21_boxing_d1")
    with pytest.raises(ShardError, match="119 of the 120 test videos") as caught:
        kth.plan(options(raw), constant_survey(365))
    assert "--sequences" in str(caught.value) and "--test-set available" in str(caught.value)


def test_published_clips_of_a_part_keep_their_place_in_the_whole(real):
    plan = kth.plan(options(real), survey)
    clips = [[*list(item.args["about"].values())[:4:2], item.args["start"]] for item in plan.splits["test"]]
    assert {tuple(clip[:2]) for clip in clips} == {("boxing", 21), ("running", 23)}
    draws = [item.args["about"]["draw"] for item in plan.splits["test"]]
    assert draws == PRESENT
    assert plan.splits["test"][0].key == "0041-person23_running_d3-0085"
    assert plan.provenance["lengths"] == {"decoded": 2, "inferred from 00sequences.txt": 118}
    assert any("118 of 120 lengths are inferred from 00sequences.txt" in note for note in plan.notes)


def test_available_clips_are_loudly_not_the_published_ones(real):
    plan = kth.plan(options(real, "--test-set", "available"), survey)
    assert len(plan.splits["test"]) == NUM_CLIPS
    assert any(note.startswith("test: NOT the published clips: 1000 clips from 2 of 120 videos") for note in plan.notes)
    assert plan.provenance["lengths"] == {"decoded": 2, "inferred from 00sequences.txt": 0}


def test_a_length_that_differs_from_the_annotation_is_told(real):
    plan = kth.plan(options(real), constant_survey(410))
    assert any("person21_boxing_d1 (365, decoded 410), person23_running_d3 (280" in note for note in plan.notes)


def test_a_bad_test_video_stops_the_plan_or_is_left_out(real):
    def broken(files):
        return {
            file: BadSource("truncated", f"{file}: 10 of 365") if "21_boxing" in file.name else 280 for file in files
        }

    with pytest.raises(BadSource, match=r"person21_boxing_d1_uncomp\.avi: 10 of 365"):
        kth.plan(options(real), broken)
    plan = kth.plan(options(real, bad="skip"), broken)
    assert {item.args["about"]["class"] for item in plan.splits["test"]} == {"running"}
    assert plan.provenance["lengths"] == {"decoded": 1, "inferred from 00sequences.txt": 119}
    assert any(note.startswith("test: no clips of person21_boxing_d1_uncomp.avi, truncated:") for note in plan.notes)


def test_a_test_video_that_lacks_a_frame_is_bad(real):
    with pytest.raises(BadSource, match=r"truncated: .*person21_boxing_d1_uncomp\.avi: 364 of 365 announced frames"):
        kth.plan(options(real), constant_survey(364))


def test_a_test_video_of_another_rate_gives_no_published_clips(tmp_path):
    file = tmp_path / "person21_boxing_d1_uncomp.avi"
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=50", "-frames:v", "100", "-c:v", "mpeg4"]
    run_ffmpeg(*source, file)
    with pytest.raises(BadSource, match=r"frame rate: .* 50 frames per second, originals have 25"):
        kth.plan(options(tmp_path, "--test-set", "available"), survey)
    plan = kth.plan(options(tmp_path, "--test-set", "videos"), no_survey)
    assert "not 25 fps as the original videos, so resampled in time: person21_boxing_d1 (50)" in plan.notes
    (sample,) = (one for one in make(plan, plan.splits["test"][0]) if not isinstance(one, Notice))
    assert len(sample.arrays["video"]) == 50


# ---- samples


def run_ffmpeg(*words):
    import imageio_ffmpeg

    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, words)], check=True)


def pictures(file, size, folder):
    """Frames as the published command line makes them with the ffmpeg program: THW."""
    from PIL import Image

    folder.mkdir()
    run_ffmpeg("-i", file, "-r", "25", "-f", "image2", "-s", f"{size}x{size}", folder / "image-%03d.png")
    return np.stack([np.asarray(Image.open(image))[:, :, 0] for image in sorted(folder.iterdir())])


def make(plan, item):
    return list(pickle.loads(pickle.dumps(plan.make))(pickle.loads(pickle.dumps(item))))


def test_the_real_clips_have_the_frames_of_the_ffmpeg_program(real):
    plan = kth.plan(options(real), survey)
    found = {}
    for item in (*plan.splits["train"], *plan.splits["valid"]):
        (sample,) = make(plan, item)
        assert plan.arrays["video"].admits(str(sample.arrays["video"].dtype), sample.arrays["video"].shape)
        assert item.num_bytes == sample.arrays["video"].nbytes
        found[sample.key] = len(sample.arrays["video"])
    assert found == {name: frames for name, frames in REAL.items() if name < "person21"}


@pytest.mark.parametrize("size", [64, 128])
def test_pixels_are_those_of_the_published_command(real, tmp_path, size):
    plan = kth.plan(options(real, "--size", size), survey)
    for name in ("person16_boxing_d4", "person09_running_d1"):  # the second has a frame that is not quite grey
        (item,) = (item for split in ("train", "valid") for item in plan.splits[split] if item.key == name)
        (sample,) = make(plan, item)
        expected_THW = pictures(item.source, size, tmp_path / name)
        np.testing.assert_array_equal(sample.arrays["video"][:, 0], expected_THW)
    assert sample.meta == {
        "class": "running",
        "label": 4,
        "person": 9,
        "trial": 1,
        "source": "person09_running_d1_uncomp.avi",
    }


def test_a_test_clip_is_forty_frames_of_the_published_pictures(real, tmp_path):
    plan = kth.plan(options(real), survey)
    expected_THW = pictures(real / "person23_running_d3_uncomp.avi", 64, tmp_path / "pictures")
    items = [item for item in plan.splits["test"] if "running" in item.key]
    assert items
    for item in items:
        (sample,) = make(plan, item)
        start = sample.meta["start"]
        np.testing.assert_array_equal(sample.arrays["video"][:, 0], expected_THW[start : start + 40])
        assert sample.key == item.key == f"{sample.meta['draw']:04d}-person23_running_d3-{start:04d}"


def test_annotated_samples_are_the_sub_sequences(real):
    plan = kth.plan(options(real, "--clips", "annotated"), survey)
    (item,) = (i for split in ("train", "valid") for i in plan.splits[split] if i.key == "person01_walking_d1")
    whole_plan = kth.plan(options(real), survey)
    (whole,) = (i for split in ("train", "valid") for i in whole_plan.splits[split] if i.key == "person01_walking_d1")
    video_TCHW = make(whole_plan, whole)[0].arrays["video"]
    samples = make(plan, item)
    assert [sample.key for sample in samples] == [f"person01_walking_d1-s{number}" for number in (1, 2, 3, 4)]
    ranges = [(0, 75), (151, 225), (324, 400), (479, 555)]  # 1-75, 152-225, 325-400, 480-555 counted from 1
    for sample, (begin, end) in zip(samples, ranges, strict=True):
        np.testing.assert_array_equal(sample.arrays["video"], video_TCHW[begin:end])
    assert (
        samples[1].meta.items() >= {"subsequence": 2, "first_frame": 152, "last_frame": 225, "class": "walking"}.items()
    )
    assert item.num_bytes == sum(sample.arrays["video"].nbytes for sample in samples)


def test_an_annotation_past_the_end_is_cut_and_told(real, tmp_path):
    shutil.copy(real / "person16_boxing_d4_uncomp.avi", tmp_path)
    (tmp_path / "00sequences.txt").write_text("person16_boxing_d4\tframes\t1-100, 450-470, 461-480\n")
    plan = kth.plan(options(tmp_path, "--clips", "annotated"), survey)
    found = make(plan, plan.splits["train"][0])
    notices = [one.detail for one in found if isinstance(one, Notice)]
    assert notices == [
        "frames 450-470 of a video of 460: 450-460 kept",
        "frames 461-480 of a video of 460: left out",
    ]
    samples = [one for one in found if not isinstance(one, Notice)]
    assert [(one.key[-2:], len(one.arrays["video"]), one.meta["last_frame"]) for one in samples] == [
        ("s1", 100, 100),
        ("s2", 11, 460),
    ]


def test_annotated_clips_need_the_annotations_of_every_video(tmp_path):
    raw = stub(tmp_path, "person01_boxing_d1", "person02_boxing_d1")
    words = ("--clips", "annotated", "--test-set", "none")
    with pytest.raises(ShardError, match="annotated clips need") as caught:
        kth.plan(options(raw, *words), no_survey)
    assert "--sequences" in str(caught.value)
    (raw / "00sequences.txt").write_text("person01_boxing_d1\tframes\t1-95\n")
    with pytest.raises(ShardError, match="no frames for person02_boxing_d1"):
        kth.plan(options(raw, *words), no_survey)


@pytest.mark.parametrize(("lost", "message"), [(1, "459 of 460 announced"), (230, "230 of 460 announced")])
def test_a_truncated_video_is_not_taken_for_a_shorter_one(real, tmp_path, lost, message):
    import av

    file = real / "person16_boxing_d4_uncomp.avi"
    with av.open(str(file)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    (tmp_path / file.name).write_bytes(file.read_bytes()[: places[-lost] - 8])  # with the packet's head
    plan = kth.plan(options(tmp_path), no_survey)
    with pytest.raises(BadSource, match=message) as caught:
        make(plan, plan.splits["train"][0])
    assert caught.value.kind == "truncated"


def test_a_file_that_is_no_video_is_told_when_it_is_decoded(tmp_path):
    raw = stub(tmp_path, "person01_boxing_d1")
    plan = kth.plan(options(raw), no_survey)
    with pytest.raises(BadSource) as caught:
        make(plan, plan.splits["train"][0])
    assert caught.value.kind == "unreadable"
    assert kth.DEFAULT_BAD == "stop"
