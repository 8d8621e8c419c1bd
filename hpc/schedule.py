"""The learning rate schedule as a pure function of the optimiser step: nothing to save, nothing to resume."""

from __future__ import annotations

import math

from hpc.config import OptimizerConfig


def lr_factor(optimizer: OptimizerConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate of update number `step` (from 0).

    Constant for `constant_steps` updates, then it falls: with falling = total - constant, the j-th update after those
    (j from 1) has the factor (falling - j) / falling, so the very last one has learning rate 0. That is SRVP's
    published schedule (its LambdaLR steps from the iteration `lr_scheduling_burnin`, counted from 1). With
    `decay` = cosine it is (1 + cos(pi j / falling)) / 2 (Loshchilov & Hutter 2017, without restarts): 0 there, too.
    """
    constant = optimizer.constant_steps
    if constant < 0 or step < constant:
        return 1.0
    falling = total_steps - constant
    left = max(0, falling - (step + 1 - constant)) / falling
    return left if optimizer.decay == "linear" else (1 - math.cos(math.pi * left)) / 2
