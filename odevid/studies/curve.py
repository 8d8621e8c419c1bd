"""Whether consecutive points of a trajectory lie on a smooth curve: its length, how it turns, how straight it is.

In: states over time. Out: three numbers for each trajectory, and the same for its points in a random order, beside
which they mean something: on a smooth curve the way turns less and gets farther.

Axes: T times, D size of a state; `...` trajectories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CurveShape:
    """Of each trajectory, float64 on the CPU.

    Attributes:
        arc: sum of the distances between consecutive points.
        turning: mean angle between consecutive steps, degrees from 0 (straight on) to 180 (back). Steps of no length
            are passed over; NaN where there are not two steps.
        straightness: chord / arc, the distance from the first point to the last one over the length of the way: 1 for
            a straight line. NaN where nothing moves.
    """

    arc: Tensor
    turning: Tensor
    straightness: Tensor


def curve_shape(points_TD: Tensor) -> CurveShape:
    """Length, turning angle and straightness of trajectories `...TD`.

    Raises:
        ValueError: fewer than two points, or values that are not finite.
    """
    points_TD = _checked(points_TD)
    steps_TD = points_TD.diff(dim=-2)
    lengths_T = steps_TD.norm(dim=-1)
    arc = lengths_T.sum(dim=-1)
    chord = (points_TD[..., -1, :] - points_TD[..., 0, :]).norm(dim=-1)
    return CurveShape(arc, _turning(steps_TD, lengths_T), chord / arc.where(arc > 0, torch.nan))


def shuffled_shape(points_TD: Tensor, seed: int, orders: int = 100) -> CurveShape:
    """The same for the points in a random order, the mean over `orders` of them, alike for all trajectories.

    Raises:
        ValueError: as for `curve_shape`.
    """
    points_TD = _checked(points_TD)
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(points_TD.shape[-2], generator=generator) for _ in range(orders)]
    shapes = [curve_shape(points_TD[..., order, :]) for order in drawn]
    return CurveShape(
        _mean([shape.arc for shape in shapes]),
        _mean([shape.turning for shape in shapes]),
        _mean([shape.straightness for shape in shapes]),
    )


def _turning(steps_TD: Tensor, lengths_T: Tensor) -> Tensor:
    """The angle of unit vectors u and v is 2 atan2(|u - v|, |u + v|), which keeps its digits near 0 and 180 degrees."""
    units_TD = steps_TD / lengths_T.where(lengths_T > 0, torch.nan)[..., None]
    before_TD, after_TD = units_TD[..., :-1, :], units_TD[..., 1:, :]
    angle_T = 2 * torch.atan2((before_TD - after_TD).norm(dim=-1), (before_TD + after_TD).norm(dim=-1))
    return angle_T.rad2deg().nanmean(dim=-1)


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).nanmean(dim=0)


def _checked(points_TD: Tensor) -> Tensor:
    """The points as float64 on the CPU."""
    if points_TD.ndim < 2 or points_TD.shape[-2] < 2:
        raise ValueError(f"points have shape {tuple(points_TD.shape)}; expected ...TD with at least 2 times")
    if not points_TD.isfinite().all():
        raise ValueError("points hold NaN or infinite values")
    return points_TD.detach().to("cpu", torch.float64)
