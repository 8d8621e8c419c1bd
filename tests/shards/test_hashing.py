"""The counter hash: known values, no state, uniform."""

from __future__ import annotations

import numpy as np
import pytest

from shards.hashing import finalise, mix, uniform_int

WEYL = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def splitmix64_word(x: int) -> int:
    """SplitMix64's output function in Python's unbounded integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def test_finaliser_gives_the_published_splitmix64_sequence():
    # The first five outputs for state 1234567, the customary check of SplitMix64 implementations.
    states = np.array([(1234567 + k * WEYL) & MASK for k in range(1, 6)], dtype=np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert finalise(states).tolist() == expected


def test_mix_is_the_chained_finaliser():
    state = splitmix64_word((42 + WEYL) & MASK)
    for counter in (7, -3 & MASK):
        state = splitmix64_word(((state ^ counter) + WEYL) & MASK)
    assert int(mix(42, 7, -3)) == state


def test_arrays_broadcast_and_equal_the_scalars_one_by_one():
    rows, columns = np.arange(5)[:, None], np.arange(3, dtype=np.uint8)[None]
    table = mix(9, rows, 2, columns)
    assert table.shape == (5, 3)
    assert table.dtype == np.uint64
    assert all(table[i, j] == mix(9, i, 2, j) for i in range(5) for j in range(3))


def test_order_number_and_seed_of_counters_all_matter():
    values = [mix(0, 1), mix(0, 1, 0), mix(0, 0, 1), mix(1, 1), mix(0), mix(1), mix(-1), mix(0, -1)]
    assert len({int(value) for value in values}) == len(values)


def test_no_two_positions_share_their_bits():
    assert np.unique(mix(3, np.arange(200_000))).size == 200_000


def test_uniform_int_covers_its_range_evenly():
    counts = np.bincount(uniform_int(mix(5, np.arange(90_000)), 9), minlength=9)
    # chi-square with 8 degrees of freedom: 26.1 is the 99.9 % point
    assert counts.size == 9
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 26.1


def test_successive_draws_are_independent():
    positions = np.arange(81_000)
    pairs = uniform_int(mix(5, positions, 0), 9) * 9 + uniform_int(mix(5, positions, 1), 9)
    counts = np.bincount(pairs, minlength=81)
    # chi-square with 80 degrees of freedom: 124.8 is the 99.9 % point
    assert ((counts - 1000) ** 2 / 1000).sum() < 124.8


def test_uniform_int_is_exact_at_the_ends():
    extremes = np.array([0, MASK], dtype=np.uint64)
    assert uniform_int(extremes, 1).tolist() == [0, 0]
    assert uniform_int(extremes, 37).tolist() == [0, 36]
    assert uniform_int(extremes, 1 << 32).tolist() == [0, (1 << 32) - 1]
    assert uniform_int(extremes, np.array([3, 5])).tolist() == [0, 4]


@pytest.mark.parametrize("n", [0, -1, (1 << 32) + 1])
def test_a_wrong_number_of_choices_is_an_error(n):
    with pytest.raises(ValueError, match=r"1 \.\. 2\*\*32"):
        uniform_int(mix(0, np.arange(2)), n)


def test_a_fractional_counter_is_an_error():
    with pytest.raises(TypeError, match="float64"):
        mix(0, 1.5)
