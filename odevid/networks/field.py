"""The learned field of a latent ODE: dz/dt = f(z), a perceptron, of first or second order.

In: a time and a state (with a condition beside it, if there is one). Out: how fast the state moves.

The state of second order is (position, velocity, augmented dimensions): the position moves by the velocity, the rest by
the perceptron (ODE2VAE, Yildiz et al. 2019). Augmented dimensions begin at zero (Dupont et al. 2019); with either,
trajectories of the position may cross, which those of a first-order ODE cannot.

Axes: B states, D size of a state, C size of the condition.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from odevid.config import LatentODEConfig

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "elu": nn.ELU, "softplus": nn.Softplus}


class LatentField(nn.Module):
    """f(t, y) for the states of `config`; linear layers as torch initialises them.

    Args:
        condition: size C of what the field is told beside the state; 0 for nothing.
    """

    def __init__(self, config: LatentODEConfig, condition: int = 0) -> None:
        super().__init__()
        self.latent = config.nlatent
        self.state = config.state_size
        self.order = config.order
        self.time_input = config.time_input
        moved = self.state - (self.latent if self.order == 2 else 0)
        hidden = [config.nh_field] * (config.nlayers_field - 1)
        sizes = [self.state + condition + int(self.time_input), *hidden, moved]
        self.net = nn.Sequential()
        for index, (before, after) in enumerate(pairwise(sizes)):
            if index:
                self.net.append(ACTIVATIONS[config.activation]())
            self.net.append(nn.Linear(before, after))

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        """dy/dt BD of states with their condition, `[B, D + C]`."""
        seen = state_BD
        if self.time_input:
            seen = torch.cat([state_BD, torch.ones_like(state_BD[:, :1]) * time], dim=1)
        moved: Tensor = self.net(seen)
        if self.order == 2:
            return torch.cat([state_BD[:, self.latent : 2 * self.latent], moved], dim=1)
        return moved
