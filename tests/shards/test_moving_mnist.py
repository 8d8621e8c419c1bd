"""The endless generator: the published distribution, and clips that depend on (seed, position) alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from shards.digits import DigitBank, sklearn_banks
from shards.errors import ShardError
from shards.moving_mnist import NOMINAL_LENGTH, MotionRules, MovingMnistClips, draw_digits, draw_motion

MANY = 20_000


@pytest.fixture(scope="module")
def banks() -> dict[str, DigitBank]:
    return sklearn_banks()


@pytest.fixture(scope="module")
def stochastic():
    """Motion of 40,000 digits over 101 frames: corner and speed, T2N."""
    motion = draw_motion(11, np.arange(MANY), 101, MotionRules())
    return motion.corner_T2N, motion.velocity_T2N


def within(share: float, expected: float, samples: int, *, known_from: float = np.inf) -> bool:
    """Whether a share lies within four standard deviations of one that was itself counted in a sample."""
    variance = expected * (1 - expected) * (1 / samples + 1 / known_from)
    return abs(share - expected) < 4 * variance**0.5


def test_starts_and_speeds_are_uniform(stochastic):
    corner, speed = (array[0] for array in stochastic)
    for pairs, low, choices in ((corner, 0, 37), (speed, -4, 9)):
        cells = (pairs[0] - low) * choices + pairs[1] - low
        counts = np.bincount(cells, minlength=choices**2)
        assert counts.size == choices**2
        expected = 2 * MANY / counts.size
        chi_square, freedom = ((counts - expected) ** 2 / expected).sum(), counts.size - 1
        assert abs(chi_square - freedom) < 4 * (2 * freedom) ** 0.5


def test_share_of_frozen_digits_is_that_of_the_published_generator(stochastic):
    frozen_T = (stochastic[1] == 0).all(axis=1).mean(axis=1)
    assert within(frozen_T[0], 1 / 81, 2 * MANY)
    # Counted in 40,000 trajectories of the published generator.
    for frame, share in {5: 0.0200, 15: 0.0340, 25: 0.0476, 50: 0.0800, 100: 0.1404}.items():
        assert within(frozen_T[frame], share, 2 * MANY, known_from=40_000)
    assert (np.diff(frozen_T) >= 0).all()  # frozen for ever


def test_speeds_and_walls_are_those_of_the_published_generator(stochastic):
    corner, speed = stochastic
    speed_T = np.hypot(speed[:, 0], speed[:, 1]).mean(axis=1)
    grid = np.arange(-4, 5)
    assert speed_T[0] == pytest.approx(np.hypot(grid[:, None], grid).mean(), abs=0.03)
    at_wall_T = np.isin(corner[:, 0], (0, 36)).mean(axis=1)
    assert within(at_wall_T[0], 2 / 37, 2 * MANY)
    changed_T = (np.diff(speed, axis=0) != 0).any(axis=1).mean(axis=1)
    # Mean speed, share at a row wall, share of changed speeds, in 40,000 trajectories of the published generator.
    published = {5: (3.154, 0.0671, 0.1201), 15: (2.859, 0.0992, 0.1004), 100: (2.430, 0.1716, 0.0848)}
    for frame, (mean_speed, at_wall, changed) in published.items():
        assert speed_T[frame] == pytest.approx(mean_speed, abs=0.05)
        assert within(at_wall_T[frame], at_wall, 2 * MANY, known_from=40_000)
        assert within(changed_T[frame - 1], changed, 2 * MANY, known_from=40_000)


def test_digits_of_a_clip_move_independently():
    corner = draw_motion(11, np.arange(MANY), 10, MotionRules()).corner_T2N[:, 0].reshape(10, MANY, 2)
    for frame in (0, 9):
        assert abs(np.corrcoef(corner[frame].T)[0, 1]) < 4 / MANY**0.5


def test_deterministic_digits_keep_their_speed():
    speed = draw_motion(3, np.arange(2000), 40, MotionRules(deterministic=True)).velocity_T2N
    assert (np.abs(speed) == np.abs(speed[0])).all()


def test_first_speeds_and_starts_are_shared_by_both_games():
    games = [draw_motion(3, np.arange(50), 2, MotionRules(deterministic=game)) for game in (False, True)]
    np.testing.assert_array_equal(games[0].velocity_T2N[0], games[1].velocity_T2N[0])


def test_every_digit_of_the_bank_is_equally_likely():
    counts = np.bincount(draw_digits(2, np.arange(MANY), 2, 100).ravel(), minlength=100)
    assert ((counts - 400) ** 2 / 400).sum() < 148.2  # chi-square, 99 degrees of freedom, 99.9 % point


def test_clips_are_as_declared(banks):
    clips = MovingMnistClips(banks["train"], 15)
    fetched = clips.fetch(np.arange(3, 8), seed=1)
    video = fetched.arrays["video"]
    assert clips.arrays["video"].admits(str(video.dtype), video.shape[1:])
    assert video.shape == (5, 15, 1, 64, 64)
    assert video.flags["C_CONTIGUOUS"]
    assert len(set(fetched.keys)) == 5
    assert fetched.substitutions == []
    assert len(clips) == NOMINAL_LENGTH == 500_000


def test_a_clip_is_its_digits_at_their_places(banks):
    bank, rules = banks["valid"], MotionRules(digits=3)
    video = MovingMnistClips(bank, 30, rules).fetch(np.array([4, 77]), seed=9).arrays["video"]
    digits = draw_digits(9, np.array([4, 77]), 3, len(bank))
    corner = draw_motion(9, np.array([4, 77]), 30, rules).corner_T2N.reshape(30, 2, 2, 3)
    expected = np.zeros((2, 30, 64, 64))
    for clip, frame, digit in np.ndindex(2, 30, 3):
        row, column = corner[frame, :, clip, digit]
        expected[clip, frame, row : row + 28, column : column + 28] += bank.images_NHW[digits[clip, digit]]
    np.testing.assert_array_equal(video[:, :, 0], np.minimum(expected, 255))


def test_a_clip_depends_on_seed_and_position_alone(banks):
    clips = MovingMnistClips(banks["train"], 15)
    positions = np.array([7, 0, 3_000_000_000, 12, 191])
    together = clips.fetch(positions, seed=5).arrays["video"]
    alone = [clips.fetch(positions[i : i + 1], seed=5).arrays["video"][0] for i in reversed(range(5))]
    np.testing.assert_array_equal(together, np.stack(alone[::-1]))
    assert len({clip.tobytes() for clip in together}) == 5
    assert all((clips.fetch(positions, seed=6).arrays["video"] != together).any(axis=(1, 2, 3, 4)))


def test_more_frames_continue_the_same_clip(banks):
    short, long = (
        MovingMnistClips(banks["train"], frames).fetch(np.arange(20), 0).arrays["video"] for frames in (8, 40)
    )
    np.testing.assert_array_equal(short, long[:, :8])


def test_reading_is_fixed_and_apart_from_training(banks):
    clips = MovingMnistClips(banks["valid"], 10)
    first = clips.read([0, 1, 2])
    again = clips.read([2, 0])
    np.testing.assert_array_equal(first.arrays["video"][[2, 0]], again.arrays["video"])
    assert (clips.fetch(np.arange(3), seed=0).arrays["video"] != first.arrays["video"]).any()


def test_a_pickled_source_gives_the_same_clips(banks):
    clips = MovingMnistClips(banks["test"], 5, MotionRules(digits=1, deterministic=True))
    copy = pickle.loads(pickle.dumps(clips))
    assert copy.fingerprint == clips.fingerprint
    np.testing.assert_array_equal(copy.read([3]).arrays["video"], clips.read([3]).arrays["video"])


def test_fingerprint_tells_banks_and_rules_apart(banks):
    variants = [MotionRules(), MotionRules(digits=1), MotionRules(deterministic=True), MotionRules(max_speed=3)]
    prints = {MovingMnistClips(bank, 5, rules).fingerprint for bank in banks.values() for rules in variants}
    assert len(prints) == 12
    assert MovingMnistClips(banks["test"], 9).fingerprint in prints


@pytest.mark.parametrize("rules", [{"digits": 0}, {"frame_size": 20}, {"max_speed": -1}])
def test_impossible_rules_are_errors_that_name_the_number(rules):
    ((name, value),) = rules.items()
    with pytest.raises(ShardError, match=f"{name}={value}"):
        MotionRules(**rules)


def test_a_clip_without_frames_is_an_error(banks):
    with pytest.raises(ValueError, match="num_frames=0"):
        MovingMnistClips(banks["test"], 0)
