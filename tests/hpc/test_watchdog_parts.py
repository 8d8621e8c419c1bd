"""The watchdog's pure parts: what is usual, what a dump means, who is to blame; and logs that stay small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hpc.watchdog import dumps, logs
from hpc.watchdog.dumps import Position
from hpc.watchdog.heartbeat import LEFT, Beat, Identity
from hpc.watchdog.patience import Patience
from hpc.watchdog.proc import ProcessState
from hpc.watchdog.verdict import RankRecord, diagnose, judge

ROOT = Path(__file__).resolve().parents[2]
STEP, SAVE = ("fetch", "step"), ("agree", "save")

# -- what is usual -----------------------------------------------------------------------------------------------


def learned(*seconds, move=STEP, factor=20.0, min_s=1.0, start_s=1800.0):
    patience = Patience(factor, min_s, start_s)
    for duration in seconds:
        patience.learn(move, duration)
    return patience


def test_what_was_never_done_gets_the_patience_of_the_start():
    assert learned().seconds(STEP) == 1800
    assert learned(0.5).seconds(SAVE) == 1800


def test_patience_is_a_multiple_of_the_longest_recent_duration_of_the_same_move():
    patience = learned(2.0, 3.0, 2.0)
    patience.learn(SAVE, 60.0)
    assert patience.seconds(STEP) == pytest.approx(20 * 0.9 * 3)
    assert patience.seconds(SAVE) == 1200


def test_patience_is_never_below_the_minimum():
    assert learned(0.01, min_s=300).seconds(STEP) == 300
    assert learned(min_s=300, start_s=10).seconds(STEP) == 300


def test_a_slow_first_step_is_forgotten():
    assert learned(120.0).seconds(STEP) == 2400
    assert learned(120.0, *[0.5] * 100).seconds(STEP) == 10


# -- what a dump means -------------------------------------------------------------------------------------------

SITE = "/env/lib/python3.11/site-packages"
COLLECTIVE = f"""  File "{SITE}/torch/distributed/distributed_c10d.py", line 2810 in all_reduce
  File "{SITE}/torch/distributed/c10d_logger.py", line 81 in wrapper
  File "{ROOT}/hpc/distributed.py", line 64 in all_max
  File "{ROOT}/hpc/train.py", line 9 in run
"""
BACKWARD = f"""  File "{SITE}/torch/autograd/graph.py", line 824 in _engine_run_backward
  File "{SITE}/torch/_tensor.py", line 626 in backward
  File "{ROOT}/hpc/engine.py", line 40 in backward
"""


def dump(main: str, other: str = '  File "/env/lib/python3.11/threading.py", line 331 in wait\n') -> str:
    return (
        f"Timeout (0:05:00)!\nThread 0x00007f01 (most recent call first):\n{other}\n"
        f"Thread 0x00007f02 [worker] (most recent call first):\n{main}"
    )


def test_a_thread_inside_the_communication_library_waits_in_a_collective():
    found = dumps.position(dump(COLLECTIVE), 0x7F02)
    assert found == Position("hpc/distributed.py:64", "all_reduce", "all_reduce")


def test_a_thread_whose_callers_once_used_a_collective_is_running():
    text = dump('  File "/home/a/odd.py", line 3 in stuck\n' + COLLECTIVE)
    assert dumps.position(text, 0x7F02) == Position("/home/a/odd.py:3", "stuck", "")


def test_a_backward_pass_waits_when_autograds_own_thread_is_in_a_collective():
    reducing = f'  File "{SITE}/torch/distributed/distributed_c10d.py", line 2 in reduce_scatter_tensor\n'
    assert dumps.position(dump(BACKWARD, reducing), 0x7F02) == Position(
        "hpc/engine.py:40", "_engine_run_backward", "reduce_scatter_tensor"
    )
    found = dumps.position(dump(BACKWARD), 0x7F02)
    assert found and not found.collective


def test_of_several_dumps_the_latest_counts_and_an_unknown_thread_has_no_position():
    text = dump(COLLECTIVE) + "\n" + dump('  File "/home/a/new.py", line 5 in later\n')
    found = dumps.position(text, 0x7F02)
    assert found and found.where == "/home/a/new.py:5"
    assert dumps.position(text, 0x9999) is None
    assert dumps.position("", 0x7F02) is None


# -- verdicts ----------------------------------------------------------------------------------------------------


def verdict(state, phase="step", position=None, samples=4, wchan=""):
    process = ProcessState(state, wchan, ()) if state else None
    beat = Beat(9, 17, 0.0, 60.0, phase)
    return judge(Identity(2, 123, 1, 1), beat, "n3", 65.0, [process] * samples, position)


def test_each_kind_of_evidence_has_its_verdict():
    waits = Position("hpc/distributed.py:64", "all_reduce", "all_reduce")
    assert verdict("T", position=waits).verdict == "stopped (SIGSTOP, state T)"
    assert verdict("t").verdict == "stopped (by a debugger, state t)"
    assert verdict("").verdict == verdict("Z").verdict == "dead"
    assert verdict("D", wchan="nfs_wait").verdict == "waiting on I/O (state D, nfs_wait)"
    assert verdict("S", position=waits).verdict == "waiting in a collective (all_reduce, hpc/distributed.py:64)"
    assert verdict("R", position=Position("a.py:1", "spin", "")).verdict == "running in step (a.py:1, in spin)"
    assert verdict("S", phase=LEFT).kind == "left"


def test_a_short_wait_on_io_is_no_finding():
    samples = [ProcessState("D", "", ()), ProcessState("S", "", ()), ProcessState("D", "", ())]
    assert judge(Identity(0, 1, 1, 1), Beat(1, 1, 0, 1, "step"), "n0", 2.0, samples, None).kind == "running"


def rank(number, kind="collective", step=17, where="hpc/distributed.py:64", collective="all_reduce"):
    return RankRecord(
        number,
        f"n{number + 1}",
        100 + number,
        step,
        "agree",
        65.4,
        True,
        kind,
        "T" if kind == "stopped" else "S",
        "",
        collective if kind == "collective" else "",
        where,
        "f",
    )


def test_the_culprit_comes_first():
    assert diagnose([rank(0), rank(1), rank(2, "stopped"), rank(3)], 4) == (
        "rank 2 on n3 (pid 102) is stopped (SIGSTOP, state T), last heartbeat at step 17 (agree), 65 s ago; "
        "ranks 0, 1, 3 wait in a collective: all_reduce (hpc/distributed.py:64), step 17"
    )


def test_if_nobody_is_stopped_or_dead_the_one_that_does_not_wait_is_the_suspect():
    said = diagnose([rank(0), rank(1, "running", where="hpc/data.py:7"), rank(2)], 3)
    assert said.startswith(
        "no rank is stopped or dead; rank 1 on n2 (pid 101) does not wait for the others: "
        "it is running in agree (hpc/data.py:7, in f)"
    )
    assert said.endswith("ranks 0, 2 wait in a collective: all_reduce (hpc/distributed.py:64), step 17")


def test_ranks_that_wait_in_different_collectives_are_told_apart():
    said = diagnose([rank(0), rank(1, step=18, collective="broadcast"), *(rank(number) for number in range(2, 7))], 7)
    assert "not in the same collective at the same step" in said
    assert "ranks 0, 2-6 wait in a collective: all_reduce (hpc/distributed.py:64), step 17" in said
    assert "rank 1 waits in a collective: broadcast (hpc/distributed.py:64), step 18" in said


def test_if_all_wait_in_the_same_collective_it_is_between_them():
    assert "look at the network" in diagnose([rank(0), rank(1)], 2)


def test_ranks_without_a_record_are_named_with_their_nodes():
    assert "no word from rank 1 (no record from n2)" in diagnose([rank(0)], 2, ["n2"])


# -- logs --------------------------------------------------------------------------------------------------------


def test_a_small_log_stays(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\n" * 50)
    assert not logs.limit(log, 100)
    assert not logs.limit(tmp_path / "absent", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_older_half_of_a_large_log_moves_whole_lines_and_an_older_one_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "CHUNK", 64)  # many chunks
    log = tmp_path / "log"
    (tmp_path / "log.1").write_text("long ago\n")
    lines = [f"line {number}\n" for number in range(1000)]
    log.write_text("".join(lines))
    assert logs.limit(log, 8800)
    older, newer = (tmp_path / "log.1").read_text(), log.read_text()
    assert older + newer == "".join(lines)
    assert newer.startswith("line ")
    assert abs(len(older) - len(newer)) < 110
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]


def test_a_log_that_grew_far_beyond_the_limit_keeps_its_end(tmp_path):
    log = tmp_path / "log"
    text = "".join(f"line {number}\n" for number in range(100_000))
    log.write_text(text)
    assert logs.limit(log, 10_000)
    older, newer = (tmp_path / "log.1").read_text(), log.read_text()
    assert 4900 < len(newer) <= 5000 < len(older) <= 10_000
    assert text.endswith(older + newer)
    assert older.startswith("line ")


def test_writers_that_append_go_on_and_the_file_stays_below_the_limit(tmp_path):
    log, limit = tmp_path / "log", 100_000
    code = (
        "import os, sys\n"
        "out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "for number in range(20000): os.write(out, b'%s %05d of a writer\\n' % (sys.argv[2].encode(), number))\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(log), name]) for name in "ab"]
    cuts = 0
    while any(writer.poll() is None for writer in writers):
        cuts += logs.limit(log, limit)
    cuts += logs.limit(log, limit)
    assert cuts > 1
    assert log.stat().st_size <= limit
    lines = ((tmp_path / "log.1").read_text() + log.read_text()).splitlines()
    assert lines[-1].split()[1] == "19999"
    for name in "ab":
        numbers = [int(line.split()[1]) for line in lines if line.startswith(name)]
        assert numbers == sorted(set(numbers)), "each line once, in order"
    assert all(line.endswith("of a writer") for line in log.read_text().splitlines())
