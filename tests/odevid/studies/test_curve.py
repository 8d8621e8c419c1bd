"""Curves: a line, a circle and a corner have the length, the angle and the straightness of the school book."""

import math

import pytest
import torch

from odevid.studies.curve import curve_shape, shuffled_shape


def _line(points: int = 5) -> torch.Tensor:
    """Uneven steps in a direction of length 3, from somewhere."""
    times_T1 = torch.arange(points, dtype=torch.float64)[:, None] ** 2
    return times_T1 * torch.tensor([1.0, 2.0, -2.0]) + 7


def _circle(points: int, radius: float = 2.0) -> torch.Tensor:
    """One time around, in a plane of three dimensions; the last point is one step before the first."""
    angle_T = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    return radius * torch.stack((angle_T.cos(), angle_T.sin(), 0 * angle_T), dim=-1) - 1


def test_a_straight_line_does_not_turn():
    shape = curve_shape(_line())
    assert shape.arc.item() == pytest.approx(3 * 16, rel=1e-12)
    assert shape.turning.item() == pytest.approx(0, abs=1e-9)
    assert shape.straightness.item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("points", [4, 7, 36])
def test_a_circle_of_n_points_turns_by_360_over_n(points):
    shape = curve_shape(_circle(points))
    side = 2 * 2.0 * math.sin(math.pi / points)
    assert shape.turning.item() == pytest.approx(360 / points, rel=1e-10)
    assert shape.arc.item() == pytest.approx((points - 1) * side, rel=1e-12)
    assert shape.straightness.item() == pytest.approx(1 / (points - 1), rel=1e-10)


def test_there_and_back_turns_by_180_degrees_and_gets_nowhere():
    shape = curve_shape(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    assert (shape.arc.item(), shape.turning.item(), shape.straightness.item()) == (10, 180, 0)


def test_numbers_are_those_of_each_trajectory_for_itself():
    both = curve_shape(torch.stack((_line(9), _circle(9)))[None])
    assert both.arc.shape == both.turning.shape == both.straightness.shape == (1, 2)
    for index, points in enumerate((_line(9), _circle(9))):
        alone = curve_shape(points)
        for name in ("arc", "turning", "straightness"):
            torch.testing.assert_close(getattr(both, name)[0, index], getattr(alone, name), rtol=0, atol=1e-12)


def test_steps_of_no_length_have_no_angle():
    still = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [2.0, 1.0]])
    assert curve_shape(still).turning.item() == pytest.approx(90)
    nowhere = curve_shape(torch.ones(4, 2))
    assert nowhere.arc.item() == 0
    assert nowhere.turning.isnan() and nowhere.straightness.isnan()
    assert curve_shape(torch.eye(2)).turning.isnan()


def test_three_points_of_a_line_in_random_order_have_the_mean_of_the_six_orders():
    """Two orders go straight: arc 2, no turn. Four turn back: arc 3, chord 1, 180 degrees."""
    shape = shuffled_shape(torch.tensor([[0.0], [1.0], [2.0]]), seed=1, orders=4000)
    assert shape.turning.item() == pytest.approx(120, abs=5)
    assert shape.arc.item() == pytest.approx(8 / 3, abs=0.03)
    assert shape.straightness.item() == pytest.approx(5 / 9, abs=0.02)


def test_a_random_order_is_a_function_of_the_seed_and_alike_for_all_trajectories():
    first, again, other = (shuffled_shape(_circle(12), seed) for seed in (1, 1, 2))
    assert (first.turning.item(), first.arc.item()) == (again.turning.item(), again.arc.item())
    assert first.turning.item() != other.turning.item()
    among_others = shuffled_shape(torch.stack((_line(12), _circle(12))), 1)
    assert among_others.turning[1].item() == pytest.approx(first.turning.item(), rel=1e-12)
    smooth = curve_shape(_circle(12))
    assert first.turning > 2 * smooth.turning
    assert first.arc > 2 * smooth.arc


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.ones(1, 3), "at least 2 times"),
        (torch.ones(3), "at least 2 times"),
        (torch.full((3, 2), math.nan), "NaN"),
    ],
)
def test_what_is_no_trajectory_is_refused(points, message):
    for measure in (curve_shape, lambda points: shuffled_shape(points, 1)):
        with pytest.raises(ValueError, match=message):
            measure(points)
