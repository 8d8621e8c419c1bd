"""The engine: complete or not at all, going on after anything, the same bytes however the work was shared out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shards.building import plan as planning
from shards.building.part import PartNote
from shards.building.plan import BuildPlan, cut_into_parts
from shards.building.run import BuildOptions, build
from shards.building.site import Site, Slice
from shards.errors import ShardError
from shards.folder import LocalFolder
from shards.manifest import Manifest
from shards.opening import open_source
from shards.verify import verify_dataset
from tests.shards.building.waves import CLIP_BYTES, waves_plan, write_raw


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three clips, so that a small dataset has several."""
    monkeypatch.setattr(planning, "_MIN_SHARD_BYTES", 3 * CLIP_BYTES)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_raw(tmp_path / "raw", 12)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path.name.startswith(f".{out.name}."))


def built(plan: BuildPlan, out: Path, **options) -> Manifest:
    manifest = build(plan, BuildOptions(out, command="python -m shards build waves", **options))
    assert manifest is not None
    return manifest


def test_samples_are_those_of_the_plan_in_its_order(files: list[Path], tmp_path: Path) -> None:
    manifest = built(waves_plan(files), tmp_path / "out", workers=2)
    assert {name: info.samples for name, info in manifest.splits.items()} == {"train": 10, "test": 2}
    assert [shard.samples for shard in manifest.splits["train"].shards] == [3, 3, 3, 1]
    fetched = open_source(tmp_path / "out", "train", 5).read(range(10))
    assert fetched.keys == [f"clip{number:03d}" for number in range(10)]
    assert fetched.arrays["video"][:, 0, 0, 0, 0].tolist() == list(range(10))
    assert all(not report.damage for report in verify_dataset(LocalFolder(tmp_path / "out"), manifest))
    assert manifest.provenance["command"] == "python -m shards build waves"
    assert manifest.provenance["notes"] == ["a note"]
    assert beside(tmp_path / "out") == []


def test_bytes_do_not_depend_on_workers_or_slices(files: list[Path], tmp_path: Path) -> None:
    built(waves_plan(files), tmp_path / "one", workers=1)
    built(waves_plan(files), tmp_path / "two", workers=2)
    for number in (2, 3):
        options = BuildOptions(tmp_path / "three", part_of=Slice(number, 3), command="python -m shards build waves")
        assert build(waves_plan(files), options) is None
        assert not (tmp_path / "three").exists()
    built(waves_plan(files), tmp_path / "three", part_of=Slice(1, 3))
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two") == bytes_of(tmp_path / "three")


def test_a_slice_that_comes_back_after_the_end_finds_its_work_done(files: list[Path], tmp_path: Path) -> None:
    manifest = built(waves_plan(files), tmp_path / "out", part_of=Slice(1, 1))
    again = build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(2, 3)))
    assert again == manifest
    with pytest.raises(ShardError, match=r"settings\.level was 1, is 2"):
        build(waves_plan(files, level=2), BuildOptions(tmp_path / "out", part_of=Slice(2, 3)))
    with pytest.raises(ShardError, match="encoding was 'raw', is 'zstd'"):
        build(waves_plan(files), BuildOptions(tmp_path / "out", encoding="zstd", part_of=Slice(2, 3)))
    files[0].write_bytes(b"more")
    with pytest.raises(ShardError, match="already holds waves, built otherwise: sources was"):
        build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(2, 3)))
    assert beside(tmp_path / "out") == []


KILLED = """
import sys
from pathlib import Path
from shards.building import plan as planning
from shards.building.run import BuildOptions, build
from tests.shards.building.waves import CLIP_BYTES, waves_plan
planning._MIN_SHARD_BYTES = 3 * CLIP_BYTES
if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).iterdir())
    build(waves_plan(files, pause_s=0.15), BuildOptions(Path(sys.argv[2]), command="python -m shards build waves"))
"""


def start_and_wait_for_a_part(tmp_path: Path, out: Path) -> subprocess.Popen[bytes]:
    script = tmp_path / "build_waves.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path / "raw"), str(out)], env=environment)
    end = time.monotonic() + 60
    while not list(Site(out).folder.glob("*.part.json")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_a_killed_build_goes_on_and_ends_in_the_same_bytes(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    process = start_and_wait_for_a_part(tmp_path, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    done = {path: path.stat().st_ino for path in Site(out).folder.glob("*.part.json")}
    manifest = built(waves_plan(files, pause_s=0.15), out)
    assert f"{len(done)} of 5 shards are complete already" in capfd.readouterr().out
    built(waves_plan(files), tmp_path / "undisturbed")
    assert bytes_of(out) == bytes_of(tmp_path / "undisturbed")
    assert manifest.splits["train"].samples == 10


def test_workers_end_with_a_killed_build(files: list[Path], tmp_path: Path) -> None:
    process = start_and_wait_for_a_part(tmp_path, tmp_path / "out")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    end = time.monotonic() + 10
    while any(is_alive(int(pid)) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_two_builds_into_one_folder_are_refused(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start_and_wait_for_a_part(tmp_path, out)
    try:
        with pytest.raises(ShardError, match=rf"process {process.pid} on .* is building this folder"):
            build(waves_plan(files, pause_s=0.15), BuildOptions(out))
        with pytest.raises(ShardError, match="is building this folder"):
            build(waves_plan(files, pause_s=0.15), BuildOptions(out, part_of=Slice(1, 2)))
    finally:
        process.wait(60)
    assert process.returncode == 0
    assert Manifest.load(out).splits["train"].samples == 10


def test_other_options_do_not_go_on_with_a_build(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert build(waves_plan(files), BuildOptions(out, part_of=Slice(1, 2))) is None
    with pytest.raises(ShardError, match=r"settings\.level was 1, is 2.*\n.*delete .*\.out\.parts"):
        build(waves_plan(files, level=2), BuildOptions(out, part_of=Slice(2, 2)))
    with pytest.raises(ShardError, match="encoding was 'raw', is 'zstd'"):
        build(waves_plan(files), BuildOptions(out, encoding="zstd", part_of=Slice(2, 2)))


def test_a_folder_that_is_taken_is_left_alone(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(ShardError, match="not this dataset"):
        build(waves_plan(files), BuildOptions(tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "precious"
    built(waves_plan(files), tmp_path / "whole")
    with pytest.raises(ShardError, match="already holds waves"):
        build(waves_plan(files), BuildOptions(tmp_path / "whole"))
    Site(tmp_path / "whole").lengths.write_text("{}")  # as a survey does before anything is known of OUT
    with pytest.raises(ShardError, match=r"built otherwise: settings\.level was 1, is 2"):
        build(waves_plan(files, level=2), BuildOptions(tmp_path / "whole"))
    assert beside(tmp_path / "whole") == []


def test_bad_sources_are_all_named_and_only_their_shards_are_made_again(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    files[1].write_bytes(b"bad")
    files[7].write_bytes(b"bad")
    with pytest.raises(ShardError, match=r"2 sources cannot be used.*\n.*--bad skip"):
        build(waves_plan(files), BuildOptions(out))
    said = capfd.readouterr().err
    assert "clip001.bin" in said
    assert "clip007.bin" in said
    notes = {path.name: path.stat().st_mtime_ns for path in Site(out).folder.glob("*.part.json")}
    assert sorted(notes) == ["test-000000.part.json", "train-000001.part.json", "train-000003.part.json"]
    files[1].write_bytes(bytes([1]))
    files[7].write_bytes(bytes([7]))
    built(waves_plan(files), out)
    assert "3 of 5 shards are complete already" in capfd.readouterr().out
    write_raw(tmp_path / "raw", 12)
    built(waves_plan(files), tmp_path / "sound")
    assert bytes_of(out) == bytes_of(tmp_path / "sound")


def test_skipped_sources_are_reported_in_the_dataset(files: list[Path], tmp_path: Path) -> None:
    for number in (3, 4, 5):  # a whole shard
        files[number].write_bytes(b"bad")
    files[6].write_bytes(b"\x06 and more")
    manifest = built(waves_plan(files), tmp_path / "out", bad="skip")
    assert manifest.splits["train"].samples == 7
    assert manifest.provenance["remarks"] == {"left out: unreadable": 3, "long file": 1}
    lines = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert lines[0] == "split,key,source,kind,used,detail"
    assert [line.split(",")[1] for line in lines[1:]] == ["clip003", "clip004", "clip005", "clip006"]
    keys = open_source(tmp_path / "out", "train", 5).read(range(7)).keys
    assert keys == [f"clip{number:03d}" for number in (0, 1, 2, 6, 7, 8, 9)]


def test_what_was_skipped_counts_as_missing_when_nothing_may_be_left_out(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    files[1].write_bytes(b"bad")
    assert build(waves_plan(files), BuildOptions(out, bad="skip", part_of=Slice(1, 2))) is None
    with pytest.raises(ShardError, match="1 sources cannot be used"):
        build(waves_plan(files), BuildOptions(out, bad="stop", part_of=Slice(1, 2)))


def test_a_split_without_any_usable_source_is_left_out_loudly(
    files: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for file in files[-2:]:
        file.write_bytes(b"bad")
    manifest = built(waves_plan(files), tmp_path / "out", bad="skip")
    assert list(manifest.splits) == ["train"]
    note = "no split test: none of its 2 sources can be used"
    assert manifest.provenance["notes"] == ["a note", note]
    assert note in capfd.readouterr().out


def test_a_dataset_without_training_samples_is_an_error(files: list[Path], tmp_path: Path) -> None:
    for file in files[:-2]:
        file.write_bytes(b"bad")
    with pytest.raises(ShardError, match="split train: none of 10 sources can be used"):
        build(waves_plan(files), BuildOptions(tmp_path / "out", bad="skip"))
    assert not (tmp_path / "out").exists()


def test_a_bug_ends_the_build_after_the_other_shards_and_names_the_source(files: list[Path], tmp_path: Path) -> None:
    files[0].write_bytes(b"bug")
    with pytest.raises(ValueError, match="a bug") as caught:
        build(waves_plan(files), BuildOptions(tmp_path / "out"))
    assert any("clip000" in note for note in caught.value.__notes__)
    assert len(list(Site(tmp_path / "out").folder.glob("*.part.json"))) == 4


def test_a_changed_source_makes_its_shard_again(files: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert build(waves_plan(files), BuildOptions(out, part_of=Slice(1, 2))) is None
    files[0].write_bytes(bytes([99]))
    os.utime(files[0], ns=(1, 1))
    build(waves_plan(files), BuildOptions(out, part_of=Slice(1, 2)))
    built(waves_plan(files), out, part_of=Slice(2, 2))
    assert open_source(out, "train", 5).read([0]).arrays["video"].max() == 99


def test_too_small_a_disk_is_seen_before_the_first_byte(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 10_000})
    monkeypatch.setattr("shards.building.space.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ShardError, match=r"needs .*, the disk has 10 kB free"):
        build(waves_plan(files), BuildOptions(tmp_path / "out"))
    assert not list(Site(tmp_path / "out").folder.glob("*.tar"))


FULL = """
import resource, sys
from pathlib import Path
from shards.building.run import BuildOptions, build
from shards.errors import ShardError
from tests.shards.building.waves import waves_plan
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # as a full disk: a file cannot grow
    try:
        build(waves_plan(sorted(Path(sys.argv[1]).iterdir())), BuildOptions(Path(sys.argv[2])))
    except ShardError as error:
        sys.exit(str(error))
"""


def test_a_disk_that_fills_up_is_said_and_the_build_goes_on_later(files: list[Path], tmp_path: Path) -> None:
    script, out = tmp_path / "full.py", tmp_path / "out"
    script.write_text(FULL)
    words = [sys.executable, str(script), str(tmp_path / "raw"), str(out)]
    ended = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, capture_output=True, text=True)
    assert "no room to go on (File too large); complete shards are kept" in ended.stderr
    assert "run the same command again" in ended.stderr
    assert [path.name for path in Site(out).folder.iterdir()] == ["build.json"]  # nothing half made
    build(waves_plan(files), BuildOptions(out))
    assert Manifest.load(out).splits["train"].samples == 10


def test_an_unwritable_place_is_named(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ShardError, match=r"cannot be written.*\n.*--out"):
        build(waves_plan(files), BuildOptions(tmp_path / "file" / "out"))


def test_parts_are_consecutive_items_near_the_size_asked_for(files: list[Path]) -> None:
    parts = cut_into_parts(waves_plan(files))
    assert [(part.tar, len(part.items)) for part in parts] == [
        ("train-000000.tar", 3),
        ("train-000001.tar", 3),
        ("train-000002.tar", 3),
        ("train-000003.tar", 1),
        ("test-000000.tar", 2),
    ]
    assert len(cut_into_parts(waves_plan(files), shard_mb=1)) == 2


def test_a_note_reads_back_as_it_was_written(files: list[Path], tmp_path: Path) -> None:
    files[0].write_bytes(b"\x00 and more")
    assert build(waves_plan(files), BuildOptions(tmp_path / "out", part_of=Slice(1, 2))) is None
    path = Site(tmp_path / "out").folder / "train-000000.part.json"
    note = PartNote.load(path)
    assert note is not None
    assert note.to_json() == path.read_text()
    assert json.loads(path.read_text())["remarks"][0]["kind"] == "long file"


def test_slices_are_written_one_to_n() -> None:
    assert Slice.parse("3/8") == Slice(3, 8)
    for text in ("0/8", "9/8", "3", "a/b", "3/"):
        with pytest.raises(ShardError, match="expected NUMBER/COUNT"):
            Slice.parse(text)


def test_every_part_belongs_to_one_slice() -> None:
    owners = np.array([[Slice(number, 4).owns(part) for part in range(10)] for number in (1, 2, 3, 4)])
    assert owners.sum(axis=0).tolist() == [1] * 10


def test_a_bad_source_whose_name_is_not_utf8_is_reported_all_the_same(files: list[Path], tmp_path: Path) -> None:
    strange = Path(os.fsdecode(bytes(tmp_path / "raw") + b"/clip\xff.bin"))
    strange.write_bytes(b"bad")
    built(waves_plan([strange, *files]), tmp_path / "out", bad="skip")
    assert "clip\N{REPLACEMENT CHARACTER}.bin" in (tmp_path / "out" / "report.csv").read_text()
