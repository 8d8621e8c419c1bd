"""A build that is killed at any moment, or meets itself: nothing wrong is published, nothing complete is lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shards.building.plan import cut_into_parts
from shards.building.run import BuildOptions, build
from shards.building.site import Site, Slice
from shards.building.workers import WorkerKilled
from shards.errors import ShardError
from shards.folder import LocalFolder
from shards.manifest import Manifest
from shards.verify import verify_dataset
from tests.shards.building.waves import CLIP_BYTES, waves_plan, write_raw

SCRIPT = """
import os, signal, sys
from pathlib import Path
from shards.building import plan as planning
from shards.building.run import BuildOptions, build
from shards.building.site import Slice
from tests.shards.building.waves import CLIP_BYTES, waves_plan

planning._MIN_SHARD_BYTES = 3 * CLIP_BYTES
raw, out, kill_at, *share = sys.argv[1:]
counter = Path(out + ".counter")

def counted(step):
    def wrapper(*args, **kwargs):
        if str(args[0]).startswith(str(Path(out).with_name("." + Path(out).name))):
            with counter.open("a") as file:  # shared by the builder and its workers
                file.write("x")
            if counter.stat().st_size == int(kill_at):
                os.killpg(os.getpgrp(), signal.SIGKILL)
        return step(*args, **kwargs)
    return wrapper

for name in ("replace", "unlink", "rmdir", "mkdir"):
    setattr(Path, name, counted(getattr(Path, name)))

if __name__ == "__main__":
    part_of = Slice.parse(share[0]) if share else Slice()
    plan = waves_plan(sorted(Path(raw).iterdir()))
    build(plan, BuildOptions(Path(out), workers=1, part_of=part_of, command="c"))
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_raw(tmp_path / "raw", 5)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "killed.py"
    path.write_text(SCRIPT)
    return path


def run(script: Path, out: Path, kill_at: int) -> int:
    """Build; the step of this number beside OUT ends all its processes. Returns the exit status."""
    words = [sys.executable, str(script), str(out.parent / "raw"), str(out), str(kill_at)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    ended = subprocess.run(words, env=environment, start_new_session=True, capture_output=True, text=True)
    print(ended.stderr)
    return ended.returncode


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def check_same(out: Path, reference: dict[str, bytes]) -> None:
    assert contents(out) == reference
    manifest = Manifest.load(out)
    assert all(not report.damage for report in verify_dataset(LocalFolder(out), manifest))
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")] == []


def test_killed_at_any_step_a_build_goes_on_and_ends_in_the_same_bytes(
    files: list[Path], script: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(script, out, 0) == 0
    reference = contents(out)
    steps = (tmp_path / "out.counter").stat().st_size
    assert steps > 12
    for kill_at in range(1, steps + 1):
        shutil.rmtree(out)
        (tmp_path / "out.counter").unlink()
        assert run(script, out, kill_at) == -signal.SIGKILL
        if not (out / "manifest.json").exists():
            assert run(script, out, 0) == 0, f"after a kill at step {kill_at} of {steps}"
        else:  # killed after the dataset took its name: the same command says that it is there, and tidies
            assert run(script, out, 0) == 1
        check_same(out, reference)


def test_a_tar_without_its_own_note_is_made_again(files: list[Path], tmp_path: Path) -> None:
    """A source was added, its part made anew, and the builder killed before the new note; then the source went away."""
    out = tmp_path / "out"
    plan = waves_plan(files)
    part = cut_into_parts(plan)[0]
    assert build(plan, BuildOptions(out, part_of=Slice(1, 2))) is None
    tar = Site.of(out).folder / part.tar
    tar.write_bytes(tar.read_bytes() + bytes(10_240))
    with pytest.raises(ShardError, match="made of other sources"):
        build(plan, BuildOptions(out, part_of=Slice(2, 2)))
    manifest = build(plan, BuildOptions(out, part_of=Slice(1, 2)))
    assert manifest is not None
    assert all(not report.damage for report in verify_dataset(LocalFolder(out), manifest))


def test_slices_whose_sources_differ_are_told_to_run_again(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert build(waves_plan(files), BuildOptions(out, part_of=Slice(1, 2))) is None
    os.utime(files[0], ns=(1, 1))
    with pytest.raises(
        ShardError, match=r"1 shards \(first: train-000000.tar\) were made of other sources.*\n.*Run all"
    ):
        build(waves_plan(files), BuildOptions(out, part_of=Slice(2, 2)))
    assert build(waves_plan(files), BuildOptions(out, part_of=Slice(1, 2))) is not None


def test_raw_files_may_be_named_by_another_path_when_a_build_goes_on(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    out = tmp_path / "out"
    plan = replace(waves_plan(files), raw=tmp_path / "raw")
    assert build(plan, BuildOptions(out, part_of=Slice(1, 2))) is None
    monkeypatch.chdir(tmp_path)
    relative = replace(waves_plan([Path("raw") / file.name for file in files]), raw=Path("raw"))
    build(relative, BuildOptions(out, part_of=Slice(1, 2)))
    assert "going on: 1 of 1 shards are complete already" in capfd.readouterr().out


def test_an_item_that_kills_its_worker_is_named_and_passed(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files[1].write_bytes(b"kill")
    manifest = build(waves_plan(files), BuildOptions(tmp_path / "out", bad="skip", workers=2))
    assert manifest is not None
    assert {split: info.samples for split, info in manifest.splits.items()} == {"train": 2, "test": 2}
    assert "clip001 of train kills its worker, also alone" in capfd.readouterr().out
    assert ",deadly,no," in (tmp_path / "out" / "report.csv").read_text()
    assert not (tmp_path / "out" / "deadly.json").exists()


def test_an_item_that_kills_its_worker_stops_a_build_that_may_leave_nothing_out(
    files: list[Path], tmp_path: Path
) -> None:
    files[1].write_bytes(b"kill")
    with pytest.raises(ShardError, match="1 sources cannot be used"):
        build(waves_plan(files), BuildOptions(tmp_path / "out"))


def test_workers_that_are_killed_whatever_they_make_end_the_build(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise WorkerKilled("a worker process was killed")

    monkeypatch.setattr("shards.building.run.run_in_workers", killed)
    with pytest.raises(WorkerKilled):
        build(waves_plan(files), BuildOptions(tmp_path / "out"))


@pytest.mark.parametrize("target_exists", [True, False])
def test_out_may_be_a_link(files: list[Path], tmp_path: Path, target_exists: bool) -> None:
    if target_exists:
        (tmp_path / "scratch").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "scratch")
    build(waves_plan(files), BuildOptions(tmp_path / "data"))
    assert (tmp_path / "data").is_symlink()
    assert Manifest.load(tmp_path / "scratch").splits["train"].samples == 3


def test_a_mount_point_is_refused_before_any_work(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
    with pytest.raises(ShardError, match=r"is a mount point.*\n.*--out .*disk/NAME"):
        build(waves_plan(files), BuildOptions(tmp_path / "disk"))


def test_a_folder_without_permission_is_refused_before_any_work(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ShardError, match=r"cannot be written: Permission denied.*\n.*--out"):
        build(waves_plan(files), BuildOptions(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


def test_only_one_process_puts_a_dataset_together(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from shards.atomic import locked\n"
        "with locked(Path(sys.argv[1]), wait=False) as got_it: print(got_it)"
    )
    site = Site(tmp_path / "out")
    with site.alone():
        (lock,) = tmp_path.glob(".out*lock")
        answer = subprocess.run([sys.executable, "-c", code, str(lock)], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_room_is_looked_for_with_the_parts_of_all_slices(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 2 * CLIP_BYTES + 7 * 1024})  # for the test split, not for all
    monkeypatch.setattr("shards.building.space.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ShardError, match="the build needs"):
        build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(2, 2)))


def test_a_build_was_begun_with_other_versions(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(1, 2))) is None
    monkeypatch.setattr("shards.building.made_with._version", lambda library: "0.0")
    with pytest.raises(ShardError, match=r"made with\.av was '.*', is '0\.0'"):
        build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(2, 2)))
