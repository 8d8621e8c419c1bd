"""`--array FILE`: what is started, what is left alone, what is refused before anything has begun.

Ranks run for real in the last test; before it, a function that notes in the run folder what ranks would.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc import cli
from hpc import config as configs
from hpc import prepare as preparing
from hpc import request as requests
from hpc.jobs.attempts import Attempt, note_end, note_start, read_history
from hpc.run_folder import RunFolder
from shards.building.moving_mnist import build_moving_mnist

ROOT = Path(cli.__file__).resolve().parent.parent
FOLDER = Path("runs/sweeps/rates")
FILE = """
name: rates
base: {experiment: srvp_smmnist, size: test, data.root: data}
grid: {optimizer.lr: [0.1, 0.2]}
seeds: [1]
"""
A, B = "lr=0.1,seed=1", "lr=0.2,seed=1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True, sequences=24, frames=6, encoding="raw", test_set="none")
    return root


class Launches:
    """The command on a sweep's file, and how the ranks of each element end."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.resumes: list[str] = []
        self.ends: dict[str, tuple[int, str]] = {}
        """Name -> exit code and cause; else it finishes."""

    def start(self, verb, folder, config, request, resume="auto") -> int:
        name = folder.path.name
        self.started.append(name)
        self.resumes.append(resume)
        code, cause = self.ends.get(name, (0, "finished"))
        number = read_history(folder.path).next_number()
        note_start(folder.path, Attempt(number, verb, time.time(), "local", 0, ["here"], 1, None))
        if cause:
            note_end(folder.path, number, 3, cause)
        return code

    def run(self, *words: str, text: str = FILE) -> int:
        self.started, self.resumes = [], []
        Path("sweep.yaml").write_text(text)
        return cli.main(["--ranks", "1", "--array", "sweep.yaml", *words])


@pytest.fixture
def launches(tmp_path, monkeypatch, data) -> Launches:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "has_slurm", lambda: False)
    monkeypatch.setattr(preparing, "count_gpus", lambda: 0)
    Path("data").symlink_to(data)
    found = Launches()
    monkeypatch.setattr("hpc.sweep.run.start", found.start)
    return found


def kept(name: str) -> configs.Config:
    return configs.load_file(FOLDER / name / "config.yaml")


def begin(name: str) -> None:
    """A checkpoint, as far as anybody looks who does not read it."""
    step = FOLDER / name / "checkpoints" / "step-000000002"
    step.mkdir(parents=True)
    (step / "manifest.json").touch()


def test_each_element_is_a_run_folder_with_its_own_configuration_and_their_group(launches, capsys):
    assert launches.run("train.steps=5") == 0
    assert launches.started == [A, B]
    assert [kept(name).optimizer.lr for name in (A, B)] == [0.1, 0.2]
    assert {(kept(name).log.group, kept(name).train.steps, kept(name).seed) for name in (A, B)} == {("rates", 5, 1)}
    assert json.loads((FOLDER / "sweep.json").read_text())["elements"][A]["own"] == {"optimizer.lr": 0.1, "seed": 1}
    assert "sweep rates: 2 finished" in capsys.readouterr().out


def test_the_command_line_wins_over_the_base_and_may_name_the_sweeps_folder(launches):
    text = FILE.replace("size: test", "size: demo, train.steps: 2, log.group: mine")
    assert launches.run("size=test", "train.steps=4", "run=elsewhere", text=text) == 0
    config = configs.load_file(Path("elsewhere") / A / "config.yaml")
    assert (config.size, config.train.steps, config.log.group) == ("test", 4, "mine")


def test_one_that_fails_does_not_stop_the_others_and_only_it_starts_again(launches, capsys):
    launches.ends[A] = (1, "error")
    assert launches.run() == 1
    assert launches.started == [A, B]
    assert "1 finished, 1 failed" in capsys.readouterr().out
    launches.ends = {}
    begin(A)
    assert launches.run("data.workers=0", "--cpus-per-task", "2") == 0
    assert launches.started == [A]
    shown = capsys.readouterr().out
    assert f"{A}   failed: goes on from step 2" in shown
    assert f"{B}   finished: left alone" in shown
    assert launches.run() == 0
    assert launches.started == []


def test_a_killed_element_has_failed(launches):
    launches.ends[B] = (137, "")
    assert launches.run() == 1
    assert launches.run("--dry-run") == 0
    launches.ends = {}
    assert launches.run() == 0
    assert launches.started == [B]


@pytest.mark.parametrize(("code", "cause"), [(130, "interrupt"), (0, "terminate")])
def test_a_person_who_ends_an_element_ends_the_sweep_and_can_go_on_with_it(launches, capsys, code, cause):
    launches.ends[A] = (code, cause)
    assert launches.run() == code
    assert launches.started == [A]
    assert "the same command goes on from here" in capsys.readouterr().out
    launches.ends = {}
    assert launches.run() == 0
    assert launches.started == [A, B]


def test_a_time_budget_or_a_stop_file_ends_that_element_alone(launches):
    launches.ends = {A: (0, "walltime"), B: (0, "stop-file")}
    launches.run()
    assert launches.started == [A, B]


def test_a_cancelled_element_stays_so_until_somebody_asks_for_it(launches, capsys):
    launches.ends[A] = (0, "stop-file")
    launches.run()
    capsys.readouterr()
    assert launches.run() == 0
    assert launches.started == []
    assert "cancelled: left alone (python hpc/launch.py resume run=" in capsys.readouterr().out
    launches.ends = {}
    assert launches.run("train.resume=required") == 0
    assert (launches.started, launches.resumes) == ([A], ["required"])
    assert kept(A).train.resume == "auto", "a wish for that launch only"


def test_commands_that_are_told_can_be_typed_whatever_the_folder_is_called(launches, monkeypatch, capsys):
    launches.ends[A] = (0, "stop-file")
    launches.run("run=my sweeps")
    capsys.readouterr()
    launches.run("run=my sweeps")
    sweep = Path("my sweeps").resolve()
    assert f"launch.py resume {shlex.quote(f'run={sweep / A}')};" in capsys.readouterr().out
    monkeypatch.setattr(requests, "has_slurm", lambda: True)
    monkeypatch.setattr("hpc.jobs.submit.submit_array", lambda *_: ["7_0"])
    Path("sweep.yaml").write_text(FILE)
    assert cli.main(["--nodes", "1", "--array", "sweep.yaml", "run=my sweeps", "train.resume=auto"]) == 0
    told = capsys.readouterr().out
    log = sweep / "logs" / "7_0_0_log.out"
    assert f"tail -F {shlex.quote(str(log))} " in told
    assert f"launch.py status {shlex.quote(str(sweep))}\n" in told


def test_a_sweep_that_grows_starts_the_new_elements_alone(launches):
    launches.run()
    assert launches.run(text=FILE.replace("seeds: [1]", "seeds: [1, 2]")) == 0
    assert launches.started == ["lr=0.1,seed=2", "lr=0.2,seed=2"]


def test_an_element_whose_name_has_become_longer_keeps_its_folder(launches):
    launches.run()
    text = FILE.replace("grid: {", "grid: {model.beta_y: [1.0, 2.0], ")
    assert launches.run(text=text) == 0
    assert launches.started == ["beta_y=2.0,lr=0.1,seed=1", "beta_y=2.0,lr=0.2,seed=1"]
    assert sorted(json.loads((FOLDER / "sweep.json").read_text())["elements"])[2:] == [A, B]


def test_what_has_begun_is_never_changed(launches, capsys):
    launches.ends[A] = (1, "error")
    launches.run()
    for name in (A, B):
        begin(name)
    before = kept(B)
    assert launches.run("train.global_batch=8") == 2
    said = capsys.readouterr().err
    assert f"element {A} has begun with train.global_batch=4, and would now have train.global_batch=8" in said
    assert (launches.started, kept(B)) == ([], before)
    assert launches.run("train.global_batch=8", "train.resume=never") == 2, "one is finished, and stays what it is"
    (FOLDER / B).rename("gone")
    launches.ends = {}
    capsys.readouterr()
    assert launches.run("train.global_batch=8", "train.resume=never") == 0
    assert kept(A).train.global_batch == 8
    assert f"{A}   failed: starts anew" in capsys.readouterr().out


def test_one_that_failed_before_it_had_anything_may_be_changed(launches):
    launches.ends = {A: (1, "error"), B: (1, "error")}
    launches.run()
    launches.ends = {}
    assert launches.run("train.global_batch=8") == 0
    assert kept(A).train.global_batch == 8


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("optimizer.lr: [0.1, 0.2]", "train.global_batch: [4, 5]", "element global_batch=5,seed=1.*cannot be shared"),
        ("optimizer.lr: [0.1, 0.2]", "optimizer.lr: [0.1, -1]", "element lr=-1,seed=1: optimizer.lr=-1.0: expected a"),
        ("optimizer.lr: [0.1, 0.2]", "optimizer.lr: [0.1, a]", "element lr=a,seed=1: Value 'a'.*optimizer.lr"),
        ("optimizer.lr: [0.1, 0.2]", "experiment: [srvp_kth, srvp_kt]", "experiment stands under base"),
        ("optimizer.lr: [0.1, 0.2]", "cluster.nodes: [1, 2]", "element nodes=2,seed=1 has cluster.nodes=2, .* has 1"),
        ("optimizer.lr: [0.1, 0.2]", "optimizer.lr: [1, 1.0]", "are the same run"),
    ],
)
def test_an_element_that_cannot_run_is_named_before_anything_is_started(launches, capsys, old, new, said):
    assert launches.run("--ranks", "2", text=FILE.replace(old, new)) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not FOLDER.exists()


def test_what_the_sweep_varies_cannot_be_said_on_the_command_line(launches, capsys):
    assert launches.run("seed=4") == 2
    assert "seed is what sweep.yaml varies" in capsys.readouterr().err


def test_data_that_is_not_what_an_element_wants_is_an_error_before_anything_is_started(launches, capsys):
    assert launches.run(text=FILE.replace("optimizer.lr: [0.1, 0.2]", "data.name: [moving-mnist, kth]")) == 2
    assert "element name=kth,seed=1: data.name=kth, but " in capsys.readouterr().err
    assert launches.started == []
    assert not list(FOLDER.glob("*/config.yaml"))


def test_a_folder_of_a_single_run_is_not_taken_for_a_sweeps(launches, capsys):
    RunFolder(Path("single")).create()
    Path("single/config.yaml").touch()
    assert launches.run("run=single") == 2
    assert "is a single run" in capsys.readouterr().err


def test_a_dry_run_shows_the_elements_and_the_batch_script_and_leaves_nothing(launches, monkeypatch, capsys):
    monkeypatch.setattr(requests, "has_slurm", lambda: True)
    Path("sweep.yaml").write_text(FILE)
    words = ["--nodes", "2", "--array", "sweep.yaml", "--array-parallelism", "1", "--dry-run"]
    assert cli.main(words) == 0
    page = capsys.readouterr().out
    assert f"{A}   missing: starts" in page
    assert "#SBATCH --array=0-1%1" in page
    assert "#SBATCH --nodes=2" in page
    assert not Path("runs").exists()


@pytest.mark.multiprocess
def test_without_slurm_the_elements_run_here_and_leave_a_table(tmp_path, data):
    text = FILE.replace("data.root: data", f"data.root: {data}, train.steps: 2, eval.every: 2, eval.clips: 1")
    text = text.replace("optimizer.lr: [0.1, 0.2]", "optimizer.lr: [0.001, 0.002]")
    (tmp_path / "sweep.yaml").write_text(text)
    command = [sys.executable, str(ROOT / "hpc" / "launch.py"), "--ranks", "1", "--array", "sweep.yaml"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sweep rates: 2 finished" in done.stdout
    with (tmp_path / FOLDER / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["finished", "finished"]
    assert float(rows[0]["best"]) >= float(rows[1]["best"]) > 0
    assert {row["optimizer.lr"] for row in rows} == {"0.001", "0.002"}
    assert (tmp_path / FOLDER / rows[0]["element"] / "model.pt").is_file()
