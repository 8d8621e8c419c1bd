"""SRVP's KTH test set: which 1000 clips of 40 frames its script draws.

In: the number of frames of each test video. Out: clips, draw for draw those of ``preprocessing/kth/make_test_set.py``
(numpy's legacy generator, seed 42; for each clip: class, person, trial, start). The range of the last draw depends
on the video's length, so a wrong length may change every later clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shards.building.kth_sequences import CLASSES, ClipName
from shards.errors import ShardError

NUM_CLIPS = 1000
NUM_FRAMES = 40


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
