"""The command `study`, as it is typed, on a tiny run that was trained for it: files, numbers, captions, errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image

from hpc.cli import main
from hpc.config import ConfigError
from hpc.evaluation.scores import Cost, FvdScores, Score, Scores
from hpc.given_runs import LoadedRun, load_run
from hpc.run_folder import RunFolder
from hpc.studies import frame_rate
from hpc.studies.clips import generators, read_clips
from hpc.studies.command import main as study
from hpc.studies.registry import STUDIES, NotForThisRun, StudyOptions, find_study
from odevid.config import EncODEConfig, RNNODEConfig, SRVPConfig
from odevid.pictures import style

pytestmark = pytest.mark.multiprocess
COST = Cost(1.0, 1.0, 1, "cpu", 12)
ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "content-swap": {"matrix.gif", "matrix.mp4", "strip.png", "scores.csv", "caption.txt"},
    "interpolation": {"trajectories.png", "strip-0-1.png", "weights.gif", "weights.mp4", "scores.csv", "caption.txt"},
    "frame-rate": {"rates.gif", "rates.mp4", "strip.png", "frames.csv", "caption.txt"},
    "latent": {"latent.png", "points.csv", "variance.json", "curve.csv", "caption.txt"},
    "diversity": {"rms.png", "rms.csv", "deviation.png", "caption.txt"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps of the smallest model, on digits that scikit-learn has."""
    folder = tmp_path_factory.mktemp("studies")
    words = ["--ranks", "1", "size=test", f"data.root={folder / 'data'}", f"run={folder / 'run'}"]
    subprocess.run([sys.executable, "hpc/launch.py", *words], cwd=ROOT, check=True, capture_output=True)
    return folder / "run"


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ODEVID_WEIGHTS", raising=False)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FILES)
def test_a_study_writes_its_files_and_says_so(run, capsys, name):
    samples = ["--samples", "3"] if "samples" in find_study(name).takes else []
    assert main(["study", name, f"run={run}", "--count", "2", *samples, "--device", "cpu"]) == 0
    folder = run / "studies" / name
    assert {path.name for path in folder.iterdir()} == FILES[name]
    printed = capsys.readouterr().out
    for path in folder.iterdir():
        assert str(path) in printed
        assert path.stat().st_size > 0
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width > 300
        if path.suffix == ".gif":
            with GifImagePlugin.GifImageFile(path) as gif:
                assert gif.n_frames >= 4
    caption = (folder / "caption.txt").read_text()
    assert "step 6, test clips 0, 1, seed 1" in caption
    assert not list((run / "studies").glob(".*"))


def test_the_clips_that_are_named_are_those_of_the_captions_and_tables_and_nothing_older_stays(run):
    assert study(["interpolation", f"run={run}", "--clips", "4,2"]) == 0
    folder = run / "studies" / "interpolation"
    assert "test clips 4, 2" in (folder / "caption.txt").read_text()
    assert [path.name for path in folder.glob("strip-*")] == ["strip-4-2.png"]
    assert {(row["first"], row["second"]) for row in _rows(folder / "scores.csv")} == {("4", "2")}


def test_a_clips_samples_do_not_depend_on_its_company(run):
    assert study(["latent", f"run={run}", "--clips", "1,3", "--samples", "2"]) == 0
    together = [row for row in _rows(run / "studies/latent/points.csv") if row["clip"] == "3"]
    loaded = load_run(RunFolder(run), [], "cpu")
    options = StudyOptions(run, clips=(3,), seed=1)
    clips = read_clips(loaded, options, 1)
    latent = loaded.model.infer(clips.context_BTCHW, 2, n_future=3, generator=generators(options, clips))  # type: ignore[operator]
    states_NTD = loaded.model.trajectory(latent, range(5))[:, 0]  # type: ignore[operator]
    points = np.array([[float(row["pca_1"]), float(row["pca_2"])] for row in together])
    assert [int(row["given"]) for row in together] == [1, 1, 0, 0, 0] * 2
    spread = torch.cdist(states_NTD.flatten(0, 1), states_NTD.flatten(0, 1)).max()
    flat = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
    assert flat <= spread * (1 + 1e-5)
    shares = json.loads((run / "studies/latent/variance.json").read_text())["pca_share_of_variance"]
    assert 0 < shares[1] <= shares[0] <= 1


def test_the_numbers_of_the_curves_are_those_of_the_states_and_the_caption_has_their_means(run):
    assert study(["latent", f"run={run}", "--clips", "1,3", "--samples", "2"]) == 0
    rows = _rows(run / "studies/latent/curve.csv")
    assert [(row["sample"], row["clip"]) for row in rows] == [("0", "1"), ("0", "3"), ("1", "1"), ("1", "3")]
    loaded = load_run(RunFolder(run), [], "cpu")
    options = StudyOptions(run, clips=(3,), seed=1)
    clips = read_clips(loaded, options, 1)
    latent = loaded.model.infer(clips.context_BTCHW, 2, n_future=3, generator=generators(options, clips))  # type: ignore[operator]
    states_NTD = loaded.model.trajectory(latent, range(5))[:, 0].double().numpy()  # type: ignore[operator]
    for row, states_TD in zip(rows[1::2], states_NTD, strict=True):
        steps_TD = np.diff(states_TD, axis=0)
        lengths = np.linalg.norm(steps_TD, axis=-1)
        cosines = (steps_TD[1:] * steps_TD[:-1]).sum(-1) / lengths[1:] / lengths[:-1]
        chord = np.linalg.norm(states_TD[-1] - states_TD[0])
        found = [float(row[name]) for name in ("arc", "turning_degrees", "chord_over_arc")]
        expected = [lengths.sum(), np.degrees(np.arccos(cosines)).mean(), chord / lengths.sum()]
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    means = [np.mean([float(row[name]) for row in rows]) for name in ("turning_degrees", "random_turning_degrees")]
    caption = (run / "studies/latent/caption.txt").read_text()
    assert f"turns by {means[0]:.0f} degrees on average" in caption
    assert f"in a random order it is {means[1]:.0f} degrees" in caption


def test_a_model_whose_samples_are_all_the_same_draws_each_clip_once(run, tmp_path, monkeypatch):
    loaded = load_run(RunFolder(run), [], "cpu")
    monkeypatch.setattr(type(loaded.config.model), "stochastic", False)
    for name, options in (("asked", {"samples": 3}), ("usual", {})):
        (tmp_path / name).mkdir()
        find_study("latent").load()(loaded, StudyOptions(tmp_path / name, clips=(1, 3), **options))
        rows = _rows(tmp_path / name / "curve.csv")
        assert [(row["sample"], row["clip"]) for row in rows] == [("0", "1"), ("0", "3")]
        caption = (tmp_path / name / "caption.txt").read_text()
        assert caption.startswith("Latent trajectories of 1 sample per clip, one point per frame")


def test_the_diversity_of_a_run_is_that_of_its_predictions(run):
    assert study(["diversity", f"run={run}", "--clips", "5", "--samples", "4"]) == 0
    rows = _rows(run / "studies/diversity/rms.csv")
    loaded = load_run(RunFolder(run), [], "cpu")
    options = StudyOptions(run, clips=(5,))
    clips = read_clips(loaded, options, 1)
    samples = loaded.model.predict(clips.context_BTCHW, 3, 4, generator=generators(options, clips))[:, 0].numpy()
    pairs = [np.sqrt(((samples[a] - samples[b]) ** 2).mean((1, 2, 3))) for a in range(4) for b in range(a)]
    between = [float(row["mean"]) for row in rows if row["curve"] == "between two samples"]
    np.testing.assert_allclose(between, np.mean(pairs, axis=0), rtol=1e-4)
    assert [row["frame"] for row in rows[:3]] == ["3", "4", "5"]


def test_intermediate_frames_have_their_own_border(run):
    assert study(["frame-rate", f"run={run}", "--clips", "0"]) == 0
    with Image.open(run / "studies/frame-rate/strip.png") as image:
        picture = np.array(image)
    between, at_data = ((picture == colour).all(-1).sum() for colour in (style.BETWEEN, style.PREDICTED))
    assert between > at_data > 0  # 12 frames against 9
    rows = _rows(run / "studies/frame-rate/frames.csv")
    assert [row["frame"] for row in rows if row["factor"] == "4"][:3] == ["2.5", "2.75", "3.0"]
    assert {row["substeps"] for row in rows} == {"1", "2", "4"}


def _save_scores(folder: Path, substeps: int, psnr: float, clips: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Scores(
        about={"step": 6},
        protocol={"num_clips": clips, "samples": 3, "substeps": substeps},
        table=[
            Score("best", "psnr", "dB", psnr, 0.5, 0.6, 4, 3),
            Score("single", "psnr", "dB", psnr - 1, 0.5, 0.6, 4, 3),
            Score("best", "ssim", "", 0.5, 0.1, 0.1, 4, 3),
        ],
        curves=[],
        cost=COST,
        fvd=FvdScores(200.0 + substeps, 2.0, [200.0], 4, 400) if substeps > 1 else None,
    ).save(folder, {})


def test_scores_at_several_time_steps_become_the_table_and_missing_ones_the_command(run, capsys):
    assert study(["frame-rate", f"run={run}", "--clips", "0"]) == 0
    assert f"evaluate run={run} 'eval.substeps=[1,2,3,4,5]'" in capsys.readouterr().out
    for substeps, psnr in ((1, 15.0), (2, 15.5), (3, 15.25)):
        _save_scores(run / "evaluation" / (f"substeps-{substeps}" if substeps > 1 else ""), substeps, psnr)
    assert study(["frame-rate", f"run={run}", "--clips", "0"]) == 0
    assert "no scores at time steps 1/4, 1/5 of a frame" in capsys.readouterr().out
    rows = _rows(run / "studies/frame-rate/substeps.csv")
    assert [(row["step"], float(row["mean"])) for row in rows if row["metric"] == "psnr"] == [
        ("1", 15.0), ("1/2", 15.5), ("1/3", 15.25),
    ]  # fmt: skip
    fvd = [(row["step"], row["method"], row["samples"]) for row in rows if row["metric"] == "fvd"]
    assert fvd == [("1/2", "single", "1"), ("1/3", "single", "1")], "of one sample per video and set, not the best of N"
    assert {(row["method"], row["samples"]) for row in rows if row["metric"] == "psnr"} == {("best", "3")}
    assert json.loads((run / "studies/frame-rate/substeps.json").read_text())[0]["videos"] == 4
    assert (run / "studies/frame-rate/substeps.png").is_file()


def test_a_time_step_of_another_protocol_is_in_the_table_with_the_difference_and_not_in_the_picture(
    run, tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(frame_rate, "save_steps_png", lambda path, panels, own, title: drawn.append(panels) or path)
    folder = RunFolder(tmp_path / "run")
    for substeps in (1, 2, 3):
        _save_scores(folder.evaluation / f"substeps-{substeps}", substeps, 15.0)
    _save_scores(folder.evaluation, 1, 11.0)
    _save_scores(folder.evaluation / "substeps-3", 3, 15.0, clips=2)
    loaded = replace(load_run(RunFolder(run), [], "cpu"), folder=folder)
    _, note = frame_rate._tables(loaded, tmp_path, own=1)
    rows = [row for row in _rows(tmp_path / "substeps.csv") if row["metric"] == "psnr"]
    assert [(row["step"], float(row["mean"]), row["differs"]) for row in rows] == [
        ("1", 15.0, ""), ("1/2", 15.0, ""), ("1/3", 15.0, "2 videos instead of 4"),
    ]  # fmt: skip
    assert "Time step 1/3 was scored with another protocol (2 videos instead of 4)" in note
    (panels,) = drawn
    assert [point.substeps for point in panels["PSNR (dB), best of 3"]] == [1, 2]
    assert [point.substeps for point in panels["FVD, one sample per video"]] == [2]


def test_scores_that_cannot_be_read_are_named(run, tmp_path):
    folder = RunFolder(tmp_path / "run")
    _save_scores(folder.evaluation, 1, 15.0)
    (folder.evaluation / "scores.json").write_text("{")
    loaded = replace(load_run(RunFolder(run), [], "cpu"), folder=folder)
    with pytest.raises(ConfigError, match=r"scores.json"):
        frame_rate._tables(loaded, tmp_path, own=1)


class TestAll:
    def test_runs_what_fits_and_says_what_not_and_why(self, run, capsys, monkeypatch):
        monkeypatch.setattr("hpc.studies.command.STUDIES", [find_study("content-swap"), find_study("latent")])
        monkeypatch.setattr("odevid.models.srvp.SRVP.has_content", False)
        assert study(["all", f"run={run}", "--count", "2", "--samples", "1"]) == 0
        printed = capsys.readouterr().out
        assert "latent.png" in printed
        assert "left out content-swap: its model decodes frames from the state alone" in printed

    def test_goes_on_after_a_study_that_fails_and_tells_that_it_did(self, run, capsys, monkeypatch):
        monkeypatch.setattr("hpc.studies.command.STUDIES", [find_study("interpolation"), find_study("latent")])
        assert study(["all", f"run={run}", "--count", "3", "--samples", "1"]) == 1
        printed = capsys.readouterr().out
        assert "latent.png" in printed
        assert "left out interpolation: 3 clips: interpolation takes pairs" in printed
        monkeypatch.setattr("hpc.studies.command.STUDIES", [find_study("interpolation")])
        assert study(["all", f"run={run}", "--count", "3"]) == 2

    def test_passes_options_on_to_the_studies_that_take_them(self, run, monkeypatch):
        asked = {}

        def noted(self):
            def run_study(_loaded, options):
                asked[self.name] = (options.count, options.samples, options.digits)
                return []

            return run_study

        monkeypatch.setattr("hpc.studies.registry.Study.load", noted)
        assert study(["all", f"run={run}", "--count", "2", "--samples", "7", "--digits", "5"]) == 0
        assert asked == {
            **dict.fromkeys(("content-swap", "interpolation", "frame-rate"), (2, 0, 0)),
            **dict.fromkeys(("latent", "diversity"), (2, 7, 0)),
            "motion": (2, 7, 5),
        }

    def test_fails_when_nothing_fits(self, run, monkeypatch, capsys):
        monkeypatch.setattr("hpc.studies.command.STUDIES", [find_study("content-swap")])
        monkeypatch.setattr("odevid.models.srvp.SRVP.has_content", False)
        assert study(["all", f"run={run}"]) == 2
        with pytest.raises(NotForThisRun, match="no content to exchange"):
            study(["content-swap", f"run={run}"])


def test_what_is_typed_wrong_is_said(run):
    for words, message in (
        ([f"run={run}"], "which study"),
        (["swap", f"run={run}"], "no study 'swap'; studies: content-swap"),
        (["latent"], "one run=DIR, got 0"),
        (["latent", f"run={run}", "--clips", "0,999999"], "the test split has clips 0 to"),
        (["latent", f"run={run}", "--clips", "0", "--count", "2"], "give one of them"),
        (["latent", f"run={run}", "--count", "-1"], "expected at least 1"),
        (["diversity", f"run={run}", "--count", "0"], "--count 0: expected at least 1"),
        (["diversity", f"run={run}", "--samples", "0"], "--samples 0: expected at least 1"),
        (["all", f"run={run}", "--digits", "0"], "--digits 0: expected at least 1"),
        (["latent", f"run={run}", "--clips", "1", "--count", "0"], "give one of them"),
        (["content-swap", f"run={run}", "--samples", "7"], "means nothing to content-swap: leave it out"),
        (["interpolation", f"run={run}", "--samples", "7"], "it is for latent, diversity, motion"),
        (["frame-rate", f"run={run}", "--samples", "7"], "means nothing to frame-rate"),
        (["diversity", f"run={run}", "--digits", "3"], "means nothing to diversity: leave it out; it is for motion"),
        (["interpolation", f"run={run}", "--clips", "0,1,2"], "takes pairs"),
        (["content-swap", f"run={run}", "--clips", "0"], "takes at least 2"),
        (["diversity", f"run={run}", "--samples", "1"], "at least 2"),
        (["latent", f"run={run}", "eval.test_num_frame=9"], "test_num_frames"),
    ):
        with pytest.raises(ConfigError, match=message):
            study(words)


def test_models_that_cannot_be_taken_apart_or_have_no_time_step_are_refused(run):
    loaded = load_run(RunFolder(run), [], "cpu")
    options = StudyOptions(run)
    plain = LoadedRun(loaded.folder, loaded.config, torch.nn.Identity(), 6, loaded.device)  # type: ignore[arg-type]
    for name in ("content-swap", "interpolation", "latent"):
        with pytest.raises(NotForThisRun, match="no latent state"):
            find_study(name).load()(plain, options)
    loaded.config.model.dynamics = "gru"
    with pytest.raises(NotForThisRun, match="no time step"):
        find_study("frame-rate").load()(loaded, options)


class AnyTime(torch.nn.Module):
    """A model whose solver chooses its steps: grey frames, the brighter the later."""

    own_substeps = None

    def predict(self, context_BTCHW, times, *, substeps, generator):
        assert substeps is None
        return torch.stack([torch.full_like(context_BTCHW[:, 0], time / 10) for time in times], dim=1)[None]


def test_a_solver_that_chooses_its_steps_has_its_frame_rates_without_a_table_over_time_steps(run, tmp_path, capsys):
    loaded = load_run(RunFolder(run), [], "cpu")
    config = replace(loaded.config, model=EncODEConfig(method="dopri5", nt_cond=2))
    adaptive = LoadedRun(RunFolder(run), config, AnyTime(), 6, loaded.device)  # type: ignore[arg-type]
    _save_scores(run / "evaluation", 2, 15.0)
    files = find_study("frame-rate").load()(adaptive, StudyOptions(tmp_path, clips=(0,)))
    assert {path.name for path in files} == FILES["frame-rate"]
    assert "eval.substeps" not in capsys.readouterr().out
    rows = _rows(tmp_path / "frames.csv")
    assert {row["substeps"] for row in rows} == {""}
    change = {row["factor"]: float(row["rms_change"]) for row in rows}
    assert change == pytest.approx({"1": 0.1, "2": 0.05, "4": 0.025}, rel=1e-4)
    caption = (tmp_path / "caption.txt").read_text()
    assert "There are no scores over time steps: the solver chooses its own." in caption
    assert "refined" not in caption


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (RNNODEConfig(objective="predict", nt_cond=2), r"\(model.ncontent=0\)"),
        (EncODEConfig(nt_cond=2), r"\(this model has none\)"),
        (SRVPConfig(content_variable=False), r"\(model.content_variable=false, model.skip_connections=false\)"),
    ],
)
def test_a_model_without_content_says_which_settings_make_it_so(run, monkeypatch, model, said):
    monkeypatch.setattr("odevid.models.srvp.SRVP.has_content", False)
    loaded = load_run(RunFolder(run), [], "cpu")
    monkeypatch.setattr(loaded.config, "model", model)
    with pytest.raises(NotForThisRun, match=f"from the state alone: there is no content to exchange {said}"):
        find_study("content-swap").load()(loaded, StudyOptions(run))


@pytest.mark.parametrize("name", FILES)
def test_a_model_that_diverged_is_named(run, tmp_path, name):
    loaded = load_run(RunFolder(run), [], "cpu")
    for weights in loaded.model.parameters():
        weights.data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="predicts NaN at step 6"):
        find_study(name).load()(loaded, StudyOptions(tmp_path, count=2))
    assert not list(tmp_path.iterdir())


def test_help_lists_every_study_in_a_line_without_torch():
    code = (
        "import atexit, sys; from hpc.studies.command import main; "
        "atexit.register(lambda: print('torch' in sys.modules)); main(['--help'])"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in STUDIES:
        assert f"{name.name:14} {name.summary}" in printed
        assert len(name.summary) < 70
    assert printed.splitlines()[-1] == "False"
