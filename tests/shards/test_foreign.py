"""Anyone's tars of videos: read as they are, and a hostile one reaches nothing."""

import io
import logging
import os
import pickle
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import webdataset
from PIL import Image

from shards.errors import DamageError, ShardError
from shards.foreign_index import index_tar
from shards.opening import open_source

NUM_FRAMES = 9


def smooth(clip: int, channels: int = 3) -> np.ndarray:
    """A clip that lossy codecs can hold: flat frames whose brightness tells clip and frame; uint8 TCHW."""
    levels = 40 + 10 * clip + 10 * np.arange(NUM_FRAMES)
    return np.broadcast_to(levels[:, None, None, None], (NUM_FRAMES, channels, 16, 32)).astype(np.uint8)


def video_file(frames_TCHW: np.ndarray, container: str, codec: str, pixels: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames_TCHW.shape[2:], pixels
        for frame_CHW in frames_TCHW:
            picture = np.ascontiguousarray(frame_CHW.transpose(1, 2, 0))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return file.getvalue()


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def picture_file(frame_CHW: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame_CHW.transpose(1, 2, 0)).save(file, kind)
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("extension", "container", "codec", "pixels"),
    [
        ("mp4", "mp4", "libx264", "yuv420p"),
        ("avi", "avi", "mpeg4", "yuv420p"),
        ("mov", "mov", "mpeg4", "yuv420p"),
        ("mkv", "matroska", "ffv1", "yuv444p"),
        ("webm", "webm", "libvpx-vp9", "yuv420p"),
        ("gif", "gif", "gif", "rgb8"),
    ],
)
def test_videos_of_every_container_are_read(tmp_path, extension, container, codec, pixels):
    clips = {f"clip{n}.{extension}": video_file(smooth(n), container, codec, pixels) for n in range(3)}
    write_tar(tmp_path / "train-0.tar", clips)
    source = open_source(tmp_path, "train", 4)
    found = source.read([2, 0]).arrays["video"]
    assert found.shape == (2, 4, 3, 16, 32)
    tolerance = 20 if extension == "gif" else 4  # the gif has 8 levels of red and green, 4 of blue
    assert np.abs(found[0].astype(int) - smooth(2)[:4]).mean() < tolerance
    window = source.fetch(np.arange(1), seed=1)
    clip = int(window.keys[0].removeprefix("clip"))
    errors = [np.abs(window.arrays["video"][0].astype(int) - smooth(clip)[s : s + 4]).mean() for s in range(6)]
    assert min(errors) < tolerance


@pytest.mark.parametrize(
    "members",
    [
        {"a.npy": saved(smooth(1))},
        {"a.npy": saved(np.ascontiguousarray(smooth(1).transpose(0, 2, 3, 1)))},
        {"a.frame10.png": picture_file(smooth(1)[8], "PNG")}
        | {f"a.frame{t + 2}.png": picture_file(smooth(1)[t], "PNG") for t in range(8)},
    ],
    ids=["TCHW", "THWC", "images in the order of their numbers"],
)
def test_arrays_and_image_sequences_are_read_exactly(tmp_path, members):
    write_tar(tmp_path / "x.tar", members | {"a.txt": b"a caption", "b.json": b"{}"})
    source = open_source(tmp_path / "x.tar", "all", 5)
    assert np.array_equal(source.read([0]).arrays["video"][0], smooth(1)[:5])
    window = source.fetch(np.arange(1), seed=1).arrays["video"][0]
    assert any(np.array_equal(window, smooth(1)[start : start + 5]) for start in range(5))


def test_an_archive_of_arrays_is_read_by_the_name_video(tmp_path):
    file = io.BytesIO()
    np.savez(file, other=np.zeros(3), video=smooth(2, channels=1))
    write_tar(tmp_path / "x.tar", {"a.npz": file.getvalue()})
    assert np.array_equal(open_source(tmp_path / "x.tar", "all", 9).read([0]).arrays["video"][0], smooth(2, 1))


def test_samples_are_grouped_as_webdataset_groups_them(tmp_path):
    names = ["d/a.npy", "d/a.txt", "d/b.v1.npy", "e/a.npy", "../up.npy", "c.txt"]
    path = write_tar(tmp_path / "x.tar", {name: saved(smooth(1)) for name in names})
    theirs = [sample["__key__"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    ours = open_source(path, "all", 1).read(range(4)).keys
    assert ours == ["d/a", "d/b", "e/a", "../up"]
    assert theirs == [*ours, "c"]


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_hostile_tar_runs_nothing_and_writes_nothing(tmp_path, caplog):
    trap = tmp_path / "trap"
    evil = pickle.dumps(Hostile(trap))
    object_array = io.BytesIO()
    np.save(object_array, np.array([Hostile(trap)], dtype=object), allow_pickle=True)
    folder = tmp_path / "data"
    folder.mkdir()
    members = {
        "a.pkl": evil,
        "a.pyd": evil,
        "a.npy": saved(smooth(1)),
        "b.pth": evil,
        "../../escaped.npy": saved(smooth(2)),
        "/tmp/absolute.npy": saved(smooth(3)),
        "c.npy": object_array.getvalue(),
    }
    write_tar(folder / "x.tar", members)
    with caplog.at_level(logging.WARNING):
        source = open_source(folder, "all", 5)
    assert source.read([0, 1, 2]).keys == ["a", "../../escaped", "/tmp/absolute"]
    with pytest.raises(DamageError, match=r"x.tar, member c.npy, offset \d+: .*pickled ones are never loaded"):
        source.read([3])
    assert "3 pickled members are never loaded: a.pkl, a.pyd, b.pth" in caplog.text
    assert not trap.exists()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "x.tar", "x.tar.index.json"]


def test_a_tar_of_pickles_only_is_refused_by_name(tmp_path):
    write_tar(tmp_path / "x.tar", {"a.pkl": b"x", "b.pt": b"x"})
    with pytest.raises(ShardError, match=r"no clips in this tar.*pickles are never loaded: a.pkl, b.pt"):
        open_source(tmp_path / "x.tar", "all", 5)


def test_truncated_tars_name_the_last_member_seen(tmp_path):
    path = write_tar(tmp_path / "x.tar", {f"{n}.npy": saved(smooth(n)) for n in range(3)})
    data = path.read_bytes()
    member = 512 + -(-len(saved(smooth(0))) // 512) * 512
    for length in (2 * member, 2 * member + 700):  # at a member's end, where tarfile says nothing, and inside one
        path.write_bytes(data[:length])
        with pytest.raises(DamageError, match=r"x.tar, member [12].npy, offset \d+"):
            open_source(path, "all", 5)


def test_a_damaged_clip_is_an_error_when_read_or_is_replaced_within_the_budget(tmp_path):
    members = {f"c{n}.npy": saved(smooth(n)) for n in range(6)} | {"c6.mp4": b"this is no video"}
    write_tar(tmp_path / "x.tar", members)
    with pytest.raises(DamageError, match=r"x.tar, member c6.mp4, offset \d+: cannot be decoded as video"):
        open_source(tmp_path / "x.tar", "all", 5).read([6])
    fetched = open_source(tmp_path / "x.tar", "all", 5, max_substitutions=1).fetch(np.arange(7), seed=1)
    assert [record.bad_key for record in fetched.substitutions] == ["c6"]


def test_the_index_is_kept_and_follows_the_tar(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.npy": saved(smooth(1))})
    cache = tmp_path / "cache"
    made: list[str] = []
    index_tar(path, cache=cache, on_clip=made.append)
    index_tar(path, cache=cache, on_clip=made.append)
    assert made == ["a"]
    assert not (tmp_path / "x.tar.index.json").exists()
    write_tar(path, {"a.npy": saved(smooth(1)), "b.npy": saved(smooth(2))})
    index_tar(path, cache=cache, on_clip=made.append)
    assert made == ["a", "a", "b"]


def test_bytes_that_change_after_the_scan_are_found(tmp_path):
    path = write_tar(tmp_path / "x.tar", {"a.npy": saved(smooth(1))})
    source = open_source(path, "all", 5)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamageError, match="corrupt"):
        source.read([0])


def test_clips_of_several_sizes_say_so_when_batched(tmp_path):
    write_tar(tmp_path / "x.tar", {"a.npy": saved(smooth(1)), "b.npy": saved(smooth(1)[:, :, :8])})
    source = open_source(tmp_path / "x.tar", "all", 5)
    assert source.arrays["video"].shape == (5, 3, None, 32)
    with pytest.raises(ShardError, match="of one size"):
        source.read([0, 1])


def test_unclear_or_missing_tars_are_errors(tmp_path):
    with pytest.raises(ShardError, match=r"(?s)no tars of split 'train'.*python -m shards build"):
        open_source(write_tar(tmp_path / "x.tar", {"a.npy": saved(smooth(1))}).parent, "train", 5)
    two = write_tar(tmp_path / "y.tar", {name: saved(smooth(1)) for name in ("a.left.npy", "a.right.npy")})
    with pytest.raises(ShardError, match=r"several clips in one sample: a.left.npy, a.right.npy"):
        open_source(two, "all", 5)
    (tmp_path / "z.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(ShardError, match="uncompressed"):
        open_source(tmp_path / "z.tar", "all", 5)
