"""The table over time steps: each row says how it was made, and none is mixed in that was made otherwise in silence."""

from __future__ import annotations

import pytest
import yaml

from hpc import config as configs
from hpc.evaluation.time_steps import time_steps
from hpc.report.blocks import Paragraph, Table
from hpc.report.differences import differences
from hpc.report.facts import gather_run
from hpc.report.results import headline, results, step_sizes
from hpc.run_folder import RunFolder
from tests.hpc.report_runs import add_evaluation, new_run, scores_of


def scores(substeps, clips=16, samples=5, psnr=20.0, step=12, **protocol):
    known = {"num_clips": clips, "samples": samples, "num_frames": 40, "seed": 1, "substeps": substeps, **protocol}
    return scores_of(samples, psnr=psnr, protocol=known, about={"step": step})


@pytest.fixture
def run(tmp_path):
    """Time steps 1 to 5 of 16 clips, and then a quick evaluation of two clips."""
    folder = new_run(tmp_path / "kth" / "first", "srvp_kth", "small")
    for substeps in range(1, 6):
        add_evaluation(folder, scores(substeps, psnr=20.0 + substeps), f"substeps-{substeps}")
    add_evaluation(folder, scores(None, clips=2, psnr=18.0))
    return folder


def rows_of(blocks):
    """First field of our rows -> the others."""
    (table,) = [block for block in blocks if isinstance(block, Table)]
    heads = [cell.text for cell in table.header]
    ours = [row.cells for row in table.rows if not row.group]
    return {
        cells[0].text: {
            "small": cells[0].small,
            **{head: cell.text for head, cell in zip(heads[1:], cells[1:], strict=True)},
        }
        for cells in ours
    }


def said(blocks):
    return " ".join(block.text for block in blocks if isinstance(block, Paragraph))


def test_the_row_of_the_training_is_made_as_the_others_not_of_the_evaluation_that_is_by_itself(run):
    blocks = step_sizes(gather_run(run))
    rows = rows_of(blocks)
    own = rows["1 (as trained)"]
    assert (own["videos x samples"], own["step"], own["PSNR (dB) ↑"]) == ("16 x 5", "12", "21.00 ± 0.25")
    assert all(not row["small"] for row in rows.values())
    assert "the main numbers above are those of evaluation/ itself" in said(blocks)
    assert "another protocol" not in said(blocks)


def test_a_row_of_another_protocol_is_called_so(run):
    (run.evaluation / "substeps-1" / "scores.json").unlink()
    add_evaluation(run, scores(4, seed=2, step=6), "substeps-4")
    blocks = step_sizes(gather_run(run))
    rows = rows_of(blocks)
    assert rows["1 (as trained)"]["videos x samples"] == "2 x 5"
    assert rows["1 (as trained)"]["small"] == "not to be compared: 2 videos instead of 16"
    assert rows["1/4"]["small"] == "not to be compared: seed 2 instead of 1, weights of step 6 instead of 12"
    assert rows["1/4"]["step"] == "6"
    assert not rows["1/2"]["small"]
    assert "Δt = 1 (as trained) was scored with another protocol than the other rows" in said(blocks)


def test_samples_and_frames_are_compared_too_and_the_order_of_the_folders_does_not_matter(tmp_path):
    found = [
        (tmp_path / "evaluation", scores(None)),
        (tmp_path / "evaluation" / "substeps-3", scores(3, samples=7, num_frames=30)),
        (tmp_path / "evaluation" / "substeps-2", scores(2)),
    ]
    for order in (found, found[::-1]):
        steps = time_steps(order, 1)
        assert [(step.substeps, step.differs) for step in steps] == [
            (1, ""),
            (2, ""),
            (3, "7 samples instead of 5, clips of 30 frames instead of 40"),
        ]
    assert [step.substeps for step in time_steps(found, None)] == [2, 3], "nobody knows which time step it was"
    assert time_steps([], 1) == []


def test_a_run_that_has_only_time_steps_is_evaluated(run):
    (run.evaluation / "scores.json").unlink()
    facts = gather_run(run)
    assert facts.evaluation and facts.evaluation.folder.name == "substeps-1"
    blocks = headline(facts)
    assert "The scores are those of evaluation/substeps-1, made at the model's own time step" in said(blocks)
    assert blocks[-1].cards[0].value == "21.00 ± 0.25"
    table = results([facts])[0]
    assert table.rows[0].cells[0].text == "kth/first, step 12, from evaluation/substeps-1"
    assert "evaluation/ itself" not in said(step_sizes(facts)), "they are the main numbers"


def test_the_own_time_step_is_that_of_the_models_configuration_whatever_the_model(tmp_path):
    for number, (words, own) in enumerate(
        (
            (("model.n_euler_steps=3",), 3),
            (("model.dynamics=gru", "model.n_euler_steps=1", "model.l2_res=0"), 1),
            (("model.name=enode", "model.method=rk4", "model.substeps=3"), 3),
            (("model.name=enode", "model.method=dopri5"), None),
        )
    ):
        assert gather_run(new_run_of(tmp_path / str(number), *words)).own_substeps == own, words


def test_a_model_without_a_fixed_time_step_has_no_rows_of_time_steps_and_no_command_for_them(tmp_path):
    folder = new_run_of(tmp_path / "adaptive", "model.name=enode", "model.method=dopri5")
    add_evaluation(folder, scores(None))
    facts = gather_run(folder)
    assert facts.evaluation is not None
    assert [block.text for block in step_sizes(facts)] == [
        "The solver of this model chooses its own steps: there is no time step to vary."
    ]
    assert not [word for word in differences(facts, facts.evaluation) if "time step" in word]


def test_the_time_step_of_a_model_that_this_code_does_not_know_is_unknown(run):
    settings = yaml.safe_load(run.config.read_text())
    settings["model"] = {"name": "srvp", "no_such_setting": 1}
    run.config.write_text(yaml.safe_dump(settings))
    add_evaluation(run, scores(4))
    facts = gather_run(run)
    assert (facts.model, facts.own_substeps) == (None, None)
    assert any("1/4; that of the training is not known" in word for word in differences(facts, facts.evaluation))
    assert "1/2" in rows_of(step_sizes(facts))


def new_run_of(path, *overrides):
    """A run of the defaults of the schema and the overrides alone."""
    folder = RunFolder(path)
    folder.create()
    settings = configs._merge([("command line", configs._parse_overrides(list(overrides)))])
    configs.save(configs.to_config(settings), folder.config)
    return folder


def test_scores_that_cannot_be_read_are_replaced_by_those_of_the_own_time_step_and_both_is_said(run):
    (run.evaluation / "scores.json").write_text("{")
    (run.evaluation / "substeps-5" / "scores.json").write_text("{")
    facts = gather_run(run)
    assert "scores.json cannot be read" in said(headline(facts))
    assert headline(facts)[-1].cards[0].value == "21.00 ± 0.25"
    assert "substeps-5/scores.json cannot be read" in said(step_sizes(facts))
    assert "1/5" not in rows_of(step_sizes(facts))


def test_only_other_time_steps_are_no_evaluation_and_the_page_says_so(run):
    for name in ("", "substeps-1"):
        (run.evaluation / name / "scores.json").unlink()
    facts = gather_run(run)
    assert facts.evaluation is None
    assert "Evaluated at other time steps only (substeps-2, substeps-3, substeps-4, substeps-5)" in said(
        headline(facts)
    )
    assert results([facts])[0].rows[1].cells[0].text == "not evaluated at its own time step"
