"""One interface to all solvers: `Solver(...)(field, initial, times)` gives a `Solution`.

In: a field module f(t, y), the first state, any times. Out: the states there in the order asked for, what the solve
cost, and whether it failed. Times may be fractional, unevenly spaced, repeated, unsorted, or before the start. What the
field is to know beside the state goes in as `condition`: it becomes a part of the state that does not move, so that its
gradient is right in every mode. States stay in their precision: under autocast everything here is fp32.

Axes: B states, T times, D size of a state, C size of a condition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from odevid.config.latent_ode import ADAPTIVE_METHODS, FIXED_METHODS, GRADIENTS
from odevid.ode.adaptive import Found, Request, solve_with_torchdiffeq
from odevid.ode.fixed import compiled_solve_fixed, count_evaluations, place_of, solve_fixed
from odevid.ode.tableaus import TABLEAUS


@dataclass(frozen=True)
class Solution:
    """What a solve found.

    Attributes:
        states_BTD: states at the times asked for; NaN where the solve failed.
        evaluations: of the field, in the forward pass.
        reason: why the solver gave up, if it did.
    """

    states_BTD: Tensor
    evaluations: int
    reason: str | None = None

    @cached_property
    def failed(self) -> Tensor:
        """Whether some state is not finite: a scalar 0 or 1 on the device, which nothing has to wait for."""
        return (~self.states_BTD.detach().isfinite().all()).to(self.states_BTD.dtype)

    @property
    def failure(self) -> str | None:
        """What went wrong, in words; None: nothing did. Waits for the device."""
        if self.reason is None and bool(self.failed):
            return "the states left the finite numbers: smaller steps, or a lower learning rate, may keep them"
        return self.reason


@dataclass(frozen=True)
class Solver:
    """How an ODE is solved.

    Args:
        method: fixed steps: euler, midpoint, heun, rk4 (classical), rk4_38 (torchdiffeq's "rk4"); adaptive steps:
            dopri5, dopri8, bosh3, fehlberg2, adaptive_heun.
        step: length of the fixed steps, or of the first adaptive one; positive also where time runs backwards.
        gradient: "direct" through all operations; "checkpoint" recomputes each step (fixed steps); "adjoint" solves
            torchdiffeq's continuous adjoint, whose gradient is that of the ODE and not of its discretisation.
        rtol, atol: of adaptive steps, for the worst sample of the batch. Below 1e-6 float32 cannot follow.
        max_steps: adaptive steps (accepted or not) after which the solve has failed.
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
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
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
            ValueError: no times.
        """
        if not times:
            raise ValueError("times is empty; give at least one")
        size = initial_BD.shape[1]
        with torch.autocast(initial_BD.device.type, enabled=False):
            if condition_BC is not None:
                field = Held(field, condition_BC.shape[1])
                initial_BD = torch.cat([initial_BD, condition_BC.to(initial_BD.dtype)], dim=1)
            solution = self._solve(field, initial_BD, [float(time) for time in times], start, one_by_one)
        return Solution(solution.states_BTD[..., :size], solution.evaluations, solution.reason)

    def _solve(
        self, field: nn.Module, initial_BD: Tensor, times: list[float], start: float, one_by_one: bool
    ) -> Solution:
        if self.is_fixed and self.gradient != "adjoint":
            return self._solve_fixed(field, initial_BD, times, start)
        request = Request(
            self.method, self.gradient == "adjoint", self.rtol, self.atol, self.step, self.is_fixed, self.max_steps
        )
        parts = initial_BD.split(1) if one_by_one and not self.is_fixed else [initial_BD]
        found = [solve_with_torchdiffeq(field, part, times, start, request) for part in parts]
        return _joined(found)

    def _solve_fixed(self, field: nn.Module, initial_BD: Tensor, times: list[float], start: float) -> Solution:
        tableau = TABLEAUS[self.method]
        places = [place_of(time, start, self.step) for time in times]
        solve: Callable[..., Tensor] = compiled_solve_fixed if self.compiled else solve_fixed
        recompute = self.gradient == "checkpoint" and torch.is_grad_enabled()
        states = solve(field, initial_BD, places, tableau, start=start, step=self.step, recompute=recompute)
        return Solution(states, count_evaluations(places, tableau))


def _joined(found: Sequence[Found]) -> Solution:
    """Samples that were solved one by one: the slowest counts."""
    reason = next((part.failure for part in found if part.failure), None)
    return Solution(torch.cat([part.states_BTD for part in found]), max(part.evaluations for part in found), reason)


class Held(nn.Module):
    """A field of (state, condition) whose condition does not move."""

    def __init__(self, field: nn.Module, size: int) -> None:
        super().__init__()
        self.field = field
        self.size = size

    def forward(self, time: float | Tensor, state: Tensor) -> Tensor:
        slope = self.field(time, state)
        return torch.cat([slope, torch.zeros_like(state[..., -self.size :])], dim=-1)
