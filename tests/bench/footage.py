"""Clips for measurements, from real data where it is at hand, and what machine they are measured on.

In: a folder that may hold real data (``kth/*.avi``, ``bair/*.npz``, ``mnist/*.gz``). Out: clips, digits, a heading.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.building.picture import Look
from shards.building.video import read_video
from shards.digits import DigitBank, load_digit_banks
from tests.bench.loader import textured_clips

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_DATA = Path(os.environ.get("ODEVID_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
_KTH_LENGTH = 450  # frames of a stand-in for a KTH video


@dataclass(frozen=True)
class Footage:
    """Clips of one dataset, and where they are from.

    Attributes:
        origin: for the heading.
        clips_TCHW: uint8.
    """

    origin: str
    clips_TCHW: list[np.ndarray]


def bair(data: Path) -> Footage:
    """Sequences of 30x3x64x64."""
    files = sorted((data / "bair").glob("*.npz"))
    if files:
        with np.load(files[0]) as sequences_THWC:
            clips = [np.ascontiguousarray(sequences_THWC[name].transpose(0, 3, 1, 2)) for name in sequences_THWC.files]
        return Footage(f"BAIR: {len(clips)} real sequences of 30 frames", clips)
    return Footage("BAIR: 8 textured clips of 30 frames", list(textured_clips(8)))


def kth(data: Path) -> Footage:
    """Whole videos of Tx1x64x64."""
    files = sorted((data / "kth").glob("*.avi"))
    if files:
        look = Look(64, resize="ffmpeg-bicubic", channels="first")
        clips = [read_video(file, look).frames_TCHW for file in files]
        lengths = sorted(len(clip) for clip in clips)
        return Footage(f"KTH: {len(clips)} real videos of {lengths[0]} to {lengths[-1]} frames", clips)
    clips = [np.concatenate([clip[:, :1]] * (_KTH_LENGTH // 30)) for clip in textured_clips(7)]
    return Footage(f"KTH: 7 textured clips of {_KTH_LENGTH} frames", clips)


def digits(data: Path) -> tuple[str, DigitBank]:
    """Digits for Moving MNIST, and where they are from."""
    folder = data / "mnist"
    if folder.is_dir():
        return "Moving MNIST: digits of MNIST", load_digit_banks(folder)["train"]
    return "Moving MNIST: scikit-learn's digits", load_digit_banks()["train"]


def heading() -> str:
    """Processor, cores, versions, commit, load: what numbers depend on."""
    import torch

    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith(("model name", "cpu MHz"))]
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    machine = " at ".join(models[:2]) + (" MHz" if len(models) > 1 else "")
    return f"{machine or platform.machine()}, {os.cpu_count()} cores; {versions}; commit {commit}; {load()}"


def load() -> str:
    """The load averages now."""
    return "load average " + ", ".join(f"{value:.1f}" for value in os.getloadavg())
