"""How one training step uses one or several models and optimisers. The loop knows recipes, not models.

A recipe owns its engines by name. `step` takes the micro-batches of one optimiser step and returns the named terms of
the objective, averaged over this rank's clips; the loop averages them over ranks. Terms whose name ends in "_max" are
maxima instead. Maximum likelihood (SRVP, SVG, latent ODE, PDE) is one engine and one update; adversarial recipes hold
several engines and make several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpc.config import Config, ConfigError
from hpc.distributed import World
from hpc.engine import Engine, Update
from hpc.noise import step_generator, take_rows
from hpc.plan import BatchPlan
from hpc.tracking.meters import is_maximum


@dataclass
class MicroBatch:
    """One forward pass of one rank."""

    arrays: dict[str, Tensor]
    """On the device; video float32 BTCHW in [0, 1]."""
    rows: slice
    """Which rows of the global batch these are."""


@dataclass
class StepResult:
    terms: dict[str, Tensor]
    """Scalars on the device: means over this rank's clips, or maxima where the name ends in "_max"."""
    updates: dict[str, Update]
    """By engine."""


class Recipe(Protocol):
    @property
    def engines(self) -> Mapping[str, Engine]:
        """By name; their states make up the checkpoint."""
        ...

    @property
    def predictor(self) -> nn.Module:
        """The module whose `predict` is evaluated and exported."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why the last step of this rank may have gone wrong, in words, if its models know."""
        ...

    def step(self, micro_batches: Iterable[MicroBatch], step: int) -> StepResult:
        """One optimiser step. Collective."""
        ...

    def set_lr(self, factor: float) -> None:
        """Scale every engine's learning rate to `factor` times its configured one."""
        ...


class MaximumLikelihood:
    """One model, one optimiser: minimise `model.loss` (ELBO, or any named sum of terms with the key "loss")."""

    def __init__(self, config: Config, plan: BatchPlan, world: World) -> None:
        from odevid.registry import build_model

        torch.manual_seed(config.seed)
        self.seed = config.seed
        self.base_lr = config.optimizer.lr
        self.global_batch = plan.global_batch
        model = build_model(config.model)
        engine = Engine(
            model, config.optimizer, plan, world, precision=config.train.precision, zero_stage=config.train.zero_stage
        )
        self.engines: Mapping[str, Engine] = {"model": engine}
        self._passes: list[Callable[[], str | None]] = []

    @property
    def predictor(self) -> nn.Module:
        return self.engines["model"].module

    @property
    def trouble(self) -> str | None:
        """Of the first pass of the last step that has any."""
        return next((told for ask in self._passes if (told := ask())), None)

    def step(self, micro_batches: Iterable[MicroBatch], step: int) -> StepResult:
        engine = self.engines["model"]
        noise: Mapping[str, Tensor] | None = None
        found: dict[str, Tensor] = {}
        count, update = 0, None
        model: Any = self.predictor
        self._passes = []
        for batch in micro_batches:
            if noise is None:
                noise = self._draw(batch, step)
            terms = engine(batch.arrays, take_rows(noise, batch.rows, engine.world.device))
            self._passes.append(model.ask_later())
            engine.backward(terms["loss"])
            update = engine.step()
            count += 1
            for name, value in terms.items():
                found[name] = _with(name, found.get(name), value.detach())
        assert update is not None, "the micro-batches end at the accumulation boundary"
        terms = {name: value if is_maximum(name) else value / count for name, value in found.items()}
        return StepResult(terms, {"model": update})

    def set_lr(self, factor: float) -> None:
        self.engines["model"].set_lr(self.base_lr * factor)

    def _draw(self, batch: MicroBatch, step: int) -> Mapping[str, Tensor]:
        """The noise of the whole global batch, of which each pass takes its rows."""
        num_frames = next(iter(batch.arrays.values())).shape[1]
        model: Any = self.predictor
        return model.draw_noise(self.global_batch, num_frames, step_generator(self.seed, step))


def _with(name: str, before: Tensor | None, value: Tensor) -> Tensor:
    """A term of one more pass: added, or the larger one."""
    if before is None:
        return value
    return torch.maximum(before, value) if is_maximum(name) else before + value


RECIPES: dict[str, Callable[[Config, BatchPlan, World], Recipe]] = {"likelihood": MaximumLikelihood}


def build_recipe(config: Config, plan: BatchPlan, world: World) -> Recipe:
    """The recipe that train.recipe names. Collective.

    Raises:
        ConfigError: there is none of that name.
    """
    name = config.train.recipe
    if name not in RECIPES:
        raise ConfigError(f"train.recipe={name}: expected one of {', '.join(RECIPES)}")
    return RECIPES[name](config, plan, world)
