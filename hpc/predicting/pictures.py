"""A prediction for the eye: the truth and the samples side by side (animation), and over time (strip).

In: `Prediction`. Out: 8-bit pictures for `odevid.pictures.gif` and a strip. The truth comes first; where the video has
ended its place says so. Frames between the video's own ones (a higher frame rate) have a paler border.

Legend: T pictures, t frames, C channels, H rows, W columns, 3 = RGB; X, Y rows and columns of a finished picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hpc.predicting.sampling import Prediction
from odevid.pictures import style
from odevid.pictures.playing import BORDER, LETTERS, Moment, put_frame, with_header
from odevid.pictures.strip import save_strip
from odevid.pictures.style import Colour

MOST_SHOWN = 11
"""Samples in pictures; the npz has all."""

_COLUMNS = 6
_GAP, _MARGIN, _HEADER, _NAME = 8, 10, 38, 20
_CELL = 128  # pixels of a frame's side at least
_BETWEEN: Colour = (245, 178, 178)  # border of a predicted frame between two of the video's own


@dataclass(frozen=True)
class _Sheet:
    """Where things are, in pixels; a cell is a frame with its border."""

    cells: int
    height: int
    width: int

    @property
    def columns(self) -> int:
        return min(self.cells, _COLUMNS)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture."""
        rows = -(-self.cells // _COLUMNS)
        return (
            max(260, 2 * _MARGIN + self.columns * (self.width + _GAP) - _GAP),
            _HEADER + rows * (_NAME + self.height + _GAP) + _MARGIN - _GAP,
        )

    def corner(self, cell: int) -> tuple[int, int]:
        """Row and column of the first pixel of a cell."""
        row, column = divmod(cell, _COLUMNS)
        return _HEADER + row * (_NAME + self.height + _GAP) + _NAME, _MARGIN + column * (self.width + _GAP)


def side_by_side(prediction: Prediction) -> np.ndarray:
    """Pictures of an animation, `per_frame` for each frame's time: the truth, then the samples.

    Returns:
        uint8 (T, X, Y, 3), T = (given - 1) * per_frame + 1 + predicted times.
    """
    opening, per_frame = prediction.opening, prediction.wish.per_frame
    scale = max(1, _CELL // opening.given_TCHW.shape[-1])
    video_tHW3 = _rgb(np.concatenate((opening.given_TCHW, opening.truth_TCHW)), scale)
    shown = prediction.samples_NTCHW[:MOST_SHOWN]
    samples = [_rgb(sample_TCHW, scale) for sample_TCHW in shown]
    height, width = video_tHW3.shape[1:3]
    sheet = _Sheet(1 + len(shown), height + 2 * BORDER, width + 2 * BORDER)
    paper = _paper(sheet, [_truth_name(prediction), *sample_names(len(shown))])
    ended = _ended(height, width)
    num_given, ticks_given = len(opening.given_TCHW), (len(opening.given_TCHW) - 1) * per_frame + 1
    total, sides = ticks_given + len(prediction.times_T), (_MARGIN, paper.width - _MARGIN)
    pictures = []
    for tick in range(total):
        frame, between = divmod(tick, per_frame)
        moment = Moment(tick, ticks_given, total)
        is_given = moment.is_given
        picture = np.array(with_header(paper, sides, _words(tick, is_given, prediction), moment))
        there = frame < len(video_tHW3)
        colour = style.GIVEN if frame < num_given else style.TRUTH if there else style.FAINT
        put_frame(picture, sheet.corner(0), video_tHW3[frame] if there else ended, colour)
        for cell, sample_tHW3 in enumerate(samples, start=1):
            pixels = video_tHW3[frame] if is_given else sample_tHW3[tick - ticks_given]
            colour = style.GIVEN if is_given else _BETWEEN if between else style.PREDICTED
            put_frame(picture, sheet.corner(cell), pixels, colour)
        pictures.append(picture)
    return np.stack(pictures)


def save_prediction_strip(path: Path, prediction: Prediction) -> None:
    """Strip of the video's own frames (those between are left out): truth on top, a row for each sample, as PNG."""
    opening, per_frame = prediction.opening, prediction.wish.per_frame
    whole = prediction.samples_NTCHW[:MOST_SHOWN, per_frame - 1 :: per_frame]
    given_tHW3, truth_tHW3 = _rgb(opening.given_TCHW, 1), _rgb(opening.truth_TCHW, 1)
    height, width = given_tHW3.shape[1:3]
    missing = np.repeat(_ended(height, width)[None], whole.shape[1] - len(truth_tHW3), axis=0)
    truth = np.concatenate((truth_tHW3, missing))
    names = sample_names(len(whole))
    rows = {name: _as_video(_rgb(sample_TCHW, 1)) for name, sample_TCHW in zip(names, whole, strict=True)}
    save_strip(path, _as_video(given_tHW3), _as_video(truth), rows)


def sample_names(count: int) -> list[str]:
    """What the rows or cells of the samples are called."""
    return [f"sample {number + 1}" for number in range(count)]


def _truth_name(prediction: Prediction) -> str:
    return "truth" if len(prediction.opening.truth_TCHW) else "given video"


def _rgb(frames_tCHW: np.ndarray, scale: int) -> np.ndarray:
    """uint8 (t, H * scale, W * scale, 3)."""
    return style.to_rgb(frames_tCHW[None], scale)[0].copy()


def _as_video(frames_tHW3: np.ndarray) -> np.ndarray:
    """One video, BTCHW."""
    return np.moveaxis(frames_tHW3, -1, 1)[None]


def _ended(height: int, width: int) -> np.ndarray:
    """What stands where there is no true frame: HW3."""
    image = Image.new("RGB", (width, height), style.PAPER)
    draw = ImageDraw.Draw(image)
    letters = max(9, min(LETTERS, width // 6))
    for line, word in enumerate(("video", "ended")):
        style.write(draw, (width / 2, height / 2 + (line - 0.5) * 1.3 * letters), word, letters, style.TRUTH, "mm")
    return np.array(image)


def _paper(sheet: _Sheet, names: list[str]) -> Image.Image:
    """What stays the same: paper and the names of the cells."""
    image = Image.new("RGB", sheet.size, style.PAPER)
    draw = ImageDraw.Draw(image)
    for cell, name in enumerate(names):
        top, left = sheet.corner(cell)
        style.write(draw, (left, top - _NAME / 2), name, LETTERS, style.INK, "lm")
    return image


def _words(tick: int, is_given: bool, prediction: Prediction) -> tuple[str, str]:
    """What the header says: given or predicted, and the number of the frame."""
    per_frame = prediction.wish.per_frame
    frame, between = divmod(tick, per_frame)
    word = "given" if is_given else "predicted, between frames" if between else "predicted"
    number = f"{frame + 1}" + (f" + {between}/{per_frame}" if between else "")
    last = len(prediction.opening.given_TCHW) + prediction.wish.n_future
    return word, f"frame {number} of {last}"
