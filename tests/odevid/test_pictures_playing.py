"""The header of a film and its bar of time; frames in their borders. Places and colours are counted in pixels here."""

from __future__ import annotations

import numpy as np
from PIL import Image

from odevid.pictures import style
from odevid.pictures.playing import Moment, put_frame, with_header


def bar(number: int) -> list[tuple[int, int, int]]:
    """Colours of the bar's columns, ten pictures of which four are given, ten columns each."""
    paper = Image.new("RGB", (120, 40), style.PAPER)
    picture = np.array(with_header(paper, (10, 110), ("", ""), Moment(number, 4, 10)))
    assert np.array(paper).min() == 255, "the paper stays as it was"
    return [tuple(int(value) for value in picture[30, column]) for column in range(15, 115, 10)]


def test_the_bar_is_green_as_far_as_was_given_and_then_red():
    assert bar(0) == [style.GIVEN] + 9 * [style.FAINT]
    assert bar(3) == 4 * [style.GIVEN] + 6 * [style.FAINT]
    assert bar(6) == 4 * [style.GIVEN] + 3 * [style.PREDICTED] + 3 * [style.FAINT]
    assert bar(9) == 4 * [style.GIVEN] + 6 * [style.PREDICTED]


def test_a_frame_has_a_border_of_its_colour_all_around_and_nothing_else_is_touched():
    picture = np.zeros((12, 14, 3), np.uint8)
    put_frame(picture, (1, 2), np.full((3, 5, 3), 7, np.uint8), style.TRUTH, border=2)
    assert (picture[3:6, 4:9] == 7).all()
    is_border = (picture == style.TRUTH).all(-1)
    assert is_border.sum() == 7 * 9 - 3 * 5
    assert is_border[1:8, 2:11].sum() == is_border.sum()
    assert (picture == 0).all(-1).sum() == 12 * 14 - 7 * 9
