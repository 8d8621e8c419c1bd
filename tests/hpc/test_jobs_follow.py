"""Following a job: its whole log once, through requeues and cuts, until the job is over for good."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpc.jobs.follow import SETTLE_S, Tail, Watch, follow
from hpc.watchdog.logs import limit
from tests.hpc.fake_slurm import DOWN, FakeSlurm, line

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "tools", monkeypatch)


def said(text: str) -> list[str]:
    """The lines about the job, without their time."""
    return [re.sub(r"^-- \d+ \w+ [\d:]+ ", "", line) for line in text.splitlines() if line.startswith("-- ")]


def test_a_job_is_followed_from_the_queue_through_a_requeue_to_its_end(tmp_path, slurm, capsys):
    log = tmp_path / "7_0_log.out"
    slurm.answers(
        line("7", "PENDING", "Priority"),
        line("7", "RUNNING", nodes="n[1-4]") + f"; echo first >> {log}",
        line("7", "COMPLETING", nodes="n[1-4]"),
        line("7", "PENDING", "BeginTime"),
        line("7", "RUNNING", nodes="n[2-5]") + f"; echo second >> {log}",
        line("7", "COMPLETED") + f"; echo third >> {log}",
    )
    assert follow("7", log, poll_s=0.01) == 0
    shown = capsys.readouterr().out
    assert [text for text in shown.splitlines() if not text.startswith("--")] == ["first", "second", "third"]
    assert said(shown) == [
        "job 7: queued (Priority)",
        "job 7: running on n[1-4]",
        "job 7: COMPLETING",
        "job 7: queued (BeginTime)",
        "job 7: running on n[2-5]",
        "job 7: COMPLETED",
        "job 7 is finished: COMPLETED",
    ]


def test_a_job_that_failed_is_an_error_and_says_if_it_never_wrote(tmp_path, slurm, capsys):
    slurm.answers(line("7", "FAILED", "NonZeroExitCode"))
    assert follow("7", tmp_path / "none.out", poll_s=0.01) == 1
    assert "job 7 is finished: FAILED; it never wrote" in capsys.readouterr().out


def test_the_log_is_followed_while_the_controller_is_away(tmp_path, slurm, capsys):
    log = tmp_path / "log"
    slurm.answers(line("7", "RUNNING", nodes="n1"), f"echo on >> {log}; {DOWN}", DOWN, line("7", "COMPLETED"))
    assert follow("7", log, poll_s=0.01) == 0
    shown = capsys.readouterr().out
    assert "\non\n" in shown
    assert len([text for text in said(shown) if "SLURM does not answer" in text]) == 1


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", "BOOT_FAIL"])
def test_states_that_slurm_may_recover_from_are_final_only_after_a_while(state, slurm):
    time = [0.0]
    watch = Watch("7", lambda text: None, clock=lambda: time[0])
    slurm.answers(line("7", state), line("7", "PENDING"), line("7", state))
    assert [watch.look(), watch.look(), watch.look()] == [None, None, None]
    time[0] = SETTLE_S
    assert watch.look() == state


def test_a_job_that_slurm_has_forgotten_does_not_keep_anybody_waiting(slurm):
    time = [0.0]
    watch = Watch("7", lambda text: None, clock=lambda: time[0])
    assert watch.look() is None
    time[0] = SETTLE_S
    assert "forgotten" in str(watch.look())


def test_ctrl_c_ends_the_following_and_not_the_job(tmp_path, slurm):
    log = tmp_path / "log"
    log.write_text("a step\n")
    slurm.answers(line("7", "RUNNING", nodes="n1"))
    code = (
        "import signal, sys, pathlib, hpc.jobs.follow as f\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a test suite in the background has it ignored\n"
        "sys.exit(f.follow('7', pathlib.Path(sys.argv[1])))"
    )
    with subprocess.Popen([sys.executable, "-c", code, log], cwd=ROOT, text=True, stdout=subprocess.PIPE) as following:
        assert following.stdout
        while following.stdout.readline() != "a step\n":
            pass
        os.kill(following.pid, signal.SIGINT)
        rest = following.stdout.read()
    assert following.returncode == 130
    assert "stopped following; job 7 goes on" in rest
    assert slurm.orders_given() == []


def test_a_log_that_is_cut_is_shown_once_and_wholly(tmp_path):
    log, shown = tmp_path / "log", []
    tail = Tail(log)
    assert tail.read() == ""
    for number in range(300):
        with log.open("a") as file:
            file.write(f"step {number}: ü\n")
        if number % 3 == 0:
            shown.append(tail.read())
            limit(log, 1000)
    shown.append(tail.read())
    assert log.stat().st_size <= 1100
    assert "".join(shown).splitlines() == [f"step {number}: ü" for number in range(300)]


def test_a_log_that_begins_anew_is_read_from_its_start_also_when_it_is_longer(tmp_path):
    log = tmp_path / "log"
    tail = Tail(log)
    log.write_text("of the first\n")
    assert tail.read() == "of the first\n"
    log.write_text("another one, which has grown beyond that\n")
    assert tail.read() == "another one, which has grown beyond that\n"


def test_a_character_that_is_half_written_waits_for_its_other_half(tmp_path):
    log = tmp_path / "log"
    tail = Tail(log)
    log.write_bytes("é".encode()[:1])
    assert tail.read() == ""
    log.write_bytes("é".encode())
    assert tail.read() == "é"
