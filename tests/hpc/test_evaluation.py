"""An evaluation gives the same numbers at any world size, batch and chunk, and visits each clip exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from hpc.distributed import World
from hpc.evaluation import Evaluation, EvaluationStopped, Protocol, evaluate
from hpc.results import format_table, table_rows, write_results
from odevid import build_model
from odevid.config import SRVPConfig
from shards.source import Fetched
from tests.hpc.ranks import on_ranks

PROTOCOL = Protocol(num_clips=5, num_context=2, num_frames=6, samples=4, batch=2, chunk=3, centroid=True, pictures=2)
TINY = SRVPConfig(nf=2, nhx=8, nh_inf=8, nh_res=8, ny=3, nz=2, nt_inf=2, nt_cond=2)


class Squares:
    """Clip i is a bright square that moves i pixels a frame."""

    fingerprint = "squares"

    def __len__(self) -> int:
        return 5

    def read(self, indices: Sequence[int]) -> Fetched:
        video = np.zeros((len(indices), 6, 1, 64, 64), dtype=np.uint8)
        for row, index in enumerate(indices):
            for t in range(6):
                video[row, t, 0, 10 + index * t : 20 + index * t, 30:40] = 255
        return Fetched({"video": video}, [f"clip-{index}" for index in indices])


def _evaluate(world: World, protocol: Protocol) -> Evaluation:
    torch.manual_seed(0)
    return evaluate(build_model(TINY), Squares(), protocol, world, autocast=contextlib.nullcontext)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return on_ranks(1, _evaluate, PROTOCOL)[0]


def _scores(found: Evaluation) -> dict[str, torch.Tensor]:
    pairs = [("best", "psnr"), ("best", "ssim"), ("single", "psnr"), ("single", "centroid"), ("repeat_last", "ssim")]
    return {f"{method}/{metric}": found.curves(method, metric) for method, metric in pairs}


def test_two_ranks_score_what_one_rank_scores(alone):
    for found in on_ranks(2, _evaluate, PROTOCOL):
        assert [clip.index for clip in found.clips] == [0, 1, 2, 3, 4]
        torch.testing.assert_close(_scores(found), _scores(alone), rtol=1e-5, atol=1e-5)
        assert [clip.best_sample for clip in found.clips] == [clip.best_sample for clip in alone.clips]


def test_batch_and_chunk_change_nothing(alone):
    found = on_ranks(1, _evaluate, replace(PROTOCOL, batch=5, chunk=1))[0]
    torch.testing.assert_close(_scores(found), _scores(alone), rtol=1e-5, atol=1e-5)


def test_best_of_n_is_no_worse_than_one_sample_and_belongs_to_each_metric(alone):
    for metric in ("psnr", "ssim"):
        best, single = alone.curves("best", metric).mean(1), alone.curves("single", metric).mean(1)
        assert (best >= single).all()


def test_baselines_are_what_the_moving_squares_say(alone):
    index = torch.arange(5.0, dtype=torch.float64)[:, None]
    steps = torch.arange(1.0, 5.0, dtype=torch.float64)[None]
    torch.testing.assert_close(alone.curves("repeat_last", "centroid"), index * steps, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(alone.curves("constant_velocity", "centroid"), 0 * index * steps, rtol=0, atol=1e-3)
    assert np.isfinite(alone.scalars()["psnr_repeat_last"]), (
        "the square that stands still must not make the mean infinite"
    )


def test_results_leave_a_table_curves_and_pictures(alone, tmp_path):
    files = write_results(alone, tmp_path, {"step": 3})
    assert {path.name for path in files.values()} == {
        "metrics.csv", "scores.json", "psnr.png", "ssim.png", "samples.gif", "samples.mp4", "samples.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 100 for path in files.values())
    assert (tmp_path / "psnr.csv").read_text().splitlines()[0] == "curve,frame,mean,half_width,videos"
    table = format_table(table_rows(alone))
    assert "best of 4" in table
    assert "last frame repeated" in table


def _stopped(world: World) -> bool:
    asked = []

    def stopping() -> bool:
        asked.append(None)
        return world.all_max([int(world.rank == 1 and len(asked) == 2)])[0] > 0

    with pytest.raises(EvaluationStopped):
        evaluate(
            build_model(TINY),
            Squares(),
            PROTOCOL,
            world,
            autocast=contextlib.nullcontext,
            stopping=stopping,  # type: ignore[arg-type]
        )
    return True


def test_a_stop_that_one_rank_sees_ends_the_evaluation_on_all():
    assert on_ranks(2, _stopped) == [True, True]
