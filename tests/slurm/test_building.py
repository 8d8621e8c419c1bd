"""A dataset built by a real SLURM array: the bytes of a build here, whatever becomes of the slices on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpc import cli
from hpc.jobs import build_follow
from shards.cli import main as shards_main
from tests.shards.building.colour_videos import write_video
from tests.slurm.cluster import SlurmCluster

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TRAIN, VALID, FRAMES = 15, 3, 250
SLICES = 3
OPTIONS = ("--raw", "raw", "--shard-mb", "1", "--size", "96", "--bad", "stop")
"""A video is more than 1 MB of frames, so each is a shard."""
ARRAY = ("build", "kinetics", *OPTIONS, "--out", "built", "--slices", str(SLICES), "--cpus-per-task", "1")


TOGETHER = f"touch begun-$SLURM_ARRAY_TASK_ID; until [ $(ls begun-* | wc -l) = {SLICES} ]; do sleep 0.1; done"
"""Shell line by which all slices begin at one time, so that none is done before each is harmed."""


@pytest.fixture
def raw(on_cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Videos laid out as Kinetics, in the folder where commands are typed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build_follow, "POLL_S", 0.5)
    for number in range(TRAIN + VALID):
        folder = Path("raw") / ("train" if number < TRAIN else "val") / ("still", "bright")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        grey_T = (np.arange(FRAMES) * (number + 1)) % 256
        write_video(folder / f"video{number:02d}.mp4", [np.full((240, 320, 3), grey, np.uint8) for grey in grey_T])
    yield Path("raw")
    on_cluster.clear()


def bytes_of(folder: Path) -> dict[str, Any]:
    """All files of a dataset; of the manifest everything but the command."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found["manifest.json"])
    del manifest["provenance"]["command"]
    return found | {"manifest.json": manifest}


def submitted() -> tuple[list[str], Path]:
    """Jobs and logs of the latest build."""
    folder = max(Path("runs/builds").iterdir())
    return json.loads((folder / "build.json").read_text())["jobs"], folder / "logs"


def wait(what: str, condition: Callable[[], bool], patience_s: float = 120.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(submitted()[1].glob("*.out")))
        assert time.monotonic() < deadline, f"waited for {what}\n{logs}"
        time.sleep(0.05)


def has_begun(number: int) -> bool:
    """Whether a slice, from 0, has made its first shard; its shards are every third of all."""
    return (Path(".built.parts") / f"train-{number:06d}.part.json").exists()


def preempt(cluster: SlurmCluster, job: str) -> None:
    """SLURM's warning before a preemption or a time limit; it comes, whatever scancel says of other elements."""
    cluster.run("scancel", "--signal", "USR2", job, check=False)


def kill(cluster: SlurmCluster, job: str) -> None:
    (task,) = cluster.tasks(cluster.show(job)["JobId"]).values()
    os.kill(task, signal.SIGKILL)


def requeue(cluster: SlurmCluster, job: str) -> None:
    cluster.run("scontrol", "requeue", job)


def test_slices_that_are_preempted_killed_and_requeued_make_the_bytes_of_a_build_here(
    on_cluster: SlurmCluster, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*ARRAY, "--setup", TOGETHER]) == 0
    shown = capsys.readouterr().out
    jobs, logs = submitted()
    array = jobs[0].partition("_")[0]
    assert jobs == [f"{array}_{number}" for number in range(SLICES)]
    assert f"submitted array {array}: 3 slices of 1 CPUs" in shown

    for number, harm in enumerate((preempt, kill, requeue)):
        wait(f"slice {number + 1} to be at work", partial(has_begun, number))
        harm(on_cluster, jobs[number])
    assert not Path("built").exists()

    wait("the dataset", lambda: Path("built/manifest.json").is_file())
    wait("all jobs to end", lambda: {on_cluster.state(job) for job in jobs} == {"COMPLETED"})
    assert [on_cluster.show(job)["Restarts"] for job in jobs] == ["1", "1", "1"]
    for job in jobs:
        assert "of 6 shards are complete already" in (logs / f"{job}_0_log.out").read_text()
    assert "was interrupted (preempt)" in (logs / f"{jobs[0]}_0_log.out").read_text()
    assert "ended with code 137; started again: requeued" in (logs / f"{jobs[1]}_0_log.out").read_text()

    assert shards_main(["build", "kinetics", *OPTIONS, "--out", "here"]) == 0
    assert bytes_of(Path("built")) == bytes_of(Path("here"))
    command = json.loads(Path("built/manifest.json").read_text())["provenance"]["command"]
    assert command == (
        f"python -m shards build kinetics --raw {raw.absolute()} --shard-mb 1 --size 96 --bad stop "
        f"--out {Path('built').absolute()}"
    )
    assert not [path for path in Path().iterdir() if path.name.startswith(".built")]


def test_a_bad_source_fails_its_slice_for_good_and_the_same_command_goes_on_once_it_is_repaired(
    on_cluster: SlurmCluster, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = raw / "train" / "still" / "video14.mp4"  # the last one, whose unknown length moves no other
    whole = video.read_bytes()
    video.write_bytes(b"not a video")
    assert cli.main([*ARRAY, "--wait"]) == 1
    shown = capsys.readouterr().out
    jobs, logs = submitted()
    (failed,) = [job for job in jobs if on_cluster.state(job) == "FAILED"]
    assert on_cluster.show(failed)["ExitCode"] == "2:0"
    assert on_cluster.show(failed)["Restarts"] == "0"
    assert failed == jobs[2]
    assert f"slice 3 of 3 (job {failed}): FAILED; the end of {(logs / failed).absolute()}_0_log.out" in shown
    assert "    error: " in shown
    assert "1 sources cannot be used" in shown
    assert shown.count("the end of") == 1
    assert shown.rstrip().endswith(f"    python hpc/launch.py {' '.join([*ARRAY, '--wait'])}")
    assert not Path("built").exists()

    video.write_bytes(whole)
    assert cli.main([*ARRAY, "--wait"]) == 0
    shown = capsys.readouterr().out
    assert "built kinetics-96 in" in shown
    assert "valid" in shown
    assert sum(shard.name.endswith(".tar") for shard in Path("built").iterdir()) == TRAIN + VALID
    again, logs = submitted()
    said = "".join((logs / f"{job}_0_log.out").read_text() for job in again)
    assert said.count("6 of 6 shards are complete already") == 2
    assert said.count("5 of 6 shards are complete already") == 1
    assert cli.main([*ARRAY]) == 2
    assert "is there already" in capsys.readouterr().err
