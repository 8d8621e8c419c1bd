"""Multilayer perceptron: linear layers, a ReLU before each but the first. Names as in the released checkpoints."""

from itertools import pairwise
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """`num_layers` linear layers from `size_in` through `hidden` to `size_out`, along the last axis of the input."""

    def __init__(self, size_in: int, hidden: int, size_out: int, num_layers: int) -> None:
        super().__init__()
        sizes = [size_in] + [hidden] * (num_layers - 1) + [size_out]
        self.module = nn.Sequential()
        for index, (before, after) in enumerate(pairwise(sizes)):
            activation = [nn.ReLU(inplace=True)] if index else []
            self.module.append(nn.Sequential(*activation, nn.Linear(before, after)))

    @property
    def first(self) -> nn.Linear:
        """The layer that sees the input."""
        return cast(nn.Linear, cast(nn.Sequential, self.module[0])[0])

    def forward(self, inputs: Tensor) -> Tensor:
        return self.after_first(F.linear(inputs, self.first.weight, self.first.bias))

    def after_first(self, hidden: Tensor) -> Tensor:
        """The layers that follow the first one; overwrites `hidden`."""
        for layer in list(self.module)[1:]:
            hidden = layer(hidden)
        return hidden
