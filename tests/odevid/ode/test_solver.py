"""One interface: what does not go together is refused, states stay in fp32, failures of fixed steps are seen."""

import math

import pytest
import torch
from torch import Tensor

from odevid.ode import Solver
from tests.odevid.ode.problems import DrivenLogistic, Learned, drawn


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "rk5"}, "method is 'rk5'; choose one of euler, midpoint"),
        ({"gradient": "none"}, "gradient is 'none'; choose one of direct, checkpoint, adjoint"),
        ({"step": 0.0}, "step is 0.0; it must be positive"),
        ({"step": math.nan}, "step is nan; it must be positive"),
        ({"step": math.inf}, "step is inf; it must be positive and finite"),
        ({"rtol": -1.0}, "rtol is -1.0"),
        ({"rtol": math.inf}, "rtol is inf; it must be positive and finite"),
        ({"atol": math.inf}, "atol is inf; it must be positive and finite"),
        ({"atol": math.nan}, "atol is nan; it must be positive"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"method": "dopri5", "gradient": "checkpoint"}, "dopri5 has no fixed steps to recompute"),
        ({"method": "rk4", "gradient": "adjoint"}, "use method='rk4_38'"),
        ({"method": "dopri5", "compiled": True}, "only fixed steps with gradient='direct' are compiled"),
        ({"method": "rk4", "gradient": "checkpoint", "compiled": True}, "only fixed steps with gradient='direct'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Solver(**settings)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((torch.ones(2, 3), []), {}, "times is empty"),
        ((torch.ones(2, 3), [0.5, math.nan]), {}, "nan is no time"),
        ((torch.ones(2, 3), [0.5]), {"start": math.inf}, "inf is no time"),
        ((torch.ones(3), [0.5]), {}, r"first state has shape \(3,\); expected \(samples, size\)"),
        ((torch.ones(2, 3), [0.5]), {"condition_BC": torch.ones(1, 3)}, r"condition has shape \(1, 3\).*2"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Solver()(DrivenLogistic(), *arguments, **settings)


MODES = [("rk4", "direct"), ("rk4", "checkpoint"), ("rk4_38", "adjoint"), ("dopri5", "direct"), ("dopri5", "adjoint")]


@pytest.mark.parametrize(("method", "gradient"), MODES)
def test_states_and_gradients_are_fp32_under_bf16_autocast(method: str, gradient: str) -> None:
    """The same numbers as without."""

    def solve(bf16: bool) -> list[Tensor]:
        field, initial_BD = Learned(dtype=torch.float32), drawn(4, 3, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = Solver(method, step=0.1, gradient=gradient)(field, initial_BD, [0.3, 0.7]).states_BTD
        states.square().sum().backward()
        return [
            states.detach(),
            *(tensor.grad for tensor in (initial_BD, *field.parameters()) if tensor.grad is not None),
        ]

    with_it, without = solve(True), solve(False)
    assert len(with_it) == len(without) == 6
    assert all(tensor.dtype == torch.float32 for tensor in with_it)
    assert all(torch.equal(left, right) for left, right in zip(with_it, without, strict=True))


def test_a_first_state_in_bf16_is_solved_in_fp32() -> None:
    """What a layer under autocast gives."""
    initial_BD, condition_BC = drawn(4, 3).bfloat16(), drawn(4, 2).bfloat16()
    solve = Solver("rk4", step=0.1)
    found = solve(Learned(3, 2, torch.float32), initial_BD, [0.3], condition_BC=condition_BC).states_BTD
    wide = solve(Learned(3, 2, torch.float32), initial_BD.float(), [0.3], condition_BC=condition_BC.float()).states_BTD
    assert found.dtype == torch.float32 and torch.equal(found, wide)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_condition_of_no_numbers_is_none(method: str) -> None:
    plain = Solver(method, step=0.1)(Learned(), drawn(4, 3), [0.3])
    empty = Solver(method, step=0.1)(Learned(), drawn(4, 3), [0.3], condition_BC=drawn(4, 0))
    assert torch.equal(plain.states_BTD, empty.states_BTD)


def test_fixed_steps_that_leave_the_numbers_are_a_failure() -> None:
    initial_BD = torch.full((2, 1), -1e30)
    solution = Solver("rk4", step=0.5)(DrivenLogistic(), initial_BD, [0.5])
    assert bool(solution.failed == 1)
    assert solution.failure is not None and "left the finite numbers" in solution.failure
    good = Solver("rk4", step=0.5)(DrivenLogistic(), torch.full((2, 1), 0.5), [0.5])
    assert bool(good.failed == 0) and good.failure is None
