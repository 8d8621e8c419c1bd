"""Fixed steps: the states of an ODE on a grid of steps from its start, forwards and backwards, and between the nodes.

In: a field f(t, y), the state at the start, times as python floats. Out: the states there. The nodes are start + n h,
whatever is asked for; a time between two nodes is reached by one shorter step from the node before it. So what is found
at a time does not depend on which other times are asked for, and has the order of the method everywhere.

No tensor holds a time, nothing waits for the device, no branch depends on data: the loop is one graph for
torch.compile. Backward, autograd keeps every stage, or recomputes each step from its first state (`checkpoint`).

Axes: B states, T times, D size of a state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from odevid.ode.tableaus import Tableau

Field = Callable[[float, Tensor], Tensor]
NODE_TOLERANCE = 1e-6  # of a step, for times such as 1/3 that floats cannot hold


@dataclass(frozen=True)
class Place:
    """Where a time lies: after `node` whole steps away from the start, and `rest` of a step (0 <= rest < 1) more."""

    backwards: bool
    node: int
    rest: float


def place_of(time: float, start: float, step: float) -> Place:
    """The place of `time` on the grid of `step` from `start`."""
    exact = abs(time - start) / step
    node = round(exact)
    if abs(exact - node) <= NODE_TOLERANCE:
        return Place(time < start and node > 0, node, 0.0)
    return Place(time < start, int(exact), exact - int(exact))


def runge_kutta_step(field: Field, tableau: Tableau, time: float, state_BD: Tensor, step: float) -> Tensor:
    """The state BD after one step of `tableau`."""
    slopes: list[Tensor] = []
    for row, node in zip(tableau.a, tableau.c, strict=True):
        stage_BD = state_BD
        for weight, slope_BD in zip(row, slopes, strict=True):
            if weight:
                stage_BD = torch.add(stage_BD, slope_BD, alpha=weight * step)
        slopes.append(field(time + node * step, stage_BD))
    for weight, slope_BD in zip(tableau.b, slopes, strict=True):
        if weight:
            state_BD = torch.add(state_BD, slope_BD, alpha=weight * step)
    return state_BD


def walk(
    field: Field, state_BD: Tensor, last: int, tableau: Tableau, start: float, step: float, recompute: bool = False
) -> tuple[Tensor, ...]:
    """The states at the nodes 0 to `last`; `step` is negative where time runs backwards."""
    states = [state_BD]
    for node in range(last):
        states.append(_advance(field, tableau, start + node * step, states[-1], step, recompute))
    return tuple(states)


def solve_fixed(
    field: Field,
    initial_BD: Tensor,
    places: Sequence[Place],
    tableau: Tableau,
    *,
    start: float,
    step: float,
    recompute: bool = False,
    whole_steps: Callable[..., tuple[Tensor, ...]] = walk,
) -> Tensor:
    """States BTD at `places`, in their order.

    Args:
        step: of the grid, positive; places say which way.
        recompute: keep only the first state of each step for the backward pass, and recompute its stages there.
        whole_steps: `walk`, or what does the same.
    """
    found: dict[Place, Tensor] = {}
    for backwards in (False, True):
        mine = [place for place in dict.fromkeys(places) if place.backwards == backwards]
        if not mine:
            continue
        length = -step if backwards else step
        last = max(place.node for place in mine)
        states = whole_steps(field, initial_BD, last, tableau, start, length, recompute)
        for place in mine:
            state_BD = states[place.node]
            if place.rest:
                time = start + place.node * length
                state_BD = _advance(field, tableau, time, state_BD, place.rest * length, recompute)
            found[place] = state_BD
    return torch.stack([found[place] for place in places], dim=1)


def count_evaluations(places: Sequence[Place], tableau: Tableau) -> int:
    """How often `solve_fixed` evaluates the field."""
    steps = sum(max((p.node for p in places if p.backwards == way), default=0) for way in (False, True))
    return tableau.stages * (steps + len({place for place in places if place.rest}))


def _advance(field: Field, tableau: Tableau, time: float, state_BD: Tensor, step: float, recompute: bool) -> Tensor:
    """One step, whose stages are recomputed for the backward pass if `recompute`."""
    if not recompute:
        return runge_kutta_step(field, tableau, time, state_BD, step)
    again: Tensor = checkpoint(
        runge_kutta_step, field, tableau, time, state_BD, step, use_reentrant=False, preserve_rng_state=False
    )
    return again
