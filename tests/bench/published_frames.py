"""The published way to store and read clips: a PNG file per frame (SRVP's and SVG's KTH, SRVP's BAIR).

In: clips. Out: folders in the published layout, and a loader that reads windows of them as the published one does: a
random window of a random video, one ``Image.open`` per frame, a uint8 array per clip, one float batch in [0, 1].

Axis letters: T frames, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

_ENDLESS = 10**9


def write_frames(folder: Path, clips_TCHW: Sequence[np.ndarray]) -> list[list[str]]:
    """One folder per clip, RGB: ``image-001.png`` ... of one channel, ``000.png`` ... of three; returns the paths."""
    videos = []
    for number, clip_TCHW in enumerate(clips_TCHW, start=1):
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        is_grey = clip_TCHW.shape[1] == 1
        paths = []
        for t, frame_CHW in enumerate(clip_TCHW):
            paths.append(str(place / (f"image-{t + 1:03d}.png" if is_grey else f"{t:03d}.png")))
            frame_HWC = np.repeat(frame_CHW, 3, axis=0) if is_grey else frame_CHW
            Image.fromarray(np.ascontiguousarray(frame_HWC.transpose(1, 2, 0))).save(paths[-1])
        videos.append(paths)
    return videos


def read_frames(paths: Sequence[str], num_channels: int) -> np.ndarray:
    """Frames of one clip, uint8 THWC."""
    return np.stack([np.array(Image.open(path))[:, :, :num_channels] for path in paths])


@dataclass(frozen=True)
class PublishedFrames(Dataset[np.ndarray]):
    """Windows at random places of videos stored as PNG files.

    Attributes:
        videos: paths of each video's frames, in order.
        num_frames: of a window.
        num_channels: 1 keeps the first of the three.
    """

    videos: list[list[str]]
    num_frames: int
    num_channels: int

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, number: int) -> np.ndarray:
        paths = self.videos[number]
        start = np.random.randint(len(paths) - self.num_frames + 1)
        return read_frames(paths[start : start + self.num_frames], self.num_channels)


def collate(clips_THWC: list[np.ndarray]) -> torch.Tensor:
    """Float batch TBCHW in [0, 1], made on the CPU as published."""
    return torch.from_numpy(np.stack(clips_THWC, axis=1)).permute(0, 1, 4, 2, 3).float() / 255


def batches(dataset: PublishedFrames, batch: int, workers: int) -> Iterator[Any]:
    """Endless batches, by a plain torch DataLoader whose workers stay."""
    sampler = RandomSampler(dataset, replacement=True, num_samples=_ENDLESS)
    options: dict[str, Any] = {"collate_fn": collate, "worker_init_fn": _leave_at_once}
    options["multiprocessing_context"] = "spawn" if workers else None
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers, **options))


def _leave_at_once(_: int) -> None:
    """Else a worker that ends while it sends a batch aborts, with noise on the terminal."""
    atexit.register(os._exit, 0)
