"""Explicit Runge-Kutta methods by their right names, as Butcher tableaus.

With slopes k_i = f(t + c_i h, y + h sum_j a_ij k_j), a step is y + h sum_i b_i k_i. Note that torchdiffeq's
method "rk4" is Kutta's 3/8 rule, here `rk4_38`, and not the classical method, here `rk4`: same order, same cost, other
numbers. Source: Hairer, Norsett & Wanner, "Solving Ordinary Differential Equations I", section II.1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """An explicit method: strictly lower triangular `a` (row i has i entries), weights `b`, nodes `c`."""

    order: int
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]

    @property
    def stages(self) -> int:
        """Evaluations of the field in a step."""
        return len(self.b)


TABLEAUS = {
    "euler": Tableau(1, ((),), (1.0,), (0.0,)),
    "midpoint": Tableau(2, ((), (1 / 2,)), (0.0, 1.0), (0.0, 1 / 2)),
    "heun": Tableau(2, ((), (1.0,)), (1 / 2, 1 / 2), (0.0, 1.0)),
    "heun3": Tableau(3, ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4), (0.0, 1 / 3, 2 / 3)),
    "rk4": Tableau(
        4,
        ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        (0.0, 1 / 2, 1 / 2, 1.0),
    ),
    "rk4_38": Tableau(
        4,
        ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
        (0.0, 1 / 3, 2 / 3, 1.0),
    ),
}
