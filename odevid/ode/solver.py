"""One interface to all solvers: `Solver(...)(field, initial, times)` gives a `Solution`.

In: a field module f(t, y), the first state, any times. Out: the states there in the order asked for, what the solve
cost, and whether it failed. Times may be fractional, unevenly spaced, repeated, unsorted, or before the start. What the
field is to know beside the state goes in as `condition`: it becomes a part of the state that does not move, so that its
gradient is right in every mode. States stay in their precision: under autocast everything here is fp32.

Axes: B states, T times, D size of a state, C size of a condition.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from functools import cached_property

import torch
from torch import Tensor, nn

from odevid.config.latent_ode import ADAPTIVE_METHODS, FIXED_METHODS, GRADIENTS, LEAST_RTOL
from odevid.ode.adaptive import Request, solve_with_torchdiffeq
from odevid.ode.compiled import walk_compiled
from odevid.ode.fixed import NODE_TOLERANCE, Field, count_evaluations, place_of, solve_fixed, walk
from odevid.ode.tableaus import TABLEAUS
from odevid.ode.tally import Tally


@dataclass(frozen=True)
class Solution:
    """What a solve found.

    Attributes:
        states_BTD: states at the times asked for; NaN where the solve failed.
        evaluations: of the field, in the forward pass.
        reasons: why the solver gave up, if it did; the backward solve of the adjoint adds its own, later.
        tallies: of the evaluations of each solve, where the backward pass makes some.
    """

    states_BTD: Tensor
    evaluations: int
    reasons: list[str] = dataclass_field(default_factory=list)
    tallies: list[Tally] = dataclass_field(default_factory=list)

    @property
    def evaluations_backward(self) -> int:
        """Of the field, in the backward passes so far: recomputed ones of checkpoints, those of the adjoint's solve."""
        return max((tally.backward for tally in self.tallies), default=0)

    @cached_property
    def failed(self) -> Tensor:
        """Whether some state is not finite: a scalar 0 or 1 on the device, which nothing has to wait for."""
        return (~self.states_BTD.detach().isfinite().all()).to(self.states_BTD.dtype)

    @property
    def failure(self) -> str | None:
        """What went wrong, in words; None: nothing did. Waits for the device."""
        if self.reasons:
            return self.reasons[0]
        if bool(self.failed):
            return "the states left the finite numbers: smaller steps, or a lower learning rate, may keep them"
        return None


@dataclass(frozen=True)
class Solver:
    """How an ODE is solved.

    Args:
        method: fixed steps: euler, midpoint, heun, heun3, rk4 (classical), rk4_38 (torchdiffeq's "rk4"); adaptive
            steps: dopri5, dopri8, bosh3, fehlberg2, adaptive_heun.
        step: length of the fixed steps, or of the first adaptive one; positive also where time runs backwards.
        gradient: "direct" through all operations; "checkpoint" recomputes each step (fixed steps); "adjoint" solves
            torchdiffeq's continuous adjoint, whose gradient is that of the ODE and not of its discretisation.
        rtol, atol: of adaptive steps, for the worst sample of the batch, whose steps all take. float32 states cannot
            follow an rtol below 1e-6.
        max_steps: adaptive steps (accepted or not) after which the solve has failed; of more fixed steps than these, to
            one time, none is taken.
        compiled: run the loop of fixed steps as one compiled graph ("direct" only).

    Raises:
        ValueError: these do not go together.
    """

    method: str = "rk4"
    step: float = 1.0
    gradient: str = "direct"
    rtol: float = 1e-3
    atol: float = 1e-4
    max_steps: int = 10_000
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, known in (("method", (*FIXED_METHODS, *ADAPTIVE_METHODS)), ("gradient", GRADIENTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        for name in ("step", "rtol", "atol", "max_steps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        if self.gradient == "checkpoint" and not self.is_fixed:
            raise ValueError(f"{self.method} has no fixed steps to recompute: use gradient='adjoint' or a fixed method")
        if self.gradient == "adjoint" and self.method == "rk4":
            raise ValueError("torchdiffeq, which computes the adjoint, has no classical rk4: use method='rk4_38'")
        if self.compiled and not (self.is_fixed and self.gradient == "direct"):
            raise ValueError(f"only fixed steps with gradient='direct' are compiled, not {self.method} {self.gradient}")

    @property
    def is_fixed(self) -> bool:
        """Whether the steps do not depend on the field."""
        return self.method in FIXED_METHODS

    def __call__(
        self,
        field: nn.Module,
        initial_BD: Tensor,
        times: Sequence[float],
        *,
        start: float = 0.0,
        condition_BC: Tensor | None = None,
        one_by_one: bool = False,
    ) -> Solution:
        """Solve dy/dt = field(t, y) from `initial_BD` at `start`.

        Args:
            field: a module; with a condition it is called with (y, condition) side by side, and gives dy/dt alone.
            one_by_one: solve each sample by itself where steps are adaptive, so that its states do not depend on its
                batch mates at all. Fixed steps never let them.

        Raises:
            ValueError: no times, a time that is not finite or too many fixed steps away, tensors of shapes that do not
                fit, or adaptive steps for float32 states with an rtol that they cannot follow.
        """
        times = [float(time) for time in times]
        self._check(initial_BD, times, start, condition_BC)
        self._check_reach(initial_BD, times, start)
        size = initial_BD.shape[1]
        with torch.autocast(initial_BD.device.type, enabled=False):
            initial_BD = initial_BD.to(torch.promote_types(initial_BD.dtype, torch.float32))
            if condition_BC is not None:
                field = Held(field)
                initial_BD = torch.cat([initial_BD, condition_BC.to(initial_BD.dtype)], dim=1)
            if self.is_fixed and self.gradient != "adjoint":
                solution = self._solve_fixed(field, initial_BD, times, start)
            else:
                solution = self._solve_with_torchdiffeq(field, initial_BD, times, start, size, one_by_one)
        return replace(solution, states_BTD=solution.states_BTD[..., :size])

    def _check(self, initial_BD: Tensor, times: list[float], start: float, condition_BC: Tensor | None) -> None:
        if not times:
            raise ValueError("times is empty; give at least one")
        bad = next((time for time in (start, *times) if not math.isfinite(time)), None)
        if bad is not None:
            raise ValueError(f"{bad} is no time: start and times must be finite")
        if initial_BD.ndim != 2:
            raise ValueError(f"the first state has shape {tuple(initial_BD.shape)}; expected (samples, size)")
        if condition_BC is not None and (condition_BC.ndim != 2 or len(condition_BC) != len(initial_BD)):
            raise ValueError(
                f"the condition has shape {tuple(condition_BC.shape)}; expected (samples, size) with as many samples "
                f"as the first state, {len(initial_BD)}"
            )

    def too_far(self, time: float, start: float = 0.0) -> bool:
        """Whether `time` is more fixed steps from `start` than are allowed."""
        return self.is_fixed and abs(time - start) / self.step > self.max_steps + NODE_TOLERANCE

    def _check_reach(self, initial_BD: Tensor, times: list[float], start: float) -> None:
        far = next((time for time in times if self.too_far(time, start)), None)
        if far is not None:
            raise ValueError(
                f"time {far:g} is {abs(far - start) / self.step:.6g} steps of {self.step:g} from {start:g}, but "
                f"max_steps is {self.max_steps}; ask for nearer times, take longer steps, or raise max_steps"
            )
        if not self.is_fixed and initial_BD.dtype != torch.float64 and self.rtol < LEAST_RTOL:
            raise ValueError(
                f"rtol is {self.rtol} for states of {initial_BD.dtype}, which float32 rounding cannot follow; give "
                f"rtol >= {LEAST_RTOL}, or states and field in float64"
            )

    def _solve_with_torchdiffeq(
        self, field: nn.Module, initial_BD: Tensor, times: list[float], start: float, moving: int, one_by_one: bool
    ) -> Solution:
        request = Request(
            method=self.method,
            adjoint=self.gradient == "adjoint",
            rtol=self.rtol,
            atol=self.atol,
            step=self.step,
            fixed=self.is_fixed,
            max_steps=self.max_steps,
            moving=moving,
            reasons=[],
        )
        parts = initial_BD.split(1) if one_by_one and not self.is_fixed else [initial_BD]
        found = [solve_with_torchdiffeq(field, part, times, start, request) for part in parts]
        states = torch.cat([part.states_BTD for part in found])
        tallies = [part.tally for part in found]
        return Solution(states, max(tally.forward for tally in tallies), request.reasons, tallies)

    def _solve_fixed(self, field: nn.Module, initial_BD: Tensor, times: list[float], start: float) -> Solution:
        tableau = TABLEAUS[self.method]
        places = [place_of(time, start, self.step) for time in times]
        recompute = self.gradient == "checkpoint" and torch.is_grad_enabled()
        whole_steps: Callable[..., tuple[Tensor, ...]] = walk_compiled if self.compiled else walk
        tally = Tally()
        states = solve_fixed(
            _counted(field, tally) if recompute else field,
            initial_BD,
            places,
            tableau,
            start=start,
            step=self.step,
            recompute=recompute,
            whole_steps=whole_steps,
        )
        tally.solved = True
        return Solution(states, count_evaluations(places, tableau), tallies=[tally])


def _counted(field: Field, tally: Tally) -> Field:
    def counted(time: float, state_BD: Tensor) -> Tensor:
        tally.count()
        return field(time, state_BD)

    return counted


class Held(nn.Module):
    """A field of (state, condition) whose condition does not move."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        slope = self.field(time, state_BD)
        return torch.cat([slope, torch.zeros_like(state_BD[:, slope.shape[1] :])], dim=1)
