"""Physics of the digits: bounces worked out by hand, and both implementations against each other."""

from __future__ import annotations

from functools import partial
from itertools import chain

import numpy as np
import pytest

from shards.bouncing import bounce
from shards.mmnist_test_set import trace


def by_vectors(start, speed, num_frames, limit, speeds):
    """One point through the vectorised physics, as rows of (row, column, row speed, column speed)."""
    script = iter(speeds)

    def redraw(points_n, _):
        assert points_n.tolist() == [0]
        return np.array(next(script))[:, None]

    trajectory = bounce(
        np.array(start)[:, None], np.array(speed)[:, None], num_frames, limit, redraw if speeds else None
    )
    return np.concatenate([trajectory.corner_T2N, trajectory.velocity_T2N], axis=1)[..., 0].tolist()


def one_by_one(start, speed, num_frames, limit, speeds):
    """The same through the scalar physics of the published test set."""
    script = iter(speeds)
    path = trace(start, speed, num_frames, limit, (lambda: next(script)) if speeds else None)
    return [list(state) for state in path]


both = pytest.mark.parametrize("move", [by_vectors, one_by_one])


@both
def test_a_free_point_moves_in_a_straight_line(move):
    assert move((10, 10), (1, -2), 3, 36, []) == [[10, 10, 1, -2], [11, 8, 1, -2], [12, 6, 1, -2]]


@both
def test_reflection_happens_inside_the_time_step(move):
    # Row 35 at speed 4 meets 36 after a quarter of the step; three quarters are left to go back: 36 - 3 = 33.
    assert move((35, 10), (4, 1), 3, 36, []) == [[35, 10, 4, 1], [33, 11, -4, 1], [29, 12, -4, 1]]


@both
def test_a_corner_turns_both_components(move):
    assert move((34, 34), (4, 4), 2, 36, [])[1] == [34, 34, -4, -4]
    assert move((2, 34), (-4, 4), 2, 36, [])[1] == [2, 34, 4, -4]


@both
def test_two_walls_in_one_step(move):
    # Column wall at 1/4 (row 35), row wall at 1/2 (column 35), half a step left: (36 - 2, 36 - 3) = (34, 33).
    assert move((34, 35), (4, 4), 2, 36, [])[1] == [34, 33, -4, -4]


@both
def test_opposite_walls_in_one_step(move):
    # In a box of side 2: 1 -> 2 (at 1/4) -> 0 (at 3/4) -> 1 (at 1), upwards again.
    assert move((1, 1), (4, 0), 2, 2, [])[1] == [1, 1, 4, 0]


@both
def test_new_speed_is_forced_inwards_and_used_for_the_rest_of_the_step(move):
    # Contact (36, 10) at 1/4; (2, 4) becomes (-2, 4): (36 - 1.5, 10 + 3) = (34.5, 13), then (32.5, 17), (30.5, 21).
    # Rounding is half to even: 34, 32, 30.
    path = move((35, 10), (4, 0), 4, 36, [(2, 4)])
    assert path[1:] == [[34, 13, -2, 4], [32, 17, -2, 4], [30, 21, -2, 4]]


@both
def test_half_pixels_round_to_even(move):
    # Contact (36, 10) at 1/2; (-1, 1) for half a step: (35.5, 10.5), shown at (36, 10); (34.5, 11.5), at (34, 12).
    assert move((34, 10), (4, 0), 3, 36, [(-1, 1)])[1:] == [[36, 10, -1, 1], [34, 12, -1, 1]]


@both
def test_forcing_depends_on_the_wall(move):
    assert move((1, 20), (-4, 0), 2, 36, [(-4, -4)])[1] == [3, 17, 4, -4]
    assert move((20, 1), (0, -4), 2, 36, [(-4, -4)])[1] == [17, 3, -4, 4]
    assert move((2, 2), (-4, -4), 2, 36, [(-2, 0)])[1] == [1, 0, 2, 0]


@both
def test_a_zero_normal_component_slides_along_the_wall_and_two_zeros_stay(move):
    assert move((35, 10), (4, 0), 3, 36, [(0, 4)])[1:] == [[36, 13, 0, 4], [36, 17, 0, 4]]
    assert move((35, 10), (4, 0), 9, 36, [(0, 0)])[1:] == [[36, 10, 0, 0]] * 8


@both
def test_several_draws_in_one_step(move):
    # Contact (36, 35) at 1/4. (4, 4) -> (-4, 4) meets the column wall after another quarter at (35, 36). Half is left.
    # (2, 2) -> (2, -2): (36, 35). Exactly on the wall is inside.
    assert move((35, 34), (4, 4), 2, 36, [(4, 4), (2, 2)])[1] == [36, 35, 2, -2]


@both
def test_arriving_at_the_wall_is_not_yet_a_bounce(move):
    assert move((32, 5), (4, 0), 3, 36, []) == [[32, 5, 4, 0], [36, 5, 4, 0], [32, 5, -4, 0]]


@both
def test_the_tolerance_is_1e_8_pixels(move):
    assert move((32 + 0.5e-8, 5), (4, 1), 2, 36, [])[1] == [36, 6, 4, 1]
    assert move((32 + 2e-8, 5), (4, 1), 2, 36, [])[1] == [36, 6, -4, 1]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("limit", "max_speed", "num_frames"), [(36, 4, 100), (3, 4, 40), (1, 7, 40), (100, 9, 60)])
def test_vectors_equal_one_by_one_given_the_same_draws(limit, max_speed, num_frames, deterministic):
    random = np.random.RandomState(5)
    count = 200
    starts, speeds = random.randint(0, limit + 1, (count, 2)), random.randint(-max_speed, max_speed + 1, (count, 2))
    drawn: list[list[tuple[int, int]]] = [[] for _ in range(count)]

    def record(point):
        drawn[point].append(tuple(random.randint(-max_speed, max_speed + 1, 2).tolist()))
        return drawn[point][-1]

    expected = [
        trace(tuple(start), tuple(speed), num_frames, limit, None if deterministic else partial(record, point))
        for point, (start, speed) in enumerate(zip(starts.tolist(), speeds.tolist(), strict=True))
    ]

    def replayed(points_n, bounces_n):
        pairs = zip(points_n.tolist(), bounces_n.tolist(), strict=True)
        return np.array([drawn[point][number] for point, number in pairs]).T

    moved = bounce(starts.T, speeds.T, num_frames, limit, None if deterministic else replayed)
    found = np.concatenate([moved.corner_T2N, moved.velocity_T2N], axis=1)
    np.testing.assert_array_equal(found, np.array(expected).transpose(1, 2, 0))
    assert deterministic or len(list(chain.from_iterable(drawn))) > count  # there were bounces enough


def test_deterministic_motion_is_a_triangle_wave():
    # Mirror reflection unfolds: position = |((start + speed * t) mod 2 limit) folded at limit|.
    start = np.stack(np.meshgrid(np.arange(37), np.arange(-4, 5), indexing="ij")).reshape(2, -1)
    positions, speeds = np.stack([start[0], start[0][::-1]]), np.stack([start[1], start[1][::-1]])
    moved = bounce(positions, speeds, 100, 36, None)
    unfolded = (positions + np.arange(100)[:, None, None] * speeds) % 72
    np.testing.assert_allclose(moved.position_T2N, np.minimum(unfolded, 72 - unfolded), atol=1e-9)


def test_first_frames_do_not_depend_on_the_number_of_frames():
    starts, speeds = np.full((2, 1), 30), np.full((2, 1), 3)

    def redraw(_, bounces_n):
        return np.stack([bounces_n % 4, -bounces_n % 3])

    long, short = (bounce(starts, speeds, frames, 36, redraw) for frames in (50, 20))
    np.testing.assert_array_equal(long.position_T2N[:20], short.position_T2N)


def test_points_never_leave_the_box():
    random = np.random.RandomState(0)
    starts, speeds = random.randint(0, 37, (2, 500)), random.randint(-4, 5, (2, 500))
    moved = bounce(starts, speeds, 60, 36, lambda points_n, _: random.randint(-4, 5, (2, len(points_n))))
    assert moved.corner_T2N.min() == 0
    assert moved.corner_T2N.max() == 36
