"""Adaptive steps: within tolerance for every sample, and where they fail, a reason instead of an assertion."""

import math
from collections.abc import Callable

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from odevid.ode import Solver
from tests.odevid.ode.problems import DrivenLogistic, Learned, Oscillator, drawn

METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


@pytest.mark.parametrize("problem", [Oscillator, DrivenLogistic])
@pytest.mark.parametrize("method", METHODS)
def test_states_are_exact_within_the_tolerance_at_any_times(method: str, problem: type) -> None:
    initial_BD = drawn(4, 2).sigmoid()
    times = [1.3, -0.35, 0.5, 0.31, 1.3]
    tolerance = 1e-6 if method in ("dopri5", "dopri8") else 1e-5
    found_BTD = Solver(method, step=0.1, rtol=tolerance, atol=tolerance)(problem(), initial_BD, times).states_BTD
    exact_BTD = torch.stack([problem.exact(initial_BD, time) for time in times], dim=1)
    factor = 300 if method == "fehlberg2" else 10  # its own estimate of the error has a weight of 1/512
    assert torch.allclose(found_BTD, exact_BTD, rtol=0, atol=factor * tolerance)
    assert torch.equal(found_BTD[:, 0], found_BTD[:, 4])


class Speeds(nn.Module):
    """Oscillators; the third number of a state is how fast its own goes."""

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        position, velocity, speed = state_BD.unbind(1)
        return torch.stack([speed * velocity, -speed * position, torch.zeros_like(speed)], dim=1)


def test_one_fast_sample_among_slow_ones_is_solved_as_well_as_they_are() -> None:
    """With torchdiffeq's own norm, a mean over the batch, it is not: that is shown too."""
    speed_B1 = torch.full((128, 1), 1.0, dtype=torch.float64)
    speed_B1[17] = 20.0
    initial_BD = torch.cat([drawn(128, 2).sign(), speed_B1], dim=1)
    exact_BD = torch.stack([Oscillator.exact(state[None, :2], float(state[2]))[0] for state in initial_BD])

    def worst(states_BD: Tensor) -> float:
        return float((states_BD[:, :2] - exact_BD).abs().max())

    ours = Solver("dopri5", step=0.1, rtol=1e-4, atol=1e-4)(Speeds(), initial_BD, [1.0]).states_BTD[:, 0]
    grid = torch.tensor([0.0, 1.0], dtype=torch.float64)
    theirs = torchdiffeq.odeint(Speeds(), initial_BD, grid, rtol=1e-4, atol=1e-4, options={"first_step": 0.1})[1]
    assert worst(ours) < 3e-3 < 1e-2 < worst(theirs)


def test_cutting_a_batch_in_two_changes_states_and_gradients_by_about_the_tolerance() -> None:
    """As more ranks do, in training. With torchdiffeq's own norm a fast sample changes by far more."""
    speed_B1 = torch.ones(16, 1, dtype=torch.float64)
    speed_B1[11] = 40.0
    initial_BD = torch.cat([drawn(16, 2), speed_B1], dim=1)
    tolerance, grid = 1e-5, torch.tensor([0.0, 1.0], dtype=torch.float64)

    def ours(part_BD: Tensor) -> Tensor:
        solver = Solver("dopri5", step=0.1, rtol=tolerance, atol=tolerance)
        return solver(Speeds(), part_BD, [1.0]).states_BTD[:, 0]

    def theirs(part_BD: Tensor) -> Tensor:
        options = {"first_step": 0.1}
        return torchdiffeq.odeint(Speeds(), part_BD, grid, rtol=tolerance, atol=tolerance, options=options)[1]

    def apart(solve: Callable[[Tensor], Tensor]) -> list[float]:
        """Largest change of a state and of a gradient, in tolerances."""
        results = []
        for size in (16, 8):
            first_BD = initial_BD.clone().requires_grad_()
            states_BD = torch.cat([solve(part_BD) for part_BD in first_BD.split(size)])
            results.append((states_BD.detach(), *torch.autograd.grad(states_BD.square().sum(), first_BD)))
        return [float((whole - parts).abs().max()) / tolerance for whole, parts in zip(*results, strict=True)]

    assert 0 < max(apart(ours)) < 20 < 60 < min(apart(theirs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tolerances_that_float32_cannot_follow_are_refused_where_states_are_float32(dtype: torch.dtype) -> None:
    solver, initial_BD = Solver("dopri5", step=0.1, rtol=1e-9, atol=1e-9), drawn(2, 3)
    assert solver(Learned(), initial_BD, [0.1]).failure is None
    with pytest.raises(ValueError, match=rf"rtol is 1e-09 for states of {dtype}, which float32.*give rtol >= 1e-06"):
        solver(Learned(dtype=torch.float32), initial_BD.to(dtype), [0.1])
    Solver("rk4", step=0.1, rtol=1e-9)(Learned(dtype=torch.float32), initial_BD.to(dtype), [0.1])


def test_a_condition_does_not_hide_the_errors_of_the_state() -> None:
    """However large: it is always right, and a mean over it and the state would look small."""
    initial_BD = drawn(4, 3)

    def states(condition: int) -> Tensor:
        field = Blind(3)
        held = torch.ones(4, condition, dtype=torch.float64)
        return Solver("dopri5", step=0.5)(field, initial_BD, [1.0], condition_BC=held).states_BTD

    assert torch.allclose(states(0), states(1000), rtol=1e-14, atol=1e-14)


class Blind(nn.Module):
    """A field that does not look at its condition."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.net = Learned(size)

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        slope: Tensor = 5 * self.net(time, state_BD[:, : self.size])
        return slope


def test_one_by_one_a_sample_does_not_depend_on_its_batch_mates() -> None:
    field, initial_BD = Learned(), drawn(6, 3)
    solver = Solver("dopri5", step=0.1)
    times = [1.0, -0.4]
    together = solver(field, initial_BD, times, one_by_one=True).states_BTD
    mates = initial_BD * 7
    mates[2] = initial_BD[2]
    others = solver(field, mates, times, one_by_one=True).states_BTD
    alone = solver(field, initial_BD[2:3], times, one_by_one=True).states_BTD
    assert torch.equal(together[2], others[2])
    assert torch.equal(together[2], alone[0])


@pytest.mark.parametrize("one_by_one", [False, True])
def test_evaluations_are_those_of_the_slowest_and_the_first_step_is_given(one_by_one: bool) -> None:
    """dopri5: one evaluation at the start and six for the one step that is enough here; guessing it costs one more."""
    field = Learned()
    solution = Solver("dopri5", step=0.1, rtol=1e-2, atol=1e-2)(field, drawn(2, 3), [0.05, 0.1], one_by_one=one_by_one)
    assert solution.evaluations == 7
    assert field.calls == 7 * (2 if one_by_one else 1)


class Broken(nn.Module):
    """dy/dt = weight y until y or the time is past a limit, then what is told."""

    def __init__(self, then: float, until: float = math.inf) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.unused = nn.Parameter(torch.ones(()))
        self.then, self.until = then, until

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        past = self.then if float(time) >= self.until else 1.0
        return self.weight * past * state_BD


class BlowsUp(Broken):
    """dy/dt = y^2 leaves the numbers at t = 1 for y(0) = 1."""

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        return self.weight * state_BD.square()


FAILURES = {
    "capped": (Oscillator, {"max_steps": 5, "rtol": 1e-6, "atol": 1e-6}, "gave up after max_steps = 5 steps"),
    "blows up": (lambda: BlowsUp(1.0), {}, "time stood still|left the finite numbers"),
    "not a number": (lambda: Broken(math.nan, 0.5), {}, "time stood still"),
    "infinite": (lambda: Broken(math.inf, 0.5), {}, "time stood still|left the finite numbers"),
}


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("failure", FAILURES)
def test_what_cannot_be_solved_has_a_reason_and_is_not_a_number(failure: str, gradient: str) -> None:
    make, settings, reason = FAILURES[failure]
    field = make()
    initial_BD, condition_BC = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
    solver = Solver("dopri5", step=0.1, gradient=gradient, **settings)
    held = None if failure == "capped" else condition_BC
    solution = solver(_Two(field), initial_BD, [0.1, 9.0, -0.1], condition_BC=held)
    assert solution.failure is not None
    assert torch.tensor([word in solution.failure for word in reason.split("|")]).any(), solution.failure
    assert bool(solution.failed == 1)
    assert solution.states_BTD.shape == (2, 3, 2) and bool(solution.states_BTD.isnan().all())
    assert solution.evaluations > 0
    solution.states_BTD.sum().backward()
    reached = [initial_BD, *field.parameters(), *([] if held is None else [condition_BC])]
    assert all(tensor.grad is not None and bool(tensor.grad.isnan().all()) for tensor in reached)


class _Two(nn.Module):
    """The field of the first two numbers."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        slope: Tensor = self.field(time, state_BD[:, :2])
        return slope


class Forgetful(Broken):
    """A field that works until the backward pass, which calls it with gradients on its inputs."""

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.weight * state_BD * self.then
        return self.weight * state_BD


@pytest.mark.parametrize(
    ("field", "max_steps", "reason"),
    [
        (Forgetful(math.nan), 10_000, "left the finite numbers"),
        (Forgetful(500.0), 30, "gave up after max_steps = 30 steps"),
    ],
)
def test_an_adjoint_that_fails_only_backwards_says_so_and_gives_no_numbers(
    field: nn.Module, max_steps: int, reason: str
) -> None:
    initial_BD = torch.ones(2, 2, requires_grad=True)
    solution = Solver("dopri5", step=0.1, gradient="adjoint", max_steps=max_steps)(field, initial_BD, [0.5, 1.0])
    assert solution.failure is None
    solution.states_BTD.sum().backward()
    assert all(bool(tensor.grad.isnan().all()) for tensor in (initial_BD, *field.parameters()))
    assert (
        solution.failure is not None and solution.failure.startswith("backwards in time") and reason in solution.failure
    )


def test_the_cap_is_of_each_solve() -> None:
    """Not of all solves together, nor of forward and backward together."""
    field, initial_BD = Learned(), drawn(2, 3).requires_grad_()
    for _ in range(5):
        solution = Solver("dopri5", step=0.1, gradient="adjoint", max_steps=8)(field, initial_BD, [0.5])
        solution.states_BTD.sum().backward()
        assert solution.failure is None


def test_one_by_one_only_the_sample_that_fails_is_lost() -> None:
    initial_BD = torch.tensor([[0.1], [1.0], [0.2]])
    solution = Solver("dopri5", step=0.1)(BlowsUp(1.0), initial_BD, [2.0], one_by_one=True)
    assert solution.states_BTD.isfinite().flatten().tolist() == [True, False, True]
    assert solution.failure is not None and bool(solution.failed == 1)


def test_an_assertion_of_the_field_is_not_swallowed() -> None:
    class Asserting(nn.Module):
        def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
            raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        Solver("dopri5")(Asserting(), torch.ones(1, 1), [1.0])
