"""The published test set of Moving MNIST: same videos as SRVP's own script, draw for draw.

In: the bank of test digits. Out: one :class:`PublishedVideo` after the other.

All randomness comes from one legacy numpy generator, ``RandomState(42)``. Order of its draws: a permutation of the
digits; then video by video, digit by digit: start row, start column, row speed, column speed, and two speeds for every
bounce until the last frame. Each digit of the bank is used once, so that MNIST's 10,000 give 5000 videos of two digits.

Published: two digits of MNIST; 25 frames in the stochastic game, 100 in the deterministic one. The same construction
with one digit, or from a smaller bank, is ours: it has no published counterpart.

The motion is computed one digit at a time, as the order of draws demands. It doubles as reference for the vectorised
``shards.bouncing``; source and rules of the motion are given there.

Axes: T frames, D digits per video, H rows, W columns, 4 = (row, column, row speed, column speed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.bouncing import TOLERANCE
from shards.digits import DIGIT_SIZE, DigitBank
from shards.sprites import draw_sprites

PUBLISHED_SEED = 42
PUBLISHED_FRAMES_STOCHASTIC = 25
PUBLISHED_FRAMES_DETERMINISTIC = 100

Pair = tuple[float, float]
Speed = tuple[int, int]


@dataclass(frozen=True)
class PublishedMotion:
    """What is drawn at random for one video.

    Attributes:
        digits_D: places of its digits in the bank.
        latents_TD4: int64, rounded position and speed of each digit, as in the published ``latents``.
    """

    digits_D: NDArray[np.int64]
    latents_TD4: NDArray[np.int64]


@dataclass(frozen=True)
class PublishedVideo:
    """One test video.

    Attributes:
        video_THW: uint8, as in the published ``sequences``.
        latents_TD4: int64, see :class:`PublishedMotion`.
        labels_D: uint8, which numeral each digit is.
    """

    video_THW: NDArray[np.uint8]
    latents_TD4: NDArray[np.int64]
    labels_D: NDArray[np.uint8]


def published_videos(
    bank: DigitBank, num_frames: int, digits: int = 2, *, deterministic: bool, frame_size: int = 64, max_speed: int = 4
) -> Iterator[PublishedVideo]:
    """The test videos in their order, ``len(bank) // digits`` of them."""
    motions = published_motions(len(bank), num_frames, digits, frame_size - DIGIT_SIZE, max_speed, deterministic)
    for motion in motions:
        images_DHW = bank.images_NHW[motion.digits_D]
        video_THW = draw_sprites(images_DHW[None], motion.latents_TD4[None, :, :, :2], frame_size)[0]
        yield PublishedVideo(video_THW, motion.latents_TD4, bank.labels_N[motion.digits_D])


def published_motions(
    num_digits: int, num_frames: int, digits: int, limit: int, max_speed: int, deterministic: bool
) -> Iterator[PublishedMotion]:
    """The motions of the test videos; the digits' pictures play no part.

    Args:
        num_digits: size of the bank.
        num_frames: frames per video.
        digits: digits per video.
        limit: largest coordinate of a digit's corner: frame size less digit size.
        max_speed: speeds are drawn from ``-max_speed .. max_speed``.
        deterministic: reflect at the walls instead of drawing new speeds.
    """
    random = np.random.RandomState(PUBLISHED_SEED)
    order = random.permutation(num_digits)

    def draw_speed() -> Speed:
        return random.randint(-max_speed, max_speed + 1), random.randint(-max_speed, max_speed + 1)

    for first in range(0, num_digits - digits + 1, digits):
        paths = []
        for _ in range(digits):
            start = random.randint(0, limit + 1), random.randint(0, limit + 1)
            paths.append(trace(start, draw_speed(), num_frames, limit, None if deterministic else draw_speed))
        yield PublishedMotion(order[first : first + digits], np.array(paths, dtype=np.int64).swapaxes(0, 1))


def trace(
    start: Pair, speed: Speed, num_frames: int, limit: int, redraw: Callable[[], Speed] | None
) -> list[tuple[int, int, int, int]]:
    """Path of one digit: (row, column, row speed, column speed) per frame, positions rounded half to even."""
    path, position = [], start
    for frame in range(num_frames):
        if frame > 0:
            moved = position[0] + speed[0], position[1] + speed[1]
            position, speed = _bounce(position, moved, speed, limit, redraw)
        path.append((round(position[0]), round(position[1]), *speed))
    return path


def _bounce(
    contact: Pair, position: Pair, speed: Speed, limit: int, redraw: Callable[[], Speed] | None
) -> tuple[Pair, Speed]:
    """Follow a straight path from ``contact`` to ``position`` off as many walls as it meets."""
    sides = _side(position[0], limit), _side(position[1], limit)
    while sides != (0, 0):
        contact, walls = _first_contact(contact, position, speed, sides, limit)
        axis = 0 if speed[0] != 0 else 1
        unspent = (position[axis] - contact[axis]) / speed[axis]
        if redraw is not None:
            speed = redraw()
        speed = _inwards(speed[0], walls[0]), _inwards(speed[1], walls[1])
        position = contact[0] + speed[0] * unspent, contact[1] + speed[1] * unspent
        sides = _side(position[0], limit), _side(position[1], limit)
    return position, speed


def _side(coordinate: float, limit: int) -> int:
    """-1 before the first wall, 1 beyond the second, 0 between them."""
    return int(coordinate > limit + TOLERANCE) - int(coordinate < -TOLERANCE)


def _inwards(speed: int, wall: int) -> int:
    """The speed away from the wall hit (-1, 1), unchanged for none (0)."""
    return speed if wall == 0 else -wall * abs(speed)


def _first_contact(previous: Pair, position: Pair, speed: Speed, sides: Speed, limit: int) -> tuple[Pair, Speed]:
    """Where the path crosses a wall within the box, and the side of each axis's wall hit (both in a corner)."""
    row_wall, column_wall = (limit if side > 0 else 0 for side in sides)
    if speed[0] == 0:
        return (position[0], column_wall), sides
    if speed[1] == 0:
        return (row_wall, position[1]), sides
    slope = speed[1] / speed[0]
    intercept = position[1] - slope * position[0]
    column, row = slope * row_wall + intercept, (column_wall - intercept) / slope
    hits_row = sides[0] != 0 and _side(column, limit) == 0
    hits_column = sides[1] != 0 and _side(row, limit) == 0
    contact = (row, column_wall) if hits_column else (row_wall, column) if hits_row else previous
    return contact, (sides[0] * hits_row, sides[1] * hits_column)
