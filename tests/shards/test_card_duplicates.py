"""Equal clips are found from the indexes, wherever they are; others are not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.card import duplicates
from shards.card.duplicates import Duplicates, find_duplicates
from shards.folder import LocalFolder
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.writer import Sample, write_dataset


def clip(number: int) -> np.ndarray:
    """A clip TCHW that depends on the number."""
    return np.random.default_rng(number).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8)


def search(root: Path, splits: dict[str, list[np.ndarray]], **options: Any) -> Duplicates:
    """Duplicates of a dataset with these clips, whose keys and labels all differ."""
    arrays = {"video": video_spec(None, 3, 16, 16), "label": ArraySpec("int32", "", (), (0, 99))}
    samples = {
        split: [
            Sample(f"{split}{n}", {"video": frames, "label": np.array(n, np.int32)}) for n, frames in enumerate(clips)
        ]
        for split, clips in splits.items()
    }
    manifest = write_dataset(root, "planted", samples, arrays, **({"samples_per_shard": 2} | options))
    return find_duplicates(LocalFolder(root), manifest)


@pytest.mark.parametrize("encoding", ["raw", "zstd", "mp4"])
def test_planted_duplicates_are_found_within_and_across_splits(tmp_path, encoding):
    train = [clip(0), clip(1), clip(2), clip(1), clip(1)]
    test = [clip(5), clip(2), clip(6), clip(0), clip(6), clip(2)]
    found = search(tmp_path / "d", {"train": train, "valid": [clip(7)], "test": test}, encoding=encoding)
    assert {tuple(map(str, group)) for group in found.groups} == {
        ("train/train0", "test/test3"),
        ("train/train1", "train/train3", "train/train4"),
        ("train/train2", "test/test1", "test/test5"),
        ("test/test2", "test/test4"),
    }
    assert [found.within(split) for split in ("train", "valid", "test")] == [2, 0, 2]
    assert (found.leaked("train", "test"), found.leaked("train", "valid"), found.leaked("valid", "test")) == (3, 0, 0)
    assert found.leaked("test", "train") == 2
    assert len(found.shared("train", "test")) == 2


def test_a_clip_that_differs_in_one_bit_or_in_length_is_another(tmp_path):
    other = clip(0)
    other[5, 2, 15, 15] ^= 1
    assert search(tmp_path / "d", {"train": [clip(0), other, clip(0)[:5]]}).groups == ()


def test_nothing_is_read_where_the_checksums_differ(tmp_path, monkeypatch):
    def refuse(*_: object) -> np.ndarray:
        raise AssertionError("a clip was read")

    monkeypatch.setattr(duplicates, "read_array", refuse)
    assert search(tmp_path / "d", {"train": [clip(0), clip(1)], "test": [clip(2)]}).groups == ()
    with pytest.raises(AssertionError, match="a clip was read"):
        search(tmp_path / "e", {"train": [clip(0)], "test": [clip(0)]})


def test_equal_checksums_are_confirmed_by_the_values(tmp_path, monkeypatch):
    real = duplicates._checksums
    monkeypatch.setattr(duplicates, "_checksums", lambda *args: ((place, 0) for place, _ in real(*args)))
    found = search(tmp_path / "d", {"train": [clip(0), clip(1), clip(0)], "test": [clip(2), clip(1)]})
    assert [tuple(map(str, group)) for group in found.groups] == [
        ("train/train0", "train/train2"),
        ("train/train1", "test/test1"),
    ]


def test_only_the_splits_asked_for_are_searched(tmp_path):
    search(tmp_path / "d", {"train": [clip(0)], "valid": [clip(0)], "test": [clip(0)]})
    heard: list[int] = []
    manifest = Manifest.load(tmp_path / "d")
    found = find_duplicates(LocalFolder(tmp_path / "d"), manifest, ["train", "test"], heard.append)
    assert [tuple(map(str, group)) for group in found.groups] == [("train/train0", "test/test0")]
    assert sum(heard) == 2


def test_pictures_of_blocks_are_compared_one_by_one(tmp_path):
    digits = np.random.default_rng(0).integers(0, 256, (7, 8, 8), dtype=np.uint8)
    blocks = {"train": [digits[:3], digits[[3, 1]]], "valid": [digits[[5, 6, 0]]]}
    spec = {"digits": ArraySpec("uint8", "NHW", (None, 8, 8), (0, 255))}
    samples = {
        split: [Sample(f"b{n}", {"digits": block}) for n, block in enumerate(parts)] for split, parts in blocks.items()
    }
    manifest = write_dataset(tmp_path / "d", "blocks", samples, spec)
    found = find_duplicates(LocalFolder(tmp_path / "d"), manifest)
    assert [tuple(map(str, group)) for group in found.groups] == [
        ("train/b0[0]", "valid/b0[2]"),
        ("train/b0[1]", "train/b1[1]"),
    ]
