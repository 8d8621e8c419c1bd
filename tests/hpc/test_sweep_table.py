"""The table over a sweep's elements: what it shows, in which order, and the same in full as CSV."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from hpc import config as configs
from hpc.checkpoint.store import CheckpointStore
from hpc.config import ConfigError
from hpc.jobs.attempts import Attempt, note_end, note_start
from hpc.run_folder import RunFolder
from hpc.sweep.table import newest, sweep_table
from hpc.tracking.journal import Journal


def element(sweep: Path, name: str, psnr: float, cause: str = "finished", best: float | None = None) -> None:
    """A run of six steps with a validation at the end, and a checkpoint that was kept for an earlier one."""
    run = RunFolder(sweep / name)
    run.create()
    configs.save(configs.load("srvp_smmnist", "test"), run.config)
    note_start(run.path, Attempt(1, "train", time.time(), "local", 0, ["n1"], 1, None))
    journal = Journal(run.path, 1)
    journal.append("train", 6, {"scalars": {"loss": 100 - psnr}})
    journal.append("eval", 6, {"scalars": {"psnr": psnr, "ssim": 0.5, "psnr_single": 1.0}})
    journal.close()
    if best is not None:
        store = CheckpointStore(run.checkpoints, keep_last=2, keep_best=1)
        store.commit(4, {"step": 4}, {"metrics": {"psnr": best}})
        store.commit(6, {"step": 6}, {"metrics": {}})
    note_end(run.path, 1, 6, cause, "no disk: nothing\nmore fits" if cause == "error" else "")


def record(sweep: Path, *names: str, left_out: str = "") -> None:
    elements = {name: {"own": {"optimizer.lr": name}, "in_file": name != left_out} for name in names}
    (sweep / "sweep.json").write_text(json.dumps({"elements": elements}))


def order(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()[2:] if line[:2] in ("a ", "b ", "c ")]


def rows(sweep: Path) -> dict[str, dict[str, str]]:
    with (sweep / "table.csv").open(newline="") as file:
        return {row["element"]: row for row in csv.DictReader(file)}


def test_the_best_comes_first_once_all_are_finished(tmp_path):
    record(tmp_path, "a", "b", "c")
    element(tmp_path, "a", psnr=10.0)
    element(tmp_path, "b", psnr=9.0, best=30.0)
    assert order(sweep_table(tmp_path)) == ["a", "b", "c"], "in the order of the file while one is missing"
    element(tmp_path, "c", psnr=20.0)
    table = sweep_table(tmp_path)
    assert order(table) == ["b", "c", "a"]
    assert "sweep " in table
    assert "3 finished" in table
    assert "psnr 30" in table
    assert "error" not in table, "no column without anything in it"


def test_an_element_that_failed_says_why_and_the_rest_is_there(tmp_path):
    record(tmp_path, "a", "b", left_out="b")
    element(tmp_path, "a", psnr=10.0, cause="error")
    table = sweep_table(tmp_path)
    assert "1 failed, 1 missing" in table
    assert "no disk: nothing more fits" in table
    assert "6/6" in table
    assert "b *" in table


def test_the_csv_holds_every_value_and_a_column_per_varied_key(tmp_path):
    record(tmp_path, "a", "b")
    element(tmp_path, "a", psnr=10.123456789, best=11.5)
    sweep_table(tmp_path)
    found = rows(tmp_path)
    assert found["a"] == {
        **{"element": "a", "optimizer.lr": "a", "state": "finished", "attempts": "1", "step": "6", "steps": "6"},
        **{"psnr": "10.123456789", "ssim": "0.5", "psnr_single": "1.0", "loss": str(100 - 10.123456789)},
        **{"best_metric": "psnr", "best": "11.5", "job": "local", "error": ""},
    }
    assert found["b"]["state"] == "missing"


def test_a_damaged_checkpoint_does_not_hide_the_table(tmp_path):
    record(tmp_path, "a")
    element(tmp_path, "a", psnr=10.0, best=11.5)
    (tmp_path / "a" / "checkpoints" / "step-000000006" / "manifest.json").write_text("{")
    assert "psnr 11.5" in sweep_table(tmp_path)


def test_what_a_resume_has_superseded_does_not_count(tmp_path):
    journal = Journal(tmp_path, 1)
    for step in (2, 4, 6):
        journal.append("train", step, {"scalars": {"loss": float(step)}})
        journal.append("eval", step, {"scalars": {"psnr": float(step)}})
    journal.resume(4)
    journal.append("train", 5, {"scalars": {"loss": 5.5}})
    journal.close()
    found = newest(tmp_path, ("train", "eval"))
    assert (found["train"].step, found["eval"].step) == (5, 4)
    journal = Journal(tmp_path, 2)
    journal.resume(None)
    journal.close()
    assert newest(tmp_path, ("train", "eval")) == {}


def test_a_folder_that_is_no_sweep_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"not the folder of a sweep"):
        sweep_table(tmp_path)
