"""The papers' numbers are complete, sourced, unambiguous, and those that the experiments' headers name."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest

from odevid.paper_results import METRICS, PaperResult, for_experiment, load, parse
from tests.conftest import REPOSITORY

EXPERIMENTS = REPOSITORY / "configs" / "experiment"
PRINTED = re.compile(r"(PSNR|SSIM|LPIPS|FVD) (\d+(?:\.\d+)?)(?: ± (\d+(?:\.\d+)?))?")
TABLE = {"paper": "P", "table": "T", "dataset": "D", "source": "S", "rows": {"Ours": {"psnr": 1.5}}}


def headers() -> list[tuple[str, str, float, float | None]]:
    """(experiment, metric, value, half width) of every "To compare with" in configs/experiment."""
    found = []
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        comment = " ".join(line for line in path.read_text().splitlines() if line.startswith("#"))
        promised = comment.partition("To compare with:")[2].partition("(")[0]
        for metric, value, half in PRINTED.findall(promised):
            found.append((path.stem, metric.lower(), float(value), float(half) if half else None))
    return found


def find(experiment: str, paper: str, method: str, metric: str) -> PaperResult:
    (result,) = [
        result
        for result in for_experiment(experiment)
        if (result.method, result.metric) == (method, metric) and result.paper == paper
    ]
    return result


def test_headers_of_the_experiments_were_found():
    assert len(headers()) == 16
    assert {name for name, *_ in headers()} == {"srvp_bair", "srvp_human", "srvp_kth", "srvp_mmnist", "srvp_smmnist"}


@pytest.mark.parametrize(("experiment", "metric", "value", "half"), headers())
def test_every_number_in_a_header_is_a_number_of_the_paper(experiment, metric, value, half):
    ours = [r for r in for_experiment(experiment) if (r.method, r.metric) == ("Ours", metric)]
    assert any(r.value == value and half in (None, r.half_width) for r in ours), ours


@pytest.mark.parametrize(
    ("experiment", "paper", "method", "metric", "value", "half"),
    [
        ("srvp_smmnist", "SRVP, ICML 2020", "Ours", "psnr", 16.93, 0.07),
        ("srvp_smmnist", "SRVP, ICML 2020", "Ours", "ssim", 0.7799, 0.0020),
        ("srvp_smmnist", "SRVP, preprint of April 2020", "Ours", "psnr", 16.90, None),
        ("srvp_smmnist", "SRVP, preprint of April 2020", "Ours - GRU", "psnr", 15.81, None),
        ("srvp_mmnist", "SRVP, preprint of April 2020", "Ours - w/o z", "ssim", 0.4757, None),
        ("srvp_kth", "SRVP, preprint of April 2020", "Ours - MLP", "fvd", 255, None),
        ("srvp_kth", "SRVP, ICML 2020", "SV2P", "fvd", 636, 1),
        ("srvp_human", "SRVP, preprint of April 2020", "Ours", "fvd", 416, 5),
        ("srvp_bair", "SRVP, ICML 2020", "Ours", "psnr", 19.59, 0.27),
        ("srvp_bair", "SRVP, preprint of April 2020", "Ours", "psnr", 19.59, 0.46),
        ("srvp_bair", "SRVP, ICML 2020", "SAVP", "lpips", 0.0634, 0.0026),
        ("srvp_bair", "SRVP, preprint of April 2020", "SVG", "ssim", 0.8057, None),
    ],
)
def test_numbers_are_those_of_their_sources(experiment, paper, method, metric, value, half):
    result = find(experiment, paper, method, metric)
    assert (result.value, result.half_width) == (value, half)


def test_small_errors_keep_their_exponent():
    (wave,) = [r for r in load() if r.table == "WaveEq" and r.method == "Ours"]
    assert (wave.metric, wave.value) == ("mse", 1.44e-4)


def test_every_number_has_a_source_a_table_and_a_known_experiment():
    known = {path.stem for path in EXPERIMENTS.glob("*.yaml")} | {""}
    assert len(load()) > 200
    for result in load():
        assert result.source and result.table and result.paper and result.dataset
        assert result.experiment in known
        assert result.metric in METRICS


def test_no_number_is_given_twice_and_two_versions_are_told_apart():
    keys = [(r.paper, r.table, r.dataset, r.method, r.metric) for r in load()]
    assert len(keys) == len(set(keys))
    assert {r.paper for r in for_experiment("srvp_smmnist")} == {"SRVP, ICML 2020", "SRVP, preprint of April 2020"}


def test_values_are_of_their_metrics_kind():
    for result in load():
        within = {"ssim": (0, 1), "lpips": (0, 1), "psnr": (5, 60), "fvd": (1, 5000)}.get(result.metric, (0, 1e5))
        assert within[0] <= result.value <= within[1], result
        assert result.half_width is None or 0 < result.half_width < result.value, result


def test_unknown_experiment_and_own_videos_have_no_numbers():
    assert for_experiment("srvp_videos") == for_experiment("no such") == for_experiment("") == []


def test_a_result_cannot_be_changed_nor_the_list_of_all():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load()[0].value = 0.0  # type: ignore[misc]
    load().clear()
    assert load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": ""}, r"entry 2 \(P, T, D\): no source"),
        ({"source": None}, r"entry 2 \(P, T, D\): no source"),
        ({"remark": "x"}, r"entry 2 \(P, T, D\): unknown key remark; expected paper, table"),
        ({"rows": {}}, "no rows"),
        ({"rows": {"Ours": {"psrn": 1}}}, "Ours has unknown metric psrn; expected psnr, ssim"),
        ({"rows": {"Ours": {"psnr": "about 17"}}}, "Ours, psnr is 'about 17'; expected 29.69 or 29.69 ± 0.32"),
        ({"rows": {"Ours": {"psnr": True}}}, "Ours, psnr is True"),
        ({"rows": {"Ours": {"psnr": float("nan")}}}, "Ours, psnr is nan"),
        ({"rows": {"Ours": {}}}, "each with its numbers"),
        ({"table": 5}, "table is 5; expected text"),
        ({"table": "U"}, "given twice: P, U, D, Ours, psnr"),
    ],
)
def test_a_wrong_entry_is_named(change, message):
    first = {**TABLE, "table": "U"}
    with pytest.raises(ValueError, match=message):
        parse([first, {**TABLE, **change}])


def test_reading_needs_no_torch():
    code = "import sys; from odevid.paper_results import load; assert load(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
