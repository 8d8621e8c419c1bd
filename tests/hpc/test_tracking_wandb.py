"""W&B is a mirror of the journal: value by value the same, one id, and never in the way of the training."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpc import config as configs
from hpc.config import LogConfig
from hpc.evaluation.scores import Cost, FvdScores, Score, Scores
from hpc.run_folder import RunFolder
from hpc.tracking import evaluation_mirror
from hpc.tracking import mirror as mirrors
from hpc.tracking.__main__ import main
from hpc.tracking.evaluation_mirror import mirror_evaluation
from hpc.tracking.journal import read_records, surviving
from hpc.tracking.tracker import Tracker
from hpc.tracking.wandb_mirror import choose_mode, kept_id, last_offline_step, row

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"seed": 3, "log": {"project": "tests", "group": "mirrors"}}


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """As on a machine without key, whatever the developer's has."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "experiment" / "run"
    path.mkdir(parents=True)
    return path


def tracker(run_dir, attempt=1, wandb="offline"):
    return Tracker(run_dir, attempt, LogConfig(wandb=wandb, project="tests"), CONFIG, rank=0, total_steps=100)


def train(telling, *steps):
    for step in steps:
        scalars = {"loss": 1 / (step + 7), "grad_norm/model": step**0.5, "bad": float("nan" if step % 3 else "inf")}
        telling.log("train", step, scalars)


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def wait_for_wandb(run_dir):
    wait_until(lambda: list(run_dir.glob("wandb/offline-run-*/*.wandb")))


def inspect(folder: Path) -> list[dict]:
    """All records of one offline folder, by W&B's own reader."""
    (log,) = folder.glob("*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(log)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def history(run_dir: Path, run_id: str) -> list[dict]:
    """The rows of all offline folders of an id, in W&B's step order."""
    folders = sorted(run_dir.glob(f"wandb/offline-run-*-{run_id}"))
    items = [r["history"]["item"] for folder in folders for r in inspect(folder) if r["type"] == "history"]
    steps = [item["_step"] for item in items]
    assert steps == sorted(set(steps)), "W&B's own step never goes back and never repeats, over all attempts"
    return items


def comparable(item: dict) -> dict:
    """A row without what W&B adds; NaN, which is not equal to itself, as text."""
    kept = {name: value for name, value in item.items() if not name.startswith(("_", "video/"))}
    return {
        name: str(value).lower() if value != value or isinstance(value, str) else value for name, value in kept.items()
    }


def expected(records) -> list[dict]:
    names = {"nan": "nan", "inf": "infinity"}
    return [{k: names.get(str(v), v) for k, v in row(record).items()} for record in records if record.kind != "resume"]


def without_superseded(items: list[dict], run_dir: Path) -> list[dict]:
    """What a reader of the live mirror keeps: `attempt` and `step` are in every row."""
    starts = {r.attempt: r.step for r in read_records(run_dir) if r.kind == "resume"}
    return [
        item
        for item in items
        if all(item["step"] <= step for attempt, step in starts.items() if attempt > item["attempt"])
    ]


# -- the same values ---------------------------------------------------------------------------------------------


def test_two_overlapping_attempts_and_their_rebuilt_run_hold_every_value_of_the_surviving_journal(run_dir, capfd):
    gif = run_dir / "pictures" / "a.gif"
    gif.parent.mkdir()
    Image.new("L", (8, 8)).save(gif)
    with tracker(run_dir) as first:
        first.start(0, {"code": "1"})
        train(first, *range(1, 31))
    with tracker(run_dir, attempt=2) as second:
        second.start(20, {"code": "2"})
        train(second, *range(21, 41))
        second.event("bad_step", 40, {"reason": "x", "keys": ["a"]})
        second.log("eval", 40, {"psnr": 20.25})
        second.video(40, "samples", gif)

    records = list(read_records(run_dir))
    lineage = surviving(records)
    live = history(run_dir, kept_id(run_dir))
    assert len(list(run_dir.glob("wandb/offline-run-*"))) == 2, "one folder per attempt, one id"
    assert [comparable(item) for item in live] == expected(records)
    assert [comparable(item) for item in without_superseded(live, run_dir)] == expected(lineage)

    capfd.readouterr()
    assert main(["sync", str(run_dir), "--mode", "offline"]) == 0
    output = capfd.readouterr().out
    (rebuilt_id,) = re.findall(r"W&B run (\w+) \(offline\): \d+ rows, 10 superseded", output)
    assert rebuilt_id != kept_id(run_dir)
    rebuilt = history(run_dir, rebuilt_id)
    assert [comparable(item) for item in rebuilt] == expected(lineage)
    assert [item["_timestamp"] for item in rebuilt] == [r.time for r in lineage if r.kind != "resume"]
    (folder,) = run_dir.glob(f"wandb/offline-run-*-{rebuilt_id}")
    assert (folder / "files" / rebuilt[-1]["video/samples.path"]).read_bytes() == gif.read_bytes()
    about = next(r["run"] for r in inspect(folder) if r["type"] == "run")
    assert about["project"] == "tests"
    assert about["config"]["update"]["seed"] == 3


# -- never in the way --------------------------------------------------------------------------------------------


def mirrored_rows(run_dir):
    return len(history(run_dir, kept_id(run_dir)))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def losses(run_dir):
    return [record.step for record in read_records(run_dir) if record.kind == "train"]


def test_when_wandbs_service_dies_training_goes_on_with_one_warning(run_dir, capfd):
    with tracker(run_dir) as telling:
        telling.start(0, {})
        wait_for_wandb(run_dir)
        (service,) = children(telling._mirror.pid)
        os.kill(service, signal.SIGKILL)
        train(telling, *range(1, 2001))
        wait_until(lambda: train(telling, 2001) or not telling._mirror.alive)
        train(telling, *range(2002, 2010))
    assert set(losses(run_dir)) == set(range(1, 2010))
    said = capfd.readouterr()
    assert (said.out + said.err).count("W&B mirror switched off") == 1
    assert "python -m hpc.tracking sync" in said.out
    assert [r.data["name"] for r in read_records(run_dir) if r.kind == "event"] == ["wandb_lost"]


def test_a_hung_mirror_neither_blocks_a_step_nor_the_end(run_dir, capfd, monkeypatch):
    monkeypatch.setattr(mirrors, "FINISH_TIMEOUT_S", 0.5)
    with tracker(run_dir) as telling:
        telling.start(0, {})
        wait_for_wandb(run_dir)
        group = telling._mirror.pid
        os.killpg(group, signal.SIGSTOP)
        began = time.monotonic()
        train(telling, *range(1, 2001))  # more than the pipe takes
    assert time.monotonic() - began < 5
    assert losses(run_dir) == list(range(1, 2001))
    assert "did not finish within" in capfd.readouterr().out
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_an_unusable_wandb_folder_is_a_warning(run_dir, capfd):
    (run_dir / "wandb").write_text("in the way")
    with tracker(run_dir) as telling:
        telling.start(0, {})
        train(telling, 1, 2)
    assert losses(run_dir) == [1, 2]
    assert "W&B mirror switched off: FileExistsError" in capfd.readouterr().out


def test_an_id_that_cannot_be_kept_is_a_warning(run_dir, capfd):
    (run_dir / "wandb_id").mkdir()
    with tracker(run_dir) as telling:
        telling.start(0, {})
        train(telling, 1)
    assert losses(run_dir) == [1]
    assert "W&B mirror switched off" in capfd.readouterr().out


def test_signals_of_the_scheduler_do_not_end_the_mirror(run_dir):
    with tracker(run_dir) as telling:
        telling.start(0, {})
        wait_for_wandb(run_dir)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            os.killpg(telling._mirror.pid, number)
        train(telling, *range(1, 11))
    assert mirrored_rows(run_dir) == 11


def test_a_killed_training_which_never_imported_wandb_leaves_a_complete_mirror_and_no_process(run_dir):
    code = (
        "import os, sys, pathlib; from hpc.config import LogConfig; from hpc.tracking.tracker import Tracker\n"
        "t = Tracker(pathlib.Path(sys.argv[1]), 1, LogConfig(wandb='offline'), {}, rank=0, total_steps=1).__enter__()\n"
        "t.start(0, {})\n"
        "for step in range(1, 301): t.log('train', step, {'loss': step})\n"
        "assert 'wandb' not in sys.modules\n"
        "print('mirror', t._mirror.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(run_dir)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL
    mirror = int(killed.stdout.rpartition("mirror ")[2])
    wait_until(lambda: not Path(f"/proc/{mirror}").exists() or is_zombie(mirror))
    assert mirrored_rows(run_dir) == 301


def is_zombie(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


# -- online or offline -------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """Something that answers HTTP, if only with 404."""

    class Quiet(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_auto_is_online_only_with_a_key_and_a_network(server, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    assert choose_mode("auto") == "offline", "no key"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert choose_mode("auto") == "offline", "no network"
    assert choose_mode("online") == "online", "what the user says counts"
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password 0000\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert choose_mode("auto") == "online", "key of `wandb login`"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode("auto") == "offline"


def test_a_server_that_turns_us_away_makes_auto_offline(server, run_dir, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with tracker(run_dir, wandb="auto") as telling:
        telling.start(0, {})
        train(telling, 1)
    assert mirrored_rows(run_dir) == 2
    assert "W&B: offline" in capfd.readouterr().out


def test_online_without_a_key_is_a_warning_that_says_what_to_do(run_dir, capfd):
    with tracker(run_dir, wandb="online") as telling:
        telling.start(0, {})
        train(telling, 1)
    assert losses(run_dir) == [1]
    assert "WANDB_API_KEY" in capfd.readouterr().out


def test_disabled_starts_nothing(run_dir):
    with tracker(run_dir, wandb="disabled") as telling:
        telling.start(0, {})
        train(telling, 1)
    assert sorted(path.name for path in run_dir.iterdir()) == ["metrics.jsonl"]


def test_sync_of_something_else_says_what_it_wants(tmp_path, capsys):
    assert main(["sync", str(tmp_path)]) == 1
    assert "give the folder of a started run" in capsys.readouterr().err


def test_rows_that_died_with_wandbs_service_are_made_up_for_by_the_next_attempt(run_dir):
    """SLURM's SIGTERM reaches that service too: it leads a session of its own, and is not deaf to it."""
    with tracker(run_dir) as first:
        first.start(0, {})
        wait_for_wandb(run_dir)
        train(first, *range(1, 40))
        (service,) = children(first._mirror.pid)
        os.kill(service, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{service}").exists() or is_zombie(service))
        train(first, *range(40, 50))
    before = mirrored_rows(run_dir)
    assert before < 50, "nothing was lost, so nothing is shown"
    with tracker(run_dir, attempt=2) as second:
        second.start(49, {})
        train(second, *range(50, 60))
    records = [record for record in read_records(run_dir) if record.kind != "resume"]
    assert [item["_step"] for item in history(run_dir, kept_id(run_dir))] == [record.seq for record in records]
    assert [comparable(item) for item in history(run_dir, kept_id(run_dir))] == expected(records)


# -- evaluations -------------------------------------------------------------------------------------------------


def an_evaluation(run_dir: Path, name: str = "", split: str = "test") -> tuple[Scores, Path]:
    """Scores of three videos with two predicted frames, a GIF and a strip."""
    where = run_dir / "evaluation" / name
    where.mkdir(parents=True)
    Image.new("L", (8, 8)).save(where / "samples.gif")
    Image.new("RGB", (8, 8), "red").save(where / "samples.png")
    psnr = np.array([[20.0, 22.0], [30.0, 32.0], [np.inf, 40.0]], np.float32)
    scores = Scores(
        about={"step": 40},
        protocol={"num_clips": 3, "num_frames": 7, "samples": 4, "substeps": None, "split": split},
        table=[
            Score("best", "psnr", "dB", math.inf, None, 1.5, 3, 4),
            Score("single", "ssim", "", 0.5, 0.125, 0.25, 3, 4),
        ],
        curves=[],
        cost=Cost(12.0, 5.0, 2, "cpu", 12),
        fvd=FvdScores(250.5, 3.25, [250.0, 251.0], 3, 400),
        absent={"lpips": "no weights: put them there"},
        files={"GIF": "samples.gif", "strip": "samples.png"},
    )
    arrays = {"best/psnr": psnr, "best_sample/psnr": np.array([3, 0, 1]), "keys": np.array(["a", "b", "c"])}
    scores.save(where, arrays)
    return scores, where


def run_config(wandb="offline"):
    config = configs.load("srvp_smmnist", "test")
    config.log.wandb, config.log.project = wandb, "tests"
    return config


def summary(run_dir: Path, run_id: str, title: str) -> tuple[dict, Path]:
    """The summary in the newest offline folder that holds an entry called `title`."""
    for folder in sorted(run_dir.glob(f"wandb/offline-run-*-{run_id}"), reverse=True):
        found: dict = {}
        for record in inspect(folder):
            found |= record["summary"].get("update", {}) if record["type"] == "summary" else {}
        if title in found:
            return found, folder
    raise AssertionError(f"no summary with {title}")


def rows_of(entry: dict, folder: Path) -> dict:
    return json.loads((folder / "files" / entry["path"]).read_text())


def check_findings(found: dict, folder: Path, where: Path) -> None:
    assert found["test/psnr"] == "Infinity"
    assert "test/psnr_ci95" not in found, "what has no interval shows none"
    assert found["test/psnr_ci95_frames"] == 1.5
    assert found["test/ssim_single"] == 0.5
    assert (found["test/fvd"], found["test/fvd_ci95"]) == (250.5, 3.25)
    assert (found["test/step"], found["test/num_clips"], found["test/num_samples"]) == (40, 3, 4)
    assert found["test/s_per_video_and_sample"] == 1.0, "12 s of ranks for 12 samples"
    assert found["test/not_computed/lpips"] == "no weights: put them there"
    assert (folder / "files" / found["test/samples"]["path"]).read_bytes() == (where / "samples.gif").read_bytes()
    strip = folder / "files" / found["test/samples_strip"]["path"]
    assert Image.open(strip).convert("RGB").getpixel((3, 3)) == (255, 0, 0)
    table = rows_of(found["test/scores"], folder)
    assert table["columns"][:4] == ["method", "metric", "unit", "mean"]
    assert table["data"][1] == ["single", "ssim", "", 0.5, 0.125, 0.25, 3, 4]
    assert table["data"][2] == ["single", "fvd", "", 250.5, 3.25, None, 3, 2]
    videos = rows_of(found["test/videos"], folder)
    assert videos["columns"] == ["video", "psnr: best", "psnr: best sample"]
    assert videos["data"] == [["a", 21.0, 3], ["b", 31.0, 0], ["c", None, 1]]


def test_an_evaluation_joins_the_runs_own_wandb_run_and_takes_no_step_of_it(run_dir, capfd):
    with tracker(run_dir) as first:
        first.start(0, {})
        train(first, 1, 2)
    scores, where = an_evaluation(run_dir)
    mirror_evaluation(RunFolder(run_dir), run_config(), scores, where)
    with tracker(run_dir, attempt=2) as second:
        second.start(2, {})
        train(second, 3)
    run_id = kept_id(run_dir)
    assert len(list(run_dir.glob(f"wandb/offline-run-*-{run_id}"))) == 3, "one id for all"
    records = [record for record in read_records(run_dir) if record.kind != "resume"]
    assert [comparable(item) for item in history(run_dir, run_id)] == expected(records), "not a row more, or less"
    found, folder = summary(run_dir, run_id, "test/psnr")
    check_findings(found, folder, where)
    assert found["train/loss"] == 1 / (2 + 7), "an offline folder's summary replaces the one before, so it has all"
    assert list((run_dir / "wandb").rglob("artifacts")), "nothing of it waits outside the run folder"
    said = capfd.readouterr()
    assert "WARNING" not in said.out + said.err


def test_sync_rebuilds_the_evaluations_too_and_says_which_it_cannot_read(run_dir, capfd):
    with tracker(run_dir, wandb="disabled") as telling:
        telling.start(0, {})
        train(telling, 1)
    _, where = an_evaluation(run_dir)
    an_evaluation(run_dir, "substeps-4")
    an_evaluation(run_dir, "substeps-5")
    an_evaluation(run_dir, "split-train", "train")
    (run_dir / "evaluation" / "substeps-5" / "curves.npz").write_bytes(b"torn")
    assert main(["sync", str(run_dir), "--mode", "offline"]) == 0
    said = capfd.readouterr().out
    assert "3 evaluations in its summary" in said
    assert "left out: " in said and "substeps-5" in said
    (rebuilt_id,) = re.findall(r"W&B run (\w+)", said)
    found, folder = summary(run_dir, rebuilt_id, "test/psnr")
    check_findings(found, folder, where)
    assert found["test-substeps-4/fvd"] == 250.5
    assert found["split-train/fvd"] == 250.5


def test_an_evaluation_that_wandb_does_not_take_is_a_warning(run_dir, capfd):
    scores, where = an_evaluation(run_dir)
    mirror_evaluation(RunFolder(run_dir), run_config("online"), scores, where)
    assert "the evaluation is not in W&B" in (said := capfd.readouterr().err)
    assert "WANDB_API_KEY" in said
    (where / "curves.npz").unlink()
    mirror_evaluation(RunFolder(run_dir), run_config(), scores, where)
    assert "curves.npz" in capfd.readouterr().err


def test_a_mirror_that_hangs_does_not_hold_up_the_evaluation(run_dir, capfd, monkeypatch):
    monkeypatch.setattr(evaluation_mirror, "TIMEOUT_S", 0.2)
    scores, where = an_evaluation(run_dir)
    began = time.monotonic()
    mirror_evaluation(RunFolder(run_dir), run_config(), scores, where)
    assert time.monotonic() - began < 5
    assert "did not finish within" in capfd.readouterr().err


def test_with_wandb_disabled_an_evaluation_starts_nothing(run_dir):
    scores, where = an_evaluation(run_dir)
    mirror_evaluation(RunFolder(run_dir), run_config("disabled"), scores, where)
    assert [path.name for path in run_dir.iterdir()] == ["evaluation"]


def test_a_row_whose_summary_alone_reached_the_disk_is_written_again(tmp_path, monkeypatch):
    """Found where a preemption ended W&B's service between the two."""
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").touch()
    lines = [
        {"num": 2, "type": "history", "history": {"item": {"_step": 234, "step": 183}, "step": {"num": 234}}},
        {"num": 3, "type": "summary", "summary": {"update": {"_step": 235, "step": 184}}},
    ]
    output = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines)
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, stdout=output, stderr="")
    )
    assert last_offline_step(tmp_path, "abc") == 234
