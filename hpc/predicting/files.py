"""Which videos a command line means, and what the folder of each one's prediction is called.

In: paths of files and folders. Out: `Source`s, in the order given; those of a folder sorted by path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hpc.config import ConfigError
from shards.building.class_folders import plain_keys
from shards.building.video_list import list_videos


@dataclass(frozen=True)
class Source:
    """A video file, how messages call it, and the name of its folder among the predictions."""

    file: Path
    shown: str
    name: str


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The videos that are meant; two of the same name get folders NAME and NAME=2.

    Raises:
        ConfigError: nothing is named, or a path does not exist.
        ShardError: a folder without videos; the message lists what is there instead.
    """
    if not paths:
        raise ConfigError(
            "no video named: expected a file or a folder, such as\n    "
            "python hpc/launch.py predict run=RUN clip.mp4 --n-future 30 --samples 5"
        )
    files: list[tuple[Path, str, str]] = []
    for path in paths:
        if path.is_dir():
            files += [(video.file, video.name, video.name) for video in list_videos(path)]
        elif path.exists():
            files.append((path, str(path), path.name))
        else:
            raise ConfigError(f"{path}: no such file or folder (looked in {path.absolute().parent})")
    names = plain_keys([str(PurePosixPath(name).with_suffix("")) for _, _, name in files])
    return [Source(file, shown, name) for (file, shown, _), name in zip(files, names, strict=True)]
