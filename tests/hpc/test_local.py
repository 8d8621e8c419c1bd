"""What the local launcher tells of ranks that fail."""

from __future__ import annotations

import subprocess
import sys

from hpc.local import _wait
from hpc.run_folder import RunFolder


def test_the_last_words_of_a_failed_rank_come_to_the_terminal_also_when_rank_0_fails_after_it(tmp_path, capfd):
    folder = RunFolder(tmp_path)
    folder.create()
    (folder.logs / "rank-1.log").write_text("long ago\n" * 100 + "error: a clip is damaged\n")
    script = "import sys, time; time.sleep(float(sys.argv[1])); sys.exit(int(sys.argv[2]))"
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, wait, code])
        for wait, code in (("0.3", "1"), ("0", "2"), ("60", "0"))
    ]
    assert _wait(ranks, folder) == 1
    ranks[2].kill()
    said = capfd.readouterr().err
    assert "rank 0 ended with code 1" in said
    assert "rank 1 ended with code 2" in said
    assert "error: a clip is damaged" in said
    assert "rank 2" not in said
    assert said.count("long ago") < 20


def test_no_heading_stands_above_what_a_rank_did_not_say(tmp_path, capfd):
    folder = RunFolder(tmp_path)
    folder.create()
    (folder.logs / "rank-1.log").touch()
    ranks = [subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({code})"]) for code in (0, 130)]
    assert _wait(ranks, folder) == 130
    assert capfd.readouterr().err == "rank 1 ended with code 130; ending the others\n"


def test_a_rank_ended_by_a_signal_gives_the_shells_exit_code(tmp_path):
    folder = RunFolder(tmp_path)
    rank = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert _wait([rank], folder) == 128 + 9
