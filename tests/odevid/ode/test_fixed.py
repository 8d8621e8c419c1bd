"""Fixed steps: any times, both ways, no wait for the device, one graph; and as torchdiffeq has it."""

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from odevid.ode import Solver, compiled
from odevid.ode.fixed import place_of, solve_fixed
from odevid.ode.tableaus import TABLEAUS
from tests.odevid.ode.problems import Learned, Oscillator, drawn

NAMES = {"euler": "euler", "midpoint": "midpoint", "heun": "heun2", "heun3": "heun3", "rk4_38": "rk4"}


@pytest.mark.parametrize("method", NAMES)
def test_the_states_are_torchdiffeqs(method: str) -> None:
    field, initial_BD = Learned(), drawn(5, 3)
    times = torch.linspace(0, 1, 10, dtype=torch.float64)
    theirs_TBD = torchdiffeq.odeint(field, initial_BD, times, method=NAMES[method])
    ours_BTD = Solver(method, step=1 / 9)(field, initial_BD, times.tolist()).states_BTD
    assert torch.allclose(ours_BTD, theirs_TBD.transpose(0, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", TABLEAUS)
def test_what_is_found_at_a_time_does_not_depend_on_the_other_times(method: str) -> None:
    """Unsorted, repeated, fractional, before, at and after a start that is not zero: bit for bit."""
    field, initial_BD, solver = Learned(), drawn(5, 3), Solver(method, step=0.2)
    times = [1.3, 0.71, -0.35, 0.5, 0.7, 0.71, -0.1, 2.0, 1.3]
    together = solver(field, initial_BD, times, start=0.5).states_BTD
    for column, time in enumerate(times):
        alone = solver(field, initial_BD, [time], start=0.5).states_BTD[:, 0]
        assert torch.equal(together[:, column], alone), time
    assert torch.equal(together[:, 3], initial_BD)


def test_times_around_a_start_that_is_not_zero_are_right() -> None:
    initial_BD = drawn(4, 2)
    times = [1.3, -0.35, 0.5, 0.31]
    found = Solver("rk4", step=0.01)(Oscillator(), initial_BD, times, start=0.5).states_BTD
    for column, time in enumerate(times):
        assert torch.allclose(found[:, column], Oscillator.exact(initial_BD, time - 0.5), atol=1e-9), time


@pytest.mark.parametrize("method", ["rk4", "rk4_38"])
def test_backwards_from_where_it_went_it_returns_to_the_start(method: str) -> None:
    field, initial_BD, solver = Learned(), drawn(5, 3), Solver(method, step=0.02)
    there = solver(field, initial_BD, [1.0]).states_BTD[:, 0]
    back = solver(field, there, [0.0], start=1.0).states_BTD[:, 0]
    assert float((there - initial_BD).detach().abs().max()) > 0.1
    assert torch.allclose(back, initial_BD, atol=1e-8)


def test_a_time_that_is_a_node_but_for_rounding_costs_no_step() -> None:
    places = [place_of(n / 9, 0.0, 1 / 9) for n in range(20)] + [place_of(-n * 0.1, 0.0, 0.1) for n in range(20)]
    assert [place.node for place in places] == [*range(20), *range(20)]
    assert not any(place.rest for place in places)
    assert place_of(0.25, 0.0, 0.1).rest == pytest.approx(0.5)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("method", TABLEAUS)
def test_evaluations_are_counted_as_they_happen(method: str, gradient: str) -> None:
    field, initial_BD = Learned(), drawn(2, 3)
    solution = Solver(method, step=0.1, gradient=gradient)(field, initial_BD, [0.25, 0.1, -0.1, -0.17, 0.3, 0.25])
    assert solution.evaluations == field.calls == TABLEAUS[method].stages * (3 + 1 + 2)
    solution.states_BTD.sum().backward()
    assert solution.evaluations_backward == (solution.evaluations if gradient == "checkpoint" else 0)
    assert field.calls == solution.evaluations + solution.evaluations_backward


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize(("time", "told"), [(2.6, "26"), (-1e9, "1e+10"), (1e300, "1e+301")])
def test_more_steps_than_allowed_are_refused_before_the_first(gradient: str, time: float, told: str) -> None:
    field, initial_BD = Learned(), drawn(2, 3)
    solver = Solver("rk4_38", step=0.1, gradient=gradient, max_steps=25)
    solver(field, initial_BD, [2.5, -2.5])
    before = field.calls
    with pytest.raises(ValueError) as raised:
        solver(field, initial_BD, [0.1, time])
    assert field.calls == before
    words = f"time {time:g} is {told} steps of 0.1 from 0, but max_steps is 25; ask for nearer times, take longer steps"
    assert words in str(raised.value)


class _Counting(TorchDispatchMode):
    """Names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class _Timeless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        return torch.tanh(self.net(state_BD))


@pytest.mark.parametrize("method", TABLEAUS)
def test_nothing_waits_for_the_device(method: str) -> None:
    """Not even whether the solve failed; torchdiffeq, under the same watch, does wait."""
    field, initial_BD = _Timeless(), drawn(2, 3)
    with _Counting() as ours:
        solution = Solver(method, step=0.1)(field, initial_BD, [0.2, 0.25, -0.1])
        (solution.states_BTD.sum() + solution.failed).backward()
    with _Counting() as theirs:
        torchdiffeq.odeint(field, initial_BD, torch.linspace(0, 1, 3, dtype=torch.float64), method="rk4")
    assert "_local_scalar_dense" not in ours.names
    assert "_local_scalar_dense" in theirs.names


@pytest.mark.parametrize("method", ["euler", "rk4_38"])
def test_the_loop_is_one_graph(method: str) -> None:
    """fullgraph=True raises where it is not."""
    field, initial_BD = _Timeless(), drawn(2, 3)
    places = [place_of(time, 0.0, 0.1) for time in (0.1, 0.15, -0.1)]
    one_graph = torch.compile(solve_fixed, fullgraph=True, dynamic=False, backend="eager")
    arguments = (field, initial_BD, places, TABLEAUS[method])
    assert torch.equal(one_graph(*arguments, start=0.0, step=0.1), solve_fixed(*arguments, start=0.0, step=0.1))


@pytest.fixture
def without_a_compiler(monkeypatch: pytest.MonkeyPatch):
    """The compiled loop, as torch.compile cuts and differentiates it, but run by PyTorch."""
    torch.compiler.reset()
    graph = torch.compile(compiled._stacked, fullgraph=True, dynamic=False, backend="aot_eager")
    monkeypatch.setattr(compiled, "_in_one_graph", lambda: graph)
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("without_a_compiler")
def test_compiled_or_not_states_and_gradients_are_the_same() -> None:
    times = [0.1, 0.15, -0.05]
    results = []
    for solver in (Solver("heun", step=0.1), Solver("heun", step=0.1, compiled=True)):
        field, initial_BD, condition_BC = _Conditioned(), drawn(4, 3).requires_grad_(), drawn(4, 2).requires_grad_()
        solution = solver(field, initial_BD, times, condition_BC=condition_BC)
        solution.states_BTD.square().sum().backward()
        grads = [tensor.grad for tensor in (initial_BD, condition_BC, *field.parameters())]
        results.append([solution.states_BTD.detach(), *grads])
    for plain, graph in zip(*results, strict=True):
        assert torch.allclose(plain, graph, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("without_a_compiler")
def test_other_times_are_no_other_graph() -> None:
    field, solver = _Timeless(), Solver("euler", step=0.1, compiled=True)
    with _Compilations() as compilations:
        for rest in range(12):
            solver(field, drawn(2, 3), [0.2, 0.1 + 0.005 * rest])
    assert compilations.count == 1


@pytest.mark.usefixtures("without_a_compiler")
def test_more_kinds_of_solves_than_graphs_are_kept_run_uncompiled_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "MOST_KINDS", 3)
    field, solver = _Timeless(), Solver("euler", step=0.1, compiled=True)
    for steps in range(1, 4):
        solver(field, drawn(2, 3), [0.1 * steps])
    with pytest.warns(UserWarning, match="more than 3 kinds of compiled solves"):
        found = solver(field, drawn(2, 3), [0.4]).states_BTD
    assert torch.equal(found, Solver("euler", step=0.1)(field, drawn(2, 3), [0.4]).states_BTD)


def test_without_a_compiler_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    torch.compiler.reset()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/compiler"))
    monkeypatch.setattr(config, "force_disable_caches", True)
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler.*model\.compiled=false"):
        Solver("rk4", step=0.1, compiled=True)(_Timeless(), drawn(2, 3), [0.1])


class _Compilations:
    """How many graphs torch made."""

    def __enter__(self) -> "_Compilations":
        from torch._dynamo.utils import counters

        counters.clear()
        return self

    def __exit__(self, *_: object) -> None:
        from torch._dynamo.utils import counters

        self.count = counters["stats"]["unique_graphs"]


class _Conditioned(nn.Module):
    """A field of three dimensions and a condition of two."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        slope: Tensor = self.net(state_BD)
        return slope
