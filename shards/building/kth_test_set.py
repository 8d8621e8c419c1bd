"""SRVP's KTH test set: which 1000 clips of 40 frames its script draws.

In: the number of frames of each test video: decoded, or inferred from ``00sequences.txt`` where a video is not there.
Out: clips, draw for draw those of ``preprocessing/kth/make_test_set.py`` (numpy's legacy generator, seed 42; for each
clip: class, person, trial, start), and the items of those whose video is there. The range of the last draw depends on
the video's length, so a wrong length may change any clip after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shards.building.kth_files import FPS, SEQUENCES, Video, first_few
from shards.building.kth_sequences import ALL_CLIPS, CLASSES, INFERRED, Annotations, ClipName
from shards.building.plan import BadSource, Item
from shards.errors import ShardError

NUM_CLIPS = 1000
NUM_FRAMES = 40
TEST_VIDEOS = tuple(name for name in ALL_CLIPS if name.is_test)
"""The 120 videos that the published clips are drawn from."""


@dataclass(frozen=True)
class DrawnSplit:
    """A test split to build.

    Attributes:
        items: one per clip, in the order of the draws.
        notes: what a person must know about them.
        provenance: for the manifest.
    """

    items: list[Item]
    notes: list[str]
    provenance: dict[str, Any]


def published_clips(
    videos: Sequence[Video], lengths: Mapping[ClipName, int], annotations: Annotations | None, size: int
) -> DrawnSplit:
    """Those of the published clips whose video is there.

    Args:
        videos: the test videos that are there.
        lengths: their decoded lengths; those without one cannot be used.
        annotations: for the lengths of the other videos; not needed where all 120 are there.
        size: rows and columns.

    Raises:
        ShardError: lengths would have to be inferred and there are no annotations; or a video is too short.
    """
    unknown = [name for name in TEST_VIDEOS if name not in lengths]
    if unknown and annotations is None:
        found = f"{len(unknown)} of the {len(TEST_VIDEOS)} test videos are not here or cannot be used"
        problem = f"{found} ({first_few(unknown)}); the published clips depend on their lengths too"
        remedy = (
            f"Put {SEQUENCES} into the raw folder or give it with --sequences, to infer the lengths;\n"
            "  or take --test-set available (other clips), videos (whole videos) or none."
        )
        raise ShardError(problem, remedy=remedy)
    inferred = {name: annotations.inferred_length(name) for name in unknown} if annotations else {}
    items = _items(draw_clips({**lengths, **inferred}), videos, lengths, size)
    notes = []
    if inferred:
        share = f"{len(items)} of the {NUM_CLIPS} published clips have their video here"
        lengths_note = f"{len(inferred)} of {len(TEST_VIDEOS)} lengths are {INFERRED}"
        notes.append(f"test: {share}; {lengths_note}; a wrong one may change any clip after it")
    if inferred and annotations and (unequal := _unequal(lengths, annotations)):
        notes.append(f"test: a length inferred like this would be wrong for {first_few(unequal)}")
    return DrawnSplit(items, notes, {"lengths": {"decoded": len(lengths), INFERRED: len(inferred)}})


def available_clips(videos: Sequence[Video], lengths: Mapping[ClipName, int], size: int) -> DrawnSplit:
    """Clips from the test videos that are there, by the published seed and order of draws.

    Args:
        videos: the test videos that are there.
        lengths: their decoded lengths; those without one cannot be used.
        size: rows and columns.

    Raises:
        ShardError: no test video is there, or one is too short.
    """
    notes = []
    if len(lengths) < len(TEST_VIDEOS):
        counts = f"{NUM_CLIPS} clips from {len(lengths)} of {len(TEST_VIDEOS)} videos"
        notes = [f"test: NOT the published clips: {counts}, by the published seed and order of draws"]
    items = _items(draw_clips(lengths), videos, lengths, size)
    return DrawnSplit(items, notes, {"lengths": {"decoded": len(lengths), INFERRED: 0}})


def decoded_lengths(
    videos: Sequence[Video], counted: Mapping[Path, int | BadSource], *, stop: bool
) -> tuple[dict[ClipName, int], list[str]]:
    """Lengths of the videos that can be decoded, and notes about the others.

    A length that is not exactly that of the published pictures would give other clips, so a video that lacks a single
    frame or runs at another rate than the original files is bad.

    Args:
        videos: the test videos that are there.
        counted: what the survey found.
        stop: whether a bad video is an error.

    Raises:
        BadSource: a video is bad and ``stop``.
    """
    lengths: dict[ClipName, int] = {}
    notes = []
    for video in videos:
        found = _checked(video, counted[video.file])
        if isinstance(found, int):
            lengths[video.name] = found
        elif stop:
            raise found
        else:
            notes.append(f"test: no clips of {video.about['source']}, {found.kind}: {found.detail}")
    return lengths, notes


@dataclass(frozen=True)
class DrawnClip:
    """One clip of the test set.

    Attributes:
        draw: its position in the test set, from 0.
        name: the video that it is cut from.
        start: its first frame, from 0.
    """

    draw: int
    name: ClipName
    start: int

    @property
    def key(self) -> str:
        """Position, video and first frame: ``0007-person21_boxing_d1-0123``."""
        return f"{self.draw:04d}-{self.name}-{self.start:04d}"


def draw_clips(lengths: Mapping[ClipName, int]) -> list[DrawnClip]:
    """The test set that the published script draws, with replacement.

    Given all 120 test videos these are the published clips. Given fewer, a draw of class, person and trial that names
    a video without a length is passed over: the same seed and order, but other clips.

    Args:
        lengths: frames of each test video.

    Raises:
        ShardError: no test video, or one that is shorter than a clip.
    """
    lengths = {name: length for name, length in lengths.items() if name.is_test}
    if not lengths:
        raise ShardError("no test video (persons 21 to 25) to draw clips from", remedy="Give --test-set none.")
    for name, length in lengths.items():
        if length < NUM_FRAMES:
            raise ShardError(f"{name} has {length} frames, a test clip needs {NUM_FRAMES}; is the file complete?")
    random = np.random.RandomState(42)
    clips: list[DrawnClip] = []
    while len(clips) < NUM_CLIPS:
        action = CLASSES[random.randint(len(CLASSES))]
        person = int(random.randint(21, 26))
        name = ClipName(action, person, int(random.randint(1, 5)))
        if name in lengths:
            start = int(random.randint(lengths[name] - NUM_FRAMES + 1))
            clips.append(DrawnClip(len(clips), name, start))
    return clips


def _items(
    clips: Sequence[DrawnClip], videos: Sequence[Video], lengths: Mapping[ClipName, int], size: int
) -> list[Item]:
    """One item for each clip whose video is there."""
    about = {video.name: (video.file, video.about) for video in videos if video.name in lengths}
    items = []
    for clip in clips:
        if clip.name in about:
            file, facts = about[clip.name]
            args = {"about": {**facts, "draw": clip.draw, "start": clip.start}, "start": clip.start}
            items.append(Item(clip.key, file, args, 1, NUM_FRAMES * size**2))
    return items


def _checked(video: Video, found: int | BadSource) -> int | BadSource:
    if isinstance(found, int) and found < video.frames:
        return BadSource("truncated", f"{video.file}: {found} of {video.frames} announced frames")
    if isinstance(found, int) and video.rate not in (FPS, None):
        return BadSource("frame rate", f"{video.file}: {video.rate:g} frames per second, originals have {FPS:g}")
    return found


def _unequal(lengths: Mapping[ClipName, int], annotations: Annotations) -> list[str]:
    """Videos whose decoded length is not what would have been inferred."""
    known = {name: annotations.inferred_length(name) for name in lengths if name in annotations.ranges}
    return [f"{name} ({known[name]}, decoded {lengths[name]})" for name in known if known[name] != lengths[name]]
