"""The control plane: every rank gets rank 0's answer, or its error."""

from __future__ import annotations

from hpc.distributed import World
from tests.hpc.ranks import on_ranks


def _failing() -> int:
    raise ValueError("disk on fire")


def _outcomes(world: World) -> tuple[object, ...]:
    answer = world.on_rank_0(lambda: 40 + 2 + world.rank)
    try:
        world.on_rank_0(_failing)
    except ValueError as error:
        message = str(error)
    return answer, message, world.all_max([world.rank, -world.rank]), world.gather(world.rank)


def test_rank_0_decides_for_all_and_fails_for_all():
    assert on_ranks(2, _outcomes) == [(42, "disk on fire", [1, 0], [0, 1])] * 2
