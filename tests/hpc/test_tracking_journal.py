"""The journal keeps every line through kills, full disks and resumes, and knows the one lineage that survives."""

import json
import math
import os
import random

import pytest

from hpc.tracking import strict_json
from hpc.tracking.journal import (
    Journal,
    JournalError,
    Record,
    journal_files,
    last_record,
    read_records,
    surviving,
)


def train(journal, *steps):
    for step in steps:
        journal.append("train", step, {"scalars": {"loss": step / 10}})


def lineage(run_dir):
    return [(record.step, record.attempt) for record in surviving(read_records(run_dir)) if record.kind == "train"]


def test_what_was_appended_is_read_back(tmp_path):
    journal = Journal(tmp_path, attempt=1)
    written = [
        journal.append("train", 10, {"loss": 0.1, "lr": 3e-4}),
        journal.append("event", 10, {"name": "note", "text": "naïve\nline", "keys": ["a", None, True, 3]}),
    ]
    journal.close()
    assert list(read_records(tmp_path)) == written
    assert [record.seq for record in written] == [0, 1]
    assert last_record(tmp_path) == written[-1]


def test_every_line_is_standard_json_also_with_nan(tmp_path):
    journal = Journal(tmp_path, attempt=1)
    journal.append("train", 1, {"loss": math.nan, "norm": math.inf, "low": -math.inf})
    journal.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    body = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert set(body) == {"v", "seq", "kind", "attempt", "step", "time", "loss", "norm", "low"}
    assert (body["loss"], body["norm"], body["low"]) == ("NaN", "Infinity", "-Infinity")
    (record,) = read_records(tmp_path)
    assert math.isnan(record.data["loss"])
    assert record.data["norm"] == math.inf
    assert record.data["low"] == -math.inf


def test_a_value_that_is_not_plain_is_refused_by_name(tmp_path):
    import numpy

    journal = Journal(tmp_path, attempt=1)
    with pytest.raises(TypeError, match=r"\['loss'\] is a numpy.float32"):
        journal.append("train", 1, {"loss": numpy.float32(1)})
    with pytest.raises(ValueError, match="'step'"):
        journal.append("train", 1, {"step": 2})
    train(journal, 2)
    journal.close()
    assert [record.seq for record in read_records(tmp_path)] == [0]


def test_each_line_is_with_the_operating_system_when_append_returns(tmp_path):
    """So a SIGKILL right afterwards loses nothing."""
    pid = os.fork()
    if pid == 0:
        train(Journal(tmp_path, attempt=1), *range(50))
        os.kill(os.getpid(), 9)
    os.waitpid(pid, 0)
    assert [record.step for record in read_records(tmp_path)] == list(range(50))


def test_a_line_torn_by_a_kill_at_any_byte_is_cut_off_and_counted(tmp_path):
    journal = Journal(tmp_path, attempt=1)
    train(journal, 1, 2)
    journal.close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert [record.step for record in read_records(tmp_path)] == [1], "a reader leaves it out"
        journal = Journal(tmp_path, attempt=2)
        assert journal.repaired_bytes == end - first
        train(journal, 3)
        journal.close()
        assert [(record.step, record.seq) for record in read_records(tmp_path)] == [(1, 0), (3, 1)]


def test_a_journal_torn_before_its_first_newline_starts_empty(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b"\0" * 200_000)
    journal = Journal(tmp_path, attempt=1)
    assert journal.repaired_bytes == 200_000
    assert not journal.records_before
    journal.close()


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    journal = Journal(tmp_path, attempt=1)
    train(journal, 1, 2, 3)
    journal.close()
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{broken\n" + lines[2])
    with pytest.raises(JournalError, match=r"metrics\.jsonl:2 is not a journal record"):
        list(read_records(tmp_path))


def test_a_newer_format_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"v":2,"what":"ever"}\n')
    with pytest.raises(JournalError, match="version 2"):
        list(read_records(tmp_path))


# -- lineage ---------------------------------------------------------------------------------------------------------


def test_lines_beyond_the_resumed_step_are_superseded_and_stay_in_the_file(tmp_path):
    first = Journal(tmp_path, attempt=1)
    train(first, 10, 20, 30, 40)
    first.close()
    second = Journal(tmp_path, attempt=2)
    second.resume(20)
    train(second, 30, 40, 50)
    second.close()
    assert lineage(tmp_path) == [(10, 1), (20, 1), (30, 2), (40, 2), (50, 2)]
    assert sum(record.kind == "train" for record in read_records(tmp_path)) == 7


def test_a_later_resume_further_back_supersedes_what_two_attempts_wrote(tmp_path):
    for attempt, resumed, steps in [(1, None, (10, 20, 30)), (2, 20, (30, 40)), (3, 30, (40, 50)), (4, 10, (20, 30))]:
        journal = Journal(tmp_path, attempt)
        if resumed is not None:
            journal.resume(resumed)
        train(journal, *steps)
        journal.close()
    assert lineage(tmp_path) == [(10, 1), (20, 4), (30, 4)]


def test_starting_anew_supersedes_everything(tmp_path):
    first = Journal(tmp_path, attempt=1)
    train(first, 0, 10)
    first.close()
    second = Journal(tmp_path, attempt=2)
    second.resume(None)
    train(second, 0, 10)
    second.close()
    assert lineage(tmp_path) == [(0, 2), (10, 2)]


def test_any_history_of_kills_gives_each_step_once_from_the_attempt_that_wrote_it_last(tmp_path):
    """Against a plain simulation: a dictionary step -> attempt that a resume cuts back."""
    chance = random.Random(5)
    records: list[Record] = []
    expected: dict[int, int] = {}
    seq = step = 0
    for attempt in range(1, 30):
        if attempt > 1:
            step = chance.randint(0, step)
            records.append(Record(seq, "resume", attempt, step, 0.0, {"from_step": step}))
            expected = {done: by for done, by in expected.items() if done <= step}
        for _ in range(chance.randint(0, 12)):
            step += 1
            seq += 1
            expected[step] = attempt
            records.append(Record(seq, "train", attempt, step, 0.0, {}))
    found = [(record.step, record.attempt) for record in surviving(records) if record.kind == "train"]
    assert found == sorted(expected.items())


# -- size ------------------------------------------------------------------------------------------------------------


def test_files_stay_small_and_the_reader_spans_them(tmp_path):
    for attempt in (1, 2):
        journal = Journal(tmp_path, attempt, rotate_bytes=1000)
        train(journal, *range(attempt * 100, attempt * 100 + 60))
        journal.close()
    files = journal_files(tmp_path)
    assert len(files) > 5
    assert files[0].name == "metrics-000001.jsonl"
    assert files[-1].name == "metrics.jsonl"
    assert all(path.stat().st_size <= 1000 for path in files)
    records = list(read_records(tmp_path))
    assert [record.seq for record in records] == list(range(120))
    assert [record.step for record in records] == [*range(100, 160), *range(200, 260)]


def test_a_kill_between_moving_a_full_file_and_opening_the_next_loses_nothing(tmp_path):
    journal = Journal(tmp_path, attempt=1)
    train(journal, 1, 2)
    journal.close()
    (tmp_path / "metrics.jsonl").rename(tmp_path / "metrics-000001.jsonl")
    journal = Journal(tmp_path, attempt=2)
    train(journal, 3)
    journal.close()
    assert [(record.step, record.seq) for record in read_records(tmp_path)] == [(1, 0), (2, 1), (3, 2)]


# -- full disk -------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_no_line_and_ends_nothing(tmp_path, monkeypatch, caplog):
    journal = Journal(tmp_path, attempt=1)
    train(journal, 1)
    with monkeypatch.context() as patch:
        real = os.write

        def full(fd, data):
            if len(data) > 20:
                return real(fd, data[:20])
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        train(journal, 2, 3, 4)
        assert [record.step for record in read_records(tmp_path)] == [1], "no half line stays"
    train(journal, 5)
    journal.close()
    assert [record.step for record in read_records(tmp_path)] == [1, 2, 3, 4, 5]
    assert caplog.text.count("No space left") == 1, "said once, not for each line"
    assert "0 lines were lost" in caplog.text


def test_what_waits_for_room_is_bounded_and_the_loss_is_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Journal, "MAX_WAITING", 10)
    journal = Journal(tmp_path, attempt=1)
    with monkeypatch.context() as patch:

        def full(fd, data):
            raise OSError(28, "No space left on device")

        patch.setattr(os, "write", full)
        train(journal, *range(14))
    train(journal, 14)
    journal.close()
    assert [record.step for record in read_records(tmp_path)] == list(range(5, 15))
    assert "5 lines were lost" in caplog.text


def test_the_disk_is_synced_now_and_then_and_at_the_end(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = Journal(tmp_path, attempt=1, sync_every_s=3600)
    train(journal, *range(100))
    assert synced == []
    journal.close()
    assert len(synced) == 1
    journal = Journal(tmp_path, attempt=2, sync_every_s=0)
    train(journal, 1, 2)
    assert len(synced) == 3
    journal.close()


def test_a_string_that_looks_like_nan_is_the_only_thing_that_changes():
    value = {"a": ["NaN?", "Infinity ", 1.5, None, {"b": True}], "c": 10**20}
    assert strict_json.loads(strict_json.dumps(value)) == value
