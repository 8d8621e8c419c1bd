"""An evaluation gives the same numbers at any world size, batch and chunk, and visits each clip exactly once."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from hpc import config as configs
from hpc.config import ConfigError, EvalConfig
from hpc.distributed import World
from hpc.evaluation import verb
from hpc.evaluation.evaluate import Evaluation, EvaluationStopped, Watch, evaluate
from hpc.evaluation.parts import PartStore
from hpc.evaluation.protocol import FRAMES_AT_ONCE, Protocol, share_of
from hpc.evaluation.results import format_table, move_former, table_rows, write_results
from hpc.evaluation.scorers import Scorers, fvd_scores, scorers_for
from hpc.evaluation.scores import read_scores
from hpc.noise import step_generator
from hpc.run_folder import RunFolder
from odevid import build_model
from odevid.config import SRVPConfig
from odevid.metrics.best_of import PSNR, SSIM
from odevid.metrics.frechet import Moments, distance_between
from odevid.model import VideoModel
from shards.source import Fetched
from tests.hpc.ranks import on_ranks

PROTOCOL = Protocol(
    *(5, 2, 6), samples=4, batch=2, chunk=3, centroid=True, pictures=2, random_samples=2, clips_of_split=5
)
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


def _model() -> VideoModel:
    torch.manual_seed(0)
    return build_model(TINY)


def _evaluate(
    world: World, protocol: Protocol, store: Path | None = None, scorers: Scorers | None = None
) -> Evaluation:
    return evaluate(
        _model(),
        Squares(),  # type: ignore[arg-type]
        protocol,
        world,
        autocast=contextlib.nullcontext,
        scorers=scorers,
        store=PartStore(store, "these weights") if store else None,
    )


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


@pytest.mark.parametrize(("clips", "samples", "ranks"), product((1, 2, 5, 16), (1, 3, 100), (1, 2, 3, 8)))
def test_each_sample_of_each_clip_is_scored_once(clips, samples, ranks):
    protocol = replace(PROTOCOL, samples=samples)
    numbers = range(10, 10 + clips)
    found = [
        (clip, sample)
        for rank in range(ranks)
        for share in [share_of(protocol, numbers, rank, ranks)]
        for batch in share.batches
        for clip in batch
        for sample in range(share.first_sample, share.first_sample + share.num_samples)
    ]
    assert sorted(found) == list(product(numbers, range(samples)))


def test_ranks_share_the_samples_where_clips_are_few():
    one_clip = [share_of(replace(PROTOCOL, samples=100), [7], rank, 4) for rank in range(4)]
    assert [(share.first_sample, share.num_samples) for share in one_clip] == [(0, 25), (25, 25), (50, 25), (75, 25)]
    many = [share_of(replace(PROTOCOL, samples=100), range(64), rank, 4) for rank in range(4)]
    assert {share.num_samples for share in many} == {100}


def test_samples_shared_out_are_the_samples_of_one_rank():
    protocol = replace(PROTOCOL, num_clips=1, samples=6)
    alone = on_ranks(1, _evaluate, protocol)[0]
    for found in on_ranks(2, _evaluate, protocol):
        torch.testing.assert_close(_scores(found), _scores(alone), rtol=1e-6, atol=1e-6)
        assert found.clips[0].best_sample == alone.clips[0].best_sample
        ours, theirs = found.pictures[0], alone.pictures[0]
        assert torch.equal(ours.best_TCHW, theirs.best_TCHW)
        assert torch.equal(ours.worst_TCHW, theirs.worst_TCHW)
        assert all(map(torch.equal, ours.random, theirs.random))


def test_random_pictures_are_the_first_samples_of_the_clip(alone):
    video = torch.from_numpy(Squares().read([1]).arrays["video"]).float() / 255
    drawn = _model().predict(video[:, :2], n_future=4, n_samples=2, generator=[step_generator(1, 1, "evaluation")])
    for sample, picture in enumerate(alone.pictures[1].random):
        assert torch.equal(picture, (drawn[sample, 0] * 255).round().to(torch.uint8))


def test_as_few_frames_are_held_as_the_memory_is_for():
    for frames, samples in ((6, 10_000), (1002, 10)):
        protocol = replace(PROTOCOL, num_frames=frames, samples=samples, batch=16, chunk=0)
        held = protocol.clips_at_once * protocol.samples_at_once(protocol.clips_at_once) * protocol.n_future
        assert held <= FRAMES_AT_ONCE
        assert held > FRAMES_AT_ONCE // 3, "and no fewer than that, which would be slow"


# -- FVD ---------------------------------------------------------------------------------------------------------------


def _light(videos_BTCHW: torch.Tensor) -> torch.Tensor:
    """Three features BD of whole videos: how bright the first, the third and the last frame are."""
    return videos_BTCHW[:, [0, 2, -1]].mean(dim=(-3, -2, -1))


def _with_fvd(world: World) -> Evaluation:
    return _evaluate(world, replace(PROTOCOL, fvd_sets=2), scorers=Scorers((PSNR, SSIM), _light))


def test_fvd_is_of_whole_videos_given_frames_first_and_alike_on_two_ranks():
    found = on_ranks(2, _with_fvd)[1]
    real = torch.stack([clip.real_D for clip in found.clips])
    scores, _ = fvd_scores(
        Moments.of(real), torch.stack([torch.stack([clip.generated[k] for clip in found.clips]) for k in range(2)])
    )
    videos = torch.from_numpy(Squares().read(range(5)).arrays["video"]).float() / 255
    generators = [step_generator(1, index, "evaluation") for index in range(5)]
    samples = _model().predict(videos[:, :2], n_future=4, n_samples=2, generator=generators)
    for sample, distance in zip(samples, scores.sets, strict=True):
        whole = torch.cat((videos[:, :2], sample), dim=1)
        expected = distance_between(Moments.of(_light(videos)), Moments.of(_light(whole)))
        assert distance == pytest.approx(expected, rel=1e-4)
    assert (scores.videos, scores.dimension) == (5, 3)
    assert scores.mean == pytest.approx(sum(scores.sets) / 2)


def test_a_cache_that_cannot_be_read_or_written_costs_a_note_not_the_evaluation(tmp_path, capsys, monkeypatch):
    found = on_ranks(1, _with_fvd)[0]
    blocked = tmp_path / "file"
    blocked.touch()
    tests = [
        verb._Test(None, None, None, 3, Squares(), found.protocol, found.scorers, tmp_path)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    monkeypatch.setattr(verb, "FRECHET_CACHE", blocked / "below")
    assert not tests[0]._load_real()
    first = tests[0]._fvd(found)
    assert "not kept for the next evaluation" in capsys.readouterr().out
    monkeypatch.setattr(verb, "FRECHET_CACHE", tmp_path / "cache")
    assert tests[0]._fvd(found) == first
    tests[1]._fvd(found)
    (kept,) = (tmp_path / "cache").iterdir()
    assert tests[1]._load_real()
    kept.write_bytes(b"no moments")
    assert not tests[1]._load_real()
    assert "computed anew" in capsys.readouterr().out


def _scorers(world: World, settings: EvalConfig) -> Scorers | str:
    try:
        return scorers_for(settings, replace(PROTOCOL, num_frames=12), world)
    except ConfigError as error:
        return str(error)


def test_without_weights_the_usual_metrics_are_left_out_by_name_and_named_ones_refused(tmp_path):
    usual, named, short = (
        on_ranks(1, _scorers, settings)[0]
        for settings in (
            EvalConfig(weights=str(tmp_path)),
            EvalConfig(weights=str(tmp_path), metrics=["psnr", "lpips_vgg"]),
            EvalConfig(weights=str(tmp_path), metrics=["psnr", "ssim_svg"]),
        )
    )
    assert [metric.name for metric in usual.metrics] == ["psnr", "ssim"]
    assert set(usual.absent) == {"lpips", "fvd"}
    assert str(tmp_path / "i3d_pretrained_400.pt") in usual.absent["fvd"]
    assert "eval.i3d=FILE" in usual.absent["fvd"]
    assert "eval.metrics names lpips_vgg" in named
    assert "eval.weights=" in named
    assert str(tmp_path / "vgg16-397923af.pth") in named
    assert [metric.name for metric in short.metrics] == ["psnr", "ssim_svg"]


# -- files -------------------------------------------------------------------------------------------------------------


def test_results_leave_a_table_curves_and_pictures(alone, tmp_path):
    written = write_results(alone, tmp_path, {"step": 3})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("metrics.csv", "scores.json", "curves.npz", "psnr.png", "ssim.png", "psnr.csv", "ssim.csv"),
        *("samples.gif", "samples.mp4", "samples.png"),
    }
    assert all(path.stat().st_size > 100 for path in tmp_path.iterdir())
    assert (tmp_path / "psnr.csv").read_text().splitlines()[0] == "curve,frame,mean,half_width,videos"
    table = format_table(table_rows(written))
    assert "best of 4" in table
    assert "last frame repeated" in table
    read = read_scores(tmp_path)
    assert read == written
    assert read.score("single", "psnr").mean == pytest.approx(alone.curves("single", "psnr").mean().item())
    with np.load(tmp_path / "curves.npz") as arrays:
        assert arrays["best/ssim"].shape == (5, 4)
        assert arrays["keys"].tolist() == [f"clip-{index}" for index in range(5)]


def test_both_intervals_are_those_of_their_formulas(alone, tmp_path):
    line = write_results(alone, tmp_path, {}).score("single", "ssim")
    curves = alone.curves("single", "ssim").numpy()
    assert line.half_width == pytest.approx(1.96 * curves.mean(1).std() / np.sqrt(5))
    assert line.half_width_of_frames == pytest.approx((1.96 * curves.std(0) / np.sqrt(5)).mean())


# -- stopping ----------------------------------------------------------------------------------------------------------


def _stopped(world: World, store: Path) -> bool:
    asked = []

    def stopping() -> bool:
        asked.append(None)
        return world.all_max([int(world.rank == 1 and len(asked) == 2)])[0] > 0

    with pytest.raises(EvaluationStopped):
        evaluate(
            _model(),
            Squares(),  # type: ignore[arg-type]
            PROTOCOL,
            world,
            autocast=contextlib.nullcontext,
            watch=Watch(stopping),
            store=PartStore(store, "these weights"),
        )
    return True


def test_a_stop_that_one_rank_sees_ends_the_evaluation_on_all_and_it_goes_on_from_there(alone, tmp_path):
    assert on_ranks(2, _stopped, tmp_path) == [True, True]
    kept = PartStore(tmp_path, "these weights").read(PROTOCOL.samples)
    assert [part.index for part in kept] == [0, 1, 2, 3], "the first round of two ranks had scored two clips each"
    found = on_ranks(1, _evaluate, PROTOCOL, tmp_path)[0]
    assert found.cost.scored == 5 * 4
    assert found.cost.rank_s > sum(part.wall_s for part in kept), "what was done before the stop has its cost, too"
    torch.testing.assert_close(_scores(found), _scores(alone), rtol=1e-5, atol=1e-5)
    assert torch.equal(found.pictures[0].truth_TCHW, alone.pictures[0].truth_TCHW)


def test_a_disk_that_refuses_parts_costs_a_warning(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.touch()
    store = PartStore(blocked, "these weights")
    part = on_ranks(1, _evaluate, replace(PROTOCOL, num_clips=1), tmp_path)[0]
    store.keep(PartStore(tmp_path, "these weights").read(4))
    assert part.clips
    assert f"WARNING: {store.folder}" in capsys.readouterr().out


def test_results_of_another_protocol_are_moved_aside_and_those_of_the_same_replaced(alone, tmp_path):
    write_results(alone, tmp_path, {"step": 3})
    protocol = read_scores(tmp_path).protocol
    (tmp_path / "old.png").touch()
    assert move_former(tmp_path, 3, protocol) is None
    assert not list(tmp_path.iterdir()), "nothing stale stays beside the new"
    write_results(alone, tmp_path, {"step": 3})
    former = move_former(tmp_path, 3, {**protocol, "samples": 100})
    assert former is not None
    assert [path.name for path in tmp_path.iterdir()] == [former.name]
    assert read_scores(former).protocol == protocol


def _of_broken_weights(world: World) -> str:
    model = _model()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(ConfigError) as caught:
        evaluate(model, Squares(), PROTOCOL, world, autocast=contextlib.nullcontext)  # type: ignore[arg-type]
    return str(caught.value)


def _twice_at_two_time_steps(world: World, folder: Path) -> list[bool]:
    config, dates = configs.load("srvp_smmnist", "test"), []
    for substeps, samples in ((2, 4), (2, 4), (2, 3)):
        protocol = replace(PROTOCOL, substeps=substeps, samples=samples, num_clips=1)
        test = verb._Test(config, RunFolder(folder), _model(), 3, Squares(), protocol, Scorers(), folder)  # type: ignore[arg-type]
        test.run(world, Watch())
        dates.append((folder / "scores.json").stat().st_mtime_ns)
    return [dates[0] == dates[1], dates[1] == dates[2]]


def test_of_several_time_steps_those_that_are_scored_are_not_scored_again_after_a_stop(tmp_path):
    assert on_ranks(1, _twice_at_two_time_steps, tmp_path)[0] == [True, False], "the third has another protocol"


def test_weights_that_predict_nan_are_told_with_the_clip_and_the_way_out():
    message = on_ranks(1, _of_broken_weights)[0]
    assert "first: clip-0" in message
    assert "eval.checkpoint=best" in message


def test_parts_of_other_weights_damaged_ones_and_those_that_lack_samples_are_not_taken(tmp_path, capsys):
    on_ranks(1, _evaluate, replace(PROTOCOL, num_clips=1), tmp_path)
    assert not PartStore(tmp_path, "other weights").read(4)
    store = PartStore(tmp_path, "these weights")
    assert [part.index for part in store.read(4)] == [0]
    assert not store.read(8), "four of eight samples"
    (path,) = store.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    assert not store.read(4), "damaged: scored again"
    assert f"WARNING: {path} is damaged" in capsys.readouterr().out
    store.clear()
    assert not list(tmp_path.iterdir())
