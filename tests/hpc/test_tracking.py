"""What a run tells: exact means without waiting for the device, records on rank 0 only, bars or sparse lines."""

from __future__ import annotations

import io
import json
import math
import re

import pytest
import torch
from rich.console import Console
from torch.utils._python_dispatch import TorchDispatchMode

from hpc.config import LogConfig
from hpc.tracking import console, meters
from hpc.tracking.console import Display, format_duration, progress_bar
from hpc.tracking.journal import read_records, surviving
from hpc.tracking.meters import Meters, over_ranks
from hpc.tracking.tracker import Tracker


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(meters.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


# -- meters ------------------------------------------------------------------------------------------------------


def test_means_are_over_the_steps_since_the_last_line_and_over_those_that_had_the_term():
    meter = Meters("cpu")
    for step in range(1, 5):
        terms = {"loss": torch.tensor(float(step), requires_grad=True)}
        if step % 2 == 0:
            terms["adversarial"] = torch.tensor(10.0 * step)
        meter.update(terms, {"grad_norm/model": step / 2}, frames=30)
    found = meter.collect()
    assert (found["loss"], found["adversarial"], found["grad_norm/model"]) == (2.5, 30.0, 1.25)
    meter.update({"loss": torch.tensor(7.0)}, {}, frames=30)
    found = meter.collect()
    assert found["loss"] == 7.0
    assert found.keys() == {"loss", "frames_per_s", "step_s", "data_wait_share"}


def test_terms_that_are_maxima_are_the_largest_of_the_steps_and_of_the_ranks():
    meter = Meters("cpu")
    for value in (3.0, 9.0, 6.0):
        meter.update({"nfe": torch.tensor(value), "nfe_max": torch.tensor(value)}, {}, frames=1)
    found = meter.collect()
    assert (found["nfe"], found["nfe_max"]) == (6.0, 9.0)
    meter.update({"nfe_max": torch.tensor(-1.0)}, {}, frames=1)
    assert meter.collect()["nfe_max"] == -1.0, "a line knows nothing of the one before"
    meter.update({"nfe_max": torch.tensor(math.nan)}, {}, frames=1)
    meter.update({"nfe_max": torch.tensor(1.0)}, {}, frames=1)
    assert math.isnan(meter.collect()["nfe_max"])
    assert (over_ranks("nfe", [1.0, 3.0]), over_ranks("nfe_max", [1.0, 3.0])) == (2.0, 3.0)
    assert math.isnan(over_ranks("nfe_max", [1.0, math.nan]))


def test_a_long_sum_of_float32_terms_does_not_drift():
    meter = Meters("cpu")
    for _ in range(20_000):
        meter.update({"loss": torch.tensor(0.1)}, {}, frames=1)
    assert meter.collect()["loss"] == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


class NoTransfer(TorchDispatchMode):
    """Fails on every operation that makes the host wait for a device's value."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), "the host waited for the device"
        return func(*args, **(kwargs or {}))


def test_updates_never_wait_for_the_device_and_a_line_waits_once():
    meter = Meters("cpu")
    terms = {name: torch.ones(()) for name in ("loss", "nll", "kl_y", "kl_z")}
    with NoTransfer():
        for _ in range(3):
            meter.update(terms, {"grad_norm/model": 1.0}, frames=30)
        assert meter.collect()["loss"] == 1.0, "one vector, not one number after another"


def test_speed_and_waiting_are_those_of_the_steps_not_of_what_happens_between(clock):
    meter = Meters("cpu")
    for _ in range(4):
        for _ in range(2):  # accumulation
            with meter.waiting():
                clock.pass_(0.25)
            clock.pass_(0.75)
        meter.update({}, {}, frames=100)
        clock.pass_(60)  # validation
    found = meter.collect()
    assert found["step_s"] == pytest.approx(2.0)
    assert found["frames_per_s"] == pytest.approx(50.0)
    assert found["data_wait_share"] == pytest.approx(0.25)


def test_no_update_gives_zeros_and_no_terms():
    assert Meters("cpu").collect() == {"frames_per_s": 0.0, "step_s": 0.0, "data_wait_share": 0.0}


def test_a_non_finite_term_stays_visible_in_the_mean():
    meter = Meters("cpu")
    for value in (1.0, float("nan"), 1.0):
        meter.update({"loss": torch.tensor(value)}, {"grad_norm/model": float("inf")}, frames=1)
    found = meter.collect()
    assert found["loss"] != found["loss"]
    assert found["grad_norm/model"] == float("inf")


# -- console -----------------------------------------------------------------------------------------------------


def plain():
    return Console(file=io.StringIO(), width=200)


def terminal():
    return Console(file=io.StringIO(), width=80, force_terminal=True, force_interactive=True, color_system=None)


def test_a_log_file_gets_one_line_per_logged_step_with_the_eta_of_the_schedule(clock):
    out = plain()
    display = Display(total_steps=1000, console=out)
    display.start(100)
    clock.pass_(50)
    display.evaluated(200, {"psnr": 21.5}, {"clips": 100, "samples": 10, "wall_s": 61.0})
    scalars = {"nll": 5.0, "loss": 6.0, "frames_per_s": 250.0, "data_wait_share": 0.04, "bad_steps": 0, "lr": 1e-3}
    display.train(200, scalars)
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "continuing at step 100 of 1000"
    assert lines[1] == "step 200  validation  psnr 21.5  (100 clips x 10 samples, 1m 01s)"
    assert lines[2] == "step 200/1000  loss 6  nll 5  250 frames/s  data wait 4%  psnr 21.50  ETA 6m 40s"
    assert len(lines) == 3


def test_a_terminal_gets_a_bar_with_speed_eta_loss_and_psnr(clock):
    out = terminal()
    display = Display(total_steps=1000, console=out)
    live = display._live
    assert live is not None
    display.start(0)
    clock.pass_(50)
    display.evaluated(100, {"psnr": 21.5}, {})
    display.train(100, {"loss": 6.0})
    validation = display.progress("validation")
    validation(1, 4)
    live.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())
    assert re.search(r"train .* 100/1000 2 steps/s ETA 7m 30s loss 6 +psnr 21.50", shown)
    assert re.search(r"validation .* 1/4", shown)
    validation(4, 4)
    assert [task.description for task in live.tasks] == ["train"], "a finished validation takes its bar away"
    display.close()


def test_other_work_says_at_most_every_thirty_seconds_how_far_it_is(clock, capsys):
    with progress_bar("evaluate", enabled=True) as progress:
        for done in range(1, 101):
            clock.pass_(1.0)
            progress(done, 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "evaluate 30/100  1/s  ETA 1m 10s",
        "evaluate 60/100  1/s  ETA 40s",
        "evaluate 90/100  1/s  ETA 10s",
    ]


def test_a_bar_that_is_not_enabled_is_silent(clock, capsys):
    with progress_bar("evaluate", enabled=False) as progress:
        for done in range(1, 101):
            clock.pass_(10.0)
            progress(done, 100)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (59.4, "59s"),
        (60, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (1e6, "11d 13h"),
        (float("inf"), "?"),
    ],
)
def test_durations_are_short_and_honest(seconds, text):
    assert format_duration(seconds) == text


# -- tracker -----------------------------------------------------------------------------------------------------


def tracker(run_dir, attempt=1, rank=0, **log):
    return Tracker(run_dir, attempt, LogConfig(wandb="disabled", **log), {"seed": 1}, rank=rank, total_steps=100)


def test_only_rank_0_writes_and_prints(tmp_path, capsys):
    with tracker(tmp_path, rank=1) as telling:
        telling.start(0, {})
        telling.log("train", 1, {"loss": 1.0})
        telling.event("bad_step", 1, {}, warn=True)
        telling.video(1, "samples", tmp_path / "a.gif")
        telling.progress("validation")(1, 2)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_of_a_long_list_the_beginning_is_said_and_all_of_it_written(tmp_path, capsys):
    keys = [f"clip-{number}" for number in range(128)]
    with tracker(tmp_path) as telling:
        telling.event("bad_step", 7, {"reason": "no number", "trouble": ["rk4"], "keys": keys}, warn=True)
    said = capsys.readouterr()
    shown = " ".join((said.out + said.err).split())
    assert "step 7: bad_step: reason: no number, trouble: rk4, keys: clip-0; clip-1; clip-2; clip-3 ... (128)" in shown
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["details"]["keys"] == keys


def test_every_line_tells_kind_attempt_step_and_time(tmp_path):
    with tracker(tmp_path, attempt=3) as telling:
        telling.start(0, {"code": "abc"})
        telling.log("train", 5, {"loss": 1, "memory_gib": float("nan")})
        telling.video(5, "samples", tmp_path / "pictures" / "a.gif")
        telling.event("bad_step", 6, {"keys": ["a"]})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["attempt"], line["step"]) for line in lines] == [
        ("start", 3, 0),
        ("train", 3, 5),
        ("video", 3, 5),
        ("event", 3, 6),
    ]
    assert all(line["v"] == 1 and line["time"] > 1.6e9 for line in lines)
    assert lines[0]["about"] == {"code": "abc"}
    assert lines[0]["config"] == {"seed": 1}
    assert lines[1]["scalars"] == {"loss": 1.0, "memory_gib": "NaN"}
    assert (lines[2]["name"], lines[2]["path"]) == ("samples", "pictures/a.gif")
    assert (lines[3]["name"], lines[3]["details"]) == ("bad_step", {"keys": ["a"]})


def test_a_resumed_attempt_supersedes_what_lies_beyond_its_checkpoint_and_a_fresh_one_everything(tmp_path):
    for attempt, begin in ((1, 0), (2, 20), (3, 0)):
        with tracker(tmp_path, attempt) as telling:
            telling.start(begin, {})
            for step in range(begin + 10, begin + 40, 10):
                telling.log("train", step, {"loss": 1.0})
        found = [(r.attempt, r.step) for r in surviving(read_records(tmp_path)) if r.kind == "train"]
        if attempt == 2:
            assert found == [(1, 10), (1, 20), (2, 30), (2, 40), (2, 50)]
    assert found == [(3, 10), (3, 20), (3, 30)]
    assert len(list(read_records(tmp_path))) == 3 * 4 + 2, "nothing is deleted"


def break_down(run_dir):
    with tracker(run_dir) as telling:
        telling.start(0, {})
        telling.log("train", 7, {"loss": 1.0})
        raise ValueError("broken shard")


def test_an_exception_that_passes_is_the_last_record_and_goes_on(tmp_path, capsys):
    with pytest.raises(ValueError, match="broken shard"):
        break_down(tmp_path)
    last = list(read_records(tmp_path))[-1]
    assert (last.kind, last.step, last.data["name"]) == ("event", 7, "error")
    assert last.data["details"] == {"type": "ValueError", "message": "broken shard"}
    assert "WARNING: step 7: error" in capsys.readouterr().out


def test_a_line_torn_by_a_kill_is_repaired_and_told(tmp_path, capsys):
    with tracker(tmp_path) as telling:
        telling.start(0, {})
        telling.log("train", 10, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":2,"kin')
    with tracker(tmp_path, attempt=2) as telling:
        telling.start(10, {})
    (event,) = (r for r in read_records(tmp_path) if r.kind == "event")
    assert (event.data["name"], event.data["details"]) == ("journal_repaired", {"bytes": 19})
    assert "journal_repaired" in capsys.readouterr().out


def test_a_warning_is_loud(tmp_path, capsys):
    with tracker(tmp_path) as telling:
        telling.start(0, {})
        telling.event("save_failed", 4, {"error": "no space"}, warn=True)
        telling.event("quiet", 4, {"error": "nothing"})
    assert capsys.readouterr().out == "WARNING: step 4: save_failed: error: no space\n"


def test_the_files_of_a_journal_are_rotated_at_the_configured_size(tmp_path):
    with tracker(tmp_path, max_file_mb=1) as telling:
        telling.start(0, {})
        for step in range(1, 6000):
            telling.event("note", step, {"text": "x" * 200})
    assert (tmp_path / "metrics-000001.jsonl").stat().st_size <= 2**20
    assert len([r for r in read_records(tmp_path) if r.kind == "event"]) == 5999
