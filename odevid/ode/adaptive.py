"""Adaptive steps and the continuous adjoint: torchdiffeq, with its traps closed.

In: a field module f(t, y), the state at the start, times. Out: the states there, how often the field was evaluated, and
in words what went wrong, if something did. Closed here: the first step is given (else gradients flow through a
heuristic that guesses it); the error of a step is the largest of any sample, not the mean over the batch, so that one
fast sample is not solved badly among slow ones; steps end at the times asked for where the method's interpolation is
bad; times need be neither sorted nor distinct nor after the start; the adjoint knows all parameters of the field; what
torchdiffeq asserts deep inside, forward or backward, becomes states or gradients that are not a number, connected to
everything that a gradient should reach, and a reason.

Not closed: all samples of a call take the same steps, those that its worst sample needs. So a sample's states and
gradients depend on its batch mates, by about the tolerance and no more; in training, hence also on how the global batch
is cut into ranks and passes. `Solver(...)(..., one_by_one=True)`, as in prediction, and fixed steps do not have that.

Axes: B states, T times, D size of a state.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from odevid.ode.fixed import NODE_TOLERANCE
from odevid.ode.tally import Tally

TORCHDIFFEQ_NAMES = {"rk4_38": "rk4", "heun": "heun2"}
"""Our name -> torchdiffeq's, where they differ."""

INTERPOLATES = ("dopri5", "adaptive_heun")
"""Methods whose states between two steps are as good as the steps. torchdiffeq interpolates with the others too, where
the error is 100 times the tolerance and more (tests/odevid/ode/test_adaptive.py): their steps are made to end there."""


class _GaveUp(Exception):
    """More steps than allowed."""


class _Counted(nn.Module):
    """The field, counting its evaluations and the solver's adaptive steps."""

    def __init__(self, field: nn.Module, max_steps: float) -> None:
        super().__init__()
        self.field = field
        self.max_steps = max_steps
        self.tally = Tally()
        self.steps = 0

    def forward(self, time: Tensor, state: Tensor) -> Tensor:
        self.tally.count()
        slope: Tensor = self.field(time, state)
        return slope

    def callback_step(self, _time: Tensor, _state: Tensor, _step: Tensor) -> None:
        """torchdiffeq calls this before every step, accepted or not."""
        self.steps += 1
        if self.steps > self.max_steps:
            raise _GaveUp

    callback_step_adjoint = callback_step
    """The same, in the backward solve of the adjoint."""


@dataclass(frozen=True)
class Request:
    """What torchdiffeq is to do."""

    method: str
    adjoint: bool
    rtol: float
    atol: float
    step: float
    """First step (adaptive methods), longest step (fixed ones)."""
    fixed: bool
    max_steps: int
    moving: int
    """Size of the part of the state, from its first, that is not a condition."""
    reasons: list[str]
    """Here goes, in words, what went wrong: in the solve, or later in the adjoint's backward solve."""


@dataclass(frozen=True)
class Found:
    """States BTD, and evaluations of the field: those of the backward pass are added later."""

    states_BTD: Tensor
    tally: Tally


def worst_sample_norm(error_BD: Tensor, moving: int) -> Tensor:
    """Largest over samples of the root mean square: what a step's error is judged by.

    Of the state and of the condition apart (the latter moves in the adjoint only), so that a large condition, which is
    always right, does not make the errors of the state look small.
    """
    parts = [part for part in error_BD.detach().tensor_split([moving], dim=1) if part.shape[1]]
    return torch.stack([part.square().mean(dim=1).max() for part in parts]).max().sqrt()


def solve_with_torchdiffeq(
    field: nn.Module, initial_BD: Tensor, times: Sequence[float], start: float, request: Request
) -> Found:
    """States at `times`, in that order."""
    counted = _Counted(field, math.inf if request.fixed else request.max_steps)
    found: dict[float, Tensor] = {start: initial_BD}
    for ways in ([time for time in times if time > start], [time for time in times if time < start]):
        if not ways:
            continue
        distinct = sorted(set(ways), reverse=ways[0] < start)
        grid = torch.tensor([start, *distinct], dtype=torch.float64, device=initial_BD.device)
        try:
            states_TBD = _integrate(counted, initial_BD, grid, request)
        except (AssertionError, _GaveUp) as error:
            request.reasons.append(_reason(error, request))
            counted.tally.solved = True
            return Found(_not_a_number(initial_BD, counted, len(times)), counted.tally)
        found.update(zip(distinct, states_TBD[1:].unbind(0), strict=True))
    counted.tally.solved = True
    return Found(torch.stack([found[time] for time in times], dim=1), counted.tally)


def _integrate(field: _Counted, initial_BD: Tensor, grid: Tensor, request: Request) -> Tensor:
    options: dict[str, Any] = {"norm": functools.partial(worst_sample_norm, moving=request.moving)}
    if request.fixed:
        options = {"grid_constructor": _grid_of_steps(request.step)}
    else:
        options["first_step"] = request.step
        if request.method not in INTERPOLATES:
            options["step_t"] = grid
    if not request.adjoint:
        solved: Tensor = torchdiffeq.odeint(
            field, initial_BD, grid, rtol=request.rtol, atol=request.atol, method=_name(request), options=options
        )
        return solved
    parameters = tuple(parameter for parameter in field.parameters() if parameter.requires_grad)
    if not torch.is_grad_enabled():
        return _adjoint(field, initial_BD, grid, request, options, parameters)
    guarded: Tensor = _Guarded.apply(field, grid, request, options, initial_BD, *parameters)
    return guarded


def _grid_of_steps(step: float) -> Callable[[Any, Tensor, Tensor], Tensor]:
    """What torchdiffeq asks for its grid: between two times, the fewest equal steps that are no longer than `step`.

    The times descend where a solve goes backwards, as the adjoint's does.
    """

    def grid(_field: Any, _state: Tensor, times: Tensor) -> Tensor:
        nodes = [times[:1]]
        for begin, end in itertools.pairwise(times.tolist()):
            steps = max(1, math.ceil(abs(end - begin) / step - NODE_TOLERANCE))
            nodes.append(torch.linspace(begin, end, steps + 1, dtype=times.dtype, device=times.device)[1:])
        return torch.cat(nodes)

    return grid


def _name(request: Request) -> str:
    return TORCHDIFFEQ_NAMES.get(request.method, request.method)


def _adjoint(
    field: _Counted, initial_BD: Tensor, grid: Tensor, request: Request, options: dict[str, Any], parameters: Any
) -> Tensor:
    solved: Tensor = torchdiffeq.odeint_adjoint(
        field,
        initial_BD,
        grid,
        rtol=request.rtol,
        atol=request.atol,
        method=_name(request),
        options=options,
        adjoint_options={name: value for name, value in options.items() if name != "norm"},
        adjoint_params=parameters,
    )
    return solved


class _Guarded(torch.autograd.Function):
    """odeint_adjoint, whose backward solve gives gradients that are not a number where it would raise."""

    @staticmethod
    def forward(
        ctx: Any, field: _Counted, grid: Tensor, request: Request, options: dict[str, Any], *tensors: Tensor
    ) -> Tensor:
        initial_BD, *parameters = tensors
        with torch.enable_grad():
            ctx.leaf = initial_BD.detach().requires_grad_()
            ctx.solved = _adjoint(field, ctx.leaf, grid, request, options, tuple(parameters))
        ctx.field, ctx.parameters, ctx.request = field, parameters, request
        detached: Tensor = ctx.solved.detach()
        return detached

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBD: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [ctx.leaf, *ctx.parameters]
        ctx.field.steps = 0
        try:
            with torch.autocast(grad_TBD.device.type, enabled=False):
                grads = torch.autograd.grad(ctx.solved, inputs, grad_TBD, retain_graph=True)
        except (AssertionError, _GaveUp) as error:
            ctx.request.reasons.append(f"backwards in time, for the gradient, {_reason(error, ctx.request)}")
            grads = tuple(torch.full_like(tensor, torch.nan) for tensor in inputs)
        return (None, None, None, None, *grads)


def _not_a_number(initial_BD: Tensor, field: nn.Module, num_times: int) -> Tensor:
    """NaN states BTD whose gradients reach the first state and all parameters, as those of a solve would."""
    reach = sum((parameter.sum() for parameter in field.parameters()), initial_BD.new_zeros(()))
    return torch.stack([(initial_BD + reach) * torch.nan] * num_times, dim=1)


def _reason(error: Exception, request: Request) -> str:
    """What torchdiffeq's assertion means to somebody who trains a model."""
    advice = "the field has become stiff or too steep: lower the learning rate, raise rtol and atol, or use fixed steps"
    if isinstance(error, _GaveUp) or "max_num_steps" in str(error):
        return f"{request.method} gave up after max_steps = {request.max_steps} steps: {advice}"
    if "underflow" in str(error):
        return f"{request.method} made its step so small that time stood still: {advice}"
    if "non-finite" in str(error):
        return f"{request.method} left the finite numbers: {advice}"
    raise error
