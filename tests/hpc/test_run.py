"""Whole runs through `python hpc/launch.py`, on real ranks: what they leave, and that interruptions change nothing.

Promises 2 and 3: killed at any point and resumed, a run ends in the same bits as one that was never touched.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards.building.moving_mnist import build_moving_mnist

pytestmark = pytest.mark.multiprocess
ROOT = Path(__file__).resolve().parents[2]
STEPS = 30


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True)
    return root


class Run:
    """A run folder and the commands on it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data, self.output = folder, data, ""

    def start(self, *arguments: str, ranks: int = 2, verb: str = "train") -> subprocess.Popen[str]:
        fresh = (
            []
            if (self.folder / "config.yaml").exists()
            else ["size=test", f"data.root={self.data}", f"train.steps={STEPS}"]
        )
        command = [
            sys.executable,
            "hpc/launch.py",
            verb,
            "--ranks",
            str(ranks),
            f"run={self.folder}",
            *fresh,
            *arguments,
        ]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, *arguments: str, ranks: int = 2, verb: str = "train", code: int = 0) -> str:
        process = self.start(*arguments, ranks=ranks, verb=verb)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == code, output
        return output

    def interrupt(self, do: Callable[[subprocess.Popen[str]], None], *arguments: str, after_step: int = 7) -> str:
        """Start, wait until the journal reaches a step, do something to the run; its output when it has ended."""
        process = self.start(*arguments)
        wait_until(lambda: self.last_step() >= after_step or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        do(process)
        output, _ = process.communicate(timeout=120)
        return output

    def records(self) -> list[dict[str, Any]]:
        journal = self.folder / "metrics.jsonl"
        lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
        return [json.loads(line) for line in lines]

    def last_step(self) -> int:
        return max((record["step"] for record in self.records() if record["kind"] == "train"), default=0)

    def checkpoints(self) -> list[Path]:
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(self.checkpoints()[-1] / "state.pt", weights_only=True)
        return state


def wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL to the launcher: its ranks die with it."""
    process.kill()


def assert_same_end(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["step"] == expected["step"] == STEPS
    assert found["samples_consumed"] == expected["samples_consumed"]
    torch.testing.assert_close(found["engines"], expected["engines"], rtol=0, atol=0)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Run:
    run = Run(tmp_path_factory.mktemp("untouched") / "run", data)
    run.output = run.finish("checkpoint.every=10", "eval.every=15")
    return run


def test_a_run_leaves_config_journal_pictures_checkpoint_and_model(untouched):
    names = {path.name for path in untouched.folder.iterdir()}
    assert "finished at step 30" in untouched.output
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "pictures", "model.pt", "logs"} <= names
    assert [record["step"] for record in untouched.records() if record["kind"] == "train"] == list(range(1, STEPS + 1))
    assert len([record for record in untouched.records() if record["kind"] == "eval"]) == 2
    assert list((untouched.folder / "pictures").glob("*.gif"))
    assert untouched.state()["samples_consumed"] == STEPS * 4


def test_the_exported_model_predicts_in_a_process_without_deepspeed(untouched):
    code = (
        "import sys, torch, odevid; sys.modules['deepspeed'] = None;"
        f"model = odevid.load({str(untouched.folder / 'model.pt')!r});"
        "frames = model.predict(torch.rand(1, 2, 1, 64, 64), n_future=25);"
        "assert frames.shape == (1, 1, 25, 1, 64, 64), frames.shape"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_evaluate_prints_and_leaves_the_same_table_at_any_world_size(untouched):
    printed = untouched.finish(verb="evaluate", ranks=2)
    assert "last frame repeated" in printed
    table = (untouched.folder / "evaluation" / "metrics.csv").read_text()
    untouched.finish(verb="evaluate", ranks=1)
    alone = (untouched.folder / "evaluation" / "metrics.csv").read_text()
    for two, one in zip(table.splitlines()[1:], alone.splitlines()[1:], strict=True):
        assert two.split(",")[:3] == one.split(",")[:3]
        assert float(two.split(",")[3]) == pytest.approx(float(one.split(",")[3]), rel=1e-5)


def test_kill_9_between_checkpoints_then_resume_ends_in_the_same_bits(tmp_path, data, untouched):
    run = Run(tmp_path / "run", data)
    run.interrupt(kill_all, "checkpoint.every=5", after_step=13)
    assert run.checkpoints()
    run.finish()
    assert_same_end(run.state(), untouched.state())


def test_kill_9_in_the_middle_of_a_save_loses_nothing_older(tmp_path, data, untouched):
    run = Run(tmp_path / "run", data)
    process = run.start("checkpoint.every=1")
    folder = run.folder / "checkpoints"
    wait_until(lambda: len(run.checkpoints()) >= 2 and any(folder.glob(".tmp-*")))
    process.kill()
    process.communicate(timeout=60)
    run.finish("checkpoint.every=10")
    assert_same_end(run.state(), untouched.state())


def test_one_rank_killed_ends_the_others_at_once(tmp_path, data):
    run = Run(tmp_path / "run", data)

    def kill_rank_1(process: subprocess.Popen[str]) -> None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)

    started = time.monotonic()
    output = run.interrupt(kill_rank_1, "train.steps=100000")
    assert "ended with code -9" in output
    assert time.monotonic() - started < 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_saves_at_an_agreed_step_exits_0_and_the_resume_ends_in_the_same_bits(
    tmp_path, data, untouched, number
):
    run = Run(tmp_path / "run", data)
    output = run.interrupt(lambda process: process.send_signal(number))
    stopped_at = run.state()["step"]
    assert 7 <= stopped_at < STEPS, output
    assert [record for record in run.records() if record["kind"] == "event"][-1]["name"] == "stopped"
    run.finish()
    assert_same_end(run.state(), untouched.state())


def test_a_stop_file_stops_and_its_removal_lets_the_run_go_on_at_another_world_size(tmp_path, data, untouched):
    run = Run(tmp_path / "run", data)
    run.interrupt(lambda _: (run.folder / "STOP").touch(), "train.steps=100000")
    assert run.state()["step"] >= 7
    (run.folder / "STOP").unlink()
    stopped_at = run.state()["step"]
    steps = stopped_at + 4
    run.finish(f"train.steps={steps}", ranks=1)
    found, expected = (
        {record["step"]: record["scalars"] for record in one.records() if record["kind"] == "train"}
        for one in (run, untouched)
    )
    for step in range(1, min(steps, STEPS) + 1):
        for term in ("loss", "kl_y", "kl_z", "res"):  # another batch or noise moves the last three by a tenth or more
            assert found[step][term] == pytest.approx(expected[step][term], rel=5e-3), (step, term)
    assert run.state()["samples_consumed"] == steps * 4


def test_a_damaged_newest_checkpoint_falls_back_loudly_to_the_one_before(tmp_path, data, untouched):
    run = Run(tmp_path / "run", data)
    run.interrupt(lambda process: process.send_signal(signal.SIGTERM), "checkpoint.every=3", after_step=8)
    newest = run.checkpoints()[-1] / "state.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    output = run.finish()
    assert "DAMAGED CHECKPOINT" in output
    assert_same_end(run.state(), untouched.state())


def test_a_disk_that_takes_no_checkpoint_does_not_stop_training_but_the_end_is_an_error(tmp_path, data):
    run = Run(tmp_path / "run", data)
    run.folder.mkdir()
    (run.folder / "checkpoints").write_text("in the way")
    output = run.finish("train.steps=4", "checkpoint.every=1", ranks=1, code=2)
    assert "save_failed" in output
    assert "could not be saved" in output
    assert run.last_step() == 4


def test_resume_required_and_never_mean_what_they_say(tmp_path, data):
    run = Run(tmp_path / "run", data)
    assert "resume=required" in run.finish("train.resume=required", ranks=1, code=2)
    run.finish("train.resume=auto", "train.steps=3", ranks=1)
    run.finish("train.resume=never", "train.steps=2", ranks=1)
    assert run.state()["step"] == 2


def test_accumulation_on_one_rank_trains_as_two_ranks_with_the_same_batchnorm_group(tmp_path, data):
    scalars = {}
    for ranks, micro in ((1, 2), (2, 1)):
        run = Run(tmp_path / f"ranks{ranks}", data)
        options = (f"train.micro_batch={micro}", "train.batchnorm_group=2", "train.steps=3")
        assert "accumulation 2" in run.finish(*options, ranks=ranks)
        scalars[ranks] = [r["scalars"] for r in run.records() if r["kind"] == "train"]
    for one, two in zip(scalars[1], scalars[2], strict=True):
        for name in ("loss", "kl_y", "kl_z", "res"):
            assert two[name] == pytest.approx(one[name], rel=2e-4), name


def test_other_data_under_the_same_path_is_refused_on_resume(tmp_path):
    root = tmp_path / "clips"
    options: dict[str, Any] = {"digits": 1, "deterministic": True, "sequences": 8, "frames": 4, "test_set": "none"}
    build_moving_mnist(root, seed=1, **options)
    run = Run(tmp_path / "run", root)
    run.finish("train.steps=2", ranks=1)
    shutil.rmtree(root)
    build_moving_mnist(root, seed=2, **options)
    assert "holds other data" in run.finish("train.steps=4", ranks=1, code=2)


def test_zero_stages_and_bf16_train_through_the_same_command(tmp_path, data, untouched):
    for stage in (1, 2):
        run = Run(tmp_path / f"zero{stage}", data)
        run.finish(f"train.zero_stage={stage}", "train.steps=6")
        losses = [r["scalars"]["loss"] for r in run.records() if r["kind"] == "train"]
        expected = [r["scalars"]["loss"] for r in untouched.records() if r["kind"] == "train"][:6]
        assert losses == pytest.approx(expected, rel=1e-4)
    run = Run(tmp_path / "bf16", data)
    run.finish("train.precision=bf16", "train.steps=2", ranks=1)
    assert run.state()["engines"]["model"]["weights"]["w_proj.0.weight"].dtype == torch.float32
    found = [r["scalars"]["kl_y"] for r in run.records() if r["kind"] == "train"]
    exact = [r["scalars"]["kl_y"] for r in untouched.records() if r["kind"] == "train"][:2]
    assert found == pytest.approx(exact, rel=3e-2)
    assert found != pytest.approx(exact, rel=1e-6), "bfloat16 rounds, so equal numbers would mean it was not used"


@pytest.fixture
def damaged_data(tmp_path: Path) -> Path:
    """A finite dataset of which one training clip has a flipped bit."""
    root = tmp_path / "clips"
    build_moving_mnist(root, digits=1, deterministic=True, sequences=24, frames=6, encoding="raw", test_set="none")
    tar = root / "train-000000.tar"
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as members:
        video = next(member for member in members if "video" in member.name)
    content[video.offset_data + 2 * 64 * 64 + 70] ^= 4  # in a frame that every window of four of the six frames has
    tar.write_bytes(content)
    return root


def test_a_damaged_clip_is_an_error_that_names_it_or_within_a_budget_a_counted_substitute(tmp_path, damaged_data):
    refused = Run(tmp_path / "refused", damaged_data)
    output = refused.finish(ranks=1, code=2)
    assert "train-000000.tar" in output
    assert "data.max_substitutions" in output
    runs = {}
    for ranks in (1, 2):
        runs[ranks] = Run(tmp_path / f"ranks{ranks}", damaged_data)
        runs[ranks].finish("data.max_substitutions=1", "train.steps=14", ranks=ranks)
    found = {ranks: run.state()["substitutions"] for ranks, run in runs.items()}
    assert found[1] == found[2]
    (record,) = found[1]["records"]
    event = next(r for r in runs[2].records() if r["kind"] == "event" and r["name"] == "substitution")
    assert {event["details"][key] for key in ("bad_key", "substitute_key")} == {
        record["bad_key"],
        record["substitute_key"],
    }
    runs[2].finish("train.steps=20", ranks=1)
    runs[1].finish("train.steps=20", ranks=1)
    assert runs[2].state()["substitutions"]["records"] == runs[1].state()["substitutions"]["records"]
