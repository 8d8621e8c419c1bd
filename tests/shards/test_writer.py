"""The writer: plain WebDataset tars, the same bytes every time, all or nothing."""

import io
import json
import resource
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset

from shards.errors import ShardError
from shards.index import Index
from shards.manifest import Manifest, video_spec
from shards.writer import Sample, write_dataset
from tests.shards.stored_clips import ARRAYS, NUM_FRAMES, frames_of, make_dataset, samples


def test_plain_webdataset_reads_the_samples(tmp_path):
    make_dataset(tmp_path / "d")
    files = [str(path) for path in sorted((tmp_path / "d").glob("train-*.tar"))]
    found = list(webdataset.WebDataset(files, shardshuffle=False))
    assert [sample["__key__"] for sample in found] == [f"clip{clip:03d}" for clip in range(23)]
    for clip, sample in enumerate(found):
        about = json.loads(sample["json"])
        frames = np.frombuffer(sample["video.raw"], about["video"]["dtype"]).reshape(about["video"]["shape"])
        assert np.array_equal(frames, frames_of(clip))
        assert about["meta"] == {"class": clip % 3}


@pytest.mark.parametrize("encoding", ["raw", "zstd", "mp4"])
def test_the_same_samples_give_the_same_bytes(tmp_path, encoding):
    for name in ("a", "b"):
        make_dataset(tmp_path / name, encoding=encoding)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 2 * (5 + 1) + 1
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_fingerprint_follows_the_contents_not_the_packing(tmp_path):
    first = make_dataset(tmp_path / "a")
    packed = make_dataset(tmp_path / "b", encoding="zstd", samples_per_shard=7)
    lossless_video = make_dataset(tmp_path / "c", encoding="mp4:0")
    lossy = make_dataset(tmp_path / "d", encoding="mp4:20")
    assert first.fingerprint == packed.fingerprint == lossless_video.fingerprint
    assert lossy.fingerprint != first.fingerprint
    assert first.split_fingerprint("train") != first.split_fingerprint("test")


def test_index_has_the_place_and_the_crc_of_every_frame(tmp_path):
    make_dataset(tmp_path / "d")
    index = Index.from_bytes((tmp_path / "d" / "train-000001.index.npz").read_bytes(), file="index")
    data = (tmp_path / "d" / "train-000001.tar").read_bytes()
    video = index.arrays["video"]
    for row, clip in enumerate(range(5, 10)):
        offset, size = int(video.offset[row]), int(video.size[row])
        assert data[offset : offset + size] == frames_of(clip).tobytes()
        assert video.crcs(row) == [zlib.crc32(frame.tobytes()) for frame in frames_of(clip)]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {member.offset_data for member in tar if ".video." in member.name} == set(video.offset.tolist())
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in tar.getmembers()} == {(0, 0, 0, 0o644, "")}


def test_index_is_read_without_pickle(tmp_path):
    hostile = tmp_path / "bad.npz"
    np.savez(hostile, header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ShardError, match="not a readable index"):
        Index.from_bytes(hostile.read_bytes(), file=hostile)


def test_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    code = f"""
import resource
from pathlib import Path
from tests.shards.stored_clips import make_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))
make_dataset(Path({str(tmp_path / "d")!r}))
"""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert "ShardError" in done.stderr
    assert "no room to write the dataset" in done.stderr
    assert "Free space" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield from samples(7)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d", "x", {"train": failing()}, ARRAYS, samples_per_shard=2)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed(tmp_path):
    (tmp_path / ".d.building").mkdir()
    (tmp_path / ".d.building" / "train-000099.tar").write_bytes(b"half")
    (tmp_path / ".d.lock").touch()
    make_dataset(tmp_path / "d")
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert not (tmp_path / "d" / "train-000099.tar").exists()


def test_two_builds_of_one_folder_do_not_meet(tmp_path):
    def while_another_tries():
        with pytest.raises(ShardError, match="another process is building"):
            make_dataset(tmp_path / "d")
        yield from samples(2)

    write_dataset(tmp_path / "d", "x", {"train": while_another_tries()}, ARRAYS)
    assert Manifest.load(tmp_path / "d").splits["train"].samples == 2


def test_an_existing_dataset_is_not_overwritten(tmp_path):
    make_dataset(tmp_path / "d")
    with pytest.raises(ShardError, match="already exists"):
        make_dataset(tmp_path / "d")


def sample_with(**changes) -> Sample:
    sample = next(samples(1))
    return Sample(changes.pop("key", sample.key), dict(sample.arrays) | changes)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (sample_with(video=frames_of(0)[:, :, :4]), "video.*expected uint8"),
        (sample_with(video=frames_of(0).astype(np.float32)), "float32.*expected uint8"),
        (sample_with(times=np.full(NUM_FRAMES, -1.0, np.float32)), "values from -1 to -1"),
        (sample_with(times=np.full(NUM_FRAMES, np.nan, np.float32)), "values from nan"),
        (sample_with(extra=np.zeros(3, np.uint8)), "undeclared"),
        (sample_with(key="a.b"), "no dots"),
        (sample_with(key="../a"), "no dots"),
        (sample_with(key=""), "no dots"),
    ],
)
def test_samples_that_are_not_as_declared_are_errors(tmp_path, sample, expected):
    with pytest.raises(ShardError, match=expected):
        write_dataset(tmp_path / "d", "x", {"train": [sample]}, ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_keys_twice_no_samples_and_bad_names_are_errors(tmp_path):
    with pytest.raises(ShardError, match="occurs twice"):
        write_dataset(tmp_path / "d", "x", {"train": [sample_with(), sample_with()]}, ARRAYS)
    with pytest.raises(ShardError, match="no samples"):
        write_dataset(tmp_path / "d", "x", {"train": []}, ARRAYS)
    with pytest.raises(ShardError, match="letters, digits"):
        write_dataset(tmp_path / "d", "x", {"../train": samples(1)}, ARRAYS)
    with pytest.raises(ShardError, match="at least 1"):
        write_dataset(tmp_path / "d", "x", {"train": samples(1)}, ARRAYS, samples_per_shard=0)


def test_arrays_with_time_are_equally_long(tmp_path):
    specs = ARRAYS | {"video": video_spec(None, 3, 8, 8)}
    with pytest.raises(ShardError, match="frames"):
        write_dataset(tmp_path / "d", "x", {"train": [sample_with(video=frames_of(0)[:4])]}, specs)
