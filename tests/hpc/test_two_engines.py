"""Two DeepSpeed engines with alternating updates go through the unchanged loop, as the video GANs will need it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hpc import config as configs
from hpc.config import Config
from hpc.distributed import World
from hpc.run_folder import RunFolder
from hpc.stop import StopFlag
from shards import Loader, open_source
from shards.building.moving_mnist import build_moving_mnist
from tests.hpc.ranks import on_ranks
from tests.hpc.two_engines import AlternatingRecipe, plain_torch

pytestmark = pytest.mark.multiprocess
STEPS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    root = tmp_path_factory.mktemp("data") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True)
    overrides = [f"data.root={root}", "train.recipe=alternating", f"train.steps={STEPS}"]
    return configs.load("srvp_smmnist", "test", overrides=overrides)


def _train(world: World, config: Config, folder: RunFolder) -> None:
    from hpc import recipes
    from hpc.task import watchdog_of
    from hpc.train import train

    recipes.RECIPES["alternating"] = AlternatingRecipe
    folder.create()
    with watchdog_of(config, folder, world.ranks, 1) as watchdog:
        train(config, folder, world, StopFlag(folder.path, world.rank), 1, watchdog)


def _whole_and_in_two_parts(world: World, config: Config, base: Path) -> None:
    for stage in (0, 1, 2):
        staged = replace(config, train=replace(config.train, zero_stage=stage))
        half = replace(staged, train=replace(staged.train, steps=STEPS // 2))
        _train(world, staged, RunFolder(base / f"whole-{stage}"))
        _train(world, half, RunFolder(base / f"parts-{stage}"))
        _train(world, staged, RunFolder(base / f"parts-{stage}"))


def _state(run: Path) -> dict[str, Any]:
    newest = max((run / "checkpoints").glob("step-*"))
    state: dict[str, Any] = torch.load(newest / "state.pt", weights_only=True)
    assert state["step"] == STEPS
    return state["engines"]


def _global_batches(config: Config) -> list[torch.Tensor]:
    source = open_source(config.data.root, "train", config.data.num_frames)
    size = config.train.global_batch
    loader = Loader(source, seed=config.seed, global_batch=size, micro_batch=size, rank=0, world_size=1)
    stream = loader.batches(0)
    return [next(stream).arrays["video"].float() / 255 for _ in range(STEPS)]


def test_two_engines_match_plain_torch_and_resume_bit_for_bit_at_every_zero_stage(config, tmp_path):
    on_ranks(2, _whole_and_in_two_parts, config, tmp_path)
    expected = plain_torch(config.seed, _global_batches(config))
    for stage in (0, 1, 2):
        whole, parts = _state(tmp_path / f"whole-{stage}"), _state(tmp_path / f"parts-{stage}")
        torch.testing.assert_close(parts, whole, rtol=0, atol=0)
        for name, weights in expected.items():
            found = {**whole[name]["weights"], **whole[name]["buffers"]}
            torch.testing.assert_close(
                found, dict(weights), rtol=1e-4, atol=2e-5, msg=lambda m, s=stage: f"stage {s}: {m}"
            )
