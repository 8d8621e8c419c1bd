"""The report of a run that was really trained and evaluated, in a real browser without a network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.hpc.browser import NO_CHROMIUM, opened, program
from tests.hpc.report_runs import add_attempts, add_evaluation, add_training, new_run, scores_of

ROOT = Path(__file__).resolve().parents[2]
IMAGES = """Promise.all([...document.images].map(async image => {
    await image.decode().catch(() => null);
    const box = image.getBoundingClientRect();
    return {alt: image.alt, source: image.src.slice(0, 22), natural: image.naturalWidth, width: box.width};
}))"""
TABLES = """[...document.querySelectorAll('table')].map(table => {
    const box = table.getBoundingClientRect();
    const seen = table.checkVisibility() && box.width > 100 && box.height > 20;
    return {name: table.className, seen: seen, cut: table.scrollWidth > table.parentElement.clientWidth};
})"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
OUTSIDE = """[...document.querySelectorAll('body *')].filter(element =>
    element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(element => element.outerHTML.slice(0, 200))"""


def launch(*words: object) -> None:
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "hpc/launch.py", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module", autouse=True)
def chromium():
    """Where the gate demands a browser its absence is a failure; elsewhere these tests are left out."""
    if program() is None:
        if os.environ.get("ODEVID_DEMAND_CHROMIUM") == "1":
            pytest.fail(f"{NO_CHROMIUM} (ODEVID_DEMAND_CHROMIUM=1)")
        pytest.skip(NO_CHROMIUM)


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A report, copied away from its run: nothing that it shows is beside it."""
    base = tmp_path_factory.mktemp("browser")
    run = base / "digits" / "run"
    sizes = ["size=test", f"data.root={base / 'data'}", f"run={run}"]
    launch("--debug", *sizes, "train.steps=8", "eval.every=4", "eval.pictures=2")
    launch("evaluate", "--debug", f"run={run}")
    launch("report", f"run={run}")
    page = tmp_path_factory.mktemp("elsewhere") / "page.html"
    shutil.copy(run / "report.html", page)
    shutil.rmtree(run)
    return page


def test_the_report_of_a_real_run_shows_itself_whole_without_a_network(copied, tmp_path):
    with opened(copied, width=1280) as page:
        images = page.evaluate(IMAGES)
        assert {image["alt"].partition(",")[0] for image in images} >= {"Test clips", "Newest validation"}
        assert len(images) >= 6, "curves of training, PSNR, SSIM; GIF, strip; validation"
        assert all(image["natural"] > 0 and image["width"] > 0 for image in images), images
        assert all(image["source"].startswith("data:image/") for image in images)
        tables = {table["name"]: table for table in page.evaluate(TABLES)}
        assert {"results", "costs", "attempts", "provenance"} <= tables.keys()
        assert all(table["seen"] and not table["cut"] for table in tables.values()), tables
        assert page.evaluate(OVERFLOW) <= 0
        assert page.evaluate(OUTSIDE) == []
        page.screenshot(tmp_path / "page.png")
        assert page.pdf().startswith(b"%PDF")
    assert page.requests == [copied.as_uri()], "the file itself and nothing else"
    assert page.errors == []
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.width in range(1240, 1281)
        assert picture.height > 2000
        assert len(picture.convert("RGB").quantize(16).getcolors()) > 4, "not an empty page"


def test_several_runs_with_wide_numbers_and_long_words_stay_within_the_page(tmp_path):
    runs = []
    for name in ("a-rather-long-name-of-a-run-with-no-blank-in-it-at-all", "b"):
        folder = new_run(tmp_path / "kth" / name, "srvp_kth", "", f"log.group={'x' * 300}")
        add_training(folder)
        add_attempts(folder)
        add_evaluation(folder, scores_of(absent={"lpips": "y" * 300}))
        study = folder.studies / "swap"
        study.mkdir(parents=True)
        Image.new("RGB", (3000, 40)).save(study / "wide.png")
        runs.append(folder)
    launch("report", *(f"run={folder.path}" for folder in runs), "--out", tmp_path / "both.html")
    for width in (1280, 800):
        with opened(tmp_path / "both.html", width=width) as page:
            assert page.evaluate(OVERFLOW) <= 0, width
            images = page.evaluate(IMAGES)
            assert all(0 < image["width"] <= width for image in images)
        assert page.errors == []


def test_the_browser_notices_what_a_page_must_not_do(tmp_path):
    (tmp_path / "bad.html").write_text(
        "<table style='display:none' class='hidden'><tr><td>1</td></tr></table><div style='width:3000px'>wide</div>"
        "<img src='data:image/png;base64,AAAA' alt='torn'><img src='http://example.com/x.png' alt='far'>"
        "<script>undefined_name()</script>"
    )
    with opened(tmp_path / "bad.html") as page:
        assert [image["natural"] for image in page.evaluate(IMAGES)] == [0, 0]
        assert [table["seen"] for table in page.evaluate(TABLES)] == [False]
        assert page.evaluate(OVERFLOW) > 1000
        assert page.evaluate(OUTSIDE)
    assert "http://example.com/x.png" in page.requests
    assert any("undefined_name" in error for error in page.errors)
    assert any("ERR_NAME_NOT_RESOLVED" in error for error in page.errors), "there is no network"
