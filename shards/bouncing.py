"""Motion of points in a square box, many points at once: the corrected Moving MNIST of SRVP.

In: start positions and velocities, and where new velocities come from after a bounce.
Out: position and velocity of every point at every frame.

    start --frame 0--> + velocity --resolve_bounces--> frame 1 --> + velocity ...

A point moves in a straight line until it meets a wall. There, in the stochastic game, both components of its velocity
are drawn anew; then the component across the wall is made to point inwards. With what is left of the time between two
frames it goes on from the wall, and may bounce again before the frame is over. Nothing depends on the frame rate.

Source: Franceschi et al., "Stochastic Latent Residual Video Prediction" (ICML 2020), appendix C, and its published
generator, whose order of arithmetic is kept so that positions agree to the last bit.

Axes: T frames, N points, 2 (row, column). Lengths in pixels, velocities in pixels per frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-8  # pixels; a point this far outside is still inside

Redraw = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]
"""(points n, how often each has bounced before n) -> new velocities 2n."""


@dataclass(frozen=True)
class Trajectory:
    """Where the points are and how fast they go.

    Attributes:
        position_T2N: float64, exact; frames show it rounded (half to even).
        velocity_T2N: int64, with which the point leaves the frame.
    """

    position_T2N: NDArray[np.float64]
    velocity_T2N: NDArray[np.int64]

    @property
    def corner_T2N(self) -> NDArray[np.int64]:
        """The pixel at which the point is drawn."""
        return np.rint(self.position_T2N).astype(np.int64)


def bounce(
    start_2N: NDArray[np.int64], velocity_2N: NDArray[np.int64], num_frames: int, limit: int, redraw: Redraw | None
) -> Trajectory:
    """Move points for ``num_frames`` frames in the box ``[0, limit]`` squared.

    Args:
        start_2N: positions at frame 0, inside the box.
        velocity_2N: velocities at frame 0.
        num_frames: frames in all, the first shows the start.
        limit: length of the box's side.
        redraw: gives the velocities after a bounce; None is the deterministic game, a mirror reflection.

    Returns:
        The trajectory. Its first frames do not depend on ``num_frames``.
    """
    shape = (num_frames, *start_2N.shape)
    trajectory = Trajectory(np.empty(shape, dtype=np.float64), np.empty(shape, dtype=np.int64))
    position, velocity = start_2N.astype(np.float64), velocity_2N.astype(np.int64)
    bounces = np.zeros(start_2N.shape[1], dtype=np.int64)
    for frame in range(num_frames):
        if frame > 0:
            position += velocity
            _resolve_bounces(position, velocity, bounces, limit, redraw)
        trajectory.position_T2N[frame] = position
        trajectory.velocity_T2N[frame] = velocity
    return trajectory


def _resolve_bounces(
    position_2N: NDArray[np.float64],
    velocity_2N: NDArray[np.int64],
    bounces_N: NDArray[np.int64],
    limit: int,
    redraw: Redraw | None,
) -> None:
    """Bring points that have left the box back into it, in place, one bounce after the other."""
    contact_2N = position_2N - velocity_2N
    outside = np.flatnonzero(_is_outside(position_2N, limit))
    while outside.size:
        position, velocity = position_2N[:, outside], velocity_2N[:, outside]
        contact, wall_hit = _first_contact(position, velocity, contact_2N[:, outside], limit)
        unspent = _unspent_time(position, velocity, contact)
        if redraw is not None:
            velocity = redraw(outside, bounces_N[outside])
        velocity = np.where(wall_hit == 0, velocity, wall_hit * np.abs(velocity))
        position = contact + velocity * unspent
        position_2N[:, outside], velocity_2N[:, outside], contact_2N[:, outside] = position, velocity, contact
        bounces_N[outside] += 1
        outside = outside[_is_outside(position, limit)]


def _is_outside(position_2n: NDArray[np.float64], limit: int) -> NDArray[np.bool_]:
    """Which points are beyond a wall by more than the tolerance."""
    outside_2n = (position_2n < -TOLERANCE) | (position_2n > limit + TOLERANCE)
    return outside_2n[0] | outside_2n[1]


def _first_contact(
    position_2n: NDArray[np.float64], velocity_2n: NDArray[np.int64], previous_2n: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Where paths that end outside the box first cross a wall.

    Returns:
        The contact points, and the inward direction (-1, 1) for each wall hit: both rows are nonzero in a corner, 0
        stands for no wall of that axis. A path that meets neither wall within the tolerance, which only a start
        outside by rounding makes possible, keeps its previous contact point.
    """
    below, above = position_2n < -TOLERANCE, position_2n > limit + TOLERANCE
    wall = np.where(above, limit, 0)
    (row, column), (row_speed, column_speed) = position_2n, velocity_2n
    slope = np.divide(column_speed, row_speed, out=np.zeros_like(row), where=row_speed != 0)
    intercept = column - slope * row
    column_at_wall = slope * wall[0] + intercept
    row_at_wall = np.divide(wall[1] - intercept, slope, out=row.copy(), where=slope != 0)
    crossing = np.stack([column_at_wall, row_at_wall])
    hit = (below | above) & (crossing >= -TOLERANCE) & (crossing <= limit + TOLERANCE)
    contact = np.where(hit[0], np.stack([wall[0].astype(np.float64), column_at_wall]), previous_2n)
    contact = np.where(hit[1], np.stack([row_at_wall, wall[1].astype(np.float64)]), contact)
    return contact, np.where(hit, np.where(below, 1, -1), 0)


def _unspent_time(
    position_2n: NDArray[np.float64], velocity_2n: NDArray[np.int64], contact_2n: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of the time between two frames that is left after the contact."""
    moves = velocity_2n != 0
    unspent_2n = np.divide(position_2n - contact_2n, velocity_2n, out=np.zeros_like(position_2n), where=moves)
    return np.where(moves[0], unspent_2n[0], unspent_2n[1])
