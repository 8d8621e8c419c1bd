"""The gradient is the same however it is computed, and reaches the first state, the condition and all parameters."""

import pytest
import torch
from torch import Tensor

from odevid.ode import Solver
from odevid.ode.tableaus import TABLEAUS
from tests.odevid.ode.problems import Learned, drawn

TIMES = [0.5, 0.2, -0.3, 1.0]


def gradients(solver: Solver, times: list[float] = TIMES) -> list[Tensor]:
    """Of a nonlinear function of the states, by the first state, the condition and the parameters."""
    field = Learned(3, condition=2)
    initial_BD, condition_BC = drawn(4, 3).requires_grad_(), drawn(4, 2).mul(0.7).requires_grad_()
    states_BTD = solver(field, initial_BD, times, condition_BC=condition_BC).states_BTD
    (states_BTD - drawn(4, len(times), 3)).square().sum().backward()
    grads = [tensor.grad for tensor in (initial_BD, condition_BC, *field.parameters())]
    assert all(grad is not None and bool(grad.abs().max() > 1e-3) for grad in grads)
    return [grad for grad in grads if grad is not None]


def worst(left: list[Tensor], right: list[Tensor]) -> float:
    """Largest difference relative to the gradient's size, over the tensors."""
    return max(float((x - y).norm() / y.norm()) for x, y in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def exact() -> list[Tensor]:
    """Of the ODE itself: tight adaptive steps, differentiated through."""
    return gradients(Solver("dopri8", step=0.1, rtol=1e-12, atol=1e-12))


@pytest.mark.parametrize("method", TABLEAUS)
def test_checkpointed_and_direct_gradients_are_the_same(method: str) -> None:
    direct, again = (gradients(Solver(method, step=0.13, gradient=mode)) for mode in ("direct", "checkpoint"))
    assert worst(again, direct) < 1e-13


@pytest.mark.parametrize(
    ("method", "step", "agreement"),
    [("rk4_38", 0.01, 1e-8), ("heun", 0.005, 1e-4), ("midpoint", 0.005, 1e-4), ("euler", 0.002, 2e-2)],
)
def test_the_adjoint_agrees_with_the_direct_gradient_as_the_steps_shrink(
    method: str, step: float, agreement: float
) -> None:
    """The adjoint's is the gradient of the ODE, the direct one that of its steps: they meet at the method's rate."""
    times = [0.2, -0.1]
    far, near = (
        worst(
            gradients(Solver(method, step=h, gradient="adjoint"), times),
            gradients(Solver(method, step=h), times),
        )
        for h in (2 * step, step)
    )
    assert near < agreement
    assert far / near > 0.8 * 2 ** TABLEAUS[method].order


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_adaptive_gradients_are_those_of_the_ode(gradient: str, exact: list[Tensor]) -> None:
    assert worst(gradients(Solver("dopri5", step=0.1, gradient=gradient, rtol=1e-9, atol=1e-9)), exact) < 1e-7


def test_fixed_step_gradients_are_those_of_the_ode(exact: list[Tensor]) -> None:
    assert worst(gradients(Solver("rk4", step=0.02)), exact) < 1e-7


def test_a_step_size_control_has_no_gradient() -> None:
    """torchdiffeq's guess of the first step would let one through; with the step given, no time needs a gradient."""
    seen: list[bool] = []

    class Watched(Learned):
        def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
            seen.append(isinstance(time, Tensor) and time.requires_grad)
            return super().forward(time, state_BD)

    Solver("dopri5", step=0.1)(Watched(), drawn(4, 3).requires_grad_(), [0.5, 1.0])
    assert seen and not any(seen)


@pytest.mark.parametrize("method", ["dopri5", "rk4_38"])
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_evaluations_of_the_backward_pass_are_counted_by_themselves(method: str, gradient: str) -> None:
    field = Learned()
    solution = Solver(method, step=0.1, gradient=gradient)(field, drawn(4, 3).requires_grad_(), [0.5, -0.2])
    assert (solution.evaluations, solution.evaluations_backward) == (field.calls, 0)
    solution.states_BTD.sum().backward()
    assert solution.evaluations_backward == field.calls - solution.evaluations
    assert (solution.evaluations_backward > 0) == (gradient == "adjoint")


def test_a_backward_pass_can_be_repeated() -> None:
    field, initial_BD = Learned(), drawn(4, 3).requires_grad_()
    loss = Solver("dopri5", step=0.1, gradient="adjoint")(field, initial_BD, [0.5]).states_BTD.sum()
    first, second = (torch.autograd.grad(loss, [initial_BD], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_frozen_parameters_stay_without_gradient() -> None:
    for gradient in ("direct", "adjoint"):
        field = Learned()
        frozen, *others = field.parameters()
        frozen.requires_grad_(False)
        Solver("rk4_38", step=0.1, gradient=gradient)(field, drawn(4, 3), [0.5]).states_BTD.sum().backward()
        assert frozen.grad is None and all(parameter.grad is not None for parameter in others)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "heun3", "rk4_38"])
def test_the_adjoint_takes_the_same_steps_in_both_directions(method: str) -> None:
    """One long interval each way: as many steps as without the adjoint, not one."""
    times = [1.0, -1.0]
    adjoint, direct = (
        Solver(method, step=0.1, gradient=gradient)(Learned(), drawn(4, 3), times) for gradient in ("adjoint", "direct")
    )
    assert adjoint.evaluations == direct.evaluations == 20 * TABLEAUS[method].stages
    assert torch.allclose(adjoint.states_BTD, direct.states_BTD, rtol=1e-12, atol=1e-12)
