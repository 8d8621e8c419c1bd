"""The learning rate schedule as a pure function of the optimiser step: nothing to save, nothing to resume."""

from __future__ import annotations

from hpc.config import OptimizerConfig


def lr_factor(optimizer: OptimizerConfig, step: int, total_steps: int) -> float:
    """Factor on the learning rate of update number `step` (from 0).

    Constant for `constant_steps` updates, then linear: the j-th update after those (j from 1) has the factor
    (decay - j) / decay with decay = total - constant, so the very last one has learning rate 0. That is SRVP's
    published schedule (its LambdaLR steps from the iteration `lr_scheduling_burnin`, counted from 1).
    """
    constant = optimizer.constant_steps
    if constant < 0 or step < constant:
        return 1.0
    decay = total_steps - constant
    return max(0, decay - (step + 1 - constant)) / decay
