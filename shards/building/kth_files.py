"""KTH's videos in a raw folder: which are there, where, and what else lies about.

In: a folder, flat or with one folder per class. Out: one :class:`Video` per clip, in the order of the published
listing's classes. The file's name says what it is; its folder's name does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.building.kth_sequences import ALL_CLIPS, MISSING, ClipName
from shards.building.plan import BadSource, Item
from shards.building.video import probe
from shards.errors import ShardError

FPS = 25.0
"""Frames per second: of all original files, and of the published pictures."""

SEQUENCES = "00sequences.txt"

_SUFFIX = "_uncomp.avi"
_LAYOUT = f"files like person01_boxing_d1{_SUFFIX}, in the folder itself or in one folder per class"


@dataclass(frozen=True)
class Video:
    """One clip of the dataset that is there.

    Attributes:
        name: its name in parts.
        file: where it lies.
        about: what its samples say of it: class, label, person, trial, source (its file, from the raw folder).
        frames: announced by the container, for estimates only; 0 if unknown.
        rate: frames per second announced by the container; None if unknown.
    """

    name: ClipName
    file: Path
    about: Mapping[str, Any]
    frames: int
    rate: float | None

    def whole(self, size: int) -> Item:
        """The whole video as one sample of ``size`` rows and columns."""
        return Item(str(self.name), self.file, {"about": self.about}, 1, self.frames * size**2)


@dataclass(frozen=True)
class RawFolder:
    """What lies in the raw folder.

    Attributes:
        videos: by class, then by name.
        others: files that are neither a clip nor ``00sequences.txt``, from the raw folder.
    """

    videos: tuple[Video, ...]
    others: tuple[str, ...]

    @property
    def training(self) -> list[Video]:
        """Those of persons 1 to 20."""
        return [video for video in self.videos if not video.name.is_test]

    @property
    def testing(self) -> list[Video]:
        """Those of persons 21 to 25."""
        return [video for video in self.videos if video.name.is_test]

    def notes(self) -> list[str]:
        """What is missing, what was left aside, what has another frame rate than the original files."""
        notes = []
        there = {video.name for video in self.videos}
        absent = [name for name in ALL_CLIPS if name not in there]
        if absent:
            num_test = sum(name.is_test for name in ALL_CLIPS)
            training = f"training {len(self.training)} of {len(ALL_CLIPS) - num_test}"
            head = (
                f"{len(there)} of {len(ALL_CLIPS)} videos are here ({training}, test {len(self.testing)} of {num_test})"
            )
            notes.append(f"{head}; {len(absent)} are missing: {first_few(absent)}")
        if self.others:
            notes.append(f"files that are no KTH video were left aside: {len(self.others)} ({first_few(self.others)})")
        other_rates = [f"{video.name} ({video.rate:g})" for video in self.videos if video.rate not in (FPS, None)]
        if other_rates:
            notes.append(f"not {FPS:g} fps as the original videos, so resampled in time: {first_few(other_rates)}")
        return notes


def find_videos(root: Path) -> RawFolder:
    """The videos in a folder and in its folders.

    Raises:
        ShardError: no such folder, no video in it, or a clip that is there twice.
    """
    if not root.is_dir():
        raise ShardError(f"no such folder; expected {_LAYOUT}", file=root, remedy="Give it with --raw.")
    files = sorted(file for pattern in ("*", "*/*") for file in root.glob(pattern) if file.is_file())
    found: dict[ClipName, Path] = {}
    others = []
    for file in files:
        name = ClipName.parse(file.name.removesuffix(_SUFFIX)) if file.name.endswith(_SUFFIX) else None
        if name is None or name == MISSING:
            others += [file.relative_to(root).as_posix()] if file.name != SEQUENCES else []
        elif name in found:
            raise ShardError(f"{name} is there twice: {found[name]} and {file}", remedy="Take one of them away.")
        else:
            found[name] = file
    if not found:
        remedy = "Unpack the zip files of the original dataset there, or give another folder with --raw."
        raise ShardError(f"no KTH video among its {len(files)} files; expected {_LAYOUT}", file=root, remedy=remedy)
    return RawFolder(tuple(_video(root, name, found[name]) for name in ALL_CLIPS if name in found), tuple(others))


def first_few(names: Sequence[object]) -> str:
    """The first three of a list, for a message."""
    return ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _video(root: Path, name: ClipName, file: Path) -> Video:
    about = {
        "class": name.action,
        "label": name.label,
        "person": name.person,
        "trial": name.trial,
        "source": file.relative_to(root).as_posix(),
    }
    try:
        announced = probe(file)
    except BadSource:  # told when the file is decoded
        return Video(name, file, about, 0, None)
    return Video(name, file, about, announced.frames or 0, announced.rate)
