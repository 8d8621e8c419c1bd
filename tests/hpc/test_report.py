"""The report says what is known of a run, beside the papers' numbers, and of everything else that it is not known."""

from __future__ import annotations

import base64
import html.parser
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hpc import cli
from hpc import config as configs
from hpc.config import ConfigError
from hpc.evaluation.scores import Cost, CurveScores, Score
from hpc.report.command import main
from hpc.report.commands import reproduce, train_words
from hpc.report.costs import costs, hour_unit, rank_hours
from hpc.report.differences import differences
from hpc.report.facts import gather_run
from hpc.report.results import headline, over_steps
from hpc.report.scores_over_time import _baselines, _model_curves
from hpc.report.training import MAX_POINTS, in_order, interruptions, series_of
from hpc.request import parse
from hpc.run_folder import RunFolder
from hpc.tracking.journal import Journal
from odevid import paper_results
from tests.hpc.report_runs import HOUR, add_attempts, add_evaluation, add_training, new_run, scores_of, train_line

ROOT = Path(__file__).resolve().parents[2]


class Reader(html.parser.HTMLParser):
    """Words, tables and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.addresses, self.tags = "", [], []
        self.tables: dict[str, list[list[str]]] = {}
        self._table = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "table":
            self._table = given["class"]
            self.tables.setdefault(self._table, [])
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag == "small":
            self.handle_data(" ")

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.words += data
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += data

    def handle_endtag(self, tag):
        if tag == "table":
            self._table = ""

    def row(self, table: str, first: str) -> list[str]:
        (found,) = [row for row in self.tables[table] if row and row[0].startswith(first)]
        return [cell.strip() for cell in found]

    def cell(self, table: str, first: str, column: str) -> str:
        heads = [head.strip() for head in self.tables[table][0]]
        (index,) = [number for number, head in enumerate(heads) if head.startswith(column)]
        return self.row(table, first)[index]

    @property
    def facts(self) -> dict[str, str]:
        """The table of provenance."""
        return {row[0].strip(): row[1].strip() for row in self.tables["provenance"]}

    @property
    def pictures(self) -> list[Image.Image]:
        data = [address.partition(",")[2] for address in self.addresses if address.startswith("data:image")]
        return [Image.open(io.BytesIO(base64.b64decode(text))) for text in data]


def report(*runs, out=None) -> Reader:
    words = [f"run={run.path}" for run in runs] + (["--out", str(out)] if out else [])
    assert main(words) == 0
    return Reader((out or runs[0].report).read_text())


def whole_run(path):
    """A run on KTH with everything."""
    folder = new_run(path, "srvp_kth", "small")
    add_training(folder)
    add_attempts(folder)
    add_evaluation(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Such a run, to be looked at only, and its page with all curves drawn."""
    folder = whole_run(tmp_path_factory.mktemp("report") / "kth" / "first")
    return folder, report(folder)


@pytest.fixture
def page(made):
    return made[1]


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without curves, which take a second to draw; `made` has them."""
    monkeypatch.setattr("hpc.report.page.training_png", lambda runs: None)
    monkeypatch.setattr("hpc.report.page.curve_pngs", lambda runs: {})


@pytest.fixture
def run(tmp_path, undrawn):
    """A run with everything, to be changed."""
    return whole_run(tmp_path / "kth" / "first")


# -- the numbers -------------------------------------------------------------------------------------------------


def test_our_numbers_stand_with_both_intervals_beside_the_papers(page):
    assert page.cell("results", "best of 100", "PSNR") == "27.12 ± 0.25 [± 0.75]"
    assert page.cell("results", "best of 100", "SSIM") == "0.8125 ± 0.0125 [± 0.0312]"
    assert page.cell("results", "one sample", "PSNR") == "25.50 ± 0.50 [± 1.00]"
    assert page.cell("results", "one sample", "centroid") == "3.50"
    assert page.cell("results", "last frame repeated", "PSNR") == "∞ ± ?"
    assert page.cell("results", "one sample", "FVD") == "412.5 ± 6.5 2 sets of 8 videos"
    paper = page.row("results", "SRVP SRVP, ICML 2020")
    assert paper[2:6] == ["29.69 ± 0.32", "0.8697 ± 0.0046", "0.0736 ± 0.0029", "222 ± 3"]
    assert "https://github.com/edouardelasalles" in page.words or "SLAMP" in page.words, "with its source"


def test_every_paper_number_of_the_experiment_is_on_the_page_and_no_other_experiments(page):
    shown = " ".join(cell for row in page.tables["results"] for cell in row)
    for result in paper_results.load():
        if result.experiment == "srvp_kth" and not over_steps(result):
            assert f"{result.value:g}".rstrip("0") in shown, result
    assert "19.59" not in shown, "that is BAIR"


def test_a_number_that_was_not_computed_is_not_filled_in(page):
    assert page.cell("results", "best of 100", "LPIPS") == "not computed"
    assert page.cell("results", "last frame repeated", "LPIPS") == "–"
    assert "–: no number known here." in page.words
    assert "nobody" not in page.words
    assert page.cell("results", "best of 100", "FVD") == "–", "FVD is not of the best samples"
    assert "No LPIPS: no weights in /w: put alex.pth there" in page.words


def test_fvd_of_no_more_videos_than_features_is_called_rank_deficient(run):
    assert "FVD is rank-deficient: 8 videos" in report(run).words
    enough = scores_of(fvd=scores_of().fvd.__class__(412.5, 6.5, [410.0, 415.0], 401, 400))
    add_evaluation(run, enough)
    assert "rank-deficient" not in report(run).words


def test_the_page_says_in_words_where_the_protocol_differs(page):
    words = page.words
    for said in (
        "Fewer steps: 40 of the 200,000 of the published schedule (0.02 %).",
        "Another model (size=small): model.architecture dcgan (vgg)",
        "model.nf 16 (64)",
        "Clips per step: 16; published 100.",
        "Fewer test videos: 8 of the 1,000 of this test split; published 1,000.",
    ):
        assert said in words
    assert "samples per test video" not in words, "100 samples are the published number"


def test_the_main_numbers_say_of_how_many_videos_they_are_and_that_the_papers_are_of_another_protocol(made):
    facts = gather_run(made[0])
    cards = {card.label: card.below for card in headline(facts)[0].cards}
    apart = "another protocol than the paper's, see below"
    assert cards["PSNR (dB)"] == f"best of 100 · 8 videos · paper: 29.69 ± 0.32 · {apart}"
    assert cards["FVD"] == f"one sample per video · 8 videos · paper: 222 ± 3 · {apart}"
    assert cards["LPIPS"] == "paper: 0.0736 ± 0.0029", "no number, so nothing that differs"


def test_differences_of_samples_data_and_digits_are_told(tmp_path):
    folder = new_run(tmp_path / "mnist" / "run", "srvp_smmnist", "test")
    found = differences(run := gather_run(folder), None)
    assert "Another variant of Moving MNIST: data.moving_mnist.digits 1 (2), data.moving_mnist.deterministic true" in (
        " ".join(found)
    )
    assert any(line.startswith("Other digits: the embedded ones") for line in found)
    assert found[-1] == "There is no number to compare: not evaluated."
    add_evaluation(folder, scores_of(samples=3))
    run = gather_run(folder)
    assert "Fewer samples per test video: 3; published 100." in differences(run, run.evaluation)


def test_a_run_as_published_differs_in_nothing(tmp_path, undrawn):
    folder = new_run(tmp_path / "kth" / "run", "srvp_kth")
    protocol = {**scores_of().protocol, "num_clips": 1000}
    add_evaluation(folder, scores_of(about={"step": 200_000}, protocol=protocol, absent={}))
    run = gather_run(folder)
    assert differences(run, run.evaluation) == []
    add_evaluation(folder, scores_of(about={"step": 200_000}, protocol=protocol))
    (card, *_) = headline(gather_run(folder))[0].cards
    assert card.below == "best of 100 · 8 videos · paper: 29.69 ± 0.32", "that LPIPS is missing changes no PSNR"
    add_evaluation(folder, scores_of(about={"step": 200_000}, protocol=protocol, absent={}))
    assert "The protocol of kth/run is the published one." in report(folder).words


def test_where_no_paper_has_numbers_nothing_is_called_published(tmp_path, undrawn):
    folder = new_run(tmp_path / "ode" / "run", "rnnode_kth", "test")
    add_evaluation(folder, scores_of(samples=3, about={"step": 3}))
    run = gather_run(folder)
    found = differences(run, run.evaluation)
    assert "Fewer samples per test video: 3; as configured 100." in found
    assert any(line.startswith("Clips per step: ") and line.endswith("; as configured 100.") for line in found)
    assert any("of the 200,000 of the schedule of the experiment as configured (" in line for line in found)
    words = report(folder).words
    assert "How this differs from the experiment as configured" in words
    assert "published" not in words
    assert "paper's protocol" not in words
    plain = new_run(tmp_path / "whole" / "run", "rnnode_kth")
    add_evaluation(plain, scores_of(about={"step": 200_000}, absent={}))
    words = report(plain).words
    assert "The protocol of whole/run is that of the experiment as configured." in words
    assert "size of the experiment as configured" in words
    assert "published" not in words


def test_time_steps_are_a_table_or_the_command_that_makes_it(run):
    page = report(run)
    assert "step-sizes" not in page.tables
    assert f"evaluate run={run.path} 'eval.substeps=[1,2,3,4,5]'" in page.words
    for steps in (2, 4):
        add_evaluation(run, scores_of(substeps=steps, psnr=20.0 + steps), f"substeps-{steps}")
    page = report(run)
    assert page.cell("step-sizes", "1 (as trained)", "PSNR").startswith("27.12 ± 0.25")
    assert page.cell("step-sizes", "1/4", "PSNR").startswith("24.00 ± 0.25")


# -- training, costs, provenance -----------------------------------------------------------------------------------


def test_curves_show_only_what_led_to_the_present_weights_and_leave_out_what_is_not_finite(made, page):
    curves = series_of(facts := gather_run(made[0]))
    assert "2 values of train/nll not finite" in page.words
    assert curves["train/loss"].steps == list(range(1, 41))
    assert min(curves["train/loss"].values) == 1000 / 40, "the steps of the killed attempt are superseded"
    assert curves["train/nll"].not_finite == 2
    assert curves["eval/psnr"].values == [21.5]
    assert [(stop.step, stop.cause) for stop in interruptions(facts)] == [(20, "preempt")]


def test_a_long_journal_is_averaged(tmp_path):
    folder = new_run(tmp_path / "a" / "long")
    journal = Journal(folder.path, 1)
    for step in range(1, 2001):
        train_line(journal, step, loss=float(step))
    journal.close()
    curve = series_of(gather_run(folder))["train/loss"]
    assert curve.per_point == 3
    assert (curve.steps[0], curve.values[0]) == (3, 2.0)
    assert curve.steps[-1] == 2000


def test_every_term_of_the_loss_has_a_panel_and_of_maxima_the_largest_is_drawn(tmp_path):
    folder = new_run(tmp_path / "ode")
    journal = Journal(folder.path, 1)
    for step in range(1, 2 * MAX_POINTS + 1):
        train_line(journal, step, nfe=step % 2 + 1.0, nfe_max=step % 2 + 5.0)
    journal.close()
    curves = series_of(gather_run(folder))
    assert set(curves["train/nfe"].values) == {1.5}
    assert set(curves["train/nfe_max"].values) == {6.0}
    assert {"train/nfe", "train/nfe_max"} <= set(in_order(list(curves)))


def test_costs_count_the_hours_of_all_ranks_over_all_attempts(made, page):
    facts = gather_run(made[0])
    assert rank_hours(facts, "train") == pytest.approx(2 * 1 + 0.5 * 4)
    assert hour_unit(facts) == "GPU-hours"
    killed = facts.folder.path.parent / "killed"
    shutil.copytree(facts.folder.path, killed)
    attempts = (killed / "attempts.jsonl").read_text().splitlines(keepends=True)
    (killed / "attempts.jsonl").write_text("".join(line for line in attempts if '"finished"' not in line))
    begun, heard = 3 * HOUR, 3.25 * HOUR
    found = rank_hours(gather_run(RunFolder(killed)), "train")
    assert found == pytest.approx(2 + 4 * (heard - begun) / HOUR), "until its last sign of life"
    assert page.cell("costs", "kth/first", "training") == "4 GPU-hours"
    assert page.cell("costs", "kth/first", "evaluation") == "40 s 2 ranks, NVIDIA H200"
    assert page.cell("costs", "kth/first", "per video") == "100 ms 8 videos x 100 samples"
    nothing = Cost(rank_s=0.0, cpu_s=0.0, ranks=2, device="NVIDIA H200", scored=0)
    add_evaluation(RunFolder(killed), scores_of(cost=nothing))
    cells = [cell.text for cell in costs([gather_run(RunFolder(killed))])[0].rows[0].cells]
    assert cells[-2:] == ["not measured", "not measured"]
    assert page.row("attempts", "1: train")[1] == "preempt"


def test_provenance_names_code_libraries_and_machine(made, page):
    rows = page.facts
    assert rows["code"] == "0.1.0+abc1234"
    assert rows["libraries"] == "torch 2.13.0, deepspeed 0.19, python 3.11"
    assert rows["nodes"] == "n1, n2"
    assert rows["fingerprint"] == "not known"
    assert made[0].config.read_text() in page.words


def test_the_datasets_fingerprint_comes_from_its_manifest(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    told = {"fingerprint": "f" * 64, "provenance": {"command": "build it", "digits": {"origin": "mnist-idx"}}}
    (root / "manifest.json").write_text(json.dumps(told))
    folder = new_run(tmp_path / "a" / "run", "srvp_smmnist", "", f"data.root={root}")
    rows = report(folder).facts
    assert (rows["fingerprint"], rows["digits"], rows["built by"]) == ("f" * 64, "mnist-idx", "build it")
    assert not any("Other digits" in line for line in differences(gather_run(folder), None))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["train.steps=7", "data.root='/d/a b'", "log.group='it''s'", "eval.metrics=[psnr,fvd]", "eval.substeps=[1,2]"],
        ["model.nf=8", "optimizer.lr=1e-05", "train.deterministic=true", "data.cache='$TMPDIR'", "cluster.qos='12'"],
    ],
)
def test_the_commands_make_the_same_configuration_again(tmp_path, overrides):
    folder = new_run(tmp_path / "a" / "run", "srvp_smmnist", "test", *overrides)
    facts = gather_run(folder)
    typed = " ".join(map(shlex.quote, train_words(facts)))
    request = parse(shlex.split(typed), {"train": ""})
    again = configs.load(request.experiment, request.size, overrides=request.overrides)
    assert configs.to_yaml(again) == folder.config.read_text()


def test_the_commands_go_from_the_code_to_the_report(run):
    commands = reproduce(gather_run(run))
    assert commands[0] == "git checkout abc1234"
    assert commands[1].startswith("python hpc/launch.py --nodes 2 experiment=srvp_kth size=small")
    assert commands[1].endswith(f"run={run.path}-again")
    assert commands[2:] == [f"python hpc/launch.py {verb} run={run.path}-again" for verb in ("evaluate", "report")]


def test_an_evaluation_with_settings_of_its_own_is_repeated_with_them(run):
    used = configs.to_dict(configs.load("srvp_kth", "small", overrides=["eval.test_clips=8", "data.workers=7"]))
    add_evaluation(run, scores_of(about={"step": 40, "config": used}))
    assert reproduce(gather_run(run))[2] == f"python hpc/launch.py evaluate run={run.path}-again eval.test_clips=8"


def test_settings_that_are_younger_than_the_run_are_not_typed(run):
    used = configs.to_dict(configs.load("srvp_kth", "small"))
    text = run.config.read_text()
    old = re.sub(r"\n  i3d: [^\n]*", "", text)
    assert old != text
    run.config.write_text(old)
    add_evaluation(run, scores_of(about={"step": 40, "config": used}))
    assert reproduce(gather_run(run))[2] == f"python hpc/launch.py evaluate run={run.path}-again"


# -- pictures ------------------------------------------------------------------------------------------------------


def test_curves_of_training_and_of_each_metric_are_drawn(page):
    """One PNG of all panels, then one for PSNR and one for SSIM, beside the GIF and the strip of the evaluation."""
    wide = [picture.size for picture in page.pictures if picture.width > 500]
    assert len(wide) == 3
    assert [size for size in wide if abs(size[0] - 10.4 * 144) < 2], "the panels of the training"


def test_pictures_of_evaluation_studies_and_validation_are_inside(run):
    study = run.studies / "content-swap"
    study.mkdir(parents=True)
    Image.new("RGB", (50, 20)).save(study / "swap.png")
    Image.new("RGB", (600, 20)).save(study / "plot.png", dpi=(150, 150))
    (study / "caption.txt").write_text("Motion of one, content of another.\n")
    (run.pictures / "samples-000000020.gif").write_bytes(b"GIF89a, but an old one")
    Image.new("L", (11, 13)).save(run.pictures / "samples-000000040.gif")
    page = report(run)
    sizes = {picture.size for picture in page.pictures}
    assert {(36, 24), (50, 20), (11, 13)} <= sizes
    assert any(picture.format == "GIF" and picture.n_frames == 2 for picture in page.pictures)
    assert "content swap" in page.words
    assert 'alt="content swap, plot.png" width="384"' in run.report.read_text(), "600 / 150 inches of 96 pixels"
    assert "Motion of one, content of another." in page.words


def test_a_picture_that_is_none_is_named(run):
    (run.evaluation / "samples.png").write_text("<svg onload=alert(1)>")
    (run.evaluation / "samples.gif").unlink()
    words = report(run).words
    assert words.count("is missing, or no picture.") == 2


def test_several_runs_share_one_axis_and_their_baselines_are_drawn_once(run, tmp_path):
    second = new_run(tmp_path / "kth" / "second", "srvp_kth", "small")
    add_evaluation(second, scores_of(samples=7, psnr=29.0))
    third = new_run(tmp_path / "kth" / "third", "srvp_kth", "small")
    runs = [gather_run(folder) for folder in (run, second, third)]
    scored = [(facts, facts.evaluation) for facts in runs if facts.evaluation]
    labels = [curve.label for facts, found in scored for curve in _model_curves(facts, found, "psnr", True)]
    assert labels == ["kth/first (best of 100)", "kth/second (best of 7)"]
    (baseline,) = _baselines(scored, "psnr")
    assert baseline.label == "last frame repeated"
    assert baseline.first_frame == 11
    assert [interval.half_width for interval in baseline.intervals] == [0.5, 0.5, 0.75]
    page = report(run, second, third, out=tmp_path / "all.html")
    assert page.cell("overview", "kth/second", "PSNR") == "29.00 ± 0.25"
    assert page.cell("overview", "kth/third", "PSNR") == "not computed"
    assert page.words.count("Fewer samples per test video: 7") == 1


# -- what is missing or hostile --------------------------------------------------------------------------------------


def test_a_run_with_nothing_but_a_configuration_gives_a_report_that_says_so(tmp_path):
    folder = new_run(tmp_path / "a" / "new")
    page = report(folder)
    for said in (
        "Not evaluated on its test split yet",
        "no metrics.jsonl: nothing was trained",
        "No curves of training",
        "no attempts.jsonl",
        "No studies of this run",
        "manifest was not read",
    ):
        assert said in page.words
    assert page.cell("results", "not evaluated", "PSNR") == "not computed"
    assert page.pictures == []


def test_a_killed_run_with_a_torn_journal_and_torn_scores_is_reported(run):
    with (run.path / "metrics.jsonl").open("ab") as journal:
        journal.write(b'not json\n{"v":1,"seq":70,"kind":"tra')
    with (run.path / "attempts.jsonl").open("ab") as attempts:
        attempts.write(b'{"event": "started", "num')
    (run.evaluation / "scores.json").write_text('{"format": 2, "table": [')
    page = report(run)
    assert "metrics.jsonl: 2 lines cut short or not readable" in page.words
    before = page.words.partition("Configuration of kth/first")[0]
    assert before.count("scores.json cannot be read") >= 2, "said where the number is missing, not in Provenance alone"
    assert "Not evaluated on its test split yet" not in page.words
    assert page.cell("results", "scores cannot be read", "PSNR") == "cannot be read"
    second = whole_run(run.path.parent / "second")
    assert report(run, second, out=run.path / "two.html").cell("overview", "kth/first", "PSNR") == "cannot be read"


def test_scores_and_configurations_of_another_version_are_reported(run):
    kept = json.loads((run.evaluation / "scores.json").read_text())
    (run.evaluation / "scores.json").write_text(json.dumps({**kept, "format": 1}))
    run.config.write_text(run.config.read_text() + "new_key: 3\n")
    words = report(run).words
    assert "written by another version" in words
    assert "config.yaml does not fit this version of the code" in words
    assert "unknown key 'new_key'" in words


def test_words_from_files_cannot_become_markup(tmp_path, undrawn):
    evil = "<script>alert(1)</script><img src=http://evil/x>"
    folder = new_run(tmp_path / "a" / "<b>run", "srvp_kth", "", f"log.group={json.dumps(evil)}")
    add_training(folder)
    add_evaluation(folder, scores_of(absent={"lpips": evil}, about={"step": 1, "code": evil}))
    study = folder.studies / "s"
    study.mkdir(parents=True)
    (study / "caption.txt").write_text(evil)
    Image.new("L", (4, 4)).save(study / "<i>.png")
    page = report(folder)
    assert "script" not in page.tags
    assert not {"i", "b"} & {*page.tags}
    assert page.words.count(evil) >= 3


def test_the_page_needs_nothing_but_itself(made, page):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not {"script", "iframe", "object", "video"} & {*page.tags}
    text = made[0].report.read_text()
    assert not re.search(r"@import|url\(", text.partition("</style>")[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "report needs run=RUN"),
        (["run={tmp}"], "no config.yaml there, so it is not a run folder"),
        (["run={run}", "train.steps=3"], "what is train.steps=3?"),
        (["run={run}", "run={run}"], "once is enough"),
        (["run={run}", "--out", "{tmp}/no/such/page.html"], "there is no folder"),
        (["run={run}", "--out", "{tmp}"], "{tmp} is a folder, not a file: give one, such as --out {tmp}/report.html"),
        (["run={run}", "--out", "{tmp}/" + 300 * "x"], "File name too long; give a file in a folder"),
        (["run={run}", "--out", "/proc/x.html"], "/proc/x.html cannot be written (No such file or directory); give a"),
        (["{tmp}"], "no config.yaml there, so it is not a run folder"),
    ],
)
def test_a_wrong_command_line_says_what_to_type(run, tmp_path, words, said):
    with pytest.raises(ConfigError, match=re.escape(said.format(tmp=tmp_path))):
        main([word.format(tmp=tmp_path, run=run.path) for word in words])


def test_a_run_folder_that_cannot_be_written_is_said_and_not_a_traceback(run, monkeypatch, capsys):
    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("hpc.report.command.replace_text", refuse)
    assert cli.main(["report", f"run={run.path}"]) == 2
    said = capsys.readouterr().err
    assert "report.html cannot be written (Permission denied)" in said
    assert "such as --out report.html" in said


def test_a_plain_path_names_a_run_as_for_evaluate(run, tmp_path):
    strange = run.path.rename(run.path.with_name("lr=3"))
    assert main([str(strange), "--out", str(tmp_path / "page.html")]) == 0
    assert "kth/lr=3" in Reader((tmp_path / "page.html").read_text()).words


def test_the_verb_reaches_the_report(run, capsys):
    assert cli.main(["report", f"run={run.path}"]) == 0
    assert str(run.report) in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "examples" in capsys.readouterr().out


def test_neither_deepspeed_nor_without_scores_torch_is_imported(tmp_path):
    bare = new_run(tmp_path / "a" / "bare")
    add_training(bare)
    code = (
        "import sys; from hpc.cli import main; assert main(['report', 'run=' + sys.argv[1]]) == 0\n"
        "assert not {'torch', 'deepspeed', 'wandb'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, str(bare.path)], check=True, cwd=ROOT)


def test_a_folder_of_scores_with_a_strange_name_does_not_stop_the_report(run):
    add_evaluation(run, name="substeps-many")
    assert "is a folder substeps-N whose N is no number; its scores are passed over" in report(run).words


# -- the given frames, the step halved, other splits -------------------------------------------------------------------


def more_scores():
    """With the given frames rebuilt and the step halved."""
    plain = scores_of()
    table = [
        *plain.table,
        Score("reconstruction", "psnr", "dB", 33.5, 0.5, 0.75, 8, 1),
        Score("step_halved", "psnr", "dB", -0.0126, 0.0026, 0.005, 8, 1),
    ]
    curves = [
        *plain.curves,
        CurveScores("reconstruction", "psnr", 1, [34.0] * 10, [0.5] * 10),
        CurveScores("step_halved", "psnr", 11, [-0.01, -0.0125, -0.015], [0.0025] * 3),
    ]
    return scores_of(table=table, curves=curves, protocol={**plain.protocol, "given": True, "halved": 4})


def test_the_given_frames_are_a_row_and_a_curve_and_the_step_halved_is_a_sentence(run):
    add_evaluation(run, more_scores())
    page = report(run)
    assert page.cell("results", "given frames, reconstructed", "PSNR (dB) ↑").startswith("33.50 ± 0.50")
    assert not [row for row in page.tables["results"] if "halved" in " ".join(row)]
    change = "(4 steps per frame instead of 2) the PSNR of the first sample of 8 videos changes by −0.013 ± 0.003 dB"
    assert change in " ".join(page.words.split())
    assert "Ott et al. 2020, Queiruga et al. 2020" in page.words
    assert "those that the model rebuilt" in page.words
    facts = gather_run(run)
    for several, labels in (
        (False, ["best of 100 samples", "one sample (mean over 100)", "given frames, reconstructed"]),
        (True, ["kth/first (best of 100)", "kth/first (given frames)"]),
    ):
        curves = _model_curves(facts, facts.evaluation, "psnr", several)
        assert [curve.label for curve in curves] == labels
        assert curves[-1].frames == list(range(1, 11))
    assert [curve.label for curve in _baselines([(facts, facts.evaluation)], "psnr")] == ["last frame repeated"]


def test_splits_stand_side_by_side_where_there_is_more_than_one(run):
    assert "splits" not in report(run).tables
    plain = scores_of()
    add_evaluation(run, scores_of(psnr=35.0, protocol={**plain.protocol, "split": "train"}), "split-train")
    add_evaluation(run, name="split-valid")
    (run.evaluation / "split-valid" / "scores.json").write_text("{")
    page = report(run)
    assert [row[0].strip() for row in page.tables["splits"][1:]] == ["train", "test"]
    assert page.cell("splits", "train", "PSNR (dB) ↑").startswith("35.00 ± 0.25")
    assert page.cell("splits", "test", "PSNR (dB) ↑").startswith("27.1")
    assert page.cell("splits", "train", "videos x samples") == "8 x 100"
    assert "split-valid/scores.json cannot be read" in page.words
    assert page.cell("results", "best of 100 samples", "PSNR (dB) ↑").startswith("27.1"), "of the test"
