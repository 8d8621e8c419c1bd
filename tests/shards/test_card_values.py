"""Numbers of a card against numbers worked out by hand.

Axis letters: T frames, C channels, H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.card import values
from shards.card.notes import read_notes
from shards.card.sizes import sizes
from shards.card.values import statistics
from shards.errors import DamageError, ShardError
from shards.folder import LocalFolder
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.opening import open_table
from shards.reader import ClipTable
from shards.writer import Sample, write_dataset
from tests.shards.stored_clips import flip_bit, make_dataset, open_reader


def constant(*levels: int, num_frames: int = 2) -> np.ndarray:
    """A clip of 4 x 4 pixels, each channel of one level."""
    return np.broadcast_to(np.array(levels, np.uint8)[None, :, None, None], (num_frames, len(levels), 4, 4)).copy()


def table_of(root: Path, clips: list[np.ndarray], spec: ArraySpec, metas: Mapping[int, Any] | None = None) -> ClipTable:
    samples = [Sample(f"c{n}", {"video": clip}, (metas or {}).get(n, {})) for n, clip in enumerate(clips)]
    manifest = write_dataset(root, "tiny", {"train": samples}, {"video": spec}, samples_per_shard=2)
    return open_table(LocalFolder(root), manifest, "train")


def test_mean_and_deviation_are_those_of_all_pixels_channel_by_channel(tmp_path):
    table = table_of(tmp_path / "d", [constant(0, 51, 0), constant(255, 51, 102)], video_spec(2, 3, 4, 4))
    found = statistics(table)
    assert found.mean == pytest.approx((0.5, 0.2, 0.2))  # 0 and 1; 51/255; 0 and 102/255
    assert found.std == pytest.approx((0.5, 0.0, 0.2), abs=1e-12)
    assert (found.minimum, found.maximum) == (pytest.approx((0.0, 0.2, 0.0)), pytest.approx((1.0, 0.2, 0.4)))
    assert (found.clips, found.of) == (2, 2)


def test_longer_clips_count_more_and_portions_change_nothing(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    clips = [random.integers(0, 256, (length, 3, 8, 8), dtype=np.uint8) for length in (3, 30, 7)]
    table = table_of(tmp_path / "d", clips, video_spec(None, 3, 8, 8))
    pixels = np.concatenate(clips).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    for portion in (1 << 20, 37):
        monkeypatch.setattr(values, "_VALUES_AT_A_TIME", portion)
        found = statistics(table)
        assert found.mean == pytest.approx(pixels.mean(axis=1), rel=1e-12)
        assert found.std == pytest.approx(pixels.std(axis=1), rel=1e-12)


def test_values_are_scaled_by_the_declared_range(tmp_path):
    field = np.full((2, 1, 4, 4), 2.0, dtype=np.float32)
    table = table_of(tmp_path / "d", [field], ArraySpec("float32", "TCHW", (2, 1, 4, 4), (-2.0, 6.0)))
    found = statistics(table)
    assert (found.mean, found.minimum, found.maximum) == ((0.5,), (0.5,), (0.5,))


def test_a_sample_is_spread_evenly_from_the_first_clip_to_the_last(tmp_path):
    table = table_of(tmp_path / "d", [constant(level) for level in (0, 255, 51, 255, 102)], video_spec(2, 1, 4, 4))
    heard: list[int] = []
    found = statistics(table, 3, heard.append)
    assert found.mean == pytest.approx((0.2,))  # clips 0, 2, 4: levels 0, 0.2, 0.4
    assert (found.clips, found.of, sum(heard)) == (3, 5, 3)
    assert statistics(table, 0).mean == pytest.approx((0.52,))  # 0 + 1 + 0.2 + 1 + 0.4 over 5
    assert statistics(table, 0).clips == 5


def test_black_constant_and_still_clips_are_told_apart(tmp_path):
    moving = constant(9, num_frames=2)
    moving[1, 0, 0, 0] = 10
    still = constant(9, num_frames=2)
    still[:, 0, 3, 3] = 200
    clips = [constant(0), moving, constant(7), still, constant(0), still + 1, still + 2]
    found = statistics(table_of(tmp_path / "d", clips, video_spec(2, 1, 4, 4)))
    assert (found.black, found.constant, found.still) == (2, 1, 3)


def test_pictures_of_a_block_are_clips(tmp_path):
    blocks = [np.full((3, 4, 4), 255, np.uint8), np.zeros((5, 4, 4), np.uint8)]
    spec = ArraySpec("uint8", "NHW", (None, 4, 4), (0, 255))
    labels = ArraySpec("uint8", "N", (None,), (0, 9))
    samples = [
        Sample(f"b{n}", {"digits": block, "labels": np.arange(len(block), dtype=np.uint8)})
        for n, block in enumerate(blocks)
    ]
    write_dataset(tmp_path / "d", "blocks", {"train": samples}, {"digits": spec, "labels": labels})
    table = open_table(LocalFolder(tmp_path / "d"), Manifest.load(tmp_path / "d"), "train")
    found = statistics(table)
    assert found.mean == pytest.approx((3 / 8,))
    assert (found.clips, found.of, found.black, found.constant, found.still) == (8, 8, 5, 3, 0)
    assert (statistics(table, 1).clips, statistics(table, 1).of) == (3, 8)
    assert read_notes(table).classes == {"0": 2, "1": 2, "2": 2, "3": 1, "4": 1}


def test_without_pictures_there_are_no_statistics_and_damage_is_an_error(tmp_path):
    spec = ArraySpec("float32", "TX", (2, 3), (0, 1))
    with pytest.raises(ShardError, match="no array that can be shown as pictures; there are: video"):
        statistics(table_of(tmp_path / "d", [np.zeros((2, 3), np.float32)], spec))
    make_dataset(tmp_path / "e")
    flip_bit(tmp_path / "e" / "train-000000.tar", int(open_reader(tmp_path / "e")._index(0).arrays["video"].offset[0]))
    with pytest.raises(DamageError, match="clip000"):
        statistics(open_reader(tmp_path / "e"))


def test_sizes_are_counted_from_the_indexes(tmp_path):
    clips = [constant(1, num_frames=length) for length in (5, 2, 5, 9)]
    table = table_of(tmp_path / "d", clips, video_spec(None, 1, 4, 4))
    found = sizes(Manifest.load(tmp_path / "d").split("train"), table)
    assert found.frames == {2: 1, 5: 2, 9: 1}
    assert (found.samples, found.shards, found.total_frames) == (4, 2, 21)
    assert found.spread_of_frames == (2, 5, 9)
    assert found.raw_bytes == 21 * 16
    assert found.stored_bytes == sum(tar.stat().st_size for tar in (tmp_path / "d").glob("*.tar"))


def test_classes_and_sources_are_those_of_the_metadata(tmp_path):
    metas = {
        0: {"class": "run", "label": 4, "source": "a.avi"},
        1: {"label": 10, "source": "b.avi"},
        2: {"labels": [10, 2]},
        3: {"class": 2, "source": "a.avi"},
        4: {"other": 1},
    }
    notes = read_notes(table_of(tmp_path / "d", [constant(1)] * 5, video_spec(2, 1, 4, 4), metas))
    assert list(notes.classes.items()) == [("2", 2), ("10", 2), ("run", 1)]
    assert notes.sources == {"a.avi", "b.avi"}
