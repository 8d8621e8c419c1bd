"""Small datasets for tests: clips whose every frame tells which clip and frame it is.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.dataset import ShardClips
from shards.folder import LocalFolder
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.opening import open_table
from shards.reader import ShardReader
from shards.writer import Sample, write_dataset

NUM_CLIPS, NUM_FRAMES, CHANNELS, SIDE = 23, 12, 3, 8
ARRAYS = {
    "video": video_spec(NUM_FRAMES, CHANNELS, SIDE, SIDE),
    "times": ArraySpec("float32", "T", (NUM_FRAMES,), (0.0, 1e6)),
    "label": ArraySpec("int64", "", (), (0, 1e6)),
}


def frames_of(clip: int) -> np.ndarray:
    """Frames of a clip: noise that depends on the clip, with the frame number in the first pixel."""
    frames_TCHW = np.random.default_rng(clip).integers(0, 256, (NUM_FRAMES, CHANNELS, SIDE, SIDE), dtype=np.uint8)
    frames_TCHW[:, 0, 0, 0] = np.arange(NUM_FRAMES)
    return frames_TCHW


def samples(num_clips: int = NUM_CLIPS) -> Iterator[Sample]:
    for clip in range(num_clips):
        times = (100 * clip + np.arange(NUM_FRAMES)).astype(np.float32)
        arrays = {"video": frames_of(clip), "times": times, "label": np.array(clip, dtype=np.int64)}
        yield Sample(f"clip{clip:03d}", arrays, {"class": clip % 3})


def make_dataset(root: Path, **changes: Any) -> Manifest:
    """A dataset with a split "train" of 23 clips in shards of 5, and a split "test" of 4."""
    options: dict[str, Any] = {"samples_per_shard": 5, "fps": 10.0, "provenance": {"command": "test"}} | changes
    return write_dataset(root, "tiny", {"train": samples(), "test": samples(4)}, ARRAYS, **options)


def open_reader(root: Path, split: str = "train", **options: Any) -> ShardReader:
    table = open_table(LocalFolder(root), Manifest.load(root), split, **options)
    assert isinstance(table, ShardReader)
    return table


def open_clips(root: Path, num_frames: int | None = 5, *, verify: bool = True, **options: Any) -> ShardClips:
    return ShardClips(open_reader(root, verify=verify), num_frames, **options)


def flip_bit(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(bytes(data))
