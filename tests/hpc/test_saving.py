"""When a run saves and what it says of it: by step, by clock, refused for a while or for good, too slow to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hpc import config as configs
from hpc import saving
from hpc.run_folder import RunFolder
from hpc.saving import Saver
from hpc.tracking.journal import read_records
from hpc.tracking.tracker import Tracker

STATE = {"weights": torch.ones(3), "code_version": "1"}


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr(saving.time, "monotonic", lambda: self.now)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder(tmp_path)


def saver(folder: RunFolder, *overrides: str, rank: int = 0) -> Iterator[Saver]:
    config = configs.load("srvp_smmnist", "test", overrides=["log.wandb=disabled", *overrides])
    with Tracker(folder.path, 1, config.log, {}, rank=rank, total_steps=10) as tracker:
        tracker.start(0, {})
        yield Saver(config, folder, tracker)


@pytest.fixture
def make(folder):
    opened = []

    def open_one(*overrides: str, rank: int = 0) -> Saver:
        opened.append(saver(folder, *overrides, rank=rank))
        return next(opened[-1])

    yield open_one
    for one in opened:
        next(one, None)


def events(folder: Path) -> list[tuple[str, int]]:
    return [(record.data["name"], record.step) for record in read_records(folder) if record.kind == "event"]


def test_a_save_is_due_by_the_steps_or_by_the_clock_but_not_at_step_0_or_twice(make, monkeypatch):
    one = make("checkpoint.every=5", "checkpoint.every_minutes=10")
    assert [step for step in range(11) if one.due(step)] == [5, 10]
    one.save(5, STATE, {}, time.monotonic())
    assert not one.due(5)
    clock = Clock(monkeypatch)
    clock.now += 601
    assert one.due(6)
    assert not one.due(0)


def test_what_is_durable_is_told_with_its_cost(make, folder):
    one = make()
    one.save(3, STATE, {"psnr": 20.0}, time.monotonic() - 0.5)
    assert one.finish(3)
    (saved,) = [record for record in read_records(folder.path) if record.data.get("name") == "saved"]
    assert saved.step == 3
    assert 0.5 <= saved.data["details"]["stalled_s"] < 5
    assert saved.data["details"]["seconds"] > 0
    (checkpoint,) = one.store.complete()
    assert checkpoint.meta["metrics"] == {"psnr": 20.0}


def test_a_refused_save_is_a_warning_until_the_deadline_and_a_success_resets_it(make, folder, monkeypatch, capsys):
    one = make("checkpoint.give_up_minutes=30")
    folder.checkpoints.write_text("in the way")
    clock = Clock(monkeypatch)
    one.save(1, STATE, {}, clock.now)
    assert not one.finish(1)
    assert "save_failed" in capsys.readouterr().out
    clock.now += 29 * 60
    assert not one.disk_is_lost
    folder.checkpoints.unlink()
    one.save(2, STATE, {}, clock.now)
    assert one.finish(2)
    folder.checkpoints.rename(folder.path / "kept")
    folder.checkpoints.write_text("in the way again")
    one.save(3, STATE, {}, clock.now)
    assert not one.finish(3)
    clock.now += 29 * 60
    assert not one.disk_is_lost
    clock.now += 2 * 60
    assert one.disk_is_lost
    assert "30 minutes" in str(one.lost_error()) and "launch.py resume" in str(one.lost_error())
    assert events(folder.path) == [("save_failed", 1), ("saved", 2), ("save_failed", 3)]


def test_zero_minutes_never_gives_up(make, folder, monkeypatch):
    one = make("checkpoint.give_up_minutes=0")
    folder.checkpoints.write_text("in the way")
    one.save(1, STATE, {}, time.monotonic())
    assert not one.finish(1)
    Clock(monkeypatch).now += 1e9
    assert not one.disk_is_lost


def test_a_warning_says_once_that_slurm_warns_too_late_for_a_save(make, folder, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.delenv("ODEVID_LAUNCHER", raising=False)
    one = make("cluster.signal_delay_s=2")
    for step in (1, 2):
        one.save(step, STATE, {}, time.monotonic() - 3)
        one.finish(step)
    assert [name for name, _ in events(folder.path)] == ["saved", "signal_delay_too_short", "saved"]
    (warning,) = [r for r in read_records(folder.path) if r.data.get("name") == "signal_delay_too_short"]
    assert "--signal-delay-s must be more" in warning.data["details"]["advice"]


def test_other_ranks_only_remember_the_step(make, folder):
    one = make(rank=1)
    one.save(4, STATE, {}, time.monotonic())
    assert one.finish(4)
    assert one.saved_step == 4
    assert not folder.checkpoints.exists()
