"""How a latent state moves from frame to frame, driven by a noise z that is held between two frames.

In: a first state and one z per transition. Out: the states at all sub-steps. The part of each step that depends on z
alone is computed for all times at once (`drive`); only what needs the previous state is in the loop. Sub-steps are
counted in integers: any number of them per frame is exact.

Axes: B clips (or clips times samples), T transitions, S sub-steps per frame, D size of the state, Z size of z, V size
of the driving term.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odevid.networks.init import init_orthogonal
from odevid.networks.mlp import MLP


class Dynamics(nn.Module):
    """One step from state to state. Only dynamics with `has_substeps` can be stepped more than once per frame."""

    has_substeps = False

    @abstractmethod
    def drive(self, z: Tensor) -> Tensor:
        """What depends on `z[..., Z]` alone, `[..., V]`, for any number of times at once."""

    @abstractmethod
    def step(self, state_BD: Tensor, drive_BV: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
        """(next state BD, what was added to the state BD) after 1 / substeps of a frame's time."""


class _FieldDynamics(Dynamics, MLP):
    """f(y, z) as a perceptron on (y, z) in this order; the first layer is split between the two."""

    def __init__(self, state: int, noise: int, hidden: int, num_layers: int, gain: float) -> None:
        MLP.__init__(self, state + noise, hidden, state, num_layers)
        self.state = state
        init_orthogonal(self, gain)

    def drive(self, z: Tensor) -> Tensor:
        return F.linear(z, self.first.weight[:, self.state :], self.first.bias)

    def field(self, state_BD: Tensor, drive_BV: Tensor) -> Tensor:
        """f(y, z) BD."""
        return self.after_first(torch.addmm(drive_BV, state_BD, self.first.weight[:, : self.state].T))


class ResidualDynamics(_FieldDynamics):
    """y <- y + f(y, z) / substeps: Euler steps of an ODE, SRVP eq. 4 (Franceschi et al. 2020)."""

    has_substeps = True

    def step(self, state_BD: Tensor, drive_BV: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
        residual_BD = self.field(state_BD, drive_BV) / substeps
        return state_BD + residual_BD, residual_BD


class MLPDynamics(_FieldDynamics):
    """y <- f(y, z): the paper's "MLP" variant, the same network without the sum."""

    def step(self, state_BD: Tensor, drive_BV: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
        _require_one(self, substeps)
        after_BD = self.field(state_BD, drive_BV)
        return after_BD, after_BD - state_BD


class GRUDynamics(Dynamics):
    """y <- GRU(input z, hidden y): the paper's "GRU" variant, whose sizes it does not give; here the state's own."""

    def __init__(self, state: int, noise: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(noise, state)

    def drive(self, z: Tensor) -> Tensor:
        return z

    def step(self, state_BD: Tensor, drive_BV: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
        _require_one(self, substeps)
        after_BD = self.cell(drive_BV, state_BD)
        return after_BD, after_BD - state_BD


def _require_one(dynamics: Dynamics, substeps: int) -> None:
    if substeps != 1:
        raise ValueError(f"{type(dynamics).__name__} has no time step and cannot make {substeps} sub-steps per frame")


def build_dynamics(kind: str, state: int, noise: int, hidden: int, num_layers: int, gain: float) -> Dynamics:
    """The dynamics named `kind`: "residual", "mlp" or "gru"."""
    if kind == "gru":
        return GRUDynamics(state, noise)
    return {"residual": ResidualDynamics, "mlp": MLPDynamics}[kind](state, noise, hidden, num_layers, gain)


def unroll(dynamics: Dynamics, first_BD: Tensor, z_BTZ: Tensor, substeps: int) -> tuple[Tensor, Tensor]:
    """States at all sub-steps `[B, T * S + 1, D]`, the first included, and what each step added `[B, T * S, D]`."""
    state_BD, states, steps = first_BD, [first_BD], []
    for drive_BV in dynamics.drive(z_BTZ).unbind(1):
        for _ in range(substeps):
            state_BD, step_BD = dynamics.step(state_BD, drive_BV, substeps)
            states.append(state_BD)
            steps.append(step_BD)
    return torch.stack(states, dim=1), torch.stack(steps, dim=1)
