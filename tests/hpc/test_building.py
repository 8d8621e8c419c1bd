"""`launch.py build`: what is checked before anything is queued, what SLURM is handed, and what a slice's end leads to.

`sbatch`, `squeue` and `scontrol` are shell scripts here; the real ones are in tests/slurm/test_building.py.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from hpc import cli
from hpc import request as requests
from hpc.jobs import build_slice
from hpc.jobs.build_follow import Submitted, follow
from hpc.jobs.build_slice import BuildSlice, again
from hpc.jobs.status import status
from hpc.request import parse
from shards.building.command import add_builder
from shards.cli import BUILDERS
from shards.manifest import Manifest
from tests.hpc.fake_slurm import FakeSlurm, line
from tests.shards.building.colour_videos import numbered, write_video

ROOT = Path(cli.__file__).resolve().parent.parent
VERBS = {name: meaning for name, (_, meaning) in cli.VERBS.items()}
KINETICS = ("build", "kinetics", "--raw", "raw", "--out", "data/built")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with raw videos, where commands are typed, on a machine without SLURM."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(requests, "has_slurm", lambda: False)
    for number, split in enumerate(("train", "train", "val")):
        write_video(Path("raw") / split / "still" / f"video{number}.mp4", numbered(20))
    return tmp_path


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SLURM whose sbatch keeps the script that it is handed: this file."""
    tools, script = tmp_path / "tools", tmp_path / "script"
    tools.mkdir()
    for name, text in (("sbatch", f'cat "$1" > {script}; echo Submitted batch job 4242'), ("srun", "true")):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(requests, "has_slurm", lambda: True)
    return script


def tasks(folder: Path) -> list[BuildSlice]:
    """What the elements of the array will run."""
    from submitit.core.utils import DelayedSubmission

    found = [DelayedSubmission.load(path).function for path in (folder / "logs").glob("4242_*_submitted.pkl")]
    return sorted(found, key=lambda task: task.number)


# -- the command line --------------------------------------------------------------------------------------------------


def test_no_option_of_a_builder_is_a_flag_of_ours() -> None:
    ours = argparse.ArgumentParser(add_help=False)
    requests._add_flags(ours)
    flags = set(ours._option_string_actions) - {"--dry-run"}
    looked_at = 0
    for name, (module_name, _) in BUILDERS.items():
        module = import_module(module_name)
        if hasattr(module, "plan"):
            builder = argparse.ArgumentParser()
            add_builder(builder, name, module)
            assert not flags & set(builder._option_string_actions), name
            looked_at += 1
    assert looked_at >= 5


@pytest.mark.parametrize("before", [True, False])
def test_our_flags_may_stand_before_or_after_the_builders_options(before: bool) -> None:
    ours = ["--slices", "8", "--cpus-per-task=2", "--mem", "8G", "--time", "2:00:00", "--dry-run"]
    theirs = ["build", "kinetics", "--raw", "raw", "--size", "128", "--annotations", "a.csv", "b.csv"]
    request = parse([*ours, *theirs] if before else [*theirs, *ours], VERBS)
    assert (request.verb, request.where, request.slices, request.dry_run) == ("build", "slurm", 8, True)
    assert request.build == theirs[1:]
    assert request.overrides == ["cluster.cpus_per_task=2", "cluster.mem_gb=8", "cluster.time_min=120"]


def test_a_run_that_is_called_build_is_no_build() -> None:
    assert parse(["status", "build"], VERBS).run == "build"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--nodes", "2"], "--slices N"),
        (["--array", "sweep.yaml"], "--slices N"),
        (["--ranks", "2"], "--local --workers N"),
        (["--gpus-per-node", "0"], "no GPU"),
    ],
)
def test_flags_of_runs_are_refused_with_what_is_meant_instead(words, meant, capsys) -> None:
    assert cli.main([*KINETICS, *words]) == 2
    shown = capsys.readouterr().err
    assert f"{words[0]} is for runs" in shown
    assert meant in shown


def test_slices_are_for_builds(capsys) -> None:
    assert cli.main(["--slices", "4", "experiment=srvp_kth"]) == 2
    assert "launch.py build NAME --slices N" in capsys.readouterr().err


def test_a_dataset_that_nobody_knows_names_the_known_ones(capsys) -> None:
    assert cli.main(["build", "kht"]) == 2
    shown = capsys.readouterr().err
    assert all(f"  {name} " in shown for name in BUILDERS)


def test_help_of_a_builder_has_its_options_and_those_of_slurm(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["build", "kinetics", "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(option in shown for option in ("--annotations CSV", "--raw PATH", "--slices N", "--partition NAME"))
    assert "--nodes" not in shown


LOADED_BY_HELP = """
import atexit, sys
from hpc.cli import main
heavy = ("shards.building", "numpy", "av.")
atexit.register(lambda: print([name for name in sys.modules if name.startswith(heavy)]))
main(["--help"])
"""


def test_help_mentions_builds_and_loads_no_builder() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED_BY_HELP], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python hpc/launch.py build kth" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_submission_does_not_load_torch() -> None:
    code = "import sys, hpc.building, hpc.jobs.build_slice; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# -- before submission -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "large"], "argument --size: invalid int value: 'large'"),
        (["--sizes", "64"], "unrecognized arguments: --sizes 64"),
        (["--bad", "maybe"], "argument --bad: invalid choice"),
    ],
)
def test_the_builders_own_parser_finds_mistakes_before_anything_is_queued(words, message, sbatch, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*KINETICS, *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not sbatch.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--raw", "nowhere"],
            "--raw nowhere: no such file or folder; how to get it: python -m shards download kinetics",
        ),
        (["--out", "raw"], "--out raw: is there already"),
        (["--encoding", "gif"], "gif"),
        (["--workers", "4"], "--cpus-per-task N"),
        (["--slice=1/3"], "--slices N"),
        (["--shard-mb", "0"], "expected at least 1"),
    ],
)
def test_what_every_slice_would_trip_over_is_refused_before_anything_is_queued(words, message, sbatch, capsys) -> None:
    assert cli.main([*KINETICS, *words]) == 2
    assert message in capsys.readouterr().err
    assert not sbatch.exists()
    assert not Path("runs").exists()


def test_digits_are_generated_and_have_no_slices(sbatch, capsys) -> None:
    assert cli.main(["build", "moving-mnist", "--out", "digits"]) == 2
    assert "--local" in capsys.readouterr().err


# -- submission --------------------------------------------------------------------------------------------------------


def test_an_array_has_a_slice_per_element_with_absolute_paths_and_a_worker_per_cpu(sbatch, here, capsys) -> None:
    words = ("--annotations", "a.csv", "b.csv", "--test-from=val", "--size", "32")
    assert cli.main([*KINETICS, *words, "--slices", "3", "--array-parallelism", "2", "--cpus-per-task", "6"]) == 0
    shown = capsys.readouterr().out
    (folder,) = Path("runs/builds").iterdir()
    assert folder.name.startswith("kinetics-")
    expected = f"build kinetics --raw {here}/raw --out {here}/data/built --annotations {here}/a.csv {here}/b.csv"
    for number, task in enumerate(tasks(folder), start=1):
        assert shlex.join(task.words) == f"{expected} --test-from=val --size 32"
        assert (task.number, task.count, task.workers) == (number, 3, 6)
    script = sbatch.read_text().splitlines()
    assert {"#SBATCH --array=0-2%2", "#SBATCH --cpus-per-task=6", "#SBATCH --requeue", "#SBATCH --nodes=1"} <= {*script}
    assert not [text for text in script if text.startswith("#SBATCH") and "gpu" in text]
    log = here / folder / "logs" / "4242_0_0_log.out"
    assert f"tail -F {log}" in shown
    assert "squeue -r -j 4242" in shown
    assert f"{here}/data/built" in shown
    assert json.loads((folder / "build.json").read_text())["jobs"] == ["4242_0", "4242_1", "4242_2"]
    assert "no runs below" in status(None)


def test_without_a_number_there_are_sixteen_slices(sbatch) -> None:
    assert cli.main([*KINETICS]) == 0
    assert "#SBATCH --array=0-15%16" in sbatch.read_text()


def test_a_dry_run_shows_what_would_be_built_and_the_script_and_starts_nothing(here, capsys) -> None:
    assert cli.main([*KINETICS, "--dry-run", "--slices", "2", "--account", "vision", "--setup", "module load x"]) == 0
    page = capsys.readouterr().out
    assert "train: 2 samples from 2 items" in page
    description, _, script = page.partition("# sbatch script\n")
    assert "2 slices, a task of 4 CPUs each" in description
    assert {"#SBATCH --array=0-1%2", "#SBATCH --account=vision", "module load x"} <= {*script.splitlines()}
    assert [path.name for path in here.iterdir()] == ["raw"]


def test_without_slurm_the_same_build_runs_here_in_one_process(here, capsys) -> None:
    assert cli.main([*KINETICS, "--slices", "4", "--workers", "1", "--partition", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "running on this machine" in shown
    assert "NOTE: --slices 4 is for SLURM" in shown
    manifest = Manifest.load(here / "data" / "built")
    assert {name: split.samples for name, split in manifest.splits.items()} == {"train": 2, "valid": 1}
    assert manifest.provenance["command"] == f"python -m shards {' '.join(KINETICS)}"


def test_local_builds_here_although_there_is_slurm(sbatch, here) -> None:
    assert cli.main([*KINETICS, "--local", "--workers", "1"]) == 0
    assert (here / "data/built/manifest.json").is_file()
    assert not sbatch.exists()


# -- a slice -----------------------------------------------------------------------------------------------------------


def make(*words: str, share: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpc.jobs.build_slice", "make", str(os.getpid()), share, "1", *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_the_last_slice_to_end_puts_the_dataset_together_and_notes_the_whole_builds_command(here) -> None:
    words = ("build", "kinetics", "--raw", str(here / "raw"), "--out", str(here / "built"))
    first = make(*words, share="2/2")
    assert (first.returncode, (here / "built").exists()) == (0, False)
    assert make(*words, share="1/2").returncode == 0
    assert Manifest.load(here / "built").provenance["command"] == shlex.join(["python", "-m", "shards", *words])


def test_what_a_person_must_mend_is_told_apart_from_a_crash_by_the_exit_code(here) -> None:
    (here / "raw/train/still/video1.mp4").write_bytes(b"not a video")
    words = ("build", "kinetics", "--raw", str(here / "raw"), "--out", str(here / "built"))
    done = make(*words, "--bad", "stop", share="1/1")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("child", "code"), [("exit 2", 2), ("exit 1", 1), ("kill -9 $$", 1)])
def test_a_task_ends_as_its_build_did(child, code, tmp_path, monkeypatch) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{child}\n")
    program.chmod(0o755)
    monkeypatch.setattr(build_slice.sys, "executable", str(program))
    monkeypatch.setattr(build_slice, "GRACE_S", 0.0)
    with pytest.raises(SystemExit) as end:
        BuildSlice(("build", "kth"), 1, 3, 2)()
    assert end.value.code == code


def test_a_killed_task_takes_its_build_along_which_would_hold_the_place_of_the_next(tmp_path) -> None:
    code = "import os, sys; from hpc.jobs.build_slice import _end_with; _end_with(int(sys.argv[1]));"
    code += "os.execlp('sleep', 'sleep', '30')"
    task = subprocess.Popen(["sh", "-c", f'{sys.executable} -c "{code}" $$ & echo $!; wait'], cwd=ROOT, stdout=-1)
    assert task.stdout is not None
    build = Path("/proc") / task.stdout.readline().decode().strip()
    while (build / "comm").read_text() != "sleep\n":
        time.sleep(0.05)
    task.kill()
    task.wait()
    deadline = time.monotonic() + 10
    while build.exists() and "State:\tZ" not in (build / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What scontrol was asked, a line each; JobState is $STATE."""
    tools, asked = tmp_path / "tools", tmp_path / "asked"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {asked}\necho "JobState=${{STATE:-RUNNING}}"\n')
    (tools / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return asked


def test_a_slice_that_crashed_is_requeued_until_it_has_crashed_too_often(asked, tmp_path) -> None:
    said = [again(tmp_path, 137, 3, "77_1") for _ in range(3)]
    assert said[:2] == ["started again: requeued"] * 2
    assert "crashed 3 times" in said[2]
    assert asked.read_text().splitlines().count("requeue 77_1") == 2
    assert again(tmp_path, 137, 3, "77_2") == "started again: requeued", "another element has its own count"


def test_a_slice_whose_data_is_bad_or_that_slurm_is_ending_is_left_as_it_is(asked, tmp_path, monkeypatch) -> None:
    assert "wants a person" in again(tmp_path, 2, 3, "77_1")
    monkeypatch.setenv("STATE", "CANCELLED")
    assert "CANCELLED" in again(tmp_path, 137, 3, "77_1")
    assert "requeue" not in asked.read_text()


# -- following ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path) -> Submitted:
    (tmp_path / "logs").mkdir()
    command = "python hpc/launch.py build kth --wait"
    return Submitted(tmp_path / "built", ["77_0", "77_1"], tmp_path / "logs", command)


def test_following_ends_with_the_table_as_soon_as_the_dataset_is_there(build, tmp_path, monkeypatch, capsys) -> None:
    assert make("build", "kinetics", "--raw", "raw", "--out", "ready", share="1/1").returncode == 0
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    running = f"{line('77_0', 'COMPLETED')}; {line('77_1', 'RUNNING', nodes='n1')}"
    slurm.answers(running, f"mv {tmp_path}/ready {tmp_path}/built; {running}")
    assert follow(build, poll_s=0.01) == 0
    shown = capsys.readouterr().out
    assert shown.count("slices: 1 COMPLETED, 1 RUNNING; 0 shards are complete") == 1
    assert "built kinetics-64" in shown
    assert "train" in shown


def test_following_names_the_failed_slices_their_logs_and_what_to_type(build, tmp_path, monkeypatch, capsys) -> None:
    slurm = FakeSlurm(tmp_path / "slurm", monkeypatch)
    slurm.answers(
        "echo 'no controller' >&2; exit 1",
        f"{line('77_0', 'RUNNING')}; {line('77_1', 'FAILED', 'NonZeroExitCode')}",
        f"{line('77_0', 'COMPLETED')}; {line('77_1', 'FAILED', 'NonZeroExitCode')}",
    )
    build.log(1).write_text("old\n" * 100 + "error: clip7.avi is truncated\n")
    assert follow(build, poll_s=0.01) == 1
    shown = capsys.readouterr().out
    assert "SLURM does not answer" in shown
    assert f"slice 2 of 2 (job 77_1): FAILED; the end of {build.log(1)}:" in shown
    assert "    error: clip7.avi is truncated" in shown
    assert shown.count("old") == 14
    assert "slice 1 of 2" not in shown
    assert shown.endswith("to go on:\n    python hpc/launch.py build kth --wait\n")
