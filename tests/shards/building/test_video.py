"""Reading videos: which frames come, resampling by time stamps, odd files, and damage that is told."""

from __future__ import annotations

import subprocess
import tracemalloc
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest

from shards.building.picture import Look
from shards.building.plan import BadSource, Notice
from shards.building.video import Frames, Pictures, as_fraction, count_frames, iterate_video, probe, read_video
from shards.errors import ShardError
from tests.conftest import shared_data
from tests.shards.building.colour_videos import numbered, numbers_of, write_video
from tests.shards.building.test_picture import colourful, program, write_mpeg4

LOOK = Look(8, "squash")
NTSC = Fraction(30000, 1001)
# floor(k * 29.97 / 25): the frame shown at k / 25 s; 30 frames last 1.001 s, so there is one at 1.000 s
NTSC_TO_25 = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 25, 26, 27, 28, 29]


def numbers(file: Path, **which) -> list[int]:
    return numbers_of(read_video(file, LOOK, Frames(**which)).frames_TCHW)


def write_timed(path: Path, milliseconds: list[int]) -> Path:
    """Numbered frames, shown at these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "rgb24"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"crf": "0", "preset": "ultrafast"}
        for picture, time in zip(numbered(len(milliseconds)), milliseconds, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def passthrough(file: Path, height: int, width: int) -> np.ndarray:
    """THWC: every frame as the FFmpeg program decodes it."""
    raw = program("-i", file, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def kinds(notices: tuple[Notice, ...]) -> list[str]:
    return [notice.kind for notice in notices]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """100 numbered frames, 30 a second."""
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", numbered(100), 30)


def test_all_frames_come_in_order(clip):
    found = read_video(clip, LOOK)
    assert numbers_of(found.frames_TCHW) == list(range(100))
    assert (found.rate, found.notices) == (30.0, ())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 90}, list(range(90, 100))),
        ({"start": 5, "count": 3, "stride": 8}, [5, 13, 21]),
        ({"stride": 40}, [0, 40, 80]),
        ({"count": 4}, [0, 1, 2, 3]),
        ({"start": 98}, [98, 99]),
        ({"fps": 10, "start": 1, "count": 3, "stride": 2}, [3, 9, 15]),
    ],
)
def test_start_stride_and_number_choose_frames(clip, options, expected):
    assert numbers(clip, **options) == expected


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
@pytest.mark.parametrize(
    ("rate", "count", "fps", "expected"),
    [
        (30, 30, 10, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]),
        (25, 25, 10, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]),
        (25, 10, 25, list(range(10))),
        (30, 31, 10, [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30]),
    ],
)
def test_resampling_takes_the_frame_that_is_shown(tmp_path, suffix, rate, count, fps, expected):
    file = write_video(tmp_path / f"clip.{suffix}", numbered(count), rate)
    found = read_video(file, LOOK, Frames(fps=fps))
    assert numbers_of(found.frames_TCHW) == expected and found.notices == ()


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_resampling_29_97_to_25(tmp_path, suffix):
    file = write_video(tmp_path / f"clip.{suffix}", numbered(30), NTSC)
    assert numbers(file, fps=25) == NTSC_TO_25


def test_a_rate_far_below_one_still_gives_pictures(tmp_path):
    file = write_video(tmp_path / "slow.mp4", numbered(12), Fraction(1, 50))  # ten minutes
    assert numbers(file, fps=0.005) == [0, 4, 8]
    assert numbers(file, fps=0.001) == [0]


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), Fraction(2997, 100), Fraction(24000, 1001), Fraction(3, 2000)])
def test_rates_that_people_type_are_exact(fps):
    assert as_fraction(float(fps)) == fps


def test_a_higher_rate_repeats_frames_and_says_so(tmp_path):
    file = write_video(tmp_path / "clip.mp4", numbered(5), 10)
    found = read_video(file, LOOK, Frames(fps=20))
    assert numbers_of(found.frames_TCHW) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [notice.kind for notice in found.notices] == ["upsampled"] and "5 pictures" in found.notices[0].detail


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_is_resampled_by_time_and_told(tmp_path, suffix):
    file = write_timed(tmp_path / f"phone.{suffix}", [0, 40, 80, 200, 240, 400, 440])
    resampled = read_video(file, LOOK, Frames(fps=10))
    assert numbers_of(resampled.frames_TCHW)[:5] == [0, 2, 3, 4, 5]  # at 0, .1, .2, .3, .4 s
    assert kinds(resampled.notices) == ["variable frame rate"] and "0.040 to 0.160 s" in resampled.notices[0].detail
    as_stored = read_video(file, LOOK)
    assert numbers_of(as_stored.frames_TCHW) == [0, 1, 2, 3, 4, 5, 6]
    assert kinds(as_stored.notices) == ["variable frame rate"]


def test_time_counts_from_the_first_frame(tmp_path):
    file = write_timed(tmp_path / "late.mkv", [5000 + 40 * number for number in range(10)])
    assert numbers(file, fps=12.5) == [0, 2, 4, 6, 8]


def test_a_gap_of_hours_does_not_become_a_million_frames(tmp_path):
    file = write_timed(tmp_path / "broken.mkv", [0, 40, 80, 90_000_000, 90_000_040])
    with pytest.raises(BadSource, match=r"time stamps: .*frame 3"):
        read_video(file, LOOK, Frames(fps=25))
    assert numbers(file) == [0, 1, 2, 3, 4]  # frame by frame no time is needed


def test_a_codec_that_is_not_known_is_unreadable(tmp_path):
    file = write_mpeg4(tmp_path / "clip.avi", [colourful(48, 64)])
    file.write_bytes(file.read_bytes().replace(b"FMP4", b"Q?Q?"))
    with pytest.raises(BadSource, match=r"unreadable: .*no decoder for its codec"):
        read_video(file, LOOK)


def test_pictures_do_not_depend_on_the_file_that_was_read_before(tmp_path):
    """One file says its colours are BT.709, the other says nothing."""
    plain = write_mpeg4(tmp_path / "plain.avi", [colourful(48, 64)])
    encode = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    program("-i", plain, *encode, "-vf", "setparams=colorspace=bt709", tmp_path / "bt709.mp4")
    program("-i", plain, *encode, tmp_path / "untold.mp4")
    look = Look(24, resize="ffmpeg-bicubic")
    first = {name: read_video(tmp_path / name, look).frames_TCHW for name in ("bt709.mp4", "untold.mp4")}
    for name, expected in (("untold.mp4", first["untold.mp4"]), ("bt709.mp4", first["bt709.mp4"])):
        scaled = ("-s", "24x24", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
        of_program = np.frombuffer(program("-i", tmp_path / name, *scaled), np.uint8).reshape(1, 24, 24, 3)
        assert (read_video(tmp_path / name, look).frames_TCHW == expected).all()
        assert (expected == of_program.transpose(0, 3, 1, 2)).all()
    assert (first["bt709.mp4"] != first["untold.mp4"]).any()


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_of_phones_is_honoured_as_the_ffmpeg_program_does(tmp_path, degrees):
    plain = write_mpeg4(tmp_path / "plain.avi", [colourful(48, 64)])
    turned = tmp_path / "turned.mp4"
    program("-display_rotation", degrees, "-i", plain, "-c", "copy", turned)
    height, width = (48, 64) if degrees == 180 else (64, 48)
    box = Look(40, (0, 0, 40, 40), "lanczos")  # as large as the picture: nothing is resized
    expected = passthrough(turned, height, width)[:, :40, :40].transpose(0, 3, 1, 2)
    assert (read_video(turned, box).frames_TCHW == expected).all()
    scaled = program("-i", turned, "-s", "32x32", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    expected = np.frombuffer(scaled, np.uint8).reshape(1, 32, 32, 3).transpose(0, 3, 1, 2)
    assert (read_video(turned, Look(32, resize="ffmpeg-bicubic")).frames_TCHW == expected).all()


def test_a_clip_cut_without_encoding_anew_is_not_truncated(tmp_path):
    """Its container announces frames that its edit list hides."""
    whole = tmp_path / "whole.mp4"
    program("-f", "lavfi", "-i", "testsrc2=s=64x48:r=30:d=3", "-c:v", "libx264", "-pix_fmt", "yuv420p", whole)
    program("-ss", "1.3", "-i", whole, "-c", "copy", tmp_path / "cut.mp4")
    assert probe(tmp_path / "cut.mp4").frames == 90
    assert (
        len(read_video(tmp_path / "cut.mp4", LOOK).frames_TCHW) == len(passthrough(tmp_path / "cut.mp4", 48, 64)) == 51
    )


def test_lengths_and_headers(clip, tmp_path):
    assert count_frames(clip) == 100
    found = probe(clip)
    assert (found.frames, found.rate, found.width, found.height) == (100, 30.0, 32, 24)
    assert found.duration == pytest.approx(100 / 30, abs=1e-3)
    matroska = write_video(tmp_path / "clip.mkv", numbered(50), 25)  # announces a duration only
    assert probe(matroska).frames == count_frames(matroska) == 50


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [(suffix, "end cut off") for suffix in ("avi", "mp4", "mkv")] + [(s, "middle cut out") for s in ("avi", "mp4")],
)
def test_a_truncated_file_is_told(tmp_path, suffix, damage):
    file = tmp_path / f"clip.{suffix}"
    write_mpeg4(tmp_path / "all.avi", [colourful(48, 64, seed) for seed in range(50)])
    program("-i", tmp_path / "all.avi", "-c", "copy", "-movflags", "+faststart", file)
    data, size = file.read_bytes(), file.stat().st_size
    assert count_frames(file) == 50
    file.write_bytes(data[: size * 6 // 10] if damage == "end cut off" else data[: size // 2] + data[size * 6 // 10 :])
    for read in (lambda: read_video(file, LOOK), lambda: count_frames(file)):
        with pytest.raises(BadSource) as error:
            read()
        assert error.value.kind in ("truncated", "damaged") and str(file) in error.value.detail


def test_a_hole_in_matroska_is_told(tmp_path):
    """It announces no number of frames, and what comes after the hole is found again."""
    file = tmp_path / "clip.mkv"
    write_mpeg4(tmp_path / "all.avi", [colourful(48, 64, seed) for seed in range(50)])
    program("-i", tmp_path / "all.avi", "-c", "copy", file)
    data, size = file.read_bytes(), file.stat().st_size
    file.write_bytes(data[: size // 2] + data[size * 6 // 10 :])
    found = read_video(file, LOOK)
    assert 40 <= len(found.frames_TCHW) < 50 and kinds(found.notices) == ["damaged frames", "variable frame rate"]
    assert len(read_video(file, LOOK, Frames(fps=25)).frames_TCHW) == 50  # the frame before the hole stays


def test_one_frame_less_than_announced_is_forgiven_unless_the_length_must_be_exact(tmp_path):
    file = write_video(tmp_path / "clip.avi", numbered(20))
    data = file.read_bytes()
    last = data.rindex(b"00dc", 0, data.rindex(b"idx1"))
    file.write_bytes(data[:last])
    assert numbers(file) == list(range(19)) and count_frames(file) == 19
    for read in (
        lambda: read_video(file, LOOK, Frames(exact_length=True)),
        lambda: count_frames(file, exact_length=True),
    ):
        with pytest.raises(BadSource, match=r"truncated: .*19 of 20 announced frames"):
            read()


def test_noise_in_the_middle_is_told_as_damage(tmp_path):
    file = tmp_path / "clip.mp4"
    source = "testsrc2=s=64x48:r=30:d=4"
    program("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-movflags", "+faststart", file)
    data, size = file.read_bytes(), file.stat().st_size
    file.write_bytes(data[: size // 2] + bytes(size // 5) + data[size // 2 + size // 5 :])
    with pytest.raises(BadSource, match=r"damaged|truncated"):
        read_video(file, LOOK)


def spoilt(folder: Path, num_frames: int) -> Path:
    """Ten seconds of H.264 with 8 zeros in so many frames; the FFmpeg program decodes all frames, with errors."""
    whole, file = folder / "whole.mp4", folder / "spoilt.mp4"
    same_bytes = ("-x264-params", "no-mbtree=1", "-threads", 1)
    encode = ("-c:v", "libx264", "-pix_fmt", "yuv420p", *same_bytes)
    program("-f", "lavfi", "-i", "testsrc2=s=160x120:r=30:d=10", *encode, whole)
    data = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = sorted(container.demux(video=0), key=lambda packet: -packet.size)
    for packet in packets[5 : 5 + num_frames]:
        place = packet.pos + packet.size // 4
        data[place : place + 8] = bytes(8)
    assert num_frames * 8 < 0.002 * len(data)
    file.write_bytes(data)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(file), "-f", "null", "-"]
    assert subprocess.run(command, check=True, capture_output=True).stderr
    assert len(passthrough(file, 120, 160)) == 300
    return file


def test_frames_that_are_decoded_with_errors_are_damage(tmp_path):
    file = spoilt(tmp_path, 40)
    for read in (lambda: read_video(file, LOOK), lambda: count_frames(file)):
        with pytest.raises(BadSource, match=r"damaged: .* of 300 frames were decoded with errors"):
            read()
    assert len(read_video(file, LOOK, Frames(count=3)).frames_TCHW) == 3
    with pytest.raises(BadSource, match="damaged"):
        read_video(file, LOOK, Frames(start=200, count=10))


def test_a_frame_that_is_decoded_with_errors_is_told_unless_the_length_must_be_exact(tmp_path):
    file = spoilt(tmp_path, 1)
    (notice,) = read_video(file, LOOK).notices
    assert notice == Notice("damaged frames", "1 of 300 frames were decoded with errors")
    assert count_frames(file) == 300
    with pytest.raises(BadSource, match=r"damaged: .*1 of 300 frames"):
        count_frames(file, exact_length=True)
    with pytest.raises(BadSource, match=r"damaged: .*1 of 300 frames"):
        read_video(file, LOOK, Frames(exact_length=True))


@pytest.mark.parametrize(
    "content", [b"", b"RIFF" + bytes(5000), b"not a video\n" * 200, np.random.default_rng(0).bytes(9999)]
)
@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_what_is_no_video_is_unreadable(tmp_path, suffix, content, capfd):
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(content)
    for read in (probe, count_frames, lambda file: read_video(file, LOOK)):
        with pytest.raises(BadSource) as error:
            read(file)
        assert error.value.kind == "unreadable" and str(file) in error.value.detail
    assert capfd.readouterr() == ("", "")


def test_many_pictures_are_held_in_little_more_than_their_own_memory():
    pictures = Pictures(Look(64))
    count, picture_CHW = 4000, np.zeros((3, 64, 64), np.uint8)
    tracemalloc.start()
    try:
        for number in range(count):
            picture_CHW[:] = number % 251
            pictures.append(picture_CHW)
        taken_TCHW = pictures.taken()
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken_TCHW[:, 2, 63, 63].tolist() == [number % 251 for number in range(count)] and len(pictures) == 0
    assert taken_TCHW.nbytes <= current < 1.01 * taken_TCHW.nbytes
    assert peak < 1.15 * taken_TCHW.nbytes
    pictures.append(picture_CHW)
    assert len(pictures.taken()) == 1 and len(taken_TCHW) == count


def test_sound_alone_a_folder_and_nothing_are_unreadable(tmp_path):
    program("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.mp4")
    (tmp_path / "folder.mp4").mkdir()
    for name, why in (("sound.mp4", "no video stream"), ("folder.mp4", "directory"), ("nothing.mp4", "No such file")):
        with pytest.raises(BadSource, match=f"unreadable.*{why}"):
            read_video(tmp_path / name, LOOK)


def test_names_that_look_like_protocols_or_patterns_are_names(tmp_path, clip):
    for name in ("concat:a.mp4", "take%03d.mp4", "-i.mp4", "два кадра.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert count_frames(tmp_path / name) == 100


def test_too_few_frames_are_told(clip):
    with pytest.raises(BadSource, match=r"too short: .* gives 10 pictures, needed 11 from number 90 on"):
        read_video(clip, LOOK, Frames(start=90, count=11))
    with pytest.raises(BadSource, match=r"too short: .* no frame number 100"):
        read_video(clip, LOOK, Frames(start=100))


@pytest.mark.parametrize(
    "wrong", [{"fps": fps} for fps in (0, -1.0, 0.0009, float("inf"), float("nan"))] + [{"start": -1}, {"stride": 0}]
)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ShardError, match=r"found|expected"):
        Frames(**wrong)
    with pytest.raises(ShardError, match="found"):
        Frames(count=0)


def test_pictures_come_one_by_one_before_the_end_of_the_file_is_seen(tmp_path):
    file = write_video(tmp_path / "clip.avi", numbered(60))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    pieces = iterate_video(file, LOOK)
    assert [piece[0, 0, 0] for piece in islice(pieces, 20) if isinstance(piece, np.ndarray)] == list(range(20))
    with pytest.raises(BadSource, match="truncated"):
        list(pieces)


@pytest.mark.parametrize(("name", "count", "rate"), [("ApplyEyeMakeup", 164, 25.0), ("BaseballPitch", 107, 29.97)])
def test_ucf101_files_with_odd_time_stamps_give_every_frame(name, count, rate):
    file = shared_data("ucf101", f"v_{name}_g01_c01.avi")
    everything = Look(240, (0, 0, 240, 240), "lanczos")
    found = read_video(file, everything, Frames(exact_length=True))
    assert (found.frames_TCHW.transpose(0, 2, 3, 1) == passthrough(file, 240, 320)[:, :, :240]).all()
    assert len(found.frames_TCHW) == count and found.rate == pytest.approx(rate, abs=1e-3) and found.notices == ()
    at_25 = read_video(file, LOOK, Frames(fps=25))
    assert len(at_25.frames_TCHW) == (164 if rate == 25 else 90) and at_25.notices == ()  # 107 / 29.97 * 25 = 89.3
