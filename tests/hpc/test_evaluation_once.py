"""The given frames rebuilt and the step halved: the first sample's, the same at any world size and after a stop."""

from __future__ import annotations

import contextlib
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.distributed import World
from hpc.evaluation.evaluate import Evaluation, EvaluationStopped, Watch, evaluate
from hpc.evaluation.parts import PartStore
from hpc.evaluation.protocol import Protocol, protocol_of
from hpc.evaluation.results import format_table, table_rows, write_results
from hpc.evaluation.scorers import Scorers
from hpc.evaluation.scores import read_scores
from hpc.noise import step_generator
from hpc.rendezvous import Ranks
from hpc.tracking.evaluation_mirror import findings_of
from odevid import build_model
from odevid.config import SRVPConfig
from odevid.metrics.best_of import SSIM
from odevid.metrics.centroid import centroid_error
from odevid.metrics.psnr import psnr
from odevid.metrics.ssim import ssim
from odevid.model import VideoModel
from tests.hpc.ranks import on_ranks
from tests.hpc.test_evaluation import TINY, Squares

CLIPS, GIVEN, FRAMES = 5, 2, 6
PROTOCOL = Protocol(
    *(CLIPS, GIVEN, FRAMES), samples=3, batch=2, chunk=2, centroid=True, pictures=2, clips_of_split=5, given=True,
    halved=4,
)  # fmt: skip
ALONE = World(Ranks(0, 0, 1, 1, "127.0.0.1", 0), torch.device("cpu"), None)


def _model() -> VideoModel:
    """Of two solver steps per frame; its weights are large, so that frames tell samples and steps apart."""
    torch.manual_seed(0)
    model = build_model(SRVPConfig(**{**vars(TINY), "n_euler_steps": 2}))
    with torch.no_grad():
        for parameter in (*model.decoder.parameters(), *model.encoder.parameters()):
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    return model


def _evaluate(world: World, protocol: Protocol = PROTOCOL, **options: object) -> Evaluation:
    source = Squares()
    return evaluate(_model(), source, protocol, world, autocast=contextlib.nullcontext, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def alone() -> Evaluation:
    return _evaluate(ALONE)


@pytest.fixture(scope="module")
def video_BTCHW() -> Tensor:
    return torch.from_numpy(Squares().read(range(CLIPS)).arrays["video"]).float() / 255


def _first_sample(video_BTCHW: Tensor, **asked: object) -> Tensor:
    generator = [step_generator(1, index, "evaluation") for index in range(CLIPS)]
    return _model().predict(video_BTCHW[:, :GIVEN], generator=generator, **asked)[0]  # type: ignore[arg-type]


def test_given_frames_are_rebuilt_by_the_sample_whose_future_is_scored(alone, video_BTCHW):
    whole = _first_sample(video_BTCHW, times=list(range(FRAMES)))
    given = video_BTCHW[:, :GIVEN]
    for metric, score in (("psnr", psnr), ("ssim", ssim), ("centroid", centroid_error)):
        found = alone.curves("reconstruction", metric)
        assert found.shape == (CLIPS, GIVEN)
        torch.testing.assert_close(found.float(), score(whole[:, :GIVEN], given), rtol=1e-5, atol=1e-4)
    assert torch.equal(alone.pictures[1].rebuilt_TCHW, (whole[1, :GIVEN] * 255).round().to(torch.uint8))


def test_the_change_is_that_of_the_first_samples_psnr_with_half_the_step(alone, video_BTCHW):
    usual, finer = (_first_sample(video_BTCHW, n_future=4, substeps=substeps) for substeps in (2, 4))
    target = video_BTCHW[:, GIVEN:]
    change = psnr(finer, target).double() - psnr(usual, target).double()
    torch.testing.assert_close(alone.curves("step_halved", "psnr"), change, rtol=0, atol=1e-4)
    assert change.abs().max() > 0.05, "or any difference of nothing would do"


def test_at_another_time_step_it_is_that_one_which_is_halved():
    assert (PROTOCOL.at(5).substeps, PROTOCOL.at(5).halved) == (5, 10)
    assert PROTOCOL.at(None) is PROTOCOL
    assert replace(PROTOCOL, halved=None).at(5).halved is None


def test_the_first_sample_is_predicted_once_more_for_each_and_never_again_at_the_usual_step():
    model, decoded = _model(), []
    model.decoder.register_forward_hook(lambda _module, inputs, _output: decoded.append(inputs[0].shape[:2].numel()))
    evaluate(model, Squares(), PROTOCOL, ALONE, autocast=contextlib.nullcontext)  # type: ignore[arg-type]
    future = FRAMES - GIVEN
    assert sum(decoded) == CLIPS * (3 * future + future + GIVEN + 1)


def test_neither_is_there_unless_it_is_asked_for():
    found = _evaluate(ALONE, replace(PROTOCOL, given=False, halved=None, num_clips=1))
    assert set(found.clips[0].curves) == {"best", "single", "repeat_last", "constant_velocity"}
    assert found.pictures[0].rebuilt_TCHW is None
    assert not [name for name in found.scalars() if "reconstruction" in name or "halved" in name]


def _both(world: World) -> list[Evaluation]:
    """Clips shared out, and of one clip the samples."""
    return [_evaluate(world), _evaluate(world, replace(PROTOCOL, num_clips=1, samples=4))]


def test_two_ranks_find_what_one_rank_finds(alone):
    one_clip = _evaluate(ALONE, replace(PROTOCOL, num_clips=1, samples=4))
    for found in on_ranks(2, _both):
        for ours, theirs in zip(found, (alone, one_clip), strict=True):
            for method, metric in (("reconstruction", "psnr"), ("reconstruction", "ssim"), ("step_halved", "psnr")):
                expected = theirs.curves(method, metric)
                torch.testing.assert_close(ours.curves(method, metric), expected, rtol=1e-5, atol=1e-5)
            assert torch.equal(ours.pictures[0].rebuilt_TCHW, theirs.pictures[0].rebuilt_TCHW)


def test_an_evaluation_that_was_stopped_has_them_when_it_goes_on(alone, tmp_path):
    rounds = iter((False, True))
    store = PartStore(tmp_path, "these weights")
    with pytest.raises(EvaluationStopped):
        _evaluate(ALONE, store=store, watch=Watch(lambda: next(rounds)))
    assert [part.index for part in store.read(3)] == [0, 1]
    found = _evaluate(ALONE, store=store)
    for method in ("reconstruction", "step_halved"):
        torch.testing.assert_close(found.curves(method, "psnr"), alone.curves(method, "psnr"), rtol=0, atol=1e-5)
    assert torch.equal(found.pictures[0].rebuilt_TCHW, alone.pictures[0].rebuilt_TCHW)


def test_table_curves_and_scalars_name_them(alone, tmp_path):
    written = write_results(alone, tmp_path, {"step": 3})
    assert read_scores(tmp_path) == written
    rebuilt = alone.curves("reconstruction", "psnr")
    line = written.score("reconstruction", "psnr")
    assert line.mean == pytest.approx(rebuilt.mean().item())
    assert line.half_width == pytest.approx(1.96 * rebuilt.mean(1).std(correction=0).item() / CLIPS**0.5)
    assert (line.samples, written.score("step_halved", "psnr").videos) == (1, CLIPS)
    assert written.score("step_halved", "ssim") is None
    first = {(curve.method, curve.metric): (curve.first_frame, len(curve.mean)) for curve in written.curves}
    assert first["reconstruction", "psnr"] == (1, GIVEN)
    assert first["best", "psnr"] == first["step_halved", "psnr"] == (GIVEN + 1, FRAMES - GIVEN)
    with np.load(tmp_path / "curves.npz") as arrays:
        assert arrays["reconstruction/psnr"].shape == (CLIPS, GIVEN)
        np.testing.assert_allclose(arrays["step_halved/psnr"], alone.curves("step_halved", "psnr").numpy(), atol=1e-6)
    scalars = alone.scalars()
    assert scalars["psnr_reconstruction"] == pytest.approx(rebuilt.mean().item())
    assert scalars["psnr_step_halved_change"] == pytest.approx(alone.curves("step_halved", "psnr").mean().item())
    assert {"ssim_reconstruction", "centroid_reconstruction"} <= scalars.keys()
    values = findings_of(written, tmp_path)["values"]
    assert values["test/psnr_reconstruction"] == line.mean
    assert values["test/psnr_step_halved_change"] == scalars["psnr_step_halved_change"]


def test_files_for_people_show_them_where_they_belong(alone, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr("hpc.evaluation.results.save_curves_png", lambda path, curves, _: drawn.update({path: curves}))
    written = write_results(alone, tmp_path, {})
    table = format_table(table_rows(written))
    assert "model, given frames rebuilt" in table
    mean = alone.interval("step_halved", "psnr").mean
    assert f"change with half the step    {mean:+.3f} ± " in table
    lines = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert {"reconstruction", "step_halved"} <= {line["method"] for line in lines}
    frames = {}
    for line in csv.DictReader((tmp_path / "psnr.csv").open()):
        frames.setdefault(line["curve"], []).append(int(line["frame"]))
    assert frames["model, given frames rebuilt"] == [1, 2]
    assert frames["model, best of 3"] == frames["change with half the step"] == [3, 4, 5, 6]
    labels = [curve.label for curve in drawn[tmp_path / "psnr.png"]]
    assert "model, given frames rebuilt" in labels
    assert "change with half the step" not in labels, "a change is near 0 dB, scores are not"


def test_without_psnr_among_the_metrics_the_change_is_still_that_of_psnr(tmp_path):
    found = _evaluate(ALONE, replace(PROTOCOL, num_clips=2, pictures=0), scorers=Scorers((SSIM,)))
    written = write_results(found, tmp_path, {})
    assert [(line.method, line.metric) for line in written.table if line.metric == "psnr"] == [("step_halved", "psnr")]
    assert "change with half the step" in format_table(table_rows(written))
    with np.load(tmp_path / "curves.npz") as arrays:
        assert arrays["step_halved/psnr"].shape == (2, 4)


# -- configuration -----------------------------------------------------------------------------------------------------


def _protocol(config: Config) -> Protocol:
    return protocol_of(config, Squares(), "eval.test_clips", 2, 6, 3, "test")  # type: ignore[arg-type]


def test_a_model_without_a_time_step_has_none_to_halve():
    fixed = configs.load("srvp_smmnist", "test", overrides=["eval.halve_step=true", "model.n_euler_steps=3"])
    assert _protocol(fixed).halved == 6
    maps = ["eval.halve_step=true", "model.dynamics=mlp", "model.l2_res=0"]
    with pytest.raises(ConfigError, match=r"model.name=srvp .* no fixed number of solver steps.*eval.halve_step=false"):
        configs.load("srvp_smmnist", "test", overrides=maps)


def test_what_is_asked_for_is_in_the_protocol():
    plain = _protocol(configs.load("srvp_smmnist", "test"))
    assert (plain.given, plain.halved, plain.split) == (False, None, "test")
    assert _protocol(configs.load("srvp_smmnist", "test", overrides=["eval.given=true"])).given


def test_the_pictures_show_the_rebuilt_frames(alone, tmp_path: Path, monkeypatch):
    shown = []
    for name in ("save_strip", "video_grid"):
        monkeypatch.setattr(f"hpc.evaluation.results.{name}", lambda *_, rebuilt: shown.append(rebuilt))
    for name in ("save_gif", "save_mp4"):
        monkeypatch.setattr(f"hpc.evaluation.results.{name}", lambda *_: None)
    write_results(alone, tmp_path, {})
    expected = torch.stack([picture.rebuilt_TCHW for picture in alone.pictures])
    assert len(shown) == 2
    assert all(torch.equal(rebuilt, expected) for rebuilt in shown)
