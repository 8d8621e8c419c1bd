"""A small dataset for tests of the engine: one raw file per clip, whose byte is the clip's grey value.

``make`` can be slow, fail on a file that says so, or tell something. It lies in a module so that workers can import it.
Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.building.plan import BadSource, BuildPlan, Item, Notice
from shards.manifest import video_spec
from shards.writer import Sample

SHAPE = (5, 1, 8, 8)
CLIP_BYTES = int(np.prod(SHAPE))


@dataclass(frozen=True)
class MakeWave:
    """One clip of one grey value. A file that holds ``bad`` cannot be used, ``bug`` is an error, ``kill`` kills."""

    pause_s: float = 0.0

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        time.sleep(self.pause_s)
        data = item.source.read_bytes()
        if data == b"bad":
            raise BadSource("unreadable", "holds the word bad")
        if data == b"bug":
            raise ValueError("a bug")
        if data == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if len(data) > 1:
            yield Notice("long file", f"{len(data)} bytes, only the first counts")
        yield Sample(item.key, {"video": np.full(SHAPE, data[0], np.uint8)}, {"source": item.source.name})


def write_raw(raw: Path, count: int) -> list[Path]:
    """Raw files with bytes 0, 1, 2 ..."""
    raw.mkdir(exist_ok=True)
    files = [raw / f"clip{number:03d}.bin" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    return files


def waves_plan(files: list[Path], pause_s: float = 0.0, level: int = 1) -> BuildPlan:
    """The last two files are the test split; ``level`` is a setting like any other."""
    items = [Item(file.stem, file, {}, 1, CLIP_BYTES) for file in files]
    splits = {"train": tuple(items[:-2]), "test": tuple(items[-2:])}
    arrays = {"video": video_spec(*SHAPE)}
    return BuildPlan("waves", arrays, 10.0, splits, MakeWave(pause_s), {"settings": {"level": level}}, ("a note",))
