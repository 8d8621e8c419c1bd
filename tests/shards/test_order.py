"""The order of training: a bijection in every epoch, another one in each, nothing remembered."""

import math
import time

import numpy as np
import pytest

from shards.order import Order


@pytest.mark.parametrize("num_samples", [1, 2, 3, 5, 7, 16, 17, 1000, 43_264])
def test_every_epoch_visits_each_clip_exactly_once(num_samples):
    order = Order(7, "contents", num_samples)
    for epoch in range(3):
        positions = np.arange(epoch * num_samples, (epoch + 1) * num_samples)
        assert np.array_equal(np.sort(order.index(positions)), np.arange(num_samples))


def test_epochs_seeds_and_contents_have_orders_of_their_own():
    positions = np.arange(2000)
    first = Order(7, "a", 1000).index(positions)
    others = [first[1000:], Order(8, "a", 1000).index(positions)[:1000], Order(7, "b", 1000).index(positions)[:1000]]
    for other in others:
        assert np.mean(first[:1000] == other) < 0.01  # independent permutations agree in one place on average


def test_a_position_has_one_answer_however_it_is_asked_for():
    order = Order(3, "contents", 977)
    together = order.index(np.arange(5000))
    assert [int(order.index(np.array(p))) for p in (0, 976, 977, 4321)] == together[[0, 976, 977, 4321]].tolist()
    assert np.array_equal(order.index(np.arange(5000).reshape(50, 100)), together.reshape(50, 100))


def test_all_orders_of_four_clips_are_equally_likely():
    num_epochs, num_orders = 24_000, math.factorial(4)
    orders = Order(1, "contents", 4).index(np.arange(num_epochs * 4)).reshape(num_epochs, 4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    expected = num_epochs / num_orders
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert len(counts) == num_orders
    assert chi_square < 49.7  # 99.9 % quantile of chi-square with 23 degrees of freedom


def test_each_clip_comes_up_everywhere_and_neighbours_are_strangers():
    num_samples, num_epochs = 100, 4000
    orders = Order(1, "contents", num_samples).index(np.arange(num_samples * num_epochs)).reshape(num_epochs, -1)
    counts = np.stack([np.bincount(orders[:, place], minlength=num_samples) for place in range(num_samples)])
    chi_square = float(((counts - 40) ** 2 / 40).sum())
    freedom = 99 * 99
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)
    steps = np.diff(orders, axis=1) == 1
    assert abs(steps.mean() - 0.01) < 0.001  # n and then n + 1 happens once in N


def test_a_far_position_costs_no_more_than_a_near_one():
    order = Order(1, "contents", 10**9)
    started = time.perf_counter()
    found = order.index(np.array([0, 10**9 * 10**8]))
    assert time.perf_counter() - started < 0.5
    assert ((found >= 0) & (found < 10**9)).all()


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="1 to"):
        Order(1, "contents", 0)
    with pytest.raises(ValueError, match="found -1"):
        Order(1, "contents", 5).index(np.array([-1]))
