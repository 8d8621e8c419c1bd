"""All randomness of a step is a function of (seed, step, position in the global batch)."""

from __future__ import annotations

import torch

from hpc.noise import step_generator, take_rows
from hpc.plan import plan_batches
from odevid import build_model
from odevid.config import SRVPConfig

TINY = SRVPConfig(nf=2, nhx=8, nh_inf=8, nh_res=8, ny=3, nz=2, nt_inf=2, nt_cond=2)
CLIPS, FRAMES = 8, 5


def _draw(seed: int, step: int) -> dict[str, torch.Tensor]:
    return build_model(TINY).draw_noise(CLIPS, FRAMES, step_generator(seed, step))


def test_the_same_seed_and_step_give_the_same_noise_and_any_other_pair_does_not():
    torch.testing.assert_close(_draw(1, 5), _draw(1, 5), rtol=0, atol=0)
    draws = [_draw(seed, step)["eps_y0"] for seed in (1, 2) for step in (0, 1, 5)]
    for i, first in enumerate(draws):
        assert not any(torch.equal(first, other) for other in draws[i + 1 :])


def test_drawing_leaves_torchs_own_generator_alone():
    model = build_model(TINY)
    before = torch.get_rng_state()
    model.draw_noise(CLIPS, FRAMES, step_generator(1, 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_no_two_positions_of_the_global_batch_share_noise():
    noise = _draw(3, 7)
    for name in ("eps_y0", "eps_z"):
        rows = noise[name].flatten(1)
        assert len({tuple(row.tolist()) for row in rows}) == CLIPS


def test_the_rows_of_all_ranks_and_passes_are_the_global_noise_at_any_split():
    noise = _draw(3, 7)
    for world, micro in ((1, 8), (2, 4), (4, 2), (2, 2)):
        plan = plan_batches(CLIPS, world, micro, micro * world)
        parts = [
            take_rows(noise, plan.rows(rank, accumulated), torch.device("cpu"))
            for accumulated in range(plan.accumulation)
            for rank in range(world)
        ]
        for name, whole in noise.items():
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole, rtol=0, atol=0)
