"""The methods are what their names say: order conditions, exactly, and measured orders of convergence."""

import math
from fractions import Fraction

import pytest
import torch

from odevid.ode import Solver
from odevid.ode.tableaus import TABLEAUS
from tests.odevid.ode.problems import DrivenLogistic, Oscillator, drawn

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4, "rk4_38": 4}


def test_every_method_has_an_order() -> None:
    assert {name: tableau.order for name, tableau in TABLEAUS.items()} == ORDERS


@pytest.mark.parametrize("method", ORDERS)
def test_the_order_conditions_hold_exactly(method: str) -> None:
    """One equation for each rooted tree of at most four nodes (Hairer, Norsett & Wanner, table II.2.2)."""
    a, b, c = _fractions(method)
    ac, ac2 = _times(a, c), _times(a, [x * x for x in c])
    trees = {
        1: [(b, Fraction(1))],
        2: [(_product(b, c), Fraction(1, 2))],
        3: [(_product(b, c, c), Fraction(1, 3)), (_product(b, ac), Fraction(1, 6))],
        4: [
            (_product(b, c, c, c), Fraction(1, 4)),
            (_product(b, c, ac), Fraction(1, 8)),
            (_product(b, ac2), Fraction(1, 12)),
            (_product(b, _times(a, ac)), Fraction(1, 24)),
        ],
    }
    for order, equations in trees.items():
        fulfilled = all(sum(left) == right for left, right in equations)
        assert fulfilled == (order <= ORDERS[method]), f"{method}: trees of {order} nodes"


@pytest.mark.parametrize("method", ORDERS)
def test_nodes_are_the_row_sums_and_rows_are_explicit(method: str) -> None:
    a, _, c = _fractions(method)
    assert [sum(row) for row in a] == c
    assert [len(row) for row in TABLEAUS[method].a] == list(range(TABLEAUS[method].stages))


@pytest.mark.parametrize("problem", [Oscillator, DrivenLogistic])
@pytest.mark.parametrize("method", ORDERS)
def test_the_measured_order_of_convergence_is_the_stated_one(method: str, problem: type) -> None:
    """By the largest error at many times, one of which is between two nodes."""
    initial_BD = torch.tensor([[0.3, 0.6], [0.8, 0.1]], dtype=torch.float64)
    errors = []
    for steps in (80, 160):
        times = [*(n / 8 for n in range(1, 13)), 1.0 + 0.3 / steps]
        found_BTD = Solver(method, step=1 / steps)(problem(), initial_BD, times).states_BTD
        exact_BTD = torch.stack([problem.exact(initial_BD, time) for time in times], dim=1)
        errors.append(float((found_BTD - exact_BTD).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.1)


def test_rk4_is_the_classical_method() -> None:
    """Against the textbook's four lines, in a field that depends on the time."""
    field, step, state = DrivenLogistic(), 0.25, drawn(4, 2).sigmoid()
    found = Solver("rk4", step=step)(field, state, [step, 2 * step, 3 * step]).states_BTD
    for n in range(3):
        t = n * step
        k1 = field(t, state)
        k2 = field(t + step / 2, state + step / 2 * k1)
        k3 = field(t + step / 2, state + step / 2 * k2)
        k4 = field(t + step, state + step * k3)
        state = state + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        assert torch.allclose(found[:, n], state, rtol=1e-14, atol=1e-14)


def _fractions(method: str) -> tuple[list[list[Fraction]], list[Fraction], list[Fraction]]:
    """a (square), b and c; floats such as 1/3 as the fractions they stand for."""
    tableau = TABLEAUS[method]
    exact = [[Fraction(x).limit_denominator(100) for x in row] for row in (*tableau.a, tableau.b, tableau.c)]
    rows, (b, c) = exact[:-2], exact[-2:]
    assert all(float(x) == y for x, y in zip([*b, *c], [*tableau.b, *tableau.c], strict=True))
    return [row + [Fraction(0)] * (len(b) - len(row)) for row in rows], b, c


def _times(a: list[list[Fraction]], vector: list[Fraction]) -> list[Fraction]:
    return [sum((x * y for x, y in zip(row, vector, strict=True)), Fraction(0)) for row in a]


def _product(*factors: list[Fraction]) -> list[Fraction]:
    return [math.prod(entries, start=Fraction(1)) for entries in zip(*factors, strict=True)]
