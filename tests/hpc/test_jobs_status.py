"""What people are told of their runs: what is so, what is not known, and what to type next."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpc.config import ConfigError
from hpc.jobs.attempts import Attempt, Failure, note_cancelled, note_end, note_failure, note_start
from hpc.jobs.status import ATTEMPTS_SHOWN, SILENT_S, WIDTH, status
from tests.hpc.fake_slurm import DOWN, FakeSlurm, line
from tests.hpc.lives import HOUR, Life

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path / "tools", monkeypatch)


@pytest.fixture
def no_slurm(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def run(tmp_path):
    """A run in its third attempt: the first ended at its time limit, the second was killed after 1,000 lost steps."""
    life = Life(tmp_path / "runs" / "srvp_bair" / "20261120-101500", start=0.0)
    present, life.clock = time.time(), 1e9
    life.submit("4242")
    life.begin(HOUR, 0)
    life.train(36_000)
    life.save()
    life.end("walltime")
    life.begin(3 * HOUR, 36_000)
    life.train(37_000)
    life.begin(2 * HOUR, 36_000)
    life.train(72_000)
    life.save()
    life.clock += 60
    return shifted(life, present - life.clock)


def shifted(life: Life, seconds: float) -> Life:
    """The same life, so much later."""
    for name in ("attempts.jsonl", "metrics.jsonl"):
        path = life.folder.path / name
        text = re.sub(
            r'("(?:\w+_)?time":\s*)([\d.]+)', lambda match: f"{match[1]}{float(match[2]) + seconds}", path.read_text()
        )
        path.write_text(text)
    life.clock += seconds
    return life


def rows(text: str) -> dict[str, str]:
    """The lines above the tables, by their first word or two."""
    head = text.split("\n\n")[0].splitlines()[1:]
    return {line[:12].strip(): line[12:] for line in head if line[:12].strip()}


def attempts(text: str) -> list[str]:
    return text.split("\nattempts")[1].split("\n\n")[0].splitlines()[2:]


def test_a_running_run_with_its_speed_its_queue_and_its_end(run, slurm):
    slurm.answers(line("4242", "RUNNING", nodes="n[1-4]", elapsed="1:00:40"))
    text = status(run.folder.path)
    told = rows(text)
    assert told["state"] == "running: job 4242 RUNNING on n[1-4], 1:00:40; last heard of 1m 00s ago"
    assert told["step"] == "72,000 of 1,500,000 (4.8%), and 1,000 that were computed again"
    assert told["speed"] == "10 steps/s (attempts 1, 3, 32 ranks)"
    # 1,428,000 steps are 39 h 40 m; a job brings 24 h, the running one 23 h more; one more waits the median of 2 h
    assert re.match(r"in about 1d 17h \(\w{3} \d\d \w{3} \d\d:\d\d\): 1d 15h of training to go", told["end"])
    assert "25% of the 8h 04m with a job, waiting included, was training" in text
    assert told["logs"].startswith("logs/4242_0_log.out")
    assert told["next"] == f"python hpc/launch.py cancel {run.folder.path}"
    first, second, third = (re.split(r" {2,}", line.strip()) for line in attempts(text))
    assert first[-4:] == ["1h 00m", "0", "36,000", "walltime"]
    assert second[-4:] == ["3h 00m", "36,000", "37,000", "killed"]
    assert third[2] == "n[1-4]" and third[-4:] == ["2h 00m", "36,000", "72,000", "running"]
    assert "-" not in "".join(re.findall(r"-\d", text.split("\nattempts")[1].replace("n[1-4]", "")))


def test_the_checkpoint_has_an_age(run, slurm):
    slurm.answers(line("4242", "RUNNING", nodes="n[1-4]"))
    manifest = run.folder.checkpoints / "step-000072000" / "manifest.json"
    manifest.touch()
    assert rows(status(run.folder.path))["checkpoint"] in ("step 72,000, 0s old", "step 72,000, 1s old")
    (manifest.parent.parent / "step-000099000").mkdir()  # one that a kill has left incomplete
    assert rows(status(run.folder.path))["checkpoint"].startswith("step 72,000")


def test_a_queued_run_says_since_when_and_why_it_waits(run, slurm):
    run.end("preempt")
    slurm.answers(line("4242", "PENDING", "Resources", start="2026-11-20T14:00:00"))
    told = rows(status(run.folder.path))
    assert told["state"] == "queued: job 4242 PENDING (Resources), expected to start 2026-11-20 14:00:00"
    assert told["end"].startswith("in about 1d")


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("TIMEOUT", "killed: job TIMEOUT"),
        ("NODE_FAIL", "killed: job NODE_FAIL"),
        ("COMPLETED", "killed: job COMPLETED"),
    ],
)
def test_a_job_that_is_over_without_a_word_of_its_ranks_was_killed(run, slurm, answer, word):
    slurm.answers(line("4242", answer))
    told = rows(status(run.folder.path))
    assert told["state"].startswith(word)
    assert told["next"] == f"python hpc/launch.py resume {run.folder.path}"
    assert told["end"] == "1d 15h of training to go"


def test_without_slurm_states_are_not_known_and_said_so(run, no_slurm):
    text = status(run.folder.path)
    assert rows(text)["state"] == "running: it seems: last heard of 1m 00s ago"
    assert "NOTE: there is no SLURM on this machine" in text
    assert re.search(r"^4242 .* unknown$", text, re.MULTILINE)
    shifted(run, -2 * SILENT_S)
    assert rows(status(run.folder.path))["state"] == "silent: last heard of 21m 00s ago: killed, or hanging"


def test_a_controller_that_does_not_answer_hides_nothing_else(run, slurm):
    slurm.answers(DOWN)
    text = status(run.folder.path)
    assert "NOTE: SLURM does not answer" in text and "Unable to contact slurm controller" in text
    assert rows(text)["step"].startswith("72,000 of 1,500,000")
    run.end("walltime")
    assert "its job has asked SLURM to start it again" in rows(status(run.folder.path))["state"]


def test_a_finished_run_says_how_to_score_it(tmp_path, no_slurm):
    life = Life(tmp_path / "run", time.time() - 300, steps=1000)
    life.submit("7")
    life.begin(10, 0)
    life.train(1000)
    life.save()
    life.end("finished")
    told = rows(status(life.folder.path))
    assert told["state"].startswith("finished: at step 1,000")
    assert told["next"] == f"python hpc/launch.py evaluate run={life.folder.path}"
    assert "end" not in told
    (life.folder.evaluation / "split-train").mkdir(parents=True)
    assert rows(status(life.folder.path))["next"].startswith("python hpc/launch.py evaluate"), "not on the test split"
    (life.folder.evaluation / "summary.json").write_text("{}")
    assert rows(status(life.folder.path))["next"].startswith(f"evaluated: {life.folder.evaluation}")


def test_the_newest_error_is_told_whoever_said_it(run, slurm):
    slurm.answers(line("4242", "FAILED", "NonZeroExitCode"))
    run.record("event", 72_000, name="error", details={"type": "OSError", "message": "No space left on device"})
    told = rows(status(run.folder.path))
    assert told["last error"].endswith("attempt 3: OSError: No space left on device")
    failure = Failure(run.clock + 5, "4242", 3, 3, "n4", True, "no CUDA device is visible on n4:\nthis is a CPU build")
    note_failure(run.folder.path, failure)
    told = rows(status(run.folder.path))
    assert told["last error"].endswith("rank 3 on n4: no CUDA device is visible on n4: this is a CPU build")


def test_the_rank_to_blame_is_told_not_those_that_miss_it(run, slurm):
    slurm.answers(line("4242", "FAILED", "NonZeroExitCode"))
    echo = "RuntimeError: [/src/gloo/pair.cc:537] Connection closed by peer [127.0.0.1]:9"
    run.end("error", echo)
    assert rows(status(run.folder.path))["last error"].endswith("RuntimeError: Connection closed by peer [127.0.0.1]:9")
    for seconds, rank, error in ((0.1, 1, echo), (0.2, 2, "CUDA out of memory"), (0.3, 3, echo)):
        note_failure(run.folder.path, Failure(run.clock + seconds, "4242", 2, rank, f"n{rank}", False, error))
    text = status(run.folder.path)
    assert rows(text)["last error"].endswith("rank 2 on n2: CUDA out of memory")
    assert attempts(text)[2].endswith("error: CUDA out of memory")


@pytest.mark.parametrize(
    "echo",
    [
        "Read error [127.0.0.1]:9: Connection reset by peer",
        "NCCL error in: x.cpp:1, remote process exited or there was a network error\nSocket closed",
    ],
)
def test_what_srun_says_of_a_killed_rank_counts_more_than_what_the_others_miss(run, slurm, echo):
    slurm.answers(line("4242", "PENDING", "BeginTime"))
    for rank in (0, 2, 3):
        note_failure(run.folder.path, Failure(run.clock + rank, "4242", 2, rank, f"n{rank + 1}", False, echo))
    note_failure(run.folder.path, Failure(run.clock + 9, "4242", 2, 1, "n2", False, "srun: Killed"))
    text = status(run.folder.path)
    assert rows(text)["last error"].endswith("rank 1 on n2: srun: Killed")
    assert attempts(text)[2].endswith("error: srun: Killed")


def test_an_evaluation_beside_the_training_changes_nothing_of_what_is_told_of_it(run, slurm):
    slurm.answers(line("4242", "RUNNING", nodes="n[1-4]"))
    before = rows(status(run.folder.path))
    run.evaluate("4300")
    slurm.answers(f"{line('4242', 'RUNNING', nodes='n[1-4]')}; {line('4300', 'RUNNING', nodes='n9')}")
    text = status(run.folder.path)
    told = rows(text)
    assert told["state"].startswith(before["state"].partition(";")[0])
    assert "; evaluate: job 4300 RUNNING on n9, 0:00 step " in " ".join(text.split())
    assert (told["logs"], told["next"]) == (before["logs"], before["next"])
    assert [row.split()[-1] for row in attempts(text)[2:]] == ["running", "running"]
    slurm.answers(line("4300", "RUNNING", nodes="n9"))
    assert rows(status(run.folder.path))["state"].startswith("running: it seems"), "SLURM does not know the training"
    run.end("error", "CUDA out of memory")  # of the evaluation, whose number is the newest
    slurm.answers(f"{line('4242', 'TIMEOUT')}; {line('4300', 'FAILED')}")
    told = rows(status(run.folder.path))
    assert told["state"].startswith("killed: job TIMEOUT")
    assert told["next"] == f"python hpc/launch.py resume {run.folder.path}"


def test_a_finished_run_is_finished_while_and_after_it_is_evaluated(tmp_path, slurm):
    life = Life(tmp_path / "run", time.time() - 300, steps=1000)
    life.submit("7")
    life.begin(10, 0)
    life.train(1000)
    life.end("finished")
    life.evaluate("8")
    for state in ("PENDING", "RUNNING", "FAILED"):
        slurm.answers(line("8", state))
        told = rows(status(life.folder.path))
        assert told["state"].startswith("finished: at step 1,000")
        assert told["logs"].startswith("logs/7_0_log.out")
        assert ("evaluate: job 8" in status(life.folder.path)) == (state != "FAILED")
        assert re.search(r"^run +finished ", status(None, tmp_path), re.MULTILINE)


def test_a_second_job_that_was_refused_does_not_hide_the_one_at_work(run, slurm):
    run.submit("4300")
    note_start(run.folder.path, Attempt(4, "train", run.clock, "4300", 0, ["n7"], 32, None))
    note_end(run.folder.path, 4, None, "error", "is being trained by job 4242")
    slurm.answers(f"{line('4242', 'RUNNING', nodes='n[1-4]')}; {line('4300', 'FAILED', 'NonZeroExitCode')}")
    text = status(run.folder.path)
    told = rows(text)
    assert told["state"].startswith("running: job 4242 RUNNING")
    assert told["logs"].startswith("logs/4242_0_log.out")
    assert told["next"].startswith("python hpc/launch.py cancel ")
    assert told["end"].startswith("in about 1d 17h")
    assert attempts(text)[2].endswith(" running") and attempts(text)[3].endswith("is being trained by job 4242")
    assert re.search(r"20261120-101500 +running ", status(None, run.folder.path.parent))
    run.clock += 60
    run.event("ended", number=3, ended_time=run.clock, ended_step=72_000, cause="stop-file", error="")
    slurm.answers(f"{line('4242', 'COMPLETED')}; {line('4300', 'FAILED', 'NonZeroExitCode')}")
    told = rows(status(run.folder.path))
    assert told["state"].startswith("stopped: stop-file, saved")
    assert told["logs"].startswith("logs/4242_0_log.out")


def test_commands_that_are_told_can_be_typed_whatever_the_folder_is_called(tmp_path, slurm, monkeypatch):
    base = tmp_path / "my runs & more"
    life = Life(base / "it's one", time.time() - 300, steps=1000)
    life.submit("7")
    life.begin(10, 0)
    for state, words in (("RUNNING", "cancel {}"), ("FAILED", "resume {}")):
        slurm.answers(line("7", state))
        told = rows(status(life.folder.path))["next"]
        assert shlex.split(told)[2:] == [word.format(life.folder.path) for word in words.split()]
    life.end("finished")
    assert shlex.split(rows(status(life.folder.path))["next"])[2:] == ["evaluate", f"run={life.folder.path}"]
    life.folder.config.unlink()
    assert shlex.quote(f"run={life.folder.path}") in status(life.folder.path)


@pytest.mark.parametrize("reason", ["PartitionConfig", "BadConstraints", "PartitionTimeLimit", "PartitionNodeLimit"])
def test_a_job_that_will_never_start_says_so(run, slurm, reason):
    run.end("preempt")
    slurm.answers(line("4242", "PENDING", reason))
    text = status(run.folder.path)
    told = rows(text)
    assert told["state"] == f"queued: job 4242 PENDING, waits for ever unless changed: {reason}"
    assert told["end"] == "1d 15h of training to go", "no day can be told"
    slurm.answers(line("4242", "PENDING", "Priority"))
    assert "for ever" not in status(run.folder.path)


def test_errors_on_this_machine_belong_to_the_launch_that_made_them(tmp_path, no_slurm):
    life = Life(tmp_path / "run", time.time() - 900)
    for error in ("no space left", "CUDA out of memory"):
        life.submit("local")
        life.begin(0, 0)
        note_failure(life.folder.path, Failure(life.clock, "local", 0, 0, "here", False, error))
        life.clock += 60
        life.end("error", error)
    text = status(life.folder.path)
    assert rows(text)["last error"].endswith("CUDA out of memory")
    assert [row.rpartition("error: ")[2] for row in attempts(text)] == ["no space left", "CUDA out of memory"]


def test_hangs_and_the_reason_for_giving_up_are_told(run, slurm):
    hang = run.folder.hangs / "attempt-0002"
    hang.mkdir(parents=True)
    (hang / "diagnosis.txt").write_text("rank 2 on n3 (pid 77) is stopped;\nthe others wait for it")
    run.folder.diagnosis.write_text("three attempts without a new checkpoint")
    run.end("error", "no progress")
    told = rows(status(run.folder.path))
    assert told["last hang"] == "attempt 2: rank 2 on n3 (pid 77) is stopped; the others wait for it"
    assert told["given up"] == "three attempts without a new checkpoint"
    assert told["state"] == "failed: given up, see below"


def test_a_cancelled_run_is_cancelled(run, slurm):
    note_cancelled(run.folder.path, ["4242"])
    slurm.answers(line("4242", "CANCELLED"))
    text = status(run.folder.path)
    assert rows(text)["state"] == "cancelled: job 4242"
    assert "cancelled for good" in text


def test_a_job_that_never_began_is_not_the_run_before_it(run, slurm):
    run.end("stop-file")
    run.submit("4300")
    slurm.answers(f"{line('4242', 'COMPLETED')}; {line('4300', 'PENDING', 'Priority')}")
    assert rows(status(run.folder.path))["state"].startswith("queued: job 4300")
    slurm.answers(f"{line('4242', 'COMPLETED')}; {line('4300', 'FAILED', 'NonZeroExitCode')}")
    assert rows(status(run.folder.path))["state"].startswith("failed: job 4300 FAILED (NonZeroExitCode)")


def test_of_many_attempts_the_last_are_shown(tmp_path, no_slurm):
    life = Life(tmp_path / "run", 1e9)
    life.submit("7")
    for number in range(ATTEMPTS_SHOWN + 5):
        life.begin(60, 100 * number)
        life.train(100 * number + 100)
        life.end("preempt")
    text = status(life.folder.path)
    assert "attempts (5 earlier ones not shown)" in text
    assert len(attempts(text)) == ATTEMPTS_SHOWN


def test_half_made_and_damaged_folders_are_told_as_such(tmp_path, no_slurm):
    life = Life(tmp_path / "runs" / "bair" / "a", 1e9)
    assert rows(status(life.folder.path))["state"] == "new: no attempt has begun"
    (life.folder.path / "attempts.jsonl").write_text('{"event": "submitted", "ti')
    (life.folder.path / "metrics.jsonl").write_text("garbage")
    assert rows(status(life.folder.path))["step"] == "0 of 1,500,000 (0.0%)"
    life.folder.config.write_text("nonsense: [")
    assert rows(status(life.folder.path))["step"] == "0"
    life.folder.config.unlink()
    assert "half-made: no config.yaml" in status(life.folder.path)
    assert re.search(r"^bair/a +half-made", status(None, tmp_path / "runs"), re.MULTILINE)
    with pytest.raises(ConfigError, match="no run there"):
        status(tmp_path / "tools")


def test_all_runs_have_a_line_each_also_those_of_sweeps(run, slurm, tmp_path):
    base = tmp_path / "runs"
    other = Life(base / "sweeps" / "lr" / "seed=1", 1e9, steps=1000)
    other.submit("50_1")
    other.begin(10, 0)
    other.train(1000)
    other.end("finished")
    Life(base / "srvp_bair" / "20261121-101500", 1e9)
    slurm.answers(line("4242", "RUNNING", nodes="n[1-4]"))
    text = status(None, base)
    first, second, third = (re.split(r" {2,}", text_line) for text_line in text.splitlines()[2:5])
    assert first == ["srvp_bair/20261120-101500", "running", "72,000", "1,500,000", "5%", "10", "3", "1m 00s ago"]
    assert second == ["srvp_bair/20261121-101500", "new", "0", "1,500,000", "0%"]
    assert third[:5] == ["sweeps/lr/seed=1", "finished", "1,000", "1,000", "100%"]
    (base / "sweeps" / "lr" / "logs").mkdir()  # of the array; it makes no run of the sweep
    assert "half-made" not in status(None, base)
    assert status(base / "sweeps" / "lr").splitlines()[2].startswith("seed=1 ")
    assert "no runs below" in status(None, tmp_path / "tools")


def test_everything_fits_a_terminal_of_a_hundred_columns(run, slurm):
    note_failure(run.folder.path, Failure(run.clock, "4242", 2, 3, "a-node-with-a-long-name-0001", True, "words " * 99))
    slurm.answers(line("4242", "PENDING", "QOSMaxJobsPerUserLimit", start="2026-11-20T14:00:00"))
    for text in (status(run.folder.path), status(None, run.folder.path.parent.parent)):
        wide = [text_line for text_line in text.splitlines() if len(text_line) > WIDTH and " /" not in text_line]
        assert [text_line for text_line in wide if not text_line.startswith("/")] == []


def test_a_schedule_of_weeks_is_read_in_a_moment_and_without_torch(tmp_path, no_slurm):
    life = Life(tmp_path / "run", 1e9)
    life.submit("7")
    life.begin(10, 0)
    words = '{{"v":1,"seq":{0},"kind":"train","attempt":1,"step":{1},"time":{2},"scalars":{{{3}"step_s":0.1}}}}\n'
    terms = "".join(f'"term_{k}":0.123456789,' for k in range(14))
    with (life.folder.path / "metrics.jsonl").open("a") as file:
        file.writelines(words.format(10 + k, 100 * k, 1e9 + 10 * k, terms) for k in range(1, 15_001))
    code = (
        "import sys, time; from pathlib import Path; start = time.process_time(); from hpc.jobs.status import status\n"
        f"text = status(Path({str(life.folder.path)!r})); print(time.process_time() - start, 'torch' in sys.modules)\n"
        "print(text)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    seconds, torch = done.stdout.split()[:2]
    assert "1,500,000 of 1,500,000" in done.stdout
    assert torch == "False"
    assert float(seconds) < 3  # 0.3 s; the limit leaves room for a machine under load
