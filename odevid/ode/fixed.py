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


def solve_fixed(
    field: Field,
    initial_BD: Tensor,
    places: Sequence[Place],
    tableau: Tableau,
    *,
    start: float,
    step: float,
    recompute: bool = False,
) -> Tensor:
    """States BTD at `places`, in their order.

    Args:
        step: of the grid, positive; places say which way.
        recompute: keep only the first state of each step for the backward pass, and recompute its stages there.
    """
    found: dict[Place, Tensor] = {}
    for backwards in (False, True):
        mine = [place for place in places if place.backwards == backwards]
        if mine:
            found.update(_walk(field, initial_BD, mine, tableau, start, -step if backwards else step, recompute))
    return torch.stack([found[place] for place in places], dim=1)


def count_evaluations(places: Sequence[Place], tableau: Tableau) -> int:
    """How often `solve_fixed` evaluates the field."""
    steps = sum(max((p.node for p in places if p.backwards == way), default=0) for way in (False, True))
    return tableau.stages * (steps + len({place for place in places if place.rest}))


def _walk(
    field: Field,
    initial_BD: Tensor,
    places: Sequence[Place],
    tableau: Tableau,
    start: float,
    step: float,
    recompute: bool,
) -> dict[Place, Tensor]:
    """The states at `places`, all of one direction; `step` is negative where that is backwards."""

    def advance(state_BD: Tensor, time: float, length: float) -> Tensor:
        if not recompute:
            return runge_kutta_step(field, tableau, time, state_BD, length)
        again: Tensor = checkpoint(
            runge_kutta_step, field, tableau, time, state_BD, length, use_reentrant=False, preserve_rng_state=False
        )
        return again

    found: dict[Place, Tensor] = {}
    state_BD = initial_BD
    last = max(place.node for place in places)
    for node in range(last + 1):
        time = start + node * step
        for place in places:
            if place.node == node and place not in found:
                found[place] = advance(state_BD, time, place.rest * step) if place.rest else state_BD
        if node < last:
            state_BD = advance(state_BD, time, step)
    return found


compiled_solve_fixed = torch.compile(solve_fixed, fullgraph=True, dynamic=False)
"""The same in one graph, specialised to the places, the method and the shape: the first call of each takes seconds."""
