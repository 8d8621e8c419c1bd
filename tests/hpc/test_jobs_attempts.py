"""RUN/attempts.jsonl: what is written is read back, a kill costs one line at most, and idle attempts are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpc.jobs.attempts import (
    ATTEMPTS_FILE,
    Attempt,
    Failure,
    Submission,
    note_cancelled,
    note_end,
    note_failure,
    note_start,
    note_submission,
    note_training,
    read_history,
)

SUBMISSION = Submission(1.0, "train", "77", 4, 4, "RUN/logs/77_0_log.out", "RUN/code/abc")
ATTEMPT = Attempt(1, "train", 2.0, "77", 0, ["n1", "n2"], 2, None)


def test_what_happened_reads_back(tmp_path):
    failure = Failure(4.0, "77", 0, 1, "n2", False, "RuntimeError: lost")
    note_submission(tmp_path, SUBMISSION)
    note_start(tmp_path, ATTEMPT)
    note_training(tmp_path, 1, 0)
    note_failure(tmp_path, failure)
    note_end(tmp_path, 1, 12, "preempt")
    note_cancelled(tmp_path, ["77", "78_3"])
    history = read_history(tmp_path)
    (attempt,) = history.attempts
    assert history.submissions == [SUBMISSION]
    assert history.failures == [failure]
    assert history.cancelled == {"77", "78_3"}
    assert (attempt.training_step, attempt.ended_step, attempt.cause) == (0, 12, "preempt")
    assert attempt.training_time is not None and attempt.ended_time is not None
    assert attempt.training_time <= attempt.ended_time
    assert history.next_number() == 2


def test_an_end_that_the_disk_refuses_to_note_is_a_warning_a_beginning_is_an_error(tmp_path, capsys):
    (tmp_path / ATTEMPTS_FILE).mkdir()
    note_end(tmp_path, 1, 12, "preempt")
    assert "WARNING: not noted" in capsys.readouterr().err
    with pytest.raises(OSError):
        note_start(tmp_path, ATTEMPT)


def test_a_run_without_attempts_has_an_empty_history(tmp_path):
    assert read_history(tmp_path).next_number() == 1
    assert read_history(tmp_path / "absent").attempts == []


def test_a_line_cut_short_by_a_kill_costs_only_itself(tmp_path):
    note_submission(tmp_path, SUBMISSION)
    with (tmp_path / ATTEMPTS_FILE).open("a") as file:
        file.write('{"event": "started", "numb')
    note_start(tmp_path, ATTEMPT)
    history = read_history(tmp_path)
    assert (len(history.submissions), len(history.attempts)) == (1, 1)


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    note_start(tmp_path, ATTEMPT)
    path = tmp_path / ATTEMPTS_FILE
    path.write_text(path.read_text().replace('"number"', '"mood": "sunny", "number"'))
    assert read_history(tmp_path).attempts == [ATTEMPT]


def test_attempts_without_a_new_checkpoint_count_from_the_last_progress_or_the_last_submission(tmp_path):
    note_submission(tmp_path, SUBMISSION)
    for number, checkpoint in enumerate([None, 100, 100, 100], start=1):
        note_start(tmp_path, replace(ATTEMPT, number=number, checkpoint=checkpoint))
    note_start(tmp_path, replace(ATTEMPT, number=5, verb="evaluate"))
    history = read_history(tmp_path)
    assert [attempt.number for attempt in history.without_progress(100)] == [2, 3, 4]
    assert history.without_progress(150) == []
    note_submission(tmp_path, SUBMISSION)
    assert read_history(tmp_path).without_progress(100) == []
    note_start(tmp_path, replace(ATTEMPT, number=6, checkpoint=100))
    assert [attempt.number for attempt in read_history(tmp_path).without_progress(100)] == [6]
