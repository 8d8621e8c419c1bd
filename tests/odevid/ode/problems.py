"""Fields with closed forms, and a small learned one, for the tests of the solver."""

import math

import torch
from torch import Tensor, nn


class Oscillator(nn.Module):
    """Position and velocity of a harmonic oscillator."""

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        return torch.stack([state_BD[:, 1], -state_BD[:, 0]], dim=1)

    @staticmethod
    def exact(initial_BD: Tensor, time: float) -> Tensor:
        cos, sin = math.cos(time), math.sin(time)
        return initial_BD @ torch.tensor([[cos, -sin], [sin, cos]], dtype=initial_BD.dtype)


class DrivenLogistic(nn.Module):
    """dy/dt = 2 cos(3 t) y (1 - y): not linear, and depends on the time."""

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        return 2 * math.cos(3 * float(time)) * state_BD * (1 - state_BD)

    @staticmethod
    def exact(initial_BD: Tensor, time: float) -> Tensor:
        growth = math.exp(2 / 3 * math.sin(3 * time))
        return initial_BD * growth / (1 + initial_BD * (growth - 1))


class Learned(nn.Module):
    """A perceptron of (state, condition, time) with `size` outputs that counts how often it is called."""

    def __init__(self, size: int = 3, condition: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(size + condition + 1, 8), nn.Tanh(), nn.Linear(8, size)).to(dtype)
        self.calls = 0

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        self.calls += 1
        time_B1 = torch.full_like(state_BD[:, :1], float(time))
        slope: Tensor = self.net(torch.cat([state_BD, time_B1], dim=1))
        return slope


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
