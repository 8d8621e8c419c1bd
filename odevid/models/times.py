"""Which times a prediction is asked for, as numbers, or on a grid of solver steps.

In: what a user of `predict` types. Out: `requested_times` for any model; `Ticks`, positions on the grids of the context
and of the roll-out, for one of fixed steps; or a ValueError that says what would do. One unit of time is one frame;
frame i of the context is at time i.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

TOLERANCE = 1e-6  # of a solver step, for times such as 1/3 that floats cannot hold


@dataclass(frozen=True)
class Ticks:
    """Requested times on two grids.

    Attributes:
        substeps: solver steps per frame of the roll-out.
        future: frames to roll out after the last one of the context.
        wanted: per requested time, (True, step of the context from time 0) or (False, step of the roll-out from the
            last frame of the context).
    """

    substeps: int
    future: int
    wanted: list[tuple[bool, int]]


def requested_times(
    times: int | Sequence[float] | None, n_future: int | None, last: float, *, earliest: float | None = 0.0
) -> list[float]:
    """The times to predict: those in a list, or as many as a whole number says, one frame apart after `last`.

    Args:
        last: time of the last frame of the context.
        earliest: of the times that can be predicted; None: any, also before the first frame of the context.

    Raises:
        ValueError: no time, or two conflicting requests; a time that is too early or not finite.
    """
    if (times is None) == (n_future is None):
        raise ValueError(f"give either times or n_future; got times={times!r}, n_future={n_future!r}")
    asked: Any = n_future if times is None else times
    if isinstance(asked, Integral):
        if asked < 1:
            raise ValueError(f"asked for {asked} future frames; ask for at least 1")
        return [float(last + 1 + index) for index in range(asked)]
    if isinstance(asked, Real):
        raise ValueError(f"times is the single number {asked}; give a whole number of frames, or a list of times")
    requested = [float(time) for time in asked]
    if not requested:
        raise ValueError("times is empty; give at least one time, in frames")
    for time in requested:
        if not math.isfinite(time) or (earliest is not None and time < earliest):
            first = "any finite number" if earliest is None else f"from {earliest:g} (first context frame) on"
            raise ValueError(f"time {time} cannot be predicted; times are in frames, {first}")
    return requested


def parse_times(
    times: int | Sequence[float] | None,
    n_future: int | None,
    *,
    num_context: int,
    context_substeps: int,
    substeps: int,
) -> Ticks:
    """Place the requested times on the grid of the context (`context_substeps` per frame) or of the roll-out.

    Raises:
        ValueError: no time, or two conflicting requests; a time that is negative, not finite or off its grid.
    """
    last = num_context - 1
    requested = requested_times(times, n_future, last)
    wanted = []
    for time in requested:
        inside = time <= last
        steps = context_substeps if inside else substeps
        wanted.append((inside, _on_grid(time, 0 if inside else last, steps, "context" if inside else "roll-out")))
    ahead = [tick for inside, tick in wanted if not inside]
    return Ticks(substeps, math.ceil(max(ahead, default=0) / substeps), wanted)


def future_frames(times: Sequence[float], num_context: int) -> int:
    """Whole frames after the context that reach the last of `times`: the `n_future` that `LatentModel.infer` needs."""
    return max(0, math.ceil(max(times) - (num_context - 1) - TOLERANCE))


def check_context_times(context_times: Sequence[float] | None, num_context: int) -> None:
    """Refuse context frames that are not at times 0, 1, ..., num_context - 1."""
    if context_times is None:
        return
    given = [float(time) for time in context_times]
    if given != list(range(num_context)):
        raise ValueError(
            f"context_times is {given} for {num_context} context frames; SRVP needs one frame per unit of time: "
            f"leave it out or give 0, 1, ..., {num_context - 1}"
        )


def _on_grid(time: float, origin: int, substeps: int, where: str) -> int:
    exact = (time - origin) * substeps
    tick = round(exact)
    if abs(exact - tick) > TOLERANCE:
        raise ValueError(
            f"time {time} lies between the {where}'s solver steps of 1/{substeps} frame; ask for a multiple of "
            f"1/{substeps}" + ("" if where == "context" else ", or pass another substeps")
        )
    return tick
