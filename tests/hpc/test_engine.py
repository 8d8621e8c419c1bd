"""DeepSpeed as we wrap it equals plain torch at every ZeRO stage, and its state is free of stage and world size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hpc.config import OptimizerConfig
from hpc.distributed import World
from hpc.engine import Engine
from hpc.plan import plan_batches
from tests.hpc.ranks import on_ranks

pytestmark = pytest.mark.multiprocess
SETTINGS = OptimizerConfig(lr=1e-2, clip_norm=1.0)
BATCH, STEPS = 8, 5


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 3))


def _inputs(step: int) -> torch.Tensor:
    return torch.randn(BATCH, 1, 6, 6, generator=torch.Generator().manual_seed(step))


def _train(engine: Engine, first: int, last: int) -> list[float]:
    norms = []
    for step in range(first, last):
        for accumulated in range(engine.plan.accumulation):
            x = _inputs(step)[engine.plan.rows(engine.world.rank, accumulated)]
            engine.backward(engine(x).pow(2).mean())
            update = engine.step()
        assert update is not None
        norms.append(update.grad_norm)
    return norms


def _engine(world: World, stage: int, micro_batch: int = 0, group: int = 0) -> Engine:
    return Engine(_network(), SETTINGS, plan_batches(BATCH, world.size, micro_batch, group), world, zero_stage=stage)


def _whole(world: World) -> dict[int, dict[str, Any]]:
    """Per stage: norms, final state, and whether a resume from the middle ends in the same bits."""
    found = {}
    for stage in (0, 1, 2):
        engine = _engine(world, stage)
        norms = _train(engine, 0, 2)
        middle = engine.state()
        norms += _train(engine, 2, STEPS)
        resumed = _engine(world, stage)
        resumed.load_state(middle)
        _train(resumed, 2, STEPS)
        found[stage] = {"norms": norms, "middle": middle, "state": engine.state(), "resumed": resumed.state()}
    return found


def _reference() -> tuple[list[float], dict[str, torch.Tensor]]:
    """Plain torch, one process, whole batch."""
    network = _network()
    optimizer = torch.optim.Adam(network.parameters(), lr=SETTINGS.lr)
    norms = []
    for step in range(STEPS):
        optimizer.zero_grad()
        network(_inputs(step)).pow(2).mean().backward()
        norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), SETTINGS.clip_norm)))
        optimizer.step()
    return norms, network.state_dict()


def _assert_same(a: Any, b: Any, **tolerance: float) -> None:
    torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("world_size", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_stage_equals_plain_torch_and_resumes_bit_for_bit(world_size):
    norms, weights = _reference()
    for found in on_ranks(world_size, _whole):
        for stage, result in found.items():
            _assert_same(torch.tensor(result["norms"]), torch.tensor(norms), rtol=1e-4, atol=1e-6)
            state = {**result["state"]["weights"], **result["state"]["buffers"]}
            _assert_same(state, dict(weights), rtol=1e-4, atol=1e-5)
            _assert_same(result["resumed"], result["state"], rtol=0, atol=0)
            assert set(result["state"]["optimizer"]) == set(result["state"]["weights"]), stage


def _continue(world: World, middle: dict[str, Any], stage: int) -> dict[str, Any]:
    engine = _engine(world, stage)
    engine.load_state(middle)
    _train(engine, 2, STEPS)
    return engine.state()


def test_a_state_written_at_one_stage_and_size_continues_at_any_other():
    one = on_ranks(1, _whole)[0]
    expected = one[0]["state"]
    for stage in (0, 1, 2):
        for found in on_ranks(2, _continue, one[stage]["middle"], (stage + 1) % 3):
            _assert_same(found["weights"], expected["weights"], rtol=1e-4, atol=1e-5)
            _assert_same(found["optimizer"], expected["optimizer"], rtol=1e-3, atol=1e-6)


def _accumulate(world: World) -> dict[str, Any]:
    engine = _engine(world, 0, micro_batch=2, group=2 * world.size)
    _train(engine, 0, STEPS)
    return {"state": engine.state(), "plan": engine.plan}


def test_accumulation_equals_more_ranks_when_the_batchnorm_group_is_the_same():
    two = on_ranks(2, _accumulate)[0]  # groups of 4 clips over two ranks, two passes
    one = on_ranks(1, _four_clips_a_pass)[0]
    assert two["plan"].accumulation == 2
    _assert_same(two["state"]["weights"], one["weights"], rtol=1e-4, atol=1e-5)


def _four_clips_a_pass(world: World) -> dict[str, Any]:
    engine = _engine(world, 0, micro_batch=4, group=4)
    _train(engine, 0, STEPS)
    return engine.state()


def _poisoned(world: World) -> dict[int, Any]:
    found = {}
    for stage in (0, 1, 2):
        engine = _engine(world, stage)
        _train(engine, 0, 1)
        before = engine.state()
        x = _inputs(1)[engine.plan.rows(world.rank, 0)]
        x = x * float("nan") if world.rank == world.size - 1 else x
        engine.backward(engine(x).pow(2).mean())
        update = engine.step()
        found[stage] = (update, before, engine.state())
        _train(engine, 1, 2)  # and the run goes on
    return found


def test_a_non_finite_gradient_on_one_rank_changes_nothing_on_any():
    for found in on_ranks(2, _poisoned):
        for stage, (update, before, after) in found.items():
            assert not update.applied, stage
            for part in ("weights", "buffers"):
                floats = {name: value for name, value in before[part].items() if value.is_floating_point()}
                _assert_same({name: after[part][name] for name in floats}, floats, rtol=0, atol=0)


def _bf16(world: World) -> tuple[torch.dtype, torch.dtype]:
    engine = Engine(_network(), SETTINGS, plan_batches(BATCH, world.size), world, precision="bf16")
    y = engine(_inputs(0)[engine.plan.rows(world.rank, 0)])
    return y.dtype, next(engine.module.parameters()).dtype


def test_bf16_is_autocast_with_fp32_weights():
    assert on_ranks(1, _bf16) == [(torch.bfloat16, torch.float32)]


def _foreign(world: World) -> str:
    engine = _engine(world, 0)
    state = engine.state()
    state["weights"]["extra"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        engine.load_state(state)
    return str(caught.value)


def test_a_state_of_another_network_is_refused_by_name():
    assert "extra" in on_ranks(1, _foreign)[0]
