"""Clips as a source: windows that depend on (seed, position) alone, read from exactly their bytes."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from shards.dataset import DrawnClips, ShardClips
from shards.errors import DamageError, ShardError
from shards.hashing import uniform_int
from shards.manifest import video_spec
from shards.opening import open_source
from shards.order import Order
from shards.reader import ShardReader
from shards.writer import Sample, write_dataset
from tests.shards.stored_clips import NUM_CLIPS, NUM_FRAMES, flip_bit, frames_of, make_dataset, open_clips, open_reader


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiny"
    make_dataset(folder)
    return folder


@pytest.mark.parametrize("encoding", ["raw", "zstd", "mp4:0"])
@pytest.mark.parametrize("verify", [True, False])
def test_windows_hold_the_frames_that_were_written(tmp_path, encoding, verify):
    make_dataset(tmp_path / "d", encoding=encoding)
    source = open_clips(tmp_path / "d", 5, verify=verify)
    positions = np.arange(40, 70)
    fetched = source.fetch(positions, seed=3)
    clips = Order(3, source.fingerprint, NUM_CLIPS).index(positions)
    assert fetched.keys == [f"clip{clip:03d}" for clip in clips]
    assert fetched.arrays["video"].dtype == np.uint8
    assert fetched.arrays["label"].tolist() == clips.tolist()
    starts = fetched.arrays["video"][:, 0, 0, 0, 0]
    for row, (clip, start) in enumerate(zip(clips, starts, strict=True)):
        assert np.array_equal(fetched.arrays["video"][row], frames_of(clip)[start : start + 5])
        assert fetched.arrays["times"][row].tolist() == (100 * clip + np.arange(start, start + 5)).tolist()


def test_a_clip_in_the_stream_depends_on_seed_and_position_only(root):
    source = open_clips(root)
    together = source.fetch(np.arange(30), seed=3)
    for position in (0, 7, 29):
        alone = open_clips(root).fetch(np.array([position]), seed=3)
        assert np.array_equal(alone.arrays["video"][0], together.arrays["video"][position])
    assert not np.array_equal(source.fetch(np.arange(30), seed=4).arrays["video"], together.arrays["video"])


def test_every_window_is_equally_likely(root):
    fetched = open_clips(root, 5).fetch(np.arange(4000), seed=1)
    counts = np.bincount(fetched.arrays["video"][:, 0, 0, 0, 0], minlength=8)
    assert len(counts) == NUM_FRAMES - 5 + 1
    assert float(((counts - 500) ** 2 / 500).sum()) < 24.3  # 99.9 % quantile of chi-square with 7 degrees of freedom


def test_the_inlined_choice_of_a_window_is_that_of_uniform_int():
    bits = np.random.default_rng(0).integers(0, 1 << 64, 1000, dtype=np.uint64)
    assert [(word >> 32) * 8 >> 32 for word in bits.tolist()] == uniform_int(bits, 8).tolist()


def test_evaluation_reads_first_frames_or_whole_clips(root):
    first = open_clips(root, 4).read([22, 0])
    assert np.array_equal(first.arrays["video"], np.stack([frames_of(22)[:4], frames_of(0)[:4]]))
    assert first.keys == ["clip022", "clip000"]
    assert np.array_equal(open_clips(root, None).read([5]).arrays["video"][0], frames_of(5))
    with pytest.raises(IndexError, match="clip 23"):
        open_clips(root).read([23])


def test_of_a_raw_clip_only_the_bytes_of_the_window_are_read(root, monkeypatch):
    source = open_clips(root, 5)
    source.fetch(np.arange(NUM_CLIPS), seed=3)  # opens files and indexes
    num_read = 0
    preadv = os.preadv

    def counting(descriptor, buffers, offset):
        nonlocal num_read
        num_read += sum(len(buffer) for buffer in buffers)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counting)
    fetched = source.fetch(np.arange(NUM_CLIPS), seed=3)
    assert num_read == sum(array.nbytes for array in fetched.arrays.values())


def test_damage_outside_a_window_does_not_matter_inside_it_does(tmp_path):
    make_dataset(tmp_path / "d")
    table = open_reader(tmp_path / "d").shards[0]
    offset = int(open_reader(tmp_path / "d")._index(0).arrays["video"].offset[2])
    frame_bytes = frames_of(0)[0].nbytes
    flip_bit(tmp_path / "d" / table.file, offset + 6 * frame_bytes)
    source = open_clips(tmp_path / "d", 6)
    assert np.array_equal(source.read([2]).arrays["video"][0], frames_of(2)[:6])
    with pytest.raises(DamageError, match=rf"train-000000.tar, member clip002.video.raw, offset {offset + 6 * 192}: "):
        open_clips(tmp_path / "d", 7).read([2])
    assert open_clips(tmp_path / "d", 7, verify=False).read([2]).keys == ["clip002"]


def test_a_source_can_be_pickled_after_use(root):
    source = open_clips(root)
    before = source.fetch(np.arange(9), seed=3)
    after = pickle.loads(pickle.dumps(source)).fetch(np.arange(9), seed=3)
    assert np.array_equal(before.arrays["video"], after.arrays["video"])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_files_are_open_at_a_time(root, monkeypatch):
    monkeypatch.setattr("shards.reader._OPEN_FILES", 2)
    source = open_clips(root)
    before = open_files()
    source.fetch(np.arange(100), seed=3)
    assert open_files() - before == 2
    assert isinstance(source.table, ShardReader)
    source.table.close()
    assert open_files() == before
    assert source.read([0]).keys == ["clip000"]


def test_clips_that_are_too_short_are_an_error_with_what_to_type(root):
    with pytest.raises(ShardError, match=r"has 12 frames, 13 are wanted\n.*--min-frames 13"):
        open_clips(root, 13).fetch(np.arange(2), seed=3)
    with pytest.raises(ValueError, match="num_frames=0"):
        open_clips(root, 0)


def test_open_source_opens_stored_clips(root):
    source = open_source(root, "test", 5)
    assert isinstance(source, ShardClips)
    assert len(source) == 4
    assert source.arrays["video"].shape == (5, 3, 8, 8)
    with pytest.raises(ShardError, match="no split 'valid'"):
        open_source(root, "valid", 5)


def test_drawn_clips_are_as_many_as_wanted_and_always_the_same(root):
    drawn = DrawnClips(open_clips(root, 5), 40, seed=7)
    assert len(drawn) == 40
    first, again = drawn.read(range(40)), DrawnClips(open_clips(root, 5), 40, seed=7).read([39, 3])
    assert first.keys[39] == again.keys[0]
    assert np.array_equal(first.arrays["video"][[39, 3]], again.arrays["video"])
    assert sorted(first.keys[:NUM_CLIPS]) == [f"clip{clip:03d}" for clip in range(NUM_CLIPS)]  # each once, then again
    assert len({tuple(window) for window in first.arrays["times"].tolist()}) > NUM_CLIPS
    assert not np.array_equal(
        first.arrays["times"], DrawnClips(open_clips(root, 5), 40, seed=8).read(range(40)).arrays["times"]
    )
    with pytest.raises(IndexError):
        drawn.read([40])


def test_clips_shorter_than_a_window_are_named_before_they_are_met(tmp_path):
    lengths = {"a": 9, "b": 3, "c": 5, "d": 4}
    samples = [Sample(key, {"video": np.zeros((length, 1, 8, 8), np.uint8)}) for key, length in lengths.items()]
    arrays = {"video": video_spec(None, 1, 8, 8)}
    write_dataset(tmp_path / "d", "mixed", {"train": samples}, arrays, samples_per_shard=2)
    assert open_clips(tmp_path / "d", 5).too_short() == ["b", "d"]
    assert open_clips(tmp_path / "d", 3).too_short() == []
    assert DrawnClips(open_clips(tmp_path / "d", 4), 2, seed=0).too_short() == ["b"]
    (tmp_path / "d" / "train-000000.index.npz").unlink()
    with pytest.raises(DamageError, match="index is missing"):
        open_clips(tmp_path / "d", 5).too_short()
    assert open_clips(tmp_path / "d", 5, max_substitutions=1).too_short() == ["d"]
