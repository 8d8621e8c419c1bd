"""A recipe's terms are those of all its passes; what is bad about a step is told by every rank's models."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpc import config as configs
from hpc.config import Config
from hpc.distributed import World
from hpc.engine import Update
from hpc.guard import BudgetExceeded, Guard
from hpc.plan import BatchPlan, plan_batches
from hpc.recipes import MaximumLikelihood, MicroBatch
from hpc.tracking.meters import Meters
from hpc.train import Trainer
from tests.hpc.ranks import on_ranks


class OneByOne:
    """An engine whose pass number n has the terms of `passes[n]`."""

    world = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, passes: list[dict[str, float]]) -> None:
        self.passes, self.losses = iter(passes), []
        self.module = SimpleNamespace(draw_noise=lambda *_: {}, ask_later=lambda: lambda: None)

    def __call__(self, arrays: Any, noise: Any) -> dict[str, torch.Tensor]:
        return {name: torch.tensor(value, requires_grad=True) for name, value in next(self.passes).items()}

    def backward(self, loss: torch.Tensor) -> None:
        self.losses.append(float(loss.detach()))

    def step(self) -> Update:
        return Update(applied=True, grad_norm=1.0)


def test_over_the_passes_of_a_step_maxima_stay_maxima_and_others_are_averaged():
    recipe = MaximumLikelihood.__new__(MaximumLikelihood)
    engine = OneByOne([{"loss": loss, "nfe_max": nfe} for loss, nfe in ((1.0, 8.0), (3.0, 4.0), (5.0, 6.0))])
    recipe.seed, recipe.global_batch, recipe.engines = 1, 3, {"model": engine}  # type: ignore[dict-item]
    batches = [MicroBatch({"video": torch.zeros(1, 4)}, slice(n, n + 1)) for n in range(3)]
    found = recipe.step(batches, 0)
    assert {name: float(value) for name, value in found.terms.items()} == {"loss": 3.0, "nfe_max": 8.0}
    assert engine.losses == [1.0, 3.0, 5.0]
    assert not any(value.requires_grad for value in found.terms.values())


def test_the_trouble_of_a_step_is_that_of_its_first_pass_that_had_any():
    config = configs.load("rnnode_1digit", "test")
    plan = plan_batches(2, 1, 1, 1)
    recipe = on_ranks(1, _troubles_of_steps, config, plan)[0]
    first, none, again = recipe
    assert first is not None
    assert "left the finite numbers" in first
    assert none is None, "what was told of a step is not told of the next one"
    assert again is not None


def _troubles_of_steps(world: World, config: Config, plan: BatchPlan) -> list[str | None]:
    """Of three steps of two passes each: the first pass breaks, then none, then the second."""
    recipe = MaximumLikelihood(config, plan, world)
    frames, channels = config.data.num_frames, config.model.nc
    sound = torch.rand(1, frames, channels, 64, 64)
    broken = torch.full_like(sound, torch.nan)
    told = []
    for step, clips in enumerate(((broken, sound), (sound, sound), (sound, broken))):
        weights = {name: value.clone() for name, value in recipe.predictor.state_dict().items()}
        recipe.step((MicroBatch({"video": clip}, slice(n, n + 1)) for n, clip in enumerate(clips)), step)
        told.append(recipe.trouble)
        recipe.predictor.load_state_dict(weights)  # BatchNorm's statistics are no numbers now
    return told


# -- the loop ----------------------------------------------------------------------------------------------------------


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.aloud: list[bool] = []
        self.scalars: dict[str, float] = {}

    def event(self, _name: str, _step: int, details: dict[str, Any], warn: bool = False) -> None:
        self.events.append(details)
        self.aloud.append(warn)

    def log(self, _kind: str, _step: int, scalars: dict[str, float]) -> None:
        self.scalars = scalars


def _trainer(world: World, trouble: str | None) -> Trainer:
    trainer = Trainer.__new__(Trainer)
    trainer.world, trainer.step, trainer.samples_consumed = world, 7, 28
    trainer.tracker, trainer.meters = Told(), Meters("cpu")  # type: ignore[assignment]
    trainer.recipe = SimpleNamespace(trouble=trouble)  # type: ignore[assignment]
    trainer.guards, trainer.told_bad = {"model": Guard(0, 0.0)}, set()
    trainer.ledger = SimpleNamespace(records=[])  # type: ignore[assignment]
    optimizer = SimpleNamespace(lr=1.0, constant_steps=-1)
    trainer.config = SimpleNamespace(optimizer=optimizer, train=SimpleNamespace(steps=10))  # type: ignore[assignment]
    return trainer


def _bad_step(world: World, troubles: list[str | None]) -> tuple[list[dict[str, Any]], str]:
    trainer = _trainer(world, troubles[world.rank])
    trainer.guards["model"].inspect(float("nan"))
    fetched = [SimpleNamespace(keys=[f"clip-{world.rank}"])]
    with pytest.raises(BudgetExceeded) as caught:
        trainer._report_bad_step("model", "non-finite gradient", fetched)  # type: ignore[arg-type]
    return trainer.tracker.events, str(caught.value)  # type: ignore[attr-defined]


def test_the_trouble_of_any_rank_is_in_the_event_and_in_the_message_of_all():
    for events, message in on_ranks(2, _bad_step, [None, "rk4 left the finite numbers at time 3"]):
        assert events[0]["trouble"] == ["rk4 left the finite numbers at time 3"]
        assert events[0]["keys"] == ["clip-0", "clip-1"]
        assert "non-finite gradient (rk4 left the finite numbers at time 3); that is bad step" in message


def test_trouble_that_all_ranks_have_is_told_once_and_none_is_not_told():
    events, message = on_ranks(2, _bad_step, ["the same", "the same"])[0]
    assert events[0]["trouble"] == ["the same"]
    assert message.count("the same") == 1
    events, message = on_ranks(1, _bad_step, [None])[0]
    assert "trouble" not in events[0]
    assert "non-finite gradient; that is" in message


def _said_aloud(world: World) -> list[tuple[dict[str, Any], bool]]:
    trainer = _trainer(world, None)
    trainer.guards = {"model": Guard(100, 0.0)}
    for reason, trouble in (
        ("non-finite gradient", None),
        ("non-finite gradient", None),
        ("gradient norm 5.1e+03 spiked (usual 1)", None),
        ("gradient norm 77 spiked (usual 1.5)", None),
        ("non-finite gradient", "too many steps at time 3.5"),
        ("non-finite gradient", "too many steps at time 4"),
        ("non-finite gradient", None),
    ):
        trainer.recipe = SimpleNamespace(trouble=trouble)  # type: ignore[assignment]
        trainer._report_bad_step("model", reason, [])
    trainer.stop = SimpleNamespace(shield=contextlib.nullcontext)  # type: ignore[assignment]
    trainer.saver = SimpleNamespace(saved_step=7, finish=lambda _: True)  # type: ignore[assignment]
    trainer.watchdog = SimpleNamespace(beat=lambda *_: None)  # type: ignore[assignment]
    trainer._export = lambda: None  # type: ignore[method-assign]
    for norm in (1.0, float("nan")):
        trainer.guards["model"].inspect(norm)
        trainer._end(None)
    return list(zip(trainer.tracker.events, trainer.tracker.aloud, strict=True))  # type: ignore[attr-defined]


def test_bad_steps_are_all_recorded_and_said_aloud_once_for_each_thing_that_went_wrong():
    *steps, whole, lost, finished = on_ranks(1, _said_aloud)[0]
    assert [aloud for _, aloud in steps] == [True, False, True, False, True, False, False]
    assert steps[4][0]["trouble"] == ["too many steps at time 3.5"]
    message = "1 of 2 updates was not applied: the gradient was not finite"
    assert lost == ({"engine": "model", "message": message}, True)
    assert whole == finished == ({"cause": "schedule"}, False), "where all were applied, nothing is said"


def _logged(world: World) -> dict[str, float]:
    trainer = _trainer(world, None)
    trainer.meters.update({"nfe": torch.tensor(4.0 * world.rank), "nfe_max": torch.tensor(10.0 * world.rank)}, {}, 1)
    trainer._log()
    return trainer.tracker.scalars  # type: ignore[attr-defined]


def test_a_line_of_the_journal_has_the_slowest_ranks_maxima():
    for scalars in on_ranks(2, _logged):
        assert (scalars["nfe"], scalars["nfe_max"]) == (2.0, 10.0)
