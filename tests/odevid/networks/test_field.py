"""The field of a latent ODE: its formula, its sizes, and which trajectories may cross."""

import pytest
import torch

from odevid.config import RNNODEConfig
from odevid.networks.field import LatentField
from tests.odevid.formula import scatter


def _field(condition=0, **changes):
    torch.manual_seed(2)
    sizes = {"nlatent": 3, "nh_field": 5, "nlayers_field": 3, **changes}
    return LatentField(RNNODEConfig(**sizes), condition).double()


def test_the_published_field_has_98880_weights():
    assert sum(p.numel() for p in LatentField(RNNODEConfig()).parameters()) == 98_880


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("tanh", lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())),
        ("elu", lambda x: torch.where(x > 0, x, x.exp() - 1)),
        ("softplus", lambda x: (1 + x.exp()).log()),
    ],
)
def test_the_field_is_a_perceptron_without_activation_at_its_end(activation, formula):
    field, state = _field(activation=activation), scatter((4, 3), 1)
    layers = [module for module in field.net if isinstance(module, torch.nn.Linear)]
    expected = state
    for layer in layers[:-1]:
        expected = formula(expected @ layer.weight.T + layer.bias)
    expected = expected @ layers[-1].weight.T + layers[-1].bias
    assert [layer.out_features for layer in layers] == [5, 5, 3]
    torch.testing.assert_close(field(0.0, state), expected, rtol=1e-12, atol=1e-12)


def test_a_field_of_one_layer_is_linear():
    field, state = _field(nlayers_field=1), scatter((4, 3), 1)
    still = field(0.0, torch.zeros_like(state))
    torch.testing.assert_close(field(0.0, 2 * state) - still, 2 * (field(0.0, state) - still), rtol=1e-12, atol=1e-12)


def test_of_second_order_the_position_moves_by_the_velocity_and_the_rest_by_the_perceptron():
    field, state = _field(order=2, augment=2, condition=1), scatter((4, 9), 1)
    slope = field(0.0, state)
    assert slope.shape == (4, 8)
    assert torch.equal(slope[:, :3], state[:, 3:6])
    assert torch.equal(slope[:, 3:], field.net(state))


def test_only_a_field_with_time_sees_it_as_a_number_or_a_tensor():
    state = scatter((4, 3), 1)
    without, told = _field(), _field(time_input=True)
    assert torch.equal(without(0.0, state), without(2.5, state))
    assert not torch.allclose(told(0.0, state), told(2.5, state))
    as_tensor = told(torch.tensor(2.5, dtype=torch.float64), state.float().double())
    torch.testing.assert_close(as_tensor, told(2.5, state.float().double()), rtol=0, atol=0)
    single = _field(time_input=True).float()  # adaptive solvers hand out double precision times
    assert single(torch.tensor(2.5, dtype=torch.float64), state.float()).dtype == torch.float32


def test_the_condition_is_seen_and_does_not_move():
    field, state = _field(condition=2), scatter((4, 5), 1)
    other = state.clone()
    other[:, 3:] += 1
    assert field(0.0, state).shape == (4, 3)
    assert not torch.allclose(field(0.0, state), field(0.0, other))


def test_trajectories_that_meet_stay_together_unless_velocity_or_augmented_dimensions_part_them():
    here = scatter((1, 3), 1).expand(2, -1)
    first = _field()(0.0, here)
    torch.testing.assert_close(first[0], first[1], rtol=0, atol=1e-14)
    two_ways = torch.cat([here, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]], dtype=torch.float64)], dim=1)
    second = _field(order=2)(0.0, two_ways)[:, :3]
    assert second.tolist() == [[1, 0, 0], [0, 1, 0]]
    augmented = _field(augment=1)(0.0, torch.cat([here, torch.tensor([[0.0], [1.0]], dtype=torch.float64)], dim=1))
    assert not torch.allclose(augmented[0, :3], augmented[1, :3], atol=1e-3)


def test_straight_ways_cross_in_second_order():
    """Without acceleration, from the left and from below: both pass through the same place and go on."""
    field = _field(nlatent=2, order=2)
    for parameter in field.parameters():
        torch.nn.init.zeros_(parameter)
    state = torch.tensor([[-1.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0]], dtype=torch.float64)
    ways = [state]
    for _ in range(2):
        ways.append(ways[-1] + field(0.0, ways[-1]))
    assert [way[:, :2].tolist() for way in ways] == [
        [[-1, 0], [0, -1]], [[0, 0], [0, 0]], [[1, 0], [0, 1]],
    ]  # fmt: skip
