"""Lengths come from the decoder, once: what was found is kept and used again while the file is as it was."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from shards.building import lengths
from shards.building.lengths import ParallelSurvey
from shards.building.plan import BadSource
from shards.building.video import probe
from shards.errors import ShardError
from tests.shards.building.colour_videos import numbered, write_video


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.mp4" for number in (5, 8)]
    for file in found:
        write_video(file, numbered(int(file.stem)))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return [*found, tmp_path / "broken.mp4"]


def test_lengths_are_those_of_the_decoder_and_trouble_is_told(files: list[Path]) -> None:
    found = ParallelSurvey(None, 2)(files)
    assert [found[file] for file in files[:2]] == [5, 8]
    broken = found[files[2]]
    assert isinstance(broken, BadSource)
    assert broken.kind == "unreadable"


def test_a_continued_build_does_not_decode_again_what_has_not_changed(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = ParallelSurvey(tmp_path / "kept.json", 1)
    first = survey(files)
    asked: list[Path] = []

    def decode(_work, missing, *_rest):
        asked.extend(missing)
        return [(file, 99) for file in missing]

    monkeypatch.setattr(lengths, "run_in_workers", decode)
    again = survey(files)
    assert asked == []
    assert {file: str(length) for file, length in again.items()} == {file: str(n) for file, n in first.items()}
    os.utime(files[0], ns=(1, 1))
    assert survey(files)[files[0]] == 99
    assert asked == [files[0]]


def test_of_several_slices_that_ask_at_a_time_one_decodes(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    both_started = threading.Barrier(2)

    def decode(_work, missing, *_rest):
        asked.extend(missing)
        return [(file, 7) for file in missing]

    def slice_of_a_build() -> None:
        both_started.wait()
        ParallelSurvey(tmp_path / "kept.json", 1)(files)

    monkeypatch.setattr(lengths, "run_in_workers", decode)
    slices = [threading.Thread(target=slice_of_a_build) for _ in range(2)]
    for one in slices:
        one.start()
    for one in slices:
        one.join()
    assert sorted(asked) == sorted(files)


def test_headers_are_kept_beside_lengths_and_read_once(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = ParallelSurvey(tmp_path / "kept.json", 1)
    first = survey.probes(files)
    assert [first[file].frames for file in files[:2]] == [5, 8] and first[files[0]] == probe(files[0])
    assert first[files[2]].kind == "unreadable"
    assert [survey(files)[file] for file in files[:2]] == [5, 8]
    asked: list[Path] = []

    def header(file):
        asked.append(file)
        return ["gone", "by now"]

    monkeypatch.setattr(lengths, "_header", header)
    again = survey.probes(files)
    assert asked == [] and again[files[0]] == first[files[0]] and str(again[files[2]]) == str(first[files[2]])
    os.utime(files[0], ns=(1, 1))
    assert survey.probes(files)[files[0]].kind == "gone" and asked == [files[0]]


def test_many_headers_are_read_by_processes(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = []
    for number in range(230):
        many.append(tmp_path / f"link {number:03d}.mp4")
        many[-1].symlink_to(files[number % 3])

    def header(_file):
        raise AssertionError("read in this process")

    monkeypatch.setattr(lengths, "_header", header)
    found = ParallelSurvey(None, 2).probes(many)
    assert set(found) == set(many)
    assert [found[many[place]].frames for place in (0, 1, 228, 229)] == [5, 8, 5, 8]
    assert found[many[2]].kind == "unreadable"


def test_a_broken_link_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nowhere.mp4")
    for ask in (ParallelSurvey(tmp_path / "kept.json", 1), ParallelSurvey(tmp_path / "kept.json", 1).probes):
        assert ask([tmp_path / "lost.mp4"])[tmp_path / "lost.mp4"].kind == "unreadable"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"no room to go on.*\n.*run the same command again"),
        (errno.EROFS, r"cannot be written.*\n.*--out"),
    ],
)
def test_a_disk_that_refuses_what_was_found_is_told(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refuse(path: Path, _data: bytes) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(lengths, "write_atomically", refuse)
    with pytest.raises(ShardError, match=said):
        ParallelSurvey(tmp_path / ".out.lengths.json", 1).probes(files)
    monkeypatch.setattr(lengths, "locked", lambda path: refuse(path, b""))
    with pytest.raises(ShardError, match=said):
        ParallelSurvey(tmp_path / ".out.lengths.json", 1)(files)


def test_a_dry_run_keeps_nothing(files: list[Path], tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    ParallelSurvey(None, 1)(files[:1])
    ParallelSurvey(None, 1).probes(files)
    assert sorted(tmp_path.iterdir()) == before
