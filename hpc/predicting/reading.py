"""The first frames of a video file, made as the frames that a run was trained on.

In: a run's configuration and its dataset's manifest, what the user typed, a file. Out: `Reading`, how files are read
and why so; `Opening`, the frames that the model is given and those that truly follow.

Legend: T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from hpc.config import Config, ConfigError
from hpc.data import dataset_root, is_remote
from shards.building.picture import Channels, Crop, Look, Resize
from shards.building.plan import BadSource, Notice
from shards.building.video import Frames, check_rate, iterate_video, probe
from shards.building.videos import parse_crop
from shards.errors import ShardError
from shards.manifest import Manifest

OWN = "own"  # as a rate: every frame as it is stored
_SAME_RATE = 1e-4  # 29.97 and 30 frames per second differ by 1e-3


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        look: crop, size and channels of a picture.
        fps: frames per second; None takes every frame.
        resamples: take frames by their time stamps also where the file's own rate is `fps`.
        why: in words, for the user: which crop and rate, and where they come from.
    """

    look: Look
    fps: float | None
    resamples: bool
    why: str


@dataclass(frozen=True)
class Opening:
    """The beginning of a video.

    Attributes:
        given_TCHW: uint8, what the model is given.
        truth_TCHW: uint8, the frames that follow, as many as there are of those that are to be predicted.
        fps: frames per second of both, None if the file does not say.
        first: number of the first given frame among those that the reading takes, from 0.
        notices: what is odd about the file.
    """

    given_TCHW: NDArray[np.uint8]
    truth_TCHW: NDArray[np.uint8]
    fps: float | None
    first: int
    notices: tuple[Notice, ...]


def reading_of(config: Config, fps: str = "", crop: str = "") -> Reading:
    """How a run's data was read, as far as its manifest tells, under what the user typed.

    Args:
        config: of the run.
        fps: a number, `own` for every frame, or nothing for the dataset's.
        crop: as of `python -m shards build videos`, or nothing for the dataset's.

    Raises:
        ConfigError: `fps` is not a rate.
        ShardError: `crop` is not one.
    """
    manifest, where = _manifest(config)
    provenance = manifest.provenance if manifest else {}
    made = _made_look(provenance.get("look"))
    nc, size, _ = config.model.frame_shape
    look = made or Look(size, "center")
    look = replace(look, size=size, channels=_channels(nc, made))
    crop_from = f"as {where} was built" if made else f"since {where} does not say"
    if crop:
        look, crop_from = replace(look, crop=parse_crop(crop)), "--crop"
    rate, resamples, rate_from = _rate(fps, manifest, where)
    rate_text = "every frame" if rate is None else f"{rate:g} frames per second"
    why = f"crop {_crop_text(look.crop)} ({crop_from}), {rate_text} ({rate_from})"
    return Reading(look, rate, resamples, why)


def read_opening(file: Path, reading: Reading, start_s: float, num_given: int, num_future: int, least: int) -> Opening:
    """Read `num_given` frames from `start_s` seconds on, and up to `num_future` that follow.

    Args:
        least: given frames with which the model could do at all, for the message.

    Raises:
        BadSource: the file cannot be read, has too few frames, or not so many in a second as are wanted of it.
    """
    rate = probe(file).rate
    fps = _resampled_to(reading, rate)
    per_second = fps or rate
    if start_s and per_second is None:
        raise BadSource("no frame rate", f"--start {start_s:g} needs one, and the file names none: give --fps F")
    first = round(start_s * (per_second or 0))
    wanted = num_given + num_future
    pictures, notices = _read(file, reading.look, Frames(fps=fps, start=first, count=wanted))
    if len(pictures) < num_given:
        raise BadSource("too short", _too_short(len(pictures), reading, start_s, num_given, least))
    frames_TCHW = np.stack(pictures)
    return Opening(frames_TCHW[:num_given], frames_TCHW[num_given:], per_second, first, tuple(notices))


def _read(file: Path, look: Look, which: Frames) -> tuple[list[NDArray[np.uint8]], list[Notice]]:
    """Pictures, at most as many as `which` wants: fewer where the file is whole, but shorter."""
    pictures: list[NDArray[np.uint8]] = []
    notices: list[Notice] = []
    try:
        for piece in iterate_video(file, look, which):
            if isinstance(piece, Notice):
                notices.append(piece)
            else:
                pictures.append(piece)
    except BadSource as error:
        if error.kind != "too short":
            raise
    return pictures, notices


def _resampled_to(reading: Reading, rate: float | None) -> float | None:
    """The rate that frames are taken at by their time stamps; None for every frame."""
    wanted = reading.fps
    if wanted is None:
        return None
    if rate is not None and wanted > rate * (1 + _SAME_RATE):
        raise BadSource(
            "frame rate",
            f"the file has {rate:g} frames per second, {wanted:g} are wanted, which would repeat frames: give --fps "
            f"{rate:g} or less, or --fps {OWN} for every frame",
        )
    is_its_own = rate is not None and abs(rate - wanted) <= _SAME_RATE * wanted
    return None if is_its_own and not reading.resamples else wanted


def _too_short(found: int, reading: Reading, start_s: float, needed: int, least: int) -> str:
    how = "every frame" if reading.fps is None else f"at {reading.fps:g} frames per second"
    ways = [f"--start with less than {start_s:g}"] if start_s else []
    ways += [f"--fps {OWN} or a higher rate"] if reading.fps is not None else []
    ways += [f"model.nt_cond={max(least, found)} (the model can do with {least})"] if found >= least else []
    remedy = f"; try {', or '.join(ways)}" if ways else "; a longer video is needed"
    return f"{found} frames from {start_s:g} s on ({how}), {needed} are given to the model{remedy}"


def _manifest(config: Config) -> tuple[Manifest | None, str]:
    """The manifest of the run's dataset if it is at hand, and how messages call the dataset."""
    root = dataset_root(config.data)
    name = f"dataset {config.data.name}"
    if is_remote(root):
        return None, f"{name} (not on this machine)"
    try:
        return Manifest.load(root), name
    except ShardError:
        return None, f"{name} (no manifest to read in {root})"


def _made_look(kept: Any) -> Look | None:
    """The look in a manifest's provenance; None where there is none, or one of another version."""
    if not isinstance(kept, Mapping) or set(kept) != {"size", "crop", "resize", "channels"}:
        return None
    crop = kept["crop"]
    box: Crop = tuple(crop) if isinstance(crop, list) else crop
    if kept["resize"] not in get_args(Resize) or kept["channels"] not in get_args(Channels):
        return None
    return Look(kept["size"], box, kept["resize"], kept["channels"])


def _channels(nc: int, made: Look | None) -> Channels:
    """Those of the dataset where they are as many as the model's; else colour, or grey by its usual weights."""
    if made and made.num_channels == nc:
        return made.channels
    return "rgb" if nc == 3 else "luma"


def _rate(typed: str, manifest: Manifest | None, where: str) -> tuple[float | None, bool, str]:
    """The rate, whether frames are resampled even if it is the file's own, and where it comes from."""
    if typed == OWN:
        return None, False, f"--fps {OWN}"
    if typed:
        return _typed_rate(typed), True, "--fps"
    settings = manifest.provenance.get("settings") if manifest else None
    built = settings.get("fps") if isinstance(settings, Mapping) else None
    if isinstance(built, int | float):
        return float(built), True, f"as {where} was built"
    if manifest and manifest.fps:
        return float(manifest.fps), False, f"the rate of {where}"
    return None, False, f"since {where} has no rate"


def _typed_rate(typed: str) -> float:
    try:
        rate = float(typed)
        check_rate(rate, "--fps")
    except (ValueError, ShardError) as error:
        raise ConfigError(
            f"--fps {typed}: expected frames per second, such as --fps 10, or --fps {OWN} for every frame"
        ) from error
    return rate


def _crop_text(crop: Crop) -> str:
    return ",".join(map(str, crop)) if isinstance(crop, tuple) else crop
