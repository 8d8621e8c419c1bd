"""Pictures are those of the FFmpeg program, of Pillow and of OpenCV, cut where published code cuts them."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from shards.building.picture import Look, resize_as_opencv
from shards.building.plan import BadSource
from shards.building.video import Frames, read_video
from shards.errors import ShardError
from tests.conftest import shared_data

KTH_CLIPS = ("person01_walking_d1", "person04_boxing_d1", "person09_running_d1", "person21_boxing_d1")


def program(*arguments: object) -> bytes:
    """Standard output of the FFmpeg program."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def published_kth(file: Path, size: int, folder: Path) -> np.ndarray:
    """TCHW as the published KTH preparation makes it: PNG files, read again."""
    folder.mkdir()
    program("-i", file, "-r", 25, "-f", "image2", "-s", f"{size}x{size}", folder / "image-%04d.png")
    return np.stack([np.asarray(Image.open(png)) for png in sorted(folder.iterdir())]).transpose(0, 3, 1, 2)


def colourful(height: int, width: int, seed: int = 0) -> np.ndarray:
    """HWC, smooth and sharp parts in all colours."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    picture = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    picture[: height // 3] = rng.integers(0, 256, (height // 3, width, 3))
    return picture


def write_mpeg4(path: Path, pictures: list[np.ndarray]) -> Path:
    """An avi of the codec of KTH's and UCF101's files."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def frame_of(pixels_HWC: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24")


def keys_cubic(source: int, target: int) -> np.ndarray:
    """Dense matrix (target, source) of Keys' interpolation with a = -0.75 and repeated edges, in float64."""
    matrix = np.zeros((target, source))
    for row in range(target):
        centre = (row + 0.5) * source / target - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            d = abs(centre - tap)
            near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
            matrix[row, min(max(tap, 0), source - 1)] += near if d <= 1 else far
    return matrix


@pytest.mark.parametrize("size", [64, 128])
def test_a_coloured_avi_has_the_pixels_of_the_published_ffmpeg_call(tmp_path, size):
    file = write_mpeg4(tmp_path / "made.avi", [colourful(120, 160, seed) for seed in range(6)])
    expected = published_kth(file, size, tmp_path / "png")
    found = read_video(file, Look(size, resize="ffmpeg-bicubic")).frames_TCHW
    assert len(expected) == 6 and (found == expected).all()


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("clip", KTH_CLIPS)
def test_kth_has_the_pixels_of_the_published_ffmpeg_call(tmp_path, clip, size):
    file = shared_data("kth", f"{clip}_uncomp.avi")
    expected = published_kth(file, size, tmp_path / "png")
    found = read_video(file, Look(size, resize="ffmpeg-bicubic"), Frames(exact_length=True)).frames_TCHW
    assert found.shape == expected.shape and (found == expected).all()


def test_human36m_has_the_pixels_of_the_published_crop_and_lanczos(tmp_path):
    file = write_mpeg4(tmp_path / "made.avi", [colourful(1000, 1000, seed) for seed in range(2)])
    raw = np.frombuffer(program("-i", file, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    images = [Image.fromarray(picture) for picture in raw.reshape(-1, 1000, 1000, 3)]
    expected = [np.asarray(i.crop((100, 100, 900, 900)).resize((64, 64), Image.Resampling.LANCZOS)) for i in images]
    found = read_video(file, Look(64, (100, 100, 900, 900), "lanczos")).frames_TCHW
    assert (found == np.stack(expected).transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize(("width", "height"), [(85, 64), (64, 64), (171, 128), (400, 300)])
def test_opencv_bicubic_is_keys_kernel_without_antialiasing(width, height):
    picture = colourful(240, 320)
    tall = np.einsum("hr,rwc->hwc", keys_cubic(240, height), picture)
    expected = np.clip(np.einsum("vw,hwc->hvc", keys_cubic(320, width), tall), 0, 255)
    assert (
        np.abs(resize_as_opencv(picture, width, height) - expected).max() < 1
    )  # rounding, and eight weights of 11 bits


def test_opencv_bicubic_gives_the_numbers_of_opencv():
    pixels = np.arange(6 * 8 * 3).reshape(6, 8, 3) * 37 + (np.arange(8) ** 2)[None, :, None] * 11
    small = resize_as_opencv((pixels % 256).astype(np.uint8), 4, 3)
    from_opencv_5 = [
        [[134, 91, 128], [57, 137, 174], [168, 115, 61], [108, 144, 196]],
        [[168, 76, 114], [133, 104, 155], [137, 188, 149], [79, 116, 150]],
        [[148, 138, 99], [133, 77, 136], [106, 143, 118], [50, 87, 124]],
    ]
    assert np.abs(small.astype(int) - from_opencv_5).max() <= 1


def test_ucf101_cuts_columns_10_to_73_of_85():
    picture = colourful(240, 320)
    found = Look(64, "center", "opencv-bicubic").picture(frame_of(picture))
    assert (found.transpose(1, 2, 0) == resize_as_opencv(picture, 85, 64)[:, 10:74]).all()


def test_a_portrait_is_cut_in_the_middle_of_its_rows():
    picture = colourful(320, 240)
    found = Look(64, "center", "opencv-bicubic").picture(frame_of(picture))
    assert (found.transpose(1, 2, 0) == resize_as_opencv(picture, 64, 85)[10:74]).all()


def test_lanczos_cuts_the_centre_square_before_it_resizes():
    picture = colourful(240, 320)
    expected = Image.fromarray(picture).crop((40, 0, 280, 240)).resize((64, 64), Image.Resampling.LANCZOS)
    assert (Look(64, "center").picture(frame_of(picture)).transpose(1, 2, 0) == np.asarray(expected)).all()


def test_squash_takes_the_whole_frame():
    picture = colourful(240, 320)
    expected = Image.fromarray(picture).resize((64, 64), Image.Resampling.LANCZOS)
    assert (Look(64, "squash").picture(frame_of(picture)).transpose(1, 2, 0) == np.asarray(expected)).all()


@pytest.mark.parametrize("resize", ["lanczos", "ffmpeg-bicubic", "opencv-bicubic"])
def test_pixels_that_are_not_square_do_not_change_what_the_centre_is(resize):
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, 24:72] = 200  # shown twice as wide: 192x96, of which this is the centre square
    found = Look(32, "center", resize).picture(frame_of(stripes), Fraction(2))
    assert (found[:, :, 2:-2] == 200).all()
    assert (Look(32, "center", resize).picture(frame_of(stripes))[:, :, :4] == 0).all()


@pytest.mark.parametrize("resize", ["lanczos", "ffmpeg-bicubic", "opencv-bicubic"])
def test_a_box_is_cut_first(resize):
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[10:50, 20:60] = (10, 200, 90)
    found = Look(16, (20, 10, 60, 50), resize).picture(frame_of(picture))
    assert found.shape == (3, 16, 16) and (found == np.array([10, 200, 90])[:, None, None]).all()


def test_channels_are_rgb_or_the_first_or_the_luma_of_itu_601():
    frame = frame_of(np.broadcast_to(np.array([200, 100, 50], np.uint8), (8, 8, 3)))
    pixels = {
        channels: Look(4, channels=channels).picture(frame)[:, 0, 0].tolist() for channels in ("rgb", "first", "luma")
    }
    assert pixels == {"rgb": [200, 100, 50], "first": [200], "luma": [124]}  # .299 200 + .587 100 + .114 50 = 124.2


def test_a_box_outside_the_frame_is_a_bad_source():
    with pytest.raises(BadSource, match=r"\(0, 0, 90, 60\) in a frame of 80x60 pixels"):
        Look(16, (0, 0, 90, 60)).picture(frame_of(np.zeros((60, 80, 3), np.uint8)))


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"crop": (5, 0, 5, 9)}, {"crop": "middle"}, {"resize": "nearest"}, {"channels": "bgr"}]
)
def test_what_cannot_be_drawn_is_refused(options):
    with pytest.raises(ShardError, match="expected"):
        Look(**{"size": 8} | options)
