"""Folders of many videos: what the builders of UCF101, Kinetics and Human3.6M share.

In: names and files. Out: keys for samples, estimates of lengths, and :class:`MakeLabelled`, which turns a video with a
class into samples. A label is the array ``label`` (int32, shape ()), from 0 in the order of the classes.

Axis letters: T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from shards.building.picture import Look, Resize
from shards.building.plan import BadSource, Item, Notice
from shards.building.video import Frames, Pictures, check_rate, iterate_video, probe
from shards.errors import ShardError
from shards.manifest import ArraySpec, video_spec
from shards.writer import Sample

_OLDER_SUFFIXES = frozenset({".wmv", ".flv", ".3gp", ".ogv", ".mts", ".m2ts", ".gif"})
VIDEO_SUFFIXES = _OLDER_SUFFIXES | {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg"}

_PROBED = 64


@dataclass(frozen=True)
class ClassVideo:
    """A video and its class.

    Attributes:
        file: the video.
        name: what its key is made of, such as ``Archery/v_Archery_g01_c01``.
        label: number of its class, from 0.
        about: for the sample's metadata, ``class`` among it.
    """

    file: Path
    name: str
    label: int
    about: Mapping[str, Any]


def plain_keys(names: Sequence[str]) -> list[str]:
    """Keys for samples, in order: letters, digits and ``_ - + /`` stay, any other character becomes ``_``.

    Names that differ only in those get ``=2``, ``=3`` ... at the end; ``=`` does not occur otherwise.
    """
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        key = re.sub(r"[^A-Za-z0-9_+/-]", "_", name)
        seen[key] += 1
        keys.append(key if seen[key] == 1 else f"{key}={seen[key]}")
    return keys


def hold_out(num: int, fraction: float) -> tuple[list[int], list[int]]:
    """SRVP's rule of :func:`shards.building.published.train_valid_split` for any fraction: legacy shuffle, seed 42.

    Returns:
        Positions of the training and of the validation videos in rising order. Without validation where ``fraction``
        is 0; a single video trains.
    """
    positions = list(range(num))
    if fraction == 0 or num < 2:
        return positions, []
    np.random.RandomState(42).shuffle(positions)
    num_train = max(1, int((1 - fraction) * num))
    return sorted(positions[:num_train]), sorted(positions[num_train:])


def find_files(folder: Path) -> list[Path]:
    """Video files anywhere below a folder, sorted by path; hidden files and folders are not looked at.

    Links to folders are followed, but none into a folder twice. Links into nowhere are among the files: reading them
    fails, which is then told; pipes, sockets and devices are not.

    Raises:
        ShardError: a folder may not be read: what is in it would be missing in silence.
    """
    files = []
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [file for name in names if is_video(name) and may_be_video(file := Path(parent, name))]
    return sorted(files)


def _unreadable(error: OSError) -> None:
    remedy = "Have its permissions changed, or move it away."
    raise ShardError(f"cannot be read: {error.strerror}", file=error.filename, remedy=remedy) from error


def may_be_video(path: Path) -> bool:
    """Whether this is a file, or a link to one, also where the link is broken."""
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 - these never raise


def is_video(name: str) -> bool:
    """Whether a file of this name is taken for a video."""
    return not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES


def estimate_frames(files: Sequence[Path], fps: float | None = None) -> list[int]:
    """About how many frames videos will give, from their sizes and the containers of a few of them.

    Args:
        files: videos of a kind: frames per byte are taken to be the same.
        fps: the rate at which frames will be taken; None for the files' own.

    Returns:
        For each file a number of at least 1. Only for progress and for room on the disk.
    """
    frames, num_bytes = 0.0, 0
    for file in files[:: max(1, len(files) // _PROBED)]:
        try:
            found = probe(file)
        except BadSource:
            continue  # reported when its sample is made
        if found.frames:
            frames += found.frames * (fps / found.rate if fps and found.rate else 1)
            num_bytes += _size(file)
    per_byte = frames / num_bytes if num_bytes else 0.0
    return [max(1, round(_size(file) * per_byte)) for file in files]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0  # reported when its sample is made


@dataclass(frozen=True)
class MakeLabelled:
    """Samples of a video, with its class if the item has a label: the whole video, or consecutive pieces of it.

    Attributes:
        look: how a frame becomes a picture.
        fps: resample by time stamps to this rate; None takes the frames as they are stored.
        min_frames: a video with fewer is too short.
        max_frames: longest piece; None takes whole videos.
        usual_rate: a file of another rate gets a notice; None: any rate will do.
        keep_pieces: the complete pieces before damage are used, and the damage is a notice; otherwise the whole video
            is refused.
    """

    look: Look
    fps: float | None
    min_frames: int
    max_frames: int | None = None
    usual_rate: float | None = None
    keep_pieces: bool = False

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        """Decode once, in the memory of one piece.

        Raises:
            BadSource: the file cannot be decoded (after a complete piece only without ``keep_pieces``) or is too short.
        """
        yield from self._rate_notice(item)
        pictures = Pictures(self.look)
        given = 0
        try:
            for found in iterate_video(item.source, self.look, Frames(self.fps)):
                if isinstance(found, Notice):
                    yield found
                    continue
                if len(pictures) == self.max_frames:
                    yield self._sample(item, given, pictures)
                    given += 1
                pictures.append(found)
        except BadSource as error:
            if not given or not self.keep_pieces:
                raise
            yield Notice(error.kind, f"{error.detail}; the {given * (self.max_frames or 0)} frames before it are used")
            return
        if len(pictures) >= self.min_frames:
            yield self._sample(item, given, pictures)
        elif given:
            yield Notice("end left out", f"the last {len(pictures)} frames, --min-frames is {self.min_frames}")
        else:
            raise BadSource("too short", f"{len(pictures)} frames, --min-frames is {self.min_frames}")

    def _sample(self, item: Item, number: int, pictures: Pictures) -> Sample:
        key = f"{item.key}=piece{number}" if number else item.key
        place = {} if self.max_frames is None else {"first_frame": number * self.max_frames}
        arrays: dict[str, NDArray[Any]] = {"video": pictures.taken()}
        if "label" in item.args:
            arrays["label"] = np.array(item.args["label"], np.int32)
        return Sample(key, arrays, item.args["about"] | place)

    def _rate_notice(self, item: Item) -> Iterator[Notice]:
        if self.fps is None and self.usual_rate is not None:
            rate = probe(item.source).rate
            if rate is None or abs(rate - self.usual_rate) > 0.01:
                found = "an unknown rate" if rate is None else f"{rate:.6g} frames per second"
                yield Notice("other frame rate", f"{found}, the manifest says {self.usual_rate:g}; --fps resamples")


def labelled_specs(size: int, num_classes: int) -> dict[str, ArraySpec]:
    """Declarations of ``video`` (TCHW, three channels) and ``label`` (a number from 0)."""
    return {"video": video_spec(None, 3, size, size), "label": ArraySpec("int32", "", (), (0, num_classes - 1))}


def labelled_items(videos: Sequence[ClassVideo], make: MakeLabelled) -> tuple[Item, ...]:
    """An item per video, in order."""
    keys = plain_keys([video.name for video in videos])
    lengths = estimate_frames([video.file for video in videos], make.fps)
    items = []
    for video, key, num_frames in zip(videos, keys, lengths, strict=True):
        settings = {"label": video.label, "about": dict(video.about)}
        num_samples = -(-num_frames // make.max_frames) if make.max_frames else 1
        items.append(Item(key, video.file, settings, num_samples, num_frames * make.look.num_bytes))
    return tuple(items)


def add_video_arguments(parser: argparse.ArgumentParser, *, resize: Resize, fps: float | None) -> None:
    """``--size``, ``--crop``, ``--resize``, ``--fps`` and ``--min-frames``, with a builder's defaults."""
    add = parser.add_argument
    add("--size", type=int, default=64, metavar="S", help="height and width of a frame (default: 64)")
    crop_help = "the centre square (default), or the whole frame squashed into one"
    add("--crop", choices=("center", "squash"), default="center", help=crop_help)
    add("--resize", choices=get_args(Resize), default=resize, help=f"how frames are resized (default: {resize})")
    usual = "frames as they are stored" if fps is None else f"{fps:g}"
    add("--fps", type=float, default=fps, metavar="R", help=f"resample by time stamps to this rate (default: {usual})")
    least_help = "videos that give fewer frames are too short (default: 16, a clip of the video GANs)"
    add("--min-frames", type=int, default=16, metavar="T", help=least_help)


def check_video_arguments(args: argparse.Namespace) -> None:
    """Raise ShardError if a number of :func:`add_video_arguments` is out of range."""
    if args.fps is not None:
        check_rate(args.fps, "--fps")
    if args.min_frames < 1:
        raise ShardError(f"--min-frames {args.min_frames}: expected at least 1")
