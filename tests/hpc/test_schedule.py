"""The learning rate is SRVP's published schedule, or a cosine, as a pure function of the step."""

from __future__ import annotations

import pytest
import torch

from hpc.config import ConfigError, OptimizerConfig
from hpc.schedule import lr_factor


def test_schedule_equals_lambda_lr_stepped_from_the_burnin_iteration_on():
    burnin, decay = 5, 4
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: max(0, (decay - i) / decay))
    expected = []
    for iteration in range(1, burnin + decay + 1):  # the published loop counts from 1
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if iteration >= burnin:
            scheduler.step()
    config = OptimizerConfig(constant_steps=burnin)
    assert [lr_factor(config, step, burnin + decay) for step in range(burnin + decay)] == expected
    assert expected[-1] == 0.0


def test_without_constant_steps_the_rate_never_falls():
    assert {lr_factor(OptimizerConfig(), step, 10) for step in range(10)} == {1.0}


def test_a_cosine_falls_as_torch_has_it_and_ends_at_zero():
    constant, total = 3, 10
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=total - constant)
    falling = []
    for _ in range(total - constant):
        optimizer.step()
        scheduler.step()
        falling.append(optimizer.param_groups[0]["lr"])
    config = OptimizerConfig(constant_steps=constant, decay="cosine")
    found = [lr_factor(config, step, total) for step in range(total)]
    assert found == pytest.approx([1.0] * constant + falling, abs=1e-12)
    assert found[-1] == 0.0


def test_a_decay_that_never_comes_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.decay=cosine would do nothing.*constant_steps=0"):
        OptimizerConfig(decay="cosine")
