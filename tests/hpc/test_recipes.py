"""A recipe's terms are those of all its passes; what is bad about a step is told by every rank's models."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hpc.distributed import World
from hpc.engine import Update
from hpc.guard import BudgetExceeded, Guard
from hpc.recipes import MaximumLikelihood, MicroBatch
from hpc.tracking.meters import Meters
from hpc.train import Trainer
from tests.hpc.ranks import on_ranks


class OneByOne:
    """An engine whose pass number n has the terms of `passes[n]`."""

    world = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self, passes: list[dict[str, float]]) -> None:
        self.passes, self.module, self.losses = iter(passes), SimpleNamespace(draw_noise=lambda *_: {}), []

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


# -- the loop ----------------------------------------------------------------------------------------------------------


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.scalars: dict[str, float] = {}

    def event(self, _name: str, _step: int, details: dict[str, Any]) -> None:
        self.events.append(details)

    def log(self, _kind: str, _step: int, scalars: dict[str, float]) -> None:
        self.scalars = scalars


def _trainer(world: World, trouble: str | None) -> Trainer:
    trainer = Trainer.__new__(Trainer)
    trainer.world, trainer.step, trainer.samples_consumed = world, 7, 28
    trainer.tracker, trainer.meters = Told(), Meters("cpu")  # type: ignore[assignment]
    trainer.recipe = SimpleNamespace(trouble=trouble)  # type: ignore[assignment]
    trainer.guards = {"model": Guard(0, 0.0)}
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


def _logged(world: World) -> dict[str, float]:
    trainer = _trainer(world, None)
    trainer.meters.update({"nfe": torch.tensor(4.0 * world.rank), "nfe_max": torch.tensor(10.0 * world.rank)}, {}, 1)
    trainer._log()
    return trainer.tracker.scalars  # type: ignore[attr-defined]


def test_a_line_of_the_journal_has_the_slowest_ranks_maxima():
    for scalars in on_ranks(2, _logged):
        assert (scalars["nfe"], scalars["nfe_max"]) == (2.0, 10.0)
