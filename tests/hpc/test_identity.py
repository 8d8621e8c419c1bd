"""A run's model, seed, recipe and data rules stay what they were; everything else may change."""

from __future__ import annotations

import pytest

from hpc import config as configs
from hpc.identity import Change, first_change


def as_dict(*overrides: str) -> dict:
    return configs.to_dict(configs.load("srvp_smmnist", "test", overrides=list(overrides)))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("model.nf=4", "model.nf"),
        ("seed=9", "seed"),
        ("data.name=kth", "data.name"),
        ("data.moving_mnist.digits=2", "data.moving_mnist.digits"),
        ("data.moving_mnist.sequences=2", "data.moving_mnist.sequences"),
    ],
)
def test_what_the_checkpoints_are_made_of_may_not_change(override, key):
    change = first_change(as_dict(), as_dict(override))
    assert isinstance(change, Change)
    assert (change.key, str(change.after)) == (key, override.partition("=")[2])


def test_everything_else_may():
    assert (
        first_change(as_dict(), as_dict("train.steps=7", "cluster.nodes=3", "optimizer.lr=0.1", "eval.every=0")) is None
    )


def test_a_run_from_before_an_option_goes_on_with_its_default_and_nothing_else():
    before = as_dict()
    del before["data"]["moving_mnist"]["sequences"], before["model"]["split_decoder"]
    assert first_change(before, as_dict()) is None
    assert first_change(before, as_dict("data.moving_mnist.sequences=2")) == Change("data.moving_mnist.sequences", 0, 2)
