"""A whole card: its text, its files, where it may lie, and what it leaves alone."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.building.moving_mnist import build_moving_mnist
from shards.card.facts import make_card
from shards.card.text import duration, sections, warnings
from shards.card.write import card_folder, write_card
from shards.cli import main
from shards.errors import ShardError
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.opening import open_source
from shards.writer import Sample, write_dataset
from tests.shards.stored_clips import make_dataset
from tests.shards.test_card_duplicates import clip
from tests.shards.test_card_pictures import durations_of_gif

COMMAND = "python -m shards build kth --raw 'my videos' --out data/kth"


def make_planted(root: Path, **changes: Any) -> Manifest:
    """Clips of two lengths; two of test are in train too, one source file feeds both."""
    sources = {"train": ["a.avi", "b.avi", "c.avi"], "test": ["c.avi", "d.avi", "d.avi"]}
    clips = {"train": [clip(0), clip(1)[:4], clip(2)], "test": [clip(7), clip(1)[:4], clip(1)[:4]]}
    samples = {
        split: [
            Sample(f"{split}{n}", {"video": video}, {"class": ["run", "walk"][n % 2], "source": sources[split][n]})
            for n, video in enumerate(videos)
        ]
        for split, videos in clips.items()
    }
    provenance = {"command": COMMAND, "builder": "kth", "settings": {"size": 16}, "notes": ["5 of 599 videos are here"]}
    options: dict[str, Any] = {"fps": 2.0, "provenance": provenance} | changes
    return write_dataset(root, "kth-16", samples, {"video": video_spec(None, 3, 16, 16)}, **options)


def text_of(folder: Path) -> str:
    return (folder / "card.md").read_text(encoding="utf-8")


def test_the_card_tells_what_is_there_and_the_command_that_made_it(tmp_path):
    manifest = make_planted(tmp_path / "d")
    assert main(["inspect", str(tmp_path / "d")]) == 0
    text = text_of(tmp_path / "d" / "card")
    assert f"```bash\n{COMMAND}\n```" in text
    assert manifest.fingerprint in text
    for line in ("note: 5 of 599 videos are here", "builder: kth", "settings: size 16", "2 frames/s, encoding raw"):
        assert line in text
    cells = [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
    raw = [f"{frames * 768 / 1000:.3g} kB" for frames in (16, 14)]  # 3 x 16 x 16 bytes a frame
    rows = {row[0]: row for row in cells if len(row) == 8 and row[2] == "1"}
    assert rows["train"][1:5] == ["3", "1", "4/6/6", "8 s"] and rows["train"][6] == raw[0]
    assert rows["test"][1:5] == ["3", "1", "4/4/6", "7 s"] and rows["test"][6] == raw[1]
    assert ["run", "2", "2"] in cells and ["walk", "1", "1"] in cells and ["in all", "3", "3"] in cells
    assert text.count("3 of 3") == 6  # three channels of two splits


def test_an_array_that_may_hold_any_number_says_so(tmp_path, capsys):
    largest = float(np.finfo(np.float32).max)
    arrays = {"video": video_spec(None, 3, 16, 16), "actions": ArraySpec("float32", "TA", (6, 4), (-largest, largest))}
    samples = [Sample(f"s{n}", {"video": clip(n), "actions": np.ones((6, 4), np.float32)}) for n in range(2)]
    write_dataset(tmp_path / "d", "pushing", {"train": samples}, arrays)
    assert main(["inspect", str(tmp_path / "d")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["actions", "float32", "T6", "A4", "any", "train"] in rows
    assert ["video", "uint8", "T?", "C3", "H16", "W16", "0", "to", "255", "train"] in rows


def test_leakage_is_loud_and_shared_sources_are_named(tmp_path, capsys):
    make_planted(tmp_path / "d")
    assert main(["inspect", str(tmp_path / "d")]) == 0
    loud = "LEAKAGE: train holds 2 of the 3 clips of test; first: test/test1 = train/train1"
    text = text_of(tmp_path / "d" / "card")
    assert text.splitlines()[2] == f"> **{loud}**"
    assert "test: 1 repeats of an earlier clip; first: test/test2 = test/test1" in text
    assert "1 source file has samples in both train and test: c.avi" in text
    assert loud in capsys.readouterr().out


def test_without_duplicates_the_card_says_so(tmp_path):
    make_dataset(tmp_path / "d", provenance={})
    card = make_card(tmp_path / "d", splits=["train"])
    assert warnings(card) == []
    assert sections(card)["duplicates"].lines == ("No clip occurs twice among 23.",)


def test_every_picture_that_the_card_links_to_is_there_and_opens(tmp_path):
    make_planted(tmp_path / "d")
    assert main(["inspect", str(tmp_path / "d"), "--clips", "2", "--frames", "3"]) == 0
    folder = tmp_path / "d" / "card"
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text_of(folder))
    assert sorted(linked) == sorted(
        ["mosaic.gif", "lengths.png", "classes.png", "contact-sheet-train.png", "contact-sheet-test.png"]
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted([*linked, "card.md"])
    for name in linked:
        with Image.open(folder / name) as picture:
            picture.load()
    assert durations_of_gif((folder / "mosaic.gif").read_bytes()) == [500] * 6


def test_pictures_without_a_subject_are_not_drawn(tmp_path):
    samples = [Sample(f"s{n}", {"video": clip(n)}) for n in range(3)]
    write_dataset(tmp_path / "d", "plain", {"train": samples}, {"video": video_spec(6, 3, 16, 16)})
    fields = [Sample("f0", {"wind": np.zeros((3, 5), np.float32)})]
    write_dataset(tmp_path / "f", "fields", {"train": fields}, {"wind": ArraySpec("float32", "TX", (3, 5), (0, 1))})
    assert main(["inspect", str(tmp_path / "d")]) == main(["inspect", str(tmp_path / "f")]) == 0
    names = [sorted(path.name for path in (tmp_path / root / "card").iterdir()) for root in "df"]
    assert names == [["card.md", "contact-sheet-train.png", "mosaic.gif"], ["card.md"]]


def test_a_card_is_no_part_of_the_dataset(tmp_path, capsys):
    make_planted(tmp_path / "d")
    before = open_source(tmp_path / "d", "train", 4)
    assert main(["inspect", str(tmp_path / "d")]) == main(["inspect", str(tmp_path / "d")]) == 0
    assert open_source(tmp_path / "d", "train", 4).fingerprint == before.fingerprint
    assert main(["verify", str(tmp_path / "d")]) == 0
    assert main(["index", str(tmp_path / "d")]) == 0
    assert "every index is as it was written" in capsys.readouterr().out


def test_the_same_dataset_gives_the_same_card(tmp_path):
    make_planted(tmp_path / "d")
    for name in ("one", "two"):
        assert main(["inspect", str(tmp_path / "d"), "--card", str(tmp_path / name)]) == 0
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert not (tmp_path / "d" / "card").exists()


def test_endless_digits_have_a_card_with_a_mosaic_of_drawn_clips(tmp_path):
    build_moving_mnist(tmp_path / "d", test_sequences=20)
    assert main(["inspect", str(tmp_path / "d"), "--sample", "1"]) == 0
    text = text_of(tmp_path / "d" / "card")
    assert "1,297 pictures in 2" in text and "200 pictures in 1" in text
    assert "train holds pictures; clips of them are drawn endlessly while training." in text
    assert "No clip occurs twice among 1,517." in text
    assert "of 1,297" in text and "1 of 20" in text
    assert "| in all | 1,297 | 200 | 40 |" in re.sub(" +", " ", text)
    assert len(durations_of_gif((tmp_path / "d" / "card" / "mosaic.gif").read_bytes())) == 20
    with Image.open(tmp_path / "d" / "card" / "contact-sheet-train.png") as sheet:
        assert sheet.width > 10 * 112 and sheet.height > 8 * 112


def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(tmp_path, capsys, monkeypatch):
    make_planted(tmp_path / "d")
    (tmp_path / "d" / "card").write_text("a file, not a folder")
    monkeypatch.setattr("shards.card.facts.make_card", lambda *_, **__: pytest.fail("the data were read"))
    assert main(["inspect", str(tmp_path / "d")]) == 1
    error = capsys.readouterr().err
    assert "card: cannot be written to" in error and "--card DIR" in error
    assert main(["inspect", str(tmp_path / "d"), "--card", str(tmp_path / "d" / "manifest.json")]) == 1


def test_a_dataset_elsewhere_needs_a_folder_for_its_card(tmp_path):
    with pytest.raises(ShardError, match=r"not a folder of this machine(.|\n)*--card DIR"):
        card_folder("https://host/kth", None)
    assert card_folder("https://host/kth", tmp_path / "a" / "b").is_dir()


def test_only_the_splits_asked_for_are_in_the_card(tmp_path):
    make_planted(tmp_path / "d")
    assert main(["inspect", str(tmp_path / "d"), "--split", "test"]) == 0
    text = text_of(tmp_path / "d" / "card")
    assert "LEAKAGE" not in text and "contact-sheet-train.png" not in text and "contact-sheet-test.png" in text
    assert main(["inspect", str(tmp_path / "d"), "--split", "tset"]) == 1


def test_names_from_elsewhere_cannot_write_html_or_break_the_tables(tmp_path, capsys):
    samples = [Sample("s", {"video": clip(0)}, {"class": "<b>a|b</b>\n# c"})]
    provenance = {"command": "[red]x\n```\n# d", "source": "<script>"}
    write_dataset(
        tmp_path / "d", "[bold]n", {"train": samples}, {"video": video_spec(6, 3, 16, 16)}, provenance=provenance
    )
    card = make_card(tmp_path / "d")
    (tmp_path / "card").mkdir()
    text = write_card(card, tmp_path / "card").read_text()
    assert "<" not in text.replace("&lt;", "") and "\n# c" not in text
    assert "````bash\n[red]x\n```\n# d\n````" in text
    assert "| &lt;b>a\\|b&lt;/b> # c |     1 |" in text
    assert main(["inspect", str(tmp_path / "d")]) == 0
    assert "[red]x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"), [(8.44, "8.44 s"), (59.96, "60 s"), (185, "3 min 5 s"), (96_000, "26 h 40 min")]
)
def test_durations_have_two_units_at_most(seconds, words):
    assert duration(seconds) == words
