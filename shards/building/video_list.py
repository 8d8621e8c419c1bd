"""Which videos a user means: a folder, a text list or a CSV table.

In: the path given with --raw. Out: files with their names and, from a table, their labels and splits.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shards.building.class_folders import VIDEO_SUFFIXES, find_files, is_video, may_be_video
from shards.building.plan import printable
from shards.errors import ShardError

SPLITS = ("train", "valid", "test")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_EXAMPLE = "Write it so:\n    path,label,split\n    clips/a.mp4,running,train"


@dataclass(frozen=True)
class ListedVideo:
    """A video that a user wants.

    Attributes:
        file: the video.
        name: its path relative to the folder or to the list that names it, with ``/``; a list may name files elsewhere.
            Bytes that are no UTF-8 are replaced, so that it can be printed.
        label: name of its class, None without labels.
        split: where a table says so.
    """

    file: Path
    name: str
    label: str | None = None
    split: str | None = None


def list_videos(raw: Path) -> list[ListedVideo]:
    """The videos of a folder (sorted by path) or of a list (in its order).

    Args:
        raw: a folder, searched with all folders below; or a ``.csv`` table with a header: ``path``, and perhaps
            ``label`` and ``split``; ``.tsv``, the same with tabs; or a text file with a path in each line, but for
            empty lines and those that begin with ``#``. Paths are relative to the list's folder.

    Raises:
        ShardError: nothing there, files that do not exist or are named twice, a malformed table. A broken link is a
            file: reading it fails, which is then told.
    """
    if raw.is_dir():
        return _in_folder(raw)
    if not raw.is_file():
        raise ShardError("no such file or folder", file=raw, remedy="Give a folder of videos, a text list or a CSV.")
    if is_video(raw.name):
        raise ShardError("this is a video, expected a folder or a list", file=raw, remedy=f"Give --raw {raw.parent}")
    try:
        with raw.open(encoding="utf-8-sig", newline="") as lines:
            delimiter = _DELIMITERS.get(raw.suffix.lower())
            found = _in_lines(raw, lines) if delimiter is None else _in_table(raw, lines, delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        problem = f"not a list of videos: {error}"
        raise ShardError(problem, file=raw, remedy="Give a folder of videos, or a list in UTF-8.") from error
    if not found:
        raise ShardError("names no videos", file=raw, remedy="Write the path of one video in each line.")
    _check_files(found, raw)
    return found


def _in_folder(raw: Path) -> list[ListedVideo]:
    found = [ListedVideo(file, printable(file.relative_to(raw))) for file in find_files(raw)]
    if not found:
        others = Counter(path.suffix.lower() or "without extension" for path in raw.rglob("*") if path.is_file())
        listing = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5)) or "no files at all"
        looked_for = " ".join(sorted(VIDEO_SUFFIXES))
        problem = f"no video files ({looked_for}) in this folder or below; found: {listing}"
        raise ShardError(problem, file=raw, remedy="Videos with other extensions can be named in a text list.")
    return found


def _in_lines(raw: Path, lines: Iterable[str]) -> list[ListedVideo]:
    paths = (line.strip() for line in lines)
    return [_listed(raw, path) for path in paths if path and not path.startswith("#")]


def _in_table(raw: Path, lines: Iterable[str], delimiter: str) -> list[ListedVideo]:
    reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
    columns = [column.strip() for column in reader.fieldnames or ()]
    if "path" not in columns:
        problem = f"no column 'path' in the header; found: {', '.join(columns) or 'nothing'}"
        raise ShardError(problem, file=raw, remedy=_EXAMPLE)
    reader.fieldnames = columns
    rows = [{name: (row.get(name) or "").strip() for name in columns} for row in reader]
    for column in ("path", "label", "split"):
        empty = [number for number, row in enumerate(rows, start=1) if column in columns and not row[column]]
        if empty:
            problem = f"column '{column}' is empty in {len(empty)} of {len(rows)} rows (first: row {empty[0]})"
            raise ShardError(problem, file=raw, remedy=f"Fill it in everywhere, or leave the column '{column}' out.")
    strangers = sorted({row["split"] for row in rows if "split" in columns} - set(SPLITS))
    if strangers:
        raise ShardError(f"splits {', '.join(strangers)}: expected one of {', '.join(SPLITS)}", file=raw)
    return [_listed(raw, row["path"], row.get("label"), row.get("split")) for row in rows]


def _listed(raw: Path, path: str, label: str | None = None, split: str | None = None) -> ListedVideo:
    return ListedVideo(raw.parent / path, PurePosixPath(os.path.normpath(path)).as_posix(), label, split)


def _check_files(found: Sequence[ListedVideo], raw: Path) -> None:
    strange = [video.name for video in found if not may_be_video(video.file)]
    if strange:
        raise ShardError(f"{len(strange)} of {len(found)} listed paths are no files (first: {strange[0]})", file=raw)
    missing = [video.name for video in found if not os.path.lexists(video.file)]
    if missing:
        problem = f"{len(missing)} of {len(found)} listed files do not exist (first: {missing[0]})"
        raise ShardError(problem, file=raw, remedy=f"Paths are relative to {raw.absolute().parent}")
    name, count = Counter(video.name for video in found).most_common(1)[0]
    if count > 1:
        raise ShardError(f"{name} is listed {count} times", file=raw, remedy="Name each video once.")
