"""The quick look at a journal says what the slow one says."""

from __future__ import annotations

import itertools
import math

import pytest

from hpc.jobs.progress import LONG_GAP_S, newest_sign, read_progress
from hpc.tracking.journal import Journal, read_records, surviving
from tests.hpc.lives import Life


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path / "run", start=1e9)


def test_the_lineage_is_that_of_the_journal(life):
    life.submit("7")
    for begin, end in ((0, 1000), (700, 2000), (1500, 1800)):
        life.begin(100, begin)
        life.train(end)
    progress = read_progress(life.folder.path)
    kept = [record for record in surviving(read_records(life.folder.path)) if record.kind == "train"]
    assert progress.step == max(record.step for record in kept) == 1800
    pairs = [(a, b) for a, b in itertools.pairwise(kept) if a.attempt == b.attempt]
    assert [(s.attempt, s.steps) for s in progress.spans] == [(b.attempt, b.step - a.step) for a, b in pairs]
    assert progress.trained_s == pytest.approx(sum(b.time - a.time for a, b in pairs))
    assert {number: sign.step for number, sign in progress.last.items()} == {1: 1000, 2: 2000, 3: 1800}


def test_a_run_started_anew_has_nothing_left_of_before(life):
    life.submit("7")
    life.begin(0, 0)
    life.train(5000)
    life.begin(0, 0)
    life.train(300)
    assert read_progress(life.folder.path).step == newest_sign(life.folder.path).step == 300


def test_it_reads_what_the_journal_writes_over_rotated_files(tmp_path):
    journal = Journal(tmp_path, 3, rotate_bytes=2000)
    for step in range(1, 101):
        journal.append("train", step, {"scalars": {"loss": math.nan, "step_s": 1e-05}})
    journal.append("event", 100, {"name": "saved", "details": {"seconds": 6.5, "stalled_s": 0.1, "step": 100}})
    journal.append("event", 100, {"name": "error", "details": {"type": "OSError", "message": "No space left"}})
    journal.close()
    assert len(list(tmp_path.glob("metrics-*.jsonl"))) > 3
    progress = read_progress(tmp_path)
    assert (progress.step, progress.save_s, progress.error) == (100, [6.5], "OSError: No space left")
    assert progress.last[3].step == newest_sign(tmp_path).step == 100
    assert progress.step_s == 1e-05


def test_lines_that_are_damaged_or_half_written_are_passed_over(life):
    life.submit("7")
    life.begin(0, 0)
    life.train(500)
    with (life.folder.path / "metrics.jsonl").open("ab") as file:
        file.write(
            b'\x00\x00 nonsense\n{"v":1,"seq":99,"kind":"event","attempt":1,"step":600,"time":1e9,"name":"error"}\n'
        )
        file.write(b'{"v":1,"seq":100,"kind":"train","attempt":1,"st')
    assert read_progress(life.folder.path).step == 600


def test_a_clock_that_is_set_does_not_touch_the_speed(life):
    life.submit("7")
    life.begin(0, 0)
    life.train(1000)
    life.clock -= 7200
    life.train(2000)
    life.clock += 2 * LONG_GAP_S
    life.train(3000)
    progress = read_progress(life.folder.path)
    assert progress.speed() == (pytest.approx(10.0), [1])
    assert all(span.seconds > 0 for span in progress.spans)


def test_with_a_single_line_the_speed_is_that_of_its_steps(life):
    life.submit("7")
    life.begin(0, 0)
    assert read_progress(life.folder.path).speed() is None
    life.train(100)
    assert read_progress(life.folder.path).speed() == (pytest.approx(10.0), [1])


def test_a_folder_without_a_journal_has_no_progress(tmp_path):
    for progress in (read_progress(tmp_path), newest_sign(tmp_path), read_progress(tmp_path / "nowhere")):
        assert (progress.step, progress.newest, progress.speed()) == (0, None, None)
