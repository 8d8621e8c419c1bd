"""Pictures of a card, opened again: what is in them, how large they are, how fast they play.

Axis letters: T frames, C channels, H height, W width; X, Y rows and columns of a finished picture.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from shards.card.clips import as_pictures, spread
from shards.card.mosaic import MosaicClip, mosaic, reduced
from shards.card.plots import plot_classes, plot_lengths
from shards.card.sheet import contact_sheet
from shards.manifest import ArraySpec, video_spec
from tests.shards.stored_clips import frames_of, make_dataset, open_reader


def place_of(tile_XYC: np.ndarray, picture_XYC: np.ndarray) -> tuple[int, int] | None:
    """Row and column at which a tile occurs in a picture, pixel for pixel."""
    height, width = tile_XYC.shape[:2]
    starts = np.argwhere((picture_XYC == tile_XYC[0, 0]).all(axis=-1))
    for top, left in starts.tolist():
        if np.array_equal(picture_XYC[top : top + height, left : left + width], tile_XYC):
            return top, left
    return None


def enlarged(frame_CHW: np.ndarray, scale: int) -> np.ndarray:
    return np.kron(frame_CHW.transpose(1, 2, 0), np.ones((scale, scale, 1), np.uint8))


def frames_of_gif(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as gif:
        return [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(gif)]


def durations_of_gif(data: bytes) -> list[int]:
    with Image.open(io.BytesIO(data)) as gif:
        return [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]


def ramp(num_frames: int, side: int = 64, level: int = 0) -> np.ndarray:
    """A clip THWC whose frame t is all of one grey, ``level + 8 t``."""
    greys = (level + 8 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(greys[:, None, None, None], (num_frames, side, side, 3)).copy()


def test_a_contact_sheet_shows_clips_in_rows_and_moments_in_columns(tmp_path):
    make_dataset(tmp_path / "d")
    sheet = np.asarray(contact_sheet(open_reader(tmp_path / "d"), "tiny", clips=3, frames=4))
    found = {}
    for row, clip in enumerate((0, 11, 22)):
        for column, frame in enumerate((0, 4, 7, 11)):
            place = place_of(enlarged(frames_of(clip)[frame], 14), sheet)  # 8 pixels become 112
            assert place is not None
            found[row, column] = place
    tops = [{found[row, column][0] for column in range(4)} for row in range(3)]
    lefts = [{found[row, column][1] for row in range(3)} for column in range(4)]
    assert [len(one) for one in tops + lefts] == [1] * 7
    assert np.diff(sorted(set.union(*tops))).tolist() == [116] * 2
    assert np.diff(sorted(set.union(*lefts))).tolist() == [116] * 3


def test_a_contact_sheet_of_more_clips_and_frames_than_there_are_shows_each_once(tmp_path):
    make_dataset(tmp_path / "d")
    sheet = contact_sheet(open_reader(tmp_path / "d", "test"), "tiny", clips=50, frames=50)
    four_rows = contact_sheet(open_reader(tmp_path / "d", "test"), "tiny", clips=4, frames=12)
    assert np.array_equal(np.asarray(sheet), np.asarray(four_rows))


@pytest.mark.parametrize(
    ("fps", "milliseconds", "count"), [(10.0, 100, 12), (25.0, 40, 12), (60.0, 30, 6), (None, 100, 12)]
)
def test_a_mosaic_plays_at_the_speed_of_the_dataset(fps, milliseconds, count):
    data = mosaic([MosaicClip(ramp(12)), MosaicClip(ramp(12, level=99))], "two", fps)
    assert durations_of_gif(data) == [milliseconds] * count


def test_a_mosaic_is_a_grid_and_a_short_clip_rests_on_its_last_frame():
    clips = [MosaicClip(ramp(length, level=level)) for length, level in ((6, 0), (3, 50), (6, 100), (6, 150))]
    frames = frames_of_gif(mosaic(clips, "four", 10))
    assert len(frames) == 6
    for t, frame_XYC in enumerate(frames):
        height, width = frame_XYC.shape[:2]
        rows, columns = (height - 34 - 12, 34), (width - 24, 12)
        for number, expected in enumerate((8 * t, 50 + 8 * min(t, 2), 100 + 8 * t, 150 + 8 * t)):
            row, column = divmod(number, 2)
            x = rows[1] + (rows[0] * (2 * row + 1)) // 4
            y = columns[1] + (columns[0] * (2 * column + 1)) // 4
            assert abs(frame_XYC[x, y] - expected).max() <= 4


def test_a_mosaic_has_a_line_for_labels_only_if_there_are_any():
    plain = frames_of_gif(mosaic([MosaicClip(ramp(2))], "one", 10))[0]
    named = frames_of_gif(mosaic([MosaicClip(ramp(2), "walking")], "one", 10))[0]
    assert named.shape[0] > plain.shape[0]
    line = named[plain.shape[0] - 12 : -12]
    assert line.min() < 100  # ink
    assert (named[0] == 255).all() and (named[:, 0] == 255).all()  # paper is white, not nearly white


def test_a_mosaic_of_noise_keeps_within_its_size():
    noise = np.random.default_rng(0).integers(0, 256, (16, 40, 64, 64, 3), dtype=np.uint8)
    clips = [MosaicClip(clip) for clip in noise]
    data = mosaic(clips, "noise", 10, max_bytes=1_000_000)
    assert len(data) <= 1_000_000
    assert len(frames_of_gif(data)) >= 2


def test_large_videos_are_reduced_and_small_ones_stay():
    assert reduced(np.zeros((3, 240, 320, 3), np.uint8)).shape == (3, 96, 128, 3)
    assert reduced(ramp(3)) is not None and reduced(ramp(3)).shape == (3, 64, 64, 3)


def test_values_become_pictures_by_the_declared_range():
    spec = ArraySpec("float32", "TCHW", (1, 1, 1, 3), (-1.0, 3.0))
    stored = np.array([[[[-1.0, 1.0, 9.0]]]], dtype=np.float32)
    assert as_pictures(stored, spec)[0, 0, :, 0].tolist() == [0, 128, 255]
    colours = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)
    assert as_pictures(colours, video_spec(1, 3, 2, 2))[0, 0, 1].tolist() == [1, 5, 9]


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(5, 3, [0, 2, 4]), (3, 9, [0, 1, 2]), (9, 1, [0]), (1, 4, [0]), (11, 3, [0, 5, 10])],
)
def test_numbers_are_spread_from_the_first_to_the_last(count, wanted, expected):
    assert spread(count, wanted) == expected


@pytest.mark.parametrize("num_classes", [3, 101])
def test_histograms_are_pictures_with_every_split_in_its_colour(tmp_path: Path, num_classes: int):
    counts = {f"class {number}": number + 1 for number in range(num_classes)}
    plot_classes(tmp_path / "classes.png", {"train": counts, "valid": {}, "test": counts})
    plot_lengths(tmp_path / "lengths.png", {"train": {30: 5, 600: 2}, "valid": {}, "test": {31: 1}})
    for name in ("classes.png", "lengths.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width == 900
            colours = set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))
        assert {(0x1F, 0x5F, 0xBF), (0xE0, 0x8E, 0x0B)} <= colours  # the first two of style.SERIES
        assert (0x1A, 0x91, 0x43) not in colours
