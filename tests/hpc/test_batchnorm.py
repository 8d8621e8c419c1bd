"""Pooled BatchNorm equals plain BatchNorm on the concatenated batch: outputs, gradients, running statistics."""

from __future__ import annotations

import torch
from torch import nn

from hpc.batchnorm import average_running_statistics, pool_batchnorm
from hpc.distributed import World
from tests.hpc.ranks import on_ranks


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.LeakyReLU(0.2), nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))
    return network.double()


def _batch() -> torch.Tensor:
    return torch.randn(8, 2, 7, 7, generator=torch.Generator().manual_seed(3)).double()


def _run(network: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_(True)
    y = network(x)
    (y * torch.linspace(-1, 2, y[0].numel()).double().view(y[0].shape)).pow(2).sum().backward()
    gradients = {f"grad/{name}": p.grad for name, p in network.named_parameters()}
    return {"y": y.detach(), "dx": x.grad, **gradients, **{f"buffer/{n}": b for n, b in network.named_buffers()}}


def _pooled(world: World, ranks_per_group: int) -> dict[str, torch.Tensor]:
    network = _network()
    pool_batchnorm(network, ranks_per_group)
    share = 8 // world.size
    return _run(network, _batch()[world.rank * share : (world.rank + 1) * share])


def test_statistics_pooled_over_two_ranks_equal_one_rank_with_the_whole_batch():
    whole = _run(_network(), _batch())
    first, second = on_ranks(2, _pooled, 2)
    for name, expected in whole.items():
        if name.startswith("grad/"):
            found = first[name] + second[name]
        elif name.startswith("buffer/"):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
            found = first[name]
        else:
            found = torch.cat([first[name], second[name]])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


def test_groups_of_one_rank_stay_plain_batchnorm():
    network = _network()
    pool_batchnorm(network, 1)
    assert {type(layer) for layer in network} == {nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU}


def _averaged(world: World) -> torch.Tensor:
    network = nn.Sequential(nn.BatchNorm2d(2))
    network(torch.full((4, 2, 3, 3), float(world.rank)))
    average_running_statistics(network)
    return network[0].running_mean


def test_running_statistics_of_separate_groups_become_equal_on_all_ranks():
    first, second = on_ranks(2, _averaged)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, torch.full((2,), 0.05))
