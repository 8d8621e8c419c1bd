"""Who hangs is named, from outside: rank, node and pid, stopped or waiting or running; then the ranks are ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from hpc.config import WatchdogConfig
from hpc.rendezvous import free_port
from hpc.watchdog import heartbeat
from hpc.watchdog.heartbeat import LEFT, Heart, Pulse
from hpc.watchdog.records import hang_folder
from hpc.watchdog.spec import DUMP_SIGNAL, ObserverSpec
from hpc.watchdog.watchdog import Watchdog, read_diagnosis

ROOT = Path(__file__).resolve().parents[2]
ATTEMPT = 3
QUICK = WatchdogConfig(factor=2.0, min_s=1.0, start_s=1.0)
PATIENT = WatchdogConfig(factor=2.0, min_s=1.5, start_s=30.0)

RANK = """
import json, sys, threading, time
from pathlib import Path
from hpc.config import WatchdogConfig
from hpc.watchdog.watchdog import Watchdog

def sleep(dog):
    time.sleep(600)

def busy(dog):
    sum(range(10**13))  # one call in C that never lets go of the GIL

def late(dog):
    time.sleep(2.5)

def well(dog):
    for step in range(3, 10**6):
        time.sleep(0.02)
        dog.beat(step, "step")

def reduce(dog):
    for step in range(3, 10**9):
        dog.beat(step, "agree")
        world.all_max([step])

def main(dog):
    for step in range(3):
        dog.beat(step, "fetch")
        dog.beat(step, "step")
    dog.beat(3, "step")
    print("ready", flush=True)
    globals()[does](dog)
    dog.beat(4, "step")

does, place, config, port = (json.loads(text) for text in sys.argv[1:])
dog = Watchdog(Path(place.pop("run_dir")), config=WatchdogConfig(**config), **place)
if does == "reduce":
    from hpc.distributed import joined
    from hpc.rendezvous import Ranks
    ranks = Ranks(place["rank"], place["local_rank"], place["world_size"], place["local_world_size"], "127.0.0.1", port)
    with dog, joined(ranks, threads=1, force_cpu=True) as world:
        main(dog)
with dog:
    main(dog)
"""


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURMD_NODENAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def job(tmp_path):
    """Starts ranks; at the end none is left."""
    ranks: list[Rank] = []

    def start(does, rank=0, of=1, host="n0", local_rank=0, local_of=1, config=QUICK, port=0):
        place = {"run_dir": str(tmp_path), "rank": rank, "world_size": of, "local_rank": local_rank, "host": host}
        place |= {"local_world_size": local_of, "attempt": ATTEMPT}
        ranks.append(Rank(does, place, config, port, tmp_path / f"output-{rank}.txt"))
        return ranks[-1]

    yield start
    for rank in ranks:
        rank.process.kill()
        rank.process.wait()
    wait_until(lambda: not observers(tmp_path))


class Rank:
    def __init__(self, does, place, config, port, output):
        self.folder = heartbeat.folder_for(Path(place["run_dir"]), ATTEMPT, place["host"])
        self.heartbeat = self.folder / f"rank-{place['rank']}"
        self.output = output
        command = [sys.executable, "-c", RANK, *map(json.dumps, (does, place, asdict(config), port))]
        with output.open("ab") as file:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        self.pid = self.process.pid

    def wait_until_ready(self):
        wait_until(lambda: b"ready" in self.output.read_bytes() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.output.read_text()
        return self

    @property
    def step(self):
        with contextlib.closing(Pulse(self.heartbeat)) as pulse:
            return pulse.read().step


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def observers(run_dir) -> list[int]:
    """Observers of that run that still exist, by pid."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            text = path.read_bytes().decode(errors="replace")
            if "hpc.watchdog.observer" in text and f'"{run_dir}"' in text:
                found.append(int(path.parent.name))
    return found


def diagnosis(run_dir) -> str:
    wait_until(lambda: read_diagnosis(run_dir, ATTEMPT))
    return read_diagnosis(run_dir, ATTEMPT) or ""


def record(run_dir, host, rank):
    told = json.loads((hang_folder(run_dir, ATTEMPT) / f"node-{host}.json").read_text())
    return next(found for found in told["ranks"] if found["rank"] == rank)


# -- who hangs ---------------------------------------------------------------------------------------------------


@pytest.mark.multiprocess
def test_a_stopped_rank_is_named_with_node_and_pid_the_other_waits_in_a_collective_and_both_are_ended(job, tmp_path):
    port = free_port()
    first, second = (
        job("reduce", rank, of=2, local_rank=rank, local_of=2, port=port, config=PATIENT) for rank in (0, 1)
    )
    first.wait_until_ready()
    second.wait_until_ready()
    wait_until(lambda: second.step > 50)
    os.kill(first.pid, signal.SIGSTOP)  # the parent of the observer
    step = first.step

    assert first.process.wait(20) == -signal.SIGKILL
    assert second.process.wait(20) == -signal.SIGKILL
    said = diagnosis(tmp_path)
    assert said.startswith(f"rank 0 on n0 (pid {first.pid}) is stopped (SIGSTOP, state T), last heartbeat at step")
    assert f"step {step} (agree)" in said
    assert "; rank 1 waits in a collective: all_reduce (hpc/distributed.py:" in said
    assert said in first.output.read_text(), "in the job's own log too"
    stopped, waiting = record(tmp_path, "n0", 0), record(tmp_path, "n0", 1)
    assert (stopped["state"], stopped["pid"], stopped["overdue"]) == ("T", first.pid, True)
    assert stopped["silent_s"] > PATIENT.min_s
    assert waiting["verdict"].startswith("waiting in a collective (all_reduce, hpc/distributed.py:")
    assert "all_max" in (hang_folder(tmp_path, ATTEMPT) / "rank-1.txt").read_text()


@pytest.mark.parametrize(("does", "function"), [("sleep", "sleep"), ("busy", "busy")])
def test_a_rank_that_neither_stops_nor_waits_for_others_is_told_by_its_line(job, tmp_path, does, function):
    rank = job(does)
    assert rank.process.wait(20) == -signal.SIGKILL
    said = diagnosis(tmp_path)
    assert said.startswith("no rank is stopped or dead; ")
    assert f"rank 0 on n0 (pid {rank.pid}) is running in step (<string>:" in said
    assert "last heartbeat at step 3 (step)" in said
    dump = (hang_folder(tmp_path, ATTEMPT) / "rank-0.txt").read_text()
    assert "Timeout (0:00:01" in dump, "written by the timer of the rank itself"
    assert f"in {function}" in dump


def test_observers_of_two_nodes_make_one_diagnosis_and_the_one_with_a_hang_ends_its_rank(job, tmp_path):
    """The other rank is not overdue: its observer answers the call, and asks it where it is."""
    well = job("well", rank=0, of=2, host="n0").wait_until_ready()
    stuck = job("sleep", rank=1, of=2, host="n1").wait_until_ready()
    os.kill(stuck.pid, signal.SIGSTOP)
    assert stuck.process.wait(20) == -signal.SIGKILL
    said = diagnosis(tmp_path)
    assert said.startswith(f"rank 1 on n1 (pid {stuck.pid}) is stopped")
    assert f"rank 0 on n0 (pid {well.pid}) is running in step" in said
    assert said in well.output.read_text(), "written by the node of rank 0"
    assert record(tmp_path, "n0", 0)["overdue"] is False
    assert record(tmp_path, "n0", 0)["where"], "dumped on demand, unharmed"
    assert well.process.poll() is None


def test_a_node_that_says_nothing_is_named(job, tmp_path):
    (tmp_path / "attempts.jsonl").write_text(
        json.dumps(
            {"event": "started", "number": ATTEMPT, "verb": "train", "time": 0, "job": "1", "restart": 0}
            | {"nodes": ["n0", "n1"], "world_size": 2, "checkpoint": None}
        )
        + "\n"
    )
    rank = job("sleep", rank=0, of=2, host="n0")
    assert rank.process.wait(20) == -signal.SIGKILL
    assert diagnosis(tmp_path).startswith("no word from rank 1 (no record from n1)")


def test_a_rank_that_comes_back_before_the_end_goes_on_and_that_is_noted(job, tmp_path):
    """Two nodes, of which one never comes: the wait for it gives the late one time to come back."""
    rank = job("late", rank=0, of=2, host="n0")
    assert rank.process.wait(20) == 0, rank.output.read_text()
    wait_until(lambda: "recovered: rank 0 on n0 is back at step 4" in rank.output.read_text())


def test_without_abort_the_ranks_live_on(job, tmp_path):
    rank = job("late", config=WatchdogConfig(factor=2.0, min_s=0.5, start_s=0.5, abort=False))
    assert rank.process.wait(20) == 0
    said = diagnosis(tmp_path)
    assert "is running in step" in said
    wait_until(lambda: "recovered: rank 0 on n0" in (read_diagnosis(tmp_path, ATTEMPT) or ""))
    assert not list(hang_folder(tmp_path, ATTEMPT).glob("node-*")), "what is over does not count in the next diagnosis"


def test_a_run_folder_that_refuses_the_record_does_not_save_a_hanging_rank(job, tmp_path):
    rank = job("sleep", config=WatchdogConfig(factor=2.0, min_s=2.0, start_s=2.0)).wait_until_ready()
    folder = hang_folder(tmp_path, ATTEMPT)
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("in the way")
    assert rank.process.wait(20) == -signal.SIGKILL
    assert f"which does not answer or refuses; rank 0 on n0 (pid {rank.pid}) is running" in rank.output.read_text()


def test_a_node_that_was_suspended_with_its_ranks_has_no_hang(job, tmp_path):
    rank = job("well").wait_until_ready()
    wait_until(lambda: rank.step > 50)  # the observer looks by then
    (observer,) = observers(tmp_path)
    for pid in (rank.pid, observer):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2.5)
    os.kill(observer, signal.SIGCONT)
    time.sleep(0.4)
    os.kill(rank.pid, signal.SIGCONT)
    time.sleep(1.0)
    assert rank.process.poll() is None
    assert read_diagnosis(tmp_path, ATTEMPT) is None


# -- the observer ------------------------------------------------------------------------------------------------


def test_the_observer_outlives_the_schedulers_signals_and_ends_with_its_ranks(job, tmp_path):
    rank = job("well").wait_until_ready()
    (observer,) = observers(tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCONT):
        os.kill(observer, number)
    time.sleep(0.3)
    assert observers(tmp_path) == [observer]
    rank.process.kill()
    rank.process.wait()
    wait_until(lambda: not observers(tmp_path))
    assert not rank.folder.exists()
    assert not hang_folder(tmp_path, ATTEMPT).exists(), "a rank that was killed did not hang"


def test_an_attempt_without_a_hang_leaves_nothing_behind(tmp_path):
    config = WatchdogConfig(factor=2.0, min_s=5.0, start_s=5.0)
    place = {"rank": 0, "local_rank": 0, "world_size": 1, "local_world_size": 1, "attempt": ATTEMPT, "host": "n0"}
    with Watchdog(tmp_path, config=config, **place) as dog:
        folder = heartbeat.folder_for(tmp_path, ATTEMPT, "n0")
        for step in range(100):
            dog.beat(step, "step")
        assert folder.is_dir()
        os.kill(os.getpid(), DUMP_SIGNAL)
        (dump,) = hang_folder(tmp_path, ATTEMPT).iterdir()
        assert "test_watchdog.py" in dump.read_text()
        os.truncate(dump, 0)
    os.kill(os.getpid(), DUMP_SIGNAL)  # one that comes late
    assert not folder.exists()
    wait_until(lambda: not observers(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_switched_off_it_starts_nothing(tmp_path):
    config = WatchdogConfig(enabled=False)
    with Watchdog(
        tmp_path, rank=0, local_rank=0, world_size=1, local_world_size=1, attempt=ATTEMPT, config=config
    ) as dog:
        dog.beat(1, "step")
        assert observers(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_takes_no_dumps_is_a_warning(tmp_path, capfd):
    (tmp_path / "hangs").write_text("in the way")
    with Watchdog(
        tmp_path, rank=0, local_rank=0, world_size=1, local_world_size=1, attempt=ATTEMPT, config=QUICK
    ) as dog:
        dog.beat(1, "step")
    assert "watchdog of rank 0 switched off" in capfd.readouterr().err


def test_the_observer_limits_the_logs_even_when_it_does_not_judge(tmp_path):
    log = tmp_path / "rank-0.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    config = WatchdogConfig(enabled=False)
    place = {"rank": 0, "local_rank": 0, "world_size": 1, "local_world_size": 1, "attempt": ATTEMPT, "host": "n0"}
    with Watchdog(tmp_path, config=config, log_files=[log], log_limit_bytes=90_000, **place):
        wait_until(lambda: log.stat().st_size < 60_000)
    older, newer = (tmp_path / "rank-0.log.1").read_text(), log.read_text()
    assert (older + newer).splitlines() == [f"line {number}" for number in range(10_000)]
    wait_until(lambda: not observers(tmp_path))


# -- heartbeats --------------------------------------------------------------------------------------------------


def test_a_heartbeat_is_read_as_written_by_another_process_also_when_the_writer_has_left(tmp_path):
    heart = Heart(tmp_path / "node", 5, 0, "start", 10.0)
    with contextlib.closing(Pulse(tmp_path / "node" / "rank-5")) as pulse:
        assert (pulse.identity.rank, pulse.identity.pid) == (5, os.getpid())
        assert pulse.alive()
        heart.beat(2**40, "validate", 12.5, 300.0)
        beat = pulse.read()
        assert (beat.step, beat.phase, beat.time, beat.patience) == (2**40, "validate", 12.5, 300.0)
        heart.close()
        assert pulse.read().phase == LEFT
    assert not (tmp_path / "node").exists()


def test_folders_of_dead_processes_go_those_of_live_or_recent_ones_stay(tmp_path):
    dead, live, recent = (tmp_path / name for name in ("dead", "live", "recent"))
    code = "import sys, os; from pathlib import Path; from hpc.watchdog.heartbeat import Heart\n"
    code += "[Heart(Path(folder), 0, 0, 'step', 1.0) for folder in sys.argv[1:]]"
    subprocess.run([sys.executable, "-c", code, str(dead), str(recent)], check=True, cwd=ROOT)
    heart = Heart(live, 0, 0, "step", 1.0)
    for folder in (dead, live):
        os.utime(folder, (0, 0))
    heartbeat.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "recent"]
    heart.close()


def test_the_observer_is_light():
    code = "import sys, hpc.watchdog.observer; print({'torch', 'numpy', 'omegaconf', 'yaml'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "set()\n"


def test_the_observers_own_times_stay_short_beside_the_patience():
    spec = ObserverSpec("", "", "n0", 1, 1, 1, min_s=300.0)
    assert (spec.poll_s, spec.slack_s, spec.gather_s) == (0.5, 1.0, 30.0)
    assert ObserverSpec(**json.loads(spec.to_json())) == spec
