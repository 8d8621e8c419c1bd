"""Build UCF101 (101 human actions, colour, 25 fps) for the video GANs: ``build ucf101 --raw DIR --out DIR``.

In: the original ``v_Archery_g01_c01.avi`` anywhere below DIR (one folder per class, or flat), and the official lists
``trainlist01.txt``, ``testlist01.txt``, ``classInd.txt`` in DIR/ucfTrainTestlist or --lists. A part of the files builds
too, with a note of how many are missing.
Out: ``video``, uint8 T3HW, one whole video per sample, and ``label``, int32: the list's number of the class less one
(the metadata has ``class`` and ``class_number``, from 1).

Pictures, as published with the video GANs (Gordon & Parde 2021, La 2021): the short side resized to 64 with OpenCV's
bicubic, 320x240 to 85x64, then columns 10 to 73 of it. --size 128, --crop squash and --resize choose otherwise.

--list 1        train and test are those of list 01, as the GAN papers train; 2 and 3 are the dataset's other splits.
--valid 0.05    the GAN code has no validation. Here a part of the training list, chosen by SRVP's rule (numpy seed 42),
                becomes the split valid, since training here evaluates on it. Clips of one group (g01) are cut from one
                video, so validation videos have near relatives in train: valid is no test of new scenes.
                0 keeps the whole list for training, as published; then train without evaluation or give it other
                videos.
--fps           default: frames as they are stored, as published, and the manifest says 25 fps. Not all files have that
                rate (v_BaseballPitch_g01_c01.avi has 29.97); those are reported. A number resamples by time stamps.
--min-frames    videos with fewer frames are too short; 16 is a clip of the GANs.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shards.building.class_folders import (
    ClassVideo,
    MakeLabelled,
    add_video_arguments,
    check_video_arguments,
    find_files,
    hold_out,
    labelled_items,
    labelled_specs,
)
from shards.building.picture import Look
from shards.building.plan import BuildPlan, Survey
from shards.errors import ShardError

DEFAULT_BAD = "stop"
FPS = 25.0
LISTS_URL = "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip"

_LISTS_FOLDER = "ucfTrainTestlist"
_CLASSES_FILE = "classInd.txt"


@dataclass(frozen=True)
class Listed:
    """A line of a list: ``Archery/v_Archery_g01_c01.avi`` without its suffix, and the number of its class, from 1."""

    name: str
    class_number: int

    @property
    def identity(self) -> str:
        """By which files are found: upper and lower case differ between copies (HandStandPushups)."""
        return PurePosixPath(self.name).name.lower()


@dataclass(frozen=True)
class Lists:
    """The official lists of one of the three splits.

    Attributes:
        classes: names by number less one.
        train: of the training list, in its order.
        test: of the test list, in its order.
        sha256: digest of each file read.
    """

    classes: tuple[str, ...]
    train: tuple[Listed, ...]
    test: tuple[Listed, ...]
    sha256: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build ucf101``."""
    add = parser.add_argument
    lists_help = f"folder of the official lists (default: {_LISTS_FOLDER} in --raw)"
    add("--lists", type=Path, metavar="DIR", help=lists_help)
    add("--list", type=int, choices=(1, 2, 3), default=1, help="which of the three official splits (default: 1)")
    add("--valid", type=float, default=0.05, metavar="F", help="share of train for validation (default: 0.05)")
    add_video_arguments(parser, resize="opencv-bicubic", fps=None)


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:  # noqa: ARG001 - lengths decide nothing here
    """What is to be built of the videos in ``args.raw``.

    Raises:
        ShardError: no lists, malformed lists, no listed video, a video twice, or options out of range.
    """
    check_video_arguments(args)
    if not 0 <= args.valid < 1:
        raise ShardError(f"--valid {args.valid:g}: expected a share of the training videos from 0 to below 1")
    lists = read_lists(_lists_folder(args), args.list)
    files = _files_by_identity(args.raw)
    training, testing = _present(lists.train, files, lists, args.raw), _present(lists.test, files, lists, args.raw)
    if not training and not testing:
        problem = f"none of the {len(lists.train) + len(lists.test)} listed videos is here; found {len(files)} videos"
        remedy = "Give the folder that holds files such as Archery/v_Archery_g01_c01.avi with --raw."
        raise ShardError(problem, file=args.raw, remedy=remedy)
    train, valid = hold_out(len(training), args.valid)
    videos = {"train": [training[i] for i in train], "valid": [training[i] for i in valid], "test": testing}
    look = Look(args.size, args.crop, args.resize)
    make = MakeLabelled(look, args.fps, args.min_frames, usual_rate=FPS)
    return BuildPlan(
        name=f"ucf101-{args.size}" + (f"-list{args.list}" if args.list != 1 else ""),
        arrays=labelled_specs(args.size, len(lists.classes)),
        fps=args.fps or FPS,
        splits={split: labelled_items(some, make) for split, some in videos.items() if some},
        make=make,
        provenance=_provenance(args, lists, look, len(training) + len(testing)),
        notes=(*_missing(lists, files), *_absent_splits(videos, args)),
    )


def read_lists(folder: Path, number: int) -> Lists:
    """The official lists of split ``number`` (1 to 3).

    Raises:
        ShardError: a file is missing or has a line that is not as expected.
    """
    names = (_CLASSES_FILE, f"trainlist{number:02d}.txt", f"testlist{number:02d}.txt")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        remedy = f"Get the lists from {LISTS_URL}, unpack them and give their folder with --lists."
        raise ShardError(f"no {', '.join(missing)} here", file=folder, remedy=remedy)
    classes = _read_classes(folder / names[0])
    train, test = (tuple(_read_list(folder / name, classes)) for name in names[1:])
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    return Lists(classes, train, test, digests)


def _lists_folder(args: argparse.Namespace) -> Path:
    if args.lists is not None:
        return Path(args.lists)
    beside: Path = args.raw / _LISTS_FOLDER
    return args.raw if not beside.is_dir() and (args.raw / _CLASSES_FILE).is_file() else beside


def _read_classes(file: Path) -> tuple[str, ...]:
    """Lines ``1 ApplyEyeMakeup``, in the order of their numbers."""
    classes: list[str] = []
    for number, words in _lines(file):
        if len(words) != 2 or words[0] != str(len(classes) + 1):
            raise _malformed(file, number, words, f"'{len(classes) + 1} NameOfTheClass'")
        classes.append(words[1])
    if not classes:
        raise ShardError("is empty, expected lines such as '1 ApplyEyeMakeup'", file=file)
    return tuple(classes)


def _read_list(file: Path, classes: Sequence[str]) -> Iterator[Listed]:
    """Lines ``Archery/v_Archery_g01_c01.avi 3`` (training) or without the number (test)."""
    numbers = {name: place for place, name in enumerate(classes, start=1)}
    for number, words in _lines(file):
        name = PurePosixPath(words[0])
        of_class = numbers.get(name.parent.name)
        if of_class is None or words[1:] not in ([], [str(of_class)]):
            raise _malformed(file, number, words, f"Class/video.avi of a class of {_CLASSES_FILE}, then its number")
        yield Listed(str(name.with_suffix("")), of_class)


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if words := line.split():
            yield number, words


def _malformed(file: Path, number: int, words: Sequence[str], expected: str) -> ShardError:
    remedy = f"The official lists are at {LISTS_URL}"
    return ShardError(f"line {number} is {' '.join(words)!r}, expected {expected}", file=file, remedy=remedy)


def _files_by_identity(raw: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in find_files(raw):
        other = files.setdefault(file.stem.lower(), file)
        if other != file:
            problem = f"video {file.stem} is here twice: {other.relative_to(raw)} and {file.relative_to(raw)}"
            raise ShardError(problem, file=raw, remedy="Remove one of them.")
    return files


def _present(listed: Sequence[Listed], files: Mapping[str, Path], lists: Lists, raw: Path) -> list[ClassVideo]:
    """The listed videos that are here, in the order of the list."""
    videos = []
    for one in listed:
        if (file := files.get(one.identity)) is not None:
            label = one.class_number - 1
            about = {"class": lists.classes[label], "label": label, "class_number": one.class_number}
            videos.append(ClassVideo(file, one.name, label, about | {"source": file.relative_to(raw).as_posix()}))
    return videos


def _missing(lists: Lists, files: Mapping[str, Path]) -> Iterator[str]:
    listed = [*lists.train, *lists.test]
    absent = [one.name for one in listed if one.identity not in files]
    if absent:
        found = len(listed) - len(absent)
        yield f"{found} of {len(listed)} listed videos are here: {len(absent)} missing (first: {absent[0]})"
    known = {one.identity for one in listed}
    strangers = [file.name for identity, file in files.items() if identity not in known]
    if strangers:
        yield f"{len(strangers)} videos are in neither list and are left out (first: {strangers[0]})"


def _absent_splits(videos: Mapping[str, Sequence[ClassVideo]], args: argparse.Namespace) -> Iterator[str]:
    for split, some in videos.items():
        if some:
            continue
        if split == "valid" and args.valid == 0:
            yield "no split valid, as published (--valid 0): train with eval.every=0, or give --valid a share"
        else:
            yield f"no split {split}: there are no videos for it"


def _provenance(args: argparse.Namespace, lists: Lists, look: Look, found: int) -> dict[str, Any]:
    names = ("list", "valid", "size", "crop", "resize", "fps", "min_frames")
    return {
        "builder": "ucf101",
        "settings": {name: getattr(args, name) for name in names},
        "look": asdict(look),
        "lists": dict(lists.sha256),
        "classes": list(lists.classes),
        "videos": {"found": found, "listed": len(lists.train) + len(lists.test)},
    }
