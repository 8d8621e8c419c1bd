"""Anybody's videos: what a folder, a list or a table gives, how they are split, what is told of bad ones."""

from __future__ import annotations

import csv
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.building import videos
from shards.building.plan import BadSource, BuildPlan, Item
from shards.building.video_list import list_videos
from shards.building.videos import draw_split, parse_crop, parse_split, split_counts
from shards.cli import main
from shards.errors import ShardError
from shards.manifest import Manifest
from shards.opening import open_source
from tests.shards.building.colour_videos import no_survey, numbered, numbers_of, options, split_up, write_video

NAMES = [f"{group}/clip {number}.mp4" for group in ("cats", "dogs") for number in range(5)]


def planned(raw: Path, *words: object, bad: str | None = None) -> BuildPlan:
    return videos.plan(options(videos, raw, *words, bad=bad), no_survey)


def items_of(plan: BuildPlan) -> Iterator[Item]:
    return (item for items in plan.splits.values() for item in items)


def sources(plan: BuildPlan) -> dict[str, list[str]]:
    return {split: [item.args["about"]["source"] for item in items] for split, items in plan.splits.items()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Two folders of five videos, 25 a second, of 20 to 24 frames."""
    folder = tmp_path_factory.mktemp("raw")
    for number, name in enumerate(NAMES):
        write_video(folder / name, numbered(20 + number % 5), 25)
    (folder / "notes.txt").write_text("not a video")
    (folder / "cats" / "._clip 0.mp4").write_text("what macOS leaves behind")
    return folder


def test_a_folder_gives_every_video_once(raw):
    plan = planned(raw)
    assert sorted(name for names in sources(plan).values() for name in names) == NAMES
    assert {split: len(items) for split, items in plan.splits.items()} == {"train": 8, "valid": 1, "test": 1}
    assert sorted(item.key for item in items_of(plan)) == [name[:-4].replace(" ", "_") for name in NAMES]
    assert (plan.name, plan.fps, plan.notes) == ("videos-64", 25.0, ())
    assert plan.arrays["video"].shape == (None, 3, 64, 64) and list(plan.arrays) == ["video"]


def test_estimates_come_from_the_headers(raw):
    plan = planned(raw, "--size", 8)
    assert plan.num_samples == 10
    assert plan.num_bytes == (20 + 21 + 22 + 23 + 24) * 2 * 3 * 8 * 8
    at_5 = planned(raw, "--size", 8, "--gray", "--fps", 5)
    assert at_5.fps == 5.0 and at_5.num_bytes == (4 + 4 + 4 + 5 + 5) * 2 * 8 * 8


def test_a_sample_is_a_whole_video_and_says_where_it_is_from(raw):
    plan = planned(raw, "--size", 8, "--labels", "from-folders")
    item = next(item for item in items_of(plan) if item.key == "dogs/clip_3")
    (sample,), notices = split_up(pickle.loads(pickle.dumps(plan.make))(item))
    assert numbers_of(sample.arrays["video"]) == list(range(23)) and notices == []
    assert sample.arrays["video"].shape == (23, 3, 8, 8)
    assert sample.arrays["label"] == 1 and sample.arrays["label"].dtype == np.int32
    told = {"class": "dogs", "label": 1, "source": "dogs/clip 3.mp4", "source_fps": 25.0}
    assert told.items() <= sample.meta.items()
    assert plan.arrays["label"].range == (0, 1) and plan.provenance["classes"] == ["cats", "dogs"]


def test_without_labels_there_is_no_label(raw):
    plan = planned(raw, "--size", 8)
    (sample,), _ = split_up(plan.make(next(items_of(plan))))
    assert list(sample.arrays) == ["video"] and "class" not in sample.meta


def test_gray_and_fps_and_crop_do_what_they_say(raw):
    plan = planned(raw, "--size", 8, "--gray", "--fps", 5, "--crop", "4,2,12,10")
    (sample,), _ = split_up(plan.make(next(item for item in items_of(plan) if item.key == "cats/clip_0")))
    luma = [round(0.299 * n + 0.587 * (255 - n) + 0.114 * 7) for n in (0, 5, 10, 15)]
    assert sample.arrays["video"].shape == (4, 1, 8, 8)
    assert sample.arrays["video"][:, 0, 0, 0].tolist() == luma
    assert plan.make.look.crop == (4, 2, 12, 10)


def test_a_long_video_becomes_pieces_in_one_split(tmp_path):
    write_video(tmp_path / "long.mp4", numbered(23), 25)
    plan = planned(tmp_path, "--size", 8, "--max-frames", 10, "--split", 1)
    (item,) = plan.splits["train"]
    samples, notices = split_up(plan.make(item))
    assert item.num_samples == 3 and notices == []
    assert [numbers_of(one.arrays["video"]) for one in samples] == [
        list(range(10)),
        list(range(10, 20)),
        [20, 21, 22],
    ]
    assert len({one.key for one in samples}) == 3 and samples[0].key == "long"
    plan = planned(tmp_path, "--size", 8, "--max-frames", 10, "--min-frames", 4, "--split", 1)
    samples, notices = split_up(plan.make(*plan.splits["train"]))
    assert len(samples) == 2 and len(notices) == 1 and "last 3 frames" in notices[0].detail


def test_files_that_cannot_be_used_become_items_that_fail_in_make(raw, tmp_path):
    (tmp_path / "good.mp4").write_bytes((raw / NAMES[0]).read_bytes())
    (tmp_path / "cut.mp4").write_bytes((raw / NAMES[0]).read_bytes()[:700])
    (tmp_path / "empty.avi").write_bytes(b"")
    write_video(tmp_path / "one.mp4", numbered(1), 25)
    plan = planned(tmp_path, "--split", 1)
    kinds = {}
    for item in plan.splits["train"]:
        try:
            kinds[item.key] = len(split_up(plan.make(item))[0])
        except BadSource as error:
            kinds[item.key] = error.kind
    assert kinds == {"good": 1, "cut": "unreadable", "empty": "unreadable", "one": "too short"}
    assert any("2 of 4 videos cannot be opened" in note for note in plan.notes)


def test_rates_that_differ_leave_the_dataset_without_one_and_say_so(raw, tmp_path):
    (tmp_path / "a.mp4").write_bytes((raw / NAMES[0]).read_bytes())
    write_video(tmp_path / "b.mp4", numbered(9), 30)
    plan = planned(tmp_path)
    assert plan.fps is None and any("frame rates differ: 25 (1), 30 (1)" in note for note in plan.notes)
    resampled = planned(tmp_path, "--fps", 10)
    assert resampled.fps == 10.0 and not any("rates" in note for note in resampled.notes)


def test_keys_are_unique_and_plain(tmp_path):
    for name in ("a b.mp4", "a_b.mp4", "a_b.avi", "кот.mp4", "пёс.mp4", "a_b=2.mp4"):
        write_video(tmp_path / name, numbered(2), 25)
    keys = [item.key for item in items_of(planned(tmp_path))]
    assert len(set(keys)) == 6 and not set("".join(keys)) - set("ab_=23")


@pytest.mark.parametrize(
    ("num", "split", "expected"),
    [
        (10, "0.9", (8, 1, 1)),
        (100, "0.9", (90, 5, 5)),
        (101, "0.9", (90, 6, 5)),
        (1000, "0.29", (290, 355, 355)),
        (100, "0.8,0.2,0", (80, 20, 0)),
        (10, "0.7,0.2,0.1", (7, 2, 1)),
        (7, "1", (7, 0, 0)),
        (3, "0.9", (1, 1, 1)),
        (3, "0.1", (1, 1, 1)),
        (2, "0.9", (1, 1, 0)),
        (1, "0.9", (1, 0, 0)),
        (5, "0,0,1", (0, 0, 5)),
    ],
)
def test_the_shares_of_a_split_are_exact(num, split, expected):
    assert split_counts(num, parse_split(split)) == expected


def test_a_split_depends_on_names_and_seed_and_not_on_order():
    names = [f"video{number}.mp4" for number in range(200)]
    shares = parse_split("0.8,0.1,0.1")

    def drawn(names: list[str], seed: int = 0) -> dict[str, set[str]]:
        return {split: {names[place] for place in places} for split, places in draw_split(names, shares, seed).items()}

    first = drawn(names)
    assert {split: len(some) for split, some in first.items()} == {"train": 160, "valid": 20, "test": 20}
    assert drawn(names[::-1]) == first and drawn(names, seed=1) != first
    renamed = drawn(["other.mp4", *names[1:]])
    moved = {name for split in first for name in first[split] - renamed[split]} - {names[0]}
    assert len(moved) <= 2  # at each of the two borders one video makes room


def test_the_samples_of_a_split_follow_the_names(raw):
    assert all(names == sorted(names) for names in sources(planned(raw, "--split", "0.5")).values())


def test_a_text_list_names_files_relative_to_itself(raw, tmp_path):
    (tmp_path / "near.mp4").write_bytes((raw / NAMES[0]).read_bytes())
    (tmp_path / "list.txt").write_text(f"\ufeffnear.mp4\n\n{raw / NAMES[1]}\n./../{tmp_path.name}/list/../near2.mp4\n")
    (tmp_path / "near2.mp4").write_bytes((raw / NAMES[2]).read_bytes())
    (tmp_path / "list").mkdir()
    plan = planned(tmp_path / "list.txt", "--split", 1)
    assert sources(plan)["train"] == ["near.mp4", str(raw / NAMES[1]), f"../{tmp_path.name}/near2.mp4"]
    assert all(split_up(plan.make(item))[0] for item in plan.splits["train"])
    assert all(not item.key.startswith("/") for item in plan.splits["train"])


def test_a_text_list_may_have_remarks(raw, tmp_path):
    odd = tmp_path / "#1 form\x0cfeed.mp4"
    odd.write_bytes((raw / NAMES[0]).read_bytes())
    (tmp_path / "list.txt").write_text(f"# my videos\n\n  # more\n./{odd.name}\r\n{raw / NAMES[1]}\n")
    assert sources(planned(tmp_path / "list.txt", "--split", 1))["train"] == [odd.name, str(raw / NAMES[1])]


def test_a_table_may_have_tabs_for_commas(raw):
    (raw / "table.tsv").write_text(f"path\tlabel\n{NAMES[0]}\tcat, big\n{NAMES[5]}\tdog\n")
    plan = planned(raw / "table.tsv", "--split", 1)
    assert sources(plan)["train"] == [NAMES[0], NAMES[5]] and plan.provenance["classes"] == ["cat, big", "dog"]


def test_a_line_end_between_quotes_belongs_to_the_name(raw, tmp_path):
    (tmp_path / "two\nlines.mp4").write_bytes((raw / NAMES[0]).read_bytes())
    table = write_table(tmp_path / "table.csv", ["path", "label"], ["two\nlines.mp4", "a"])
    (item,) = planned(table, "--split", 1).splits["train"]
    assert item.args["about"]["source"] == "two\nlines.mp4" and item.source.is_file()
    table.write_text('path,label\n"two,a\n')
    with pytest.raises(ShardError, match="not a list of videos: unexpected end of data"):
        planned(table)


def test_broken_links_are_sources_that_cannot_be_read_and_pipes_are_no_videos(raw, tmp_path):
    (tmp_path / "good.mp4").symlink_to(raw / NAMES[0])
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.txt").write_text("good.mp4\nlost.mp4\ncircle.mp4\n")
    for plan in (planned(tmp_path, "--split", 1), planned(tmp_path / "list.txt", "--split", 1)):
        items = {item.key: item for item in plan.splits["train"]}
        assert sorted(items) == ["circle", "good", "lost"]
        for key in ("circle", "lost"):
            with pytest.raises(BadSource, match="unreadable"):
                list(plan.make(items[key]))
    (tmp_path / "list.txt").write_text("good.mp4\npipe.mp4\n")
    with pytest.raises(ShardError, match=r"1 of 2 listed paths are no files .first: pipe\.mp4"):
        planned(tmp_path / "list.txt")


def test_a_broken_link_is_in_the_report(raw, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "good.mp4").symlink_to(raw / NAMES[0])
    (tmp_path / "raw" / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    words = ["build", "videos", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--size", "8"]
    assert main([*words, "--split", "1", "--workers", "1"]) == 0
    assert "lost.mp4,unreadable" in (tmp_path / "out" / "report.csv").read_text()


def test_a_folder_that_may_not_be_read_is_not_passed_over(raw, monkeypatch):
    def scandir(folder, real=os.scandir):
        if str(folder).endswith("dogs"):
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(ShardError, match=r"dogs: cannot be read: Permission denied"):
        planned(raw)


@pytest.mark.parametrize("suffix", ["avi", "MP4", "m4v", "mkv", "mov", "webm", "mpg", "mpeg", "wmv", "flv", "3gp"])
def test_files_of_many_kinds_are_found(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").touch()
    assert [video.name for video in list_videos(tmp_path)] == [f"a.{suffix}"]


def test_damage_after_a_complete_piece_is_told_or_stops_the_build(tmp_path):
    file = write_video(tmp_path / "long.avi", numbered(60), 25)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    lenient = planned(tmp_path, "--size", 8, "--max-frames", 10)
    samples, notices = split_up(lenient.make(*lenient.splits["train"]))
    assert len(samples) == 2 and [notice.kind for notice in notices] == ["truncated"]
    strict = planned(tmp_path, "--size", 8, "--max-frames", 10, bad="stop")
    with pytest.raises(BadSource, match="truncated"):
        list(strict.make(*strict.splits["train"]))


def test_the_manifest_counts_what_was_planned(raw):
    assert planned(raw).provenance["videos planned"] == {"train": 8, "valid": 1, "test": 1}


def write_table(path: Path, *rows: list[object]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_table_gives_labels_and_splits(raw):
    rows = [[name, "cat" if "cats" in name else "big, dog", "test" if "clip 4" in name else "train"] for name in NAMES]
    plan = planned(write_table(raw / "table.csv", ["path", "label", "split"], *rows), "--size", 8)
    assert sources(plan)["test"] == [name for name in NAMES if "clip 4" in name] and len(plan.splits["train"]) == 8
    assert plan.provenance["classes"] == ["big, dog", "cat"]
    assert [item.args["label"] for item in plan.splits["test"]] == [1, 0]
    assert any("no split valid" in note for note in plan.notes)
    (sample,), _ = split_up(plan.make(plan.splits["test"][0]))
    assert sample.arrays["label"] == 1 and sample.meta["class"] == "cat"


def test_a_table_with_paths_alone_is_split_as_a_folder(raw):
    table = write_table(raw / "paths.csv", ["path"], *[[name] for name in NAMES])
    assert sources(planned(table)) == sources(planned(raw))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file", "label"], [NAMES[0], "a"]], "no column 'path' in the header; found: file, label"),
        ([["path"]], "names no videos"),
        ([["path", "label"], [NAMES[0], "a"], [NAMES[1], ""]], "'label' is empty in 1 of 2 rows .first: row 2"),
        ([["path", "split"], [NAMES[0], "train"], [NAMES[1]]], "'split' is empty in 1 of 2 rows .first: row 2"),
        ([["path", "split"], [NAMES[0], "training"]], "splits training: expected one of train, valid, test"),
        ([["path"], [NAMES[0]], ["gone.mp4"], ["lost.mp4"]], "2 of 3 listed files do not exist .first: gone.mp4"),
        ([["path"], [NAMES[0]], [f"./{NAMES[0]}"]], "listed 2 times"),
    ],
)
def test_tables_that_make_no_sense_are_refused(raw, rows, message):
    with pytest.raises(ShardError, match=message):
        planned(write_table(raw / "bad.csv", *rows))


def test_an_empty_folder_says_what_was_looked_for_and_what_was_found(tmp_path):
    with pytest.raises(ShardError, match=r"no video files \(.*\.avi .*\.mp4 .*found: no files at all"):
        planned(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("a.txt", "sub/b.txt", "c.JPG", "README"):
        (tmp_path / name).write_text("x")
    with pytest.raises(ShardError, match=r"found: 2 \.txt, .*1 \.jpg"):
        planned(tmp_path)


def test_other_things_that_cannot_be_built_are_refused(raw, tmp_path):
    with pytest.raises(ShardError, match="this is a video, expected a folder or a list"):
        planned(raw / NAMES[0])
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00video")
    with pytest.raises(ShardError, match="not a list of videos"):
        planned(tmp_path / "list.txt")
    (tmp_path / "broken.mp4").write_text("x")
    with pytest.raises(ShardError, match="none of the 1 videos can be opened"):
        planned(tmp_path)
    (tmp_path / "broken.mp4").write_bytes((raw / NAMES[0]).read_bytes())
    with pytest.raises(ShardError, match=r"lie in no class folder .first: broken\.mp4"):
        planned(tmp_path, "--labels", "from-folders")
    table = write_table(raw / "both.csv", ["path", "label", "split"], [NAMES[0], "a", "train"])
    with pytest.raises(ShardError, match="column 'label' has classes too"):
        planned(table, "--labels", "from-folders")
    with pytest.raises(ShardError, match="column 'split' says it too"):
        planned(table, "--split", "0.9")


@pytest.mark.parametrize(
    "words",
    [
        ("--split", "1.5"),
        ("--split", "0.5,0.5"),
        ("--split", "0.5,0.4,0.2"),
        ("--split", "most"),
        ("--split", "nan"),
        ("--crop", "middle"),
        ("--crop", "1,2,3"),
        ("--crop", "5,5,5,9"),
        ("--size", "0"),
        ("--fps", "0"),
        ("--fps", "inf"),
        ("--fps", "nan"),
        ("--fps", "0.0001"),
        ("--min-frames", "0"),
        ("--min-frames", "9", "--max-frames", "8"),
    ],
)
def test_options_out_of_range_are_refused(raw, words):
    with pytest.raises(ShardError, match=words[0].lstrip("-")) as error:
        planned(raw, *words)
    assert words[1] in str(error.value).replace(", ", ",")


def test_a_crop_is_a_word_or_a_box():
    assert (parse_crop("center"), parse_crop("squash"), parse_crop("1,2,30,40")) == ("center", "squash", (1, 2, 30, 40))


def test_one_command_builds_a_dataset_from_a_folder_with_bad_files(raw, tmp_path, capsys):
    for name in NAMES:
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_bytes((raw / name).read_bytes())
    (tmp_path / "raw" / "cats" / "broken.mp4").write_bytes(b"no video")
    words = ["build", "videos", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out")]
    assert main([*words, "--size", "8", "--fps", "5", "--split", "0.8", "--crop", "center", "--workers", "1"]) == 0
    manifest = Manifest.load(tmp_path / "out")
    assert sum(info.samples for info in manifest.splits.values()) == 10 and manifest.fps == 5.0
    assert list(manifest.splits) == ["train", "valid", "test"]
    out = capsys.readouterr()
    assert "unreadable" in out.out + out.err and "broken" in out.out + out.err
    clips = open_source(tmp_path / "out", "train", 4)
    assert numbers_of(clips.read([0]).arrays["video"][0]) == [0, 5, 10, 15]
