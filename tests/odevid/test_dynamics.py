"""Latent dynamics against an independent Euler solver and against their one-line definitions."""

import pytest
import torch
from torchdiffeq import odeint

from odevid.dynamics import build_dynamics, unroll
from tests.odevid.formula import scatter

STATE, NOISE = 5, 3


def _build(kind, noise=NOISE):
    torch.manual_seed(0)
    return build_dynamics(kind, STATE, noise, hidden=8, num_layers=4, gain=1.41).double()


@pytest.mark.parametrize("substeps", [1, 2, 3, 5, 7, 49])
def test_residual_dynamics_are_torchdiffeq_euler_with_z_held_between_frames(substeps):
    dynamics, first, z = _build("residual"), scatter((2, STATE), 1), scatter((2, 4, NOISE), 2)
    states, steps = unroll(dynamics, first, z, substeps)
    assert states.shape == (2, 4 * substeps + 1, STATE)
    assert steps.shape == (2, 4 * substeps, STATE)
    expected, state = [first.unsqueeze(1)], first
    grid = torch.linspace(0, 1, substeps + 1, dtype=torch.float64)
    for frame in range(4):

        def field(_time, y, frame=frame):
            return dynamics(torch.cat([y, z[:, frame]], dim=1))

        path = odeint(field, state, grid, method="euler")
        expected.append(path[1:].transpose(0, 1))
        state = path[-1]
    torch.testing.assert_close(states, torch.cat(expected, dim=1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(steps, states.diff(dim=1), rtol=1e-9, atol=1e-12)


def test_mlp_dynamics_are_the_network_itself():
    dynamics, first, z = _build("mlp"), scatter((2, STATE), 1), scatter((2, 3, NOISE), 2)
    state, states = first, unroll(dynamics, first, z, 1)[0]
    for frame in range(3):
        state = dynamics(torch.cat([state, z[:, frame]], dim=1))
        torch.testing.assert_close(states[:, frame + 1], state)


def test_gru_dynamics_are_a_gru_over_z_started_at_the_first_state():
    dynamics, first, z = _build("gru"), scatter((2, STATE), 1), scatter((2, 3, NOISE), 2)
    gru = torch.nn.GRU(NOISE, STATE, batch_first=True).double()
    gru.load_state_dict({f"{name}_l0": value for name, value in dynamics.cell.state_dict().items()})
    torch.testing.assert_close(unroll(dynamics, first, z, 1)[0][:, 1:], gru(z, first.unsqueeze(0))[0])


def test_dynamics_without_z_are_autonomous():
    dynamics, first = _build("residual", noise=0), scatter((2, STATE), 1)
    states = unroll(dynamics, first, torch.empty(2, 2, 0, dtype=torch.float64), 1)[0]
    torch.testing.assert_close(states[:, 1], first + dynamics(first))


def test_gradients_reach_state_z_and_weights():
    dynamics = _build("residual")
    first, z = scatter((2, STATE), 1).requires_grad_(), scatter((2, 2, NOISE), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda y, noise: unroll(dynamics, y, noise, 2)[0], (first, z))


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_dynamics_without_a_time_step_refuse_substeps(kind):
    with pytest.raises(ValueError, match="no time step and cannot make 2 sub-steps"):
        unroll(_build(kind), scatter((1, STATE), 1), scatter((1, 1, NOISE), 2), 2)
