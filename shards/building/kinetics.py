"""Build Kinetics (human actions from YouTube) or folders laid out like it: ``build kinetics --raw DIR --out DIR``.

In, one of:

    DIR/train/CLASS/*.mp4, DIR/val/CLASS/*.mp4 and perhaps DIR/test/CLASS/*.mp4
    videos anywhere below DIR named YOUTUBEID_000010_000020.mp4, and the official CSV files with the columns label,
    youtube_id, time_start, time_end, split: given with --annotations, or found as DIR/*.csv or DIR/annotations/*.csv
    where DIR has no class folders in train, val or test

Out: ``video``, uint8 T3HW, and ``label``, int32: the place of the class among all class names in sorted order, from 0;
the manifest lists them. With CSV files those are the classes of all rows, so that a part of the videos has the labels
of the whole.
The papers of this project publish no preparation of Kinetics; the defaults are a Lanczos resize of the centre square.

--fps 25          videos differ in their rates, so all are resampled by time stamps.
--max-frames N    a longer video becomes several samples, one after the other, of at most N frames; a rest shorter than
                  --min-frames is left out.
--test-from test  test is the test split of the dataset. Its labels are not in every release, and many copies have none:
                  then there is no test split.
--test-from val   test is val, as papers report on Kinetics; valid is 5 % of train by SRVP's rule (numpy seed 42), so
                  that nothing is chosen on the test videos. The dataset's own test videos are left out.

Dead and damaged videos are usual here: they are left out and reported, unless --bad stop. Of a video of several
samples those before the damage are used, but not with --bad stop.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shards.building.class_folders import (
    ClassVideo,
    MakeLabelled,
    add_video_arguments,
    check_video_arguments,
    find_files,
    hold_out,
    labelled_items,
    labelled_specs,
)
from shards.building.picture import Look
from shards.building.plan import BuildPlan, Survey
from shards.errors import ShardError

DEFAULT_BAD = "skip"

_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validate": "valid", "validation": "valid"}
_SPLITS |= {"test": "test"}
_KEY_COLUMNS = ("youtube_id", "time_start", "time_end", "split")
_VALID_SHARE = 0.05
_LAYOUTS = (
    "expected DIR/train/CLASS/*.mp4 and DIR/val/CLASS/*.mp4, or videos named YOUTUBEID_000010_000020.mp4 and CSV files "
    "with the columns label,youtube_id,time_start,time_end,split"
)


@dataclass(frozen=True)
class Found:
    """What a raw folder holds.

    Attributes:
        classes: names in sorted order.
        videos: by split.
        notes: what is missing or left out.
        origin: for the manifest: folders, or digests of the CSV files.
    """

    classes: tuple[str, ...]
    videos: dict[str, list[ClassVideo]]
    origin: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass
class Annotations:
    """Rows of the CSV files.

    Attributes:
        rows: (split, label) by the name of the clip, ``YOUTUBEID_000010_000020``, in the order of the files.
        unlabelled: number of rows without a label.
        repeated: number of rows that name a clip again with another label or split.
    """

    rows: dict[str, tuple[str, str]] = field(default_factory=dict)
    unlabelled: int = 0
    repeated: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build kinetics``."""
    add = parser.add_argument
    add("--annotations", type=Path, nargs="+", metavar="CSV", help="official CSV files (default: see above)")
    add("--test-from", choices=("test", "val"), default="test", help="which videos are the test split (default: test)")
    add_video_arguments(parser, resize="lanczos", fps=25.0)
    longest_help = "longest sample; longer videos become several (default: 1000)"
    add("--max-frames", type=int, default=1000, metavar="T", help=longest_help)


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:  # noqa: ARG001 - lengths decide nothing here
    """What is to be built of the videos in ``args.raw``.

    Raises:
        ShardError: no such layout, malformed CSV files, no video, or options out of range.
    """
    check_video_arguments(args)
    if args.max_frames < args.min_frames:
        raise ShardError(f"--max-frames {args.max_frames} is less than --min-frames {args.min_frames}")
    found = _find(args)
    videos, notes = _assign(found, args.test_from)
    if not any(videos.values()):
        raise ShardError(f"no video to build from; {_LAYOUTS}", file=args.raw)
    look = Look(args.size, args.crop, args.resize)
    make = MakeLabelled(look, args.fps, args.min_frames, args.max_frames, keep_pieces=args.bad == "skip")
    names = ("test_from", "size", "crop", "resize", "fps", "min_frames", "max_frames")
    provenance = {
        "builder": "kinetics",
        "settings": {name: getattr(args, name) for name in names},
        "look": asdict(look),
        "classes": list(found.classes),
        "videos planned": {split: len(some) for split, some in videos.items()},
    }
    return BuildPlan(
        name=f"kinetics-{args.size}",
        arrays=labelled_specs(args.size, len(found.classes)),
        fps=args.fps,
        splits={split: labelled_items(some, make) for split, some in videos.items() if some},
        make=make,
        provenance=provenance | found.origin,
        notes=(*found.notes, *notes),
    )


def find_in_folders(raw: Path) -> Found | None:
    """The layout SPLIT/CLASS/video; None where no split folder has a class folder."""
    folders: dict[str, list[Path]] = {}
    for split_folder in sorted(path for path in raw.iterdir() if path.is_dir() and path.name.lower() in _SPLITS):
        folders.setdefault(_SPLITS[split_folder.name.lower()], []).extend(
            sorted(path for path in split_folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        )
    classes = tuple(sorted({folder.name for some in folders.values() for folder in some}))
    if not classes:
        return None
    labels = {name: label for label, name in enumerate(classes)}
    videos = {
        split: [_video(file, raw, folder.name, labels) for folder in some for file in find_files(folder)]
        for split, some in folders.items()
    }
    return Found(classes, videos, {"layout": "class folders"})


def find_by_annotations(raw: Path, tables: Sequence[Path]) -> Found:
    """Videos anywhere below ``raw``, with the split and class of the CSV files.

    Raises:
        ShardError: a CSV file is missing or malformed.
    """
    annotations = read_annotations(tables)
    classes = tuple(sorted({label for _, label in annotations.rows.values()}))
    labels = {name: label for label, name in enumerate(classes)}
    files: dict[str, Path] = {}
    found = find_files(raw)
    for file in found:
        files.setdefault(file.stem, file)
    videos: dict[str, list[ClassVideo]] = {}
    for name, (split, label) in annotations.rows.items():
        if name in files:
            videos.setdefault(split, []).append(_video(files[name], raw, label, labels))
    notes = tuple(_count_notes(annotations, files, len(found)))
    digests = {table.name: hashlib.sha256(table.read_bytes()).hexdigest() for table in tables}
    return Found(classes, videos, {"layout": "annotations", "annotations": digests}, notes)


def read_annotations(tables: Sequence[Path]) -> Annotations:
    """The rows of Kinetics' CSV files.

    Raises:
        ShardError: a file is missing, lacks a column, or has a time or split that is not one.
    """
    annotations = Annotations()
    for table in tables:
        if not table.is_file():
            raise ShardError("no such file", file=table, remedy="Give the official CSV files with --annotations.")
        try:
            with table.open(encoding="utf-8-sig", newline="") as lines:
                _add_table(annotations, csv.DictReader(lines), table)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ShardError(f"not a CSV file: {error}", file=table) from error
    return annotations


def _add_table(annotations: Annotations, reader: csv.DictReader[str], table: Path) -> None:
    columns = reader.fieldnames or ()
    missing = [name for name in _KEY_COLUMNS if name not in columns]
    if missing:
        problem = f"lacks the columns {','.join(missing)}; found {','.join(columns) or 'nothing'}"
        raise ShardError(problem, file=table)
    for row in reader:
        _add_row(annotations, row, table, reader.line_num)


def _add_row(annotations: Annotations, row: Mapping[str, str | None], table: Path, line: int) -> None:
    split = _SPLITS.get((row["split"] or "").strip().lower())
    try:
        start, end = (int(float(row[name] or "")) for name in ("time_start", "time_end"))
    except ValueError:
        split = None
    if split is None or not row["youtube_id"]:
        expected = "a video, two times in seconds, and train, val or test"
        raise ShardError(f"line {line} is {','.join(str(v) for v in row.values())}, expected {expected}", file=table)
    label = (row.get("label") or "").strip()
    if not label:
        annotations.unlabelled += 1
        return
    name = f"{row['youtube_id']}_{start:06d}_{end:06d}"
    annotations.repeated += annotations.rows.setdefault(name, (split, label)) != (split, label)


def _find(args: argparse.Namespace) -> Found:
    raw: Path = args.raw
    if not raw.is_dir():
        raise ShardError(f"not a folder; {_LAYOUTS}", file=raw)
    if args.annotations:
        return find_by_annotations(raw, args.annotations)
    found = find_in_folders(raw)
    if found is None:
        tables = sorted([*raw.glob("*.csv"), *(raw / "annotations").glob("*.csv")])
        if not tables:
            raise ShardError(f"neither class folders nor CSV files here; {_LAYOUTS}", file=raw)
        found = find_by_annotations(raw, tables)
    return found


def _assign(found: Found, test_from: str) -> tuple[dict[str, list[ClassVideo]], list[str]]:
    """Which videos go into which split, and what is to be said of it."""
    train, val, test = (found.videos.get(split, []) for split in ("train", "valid", "test"))
    notes = []
    if test_from == "val":
        kept, held_out = hold_out(len(train), _VALID_SHARE)
        notes.append(f"test is the dataset's val; valid is {len(held_out)} of its {len(train)} training videos")
        if test:
            notes.append(f"{len(test)} videos of the dataset's own test split are left out (--test-from val)")
        train, val, test = [train[i] for i in kept], [train[i] for i in held_out], val
    elif not test:
        notes.append("no split test: no labelled test videos here. --test-from val takes val, as papers report")
    splits = {"train": train, "valid": val, "test": test}
    notes += [f"no split {name}: there are no videos for it" for name in ("train", "valid") if not splits[name]]
    return splits, notes


def _video(file: Path, raw: Path, name: str, labels: Mapping[str, int]) -> ClassVideo:
    about = {"class": name, "label": labels[name], "source": file.relative_to(raw).as_posix()}
    return ClassVideo(file, f"{name}/{file.stem}", labels[name], about)


def _count_notes(annotations: Annotations, files: Mapping[str, Path], num_files: int) -> Iterator[str]:
    absent = [name for name in annotations.rows if name not in files]
    if absent:
        total = len(annotations.rows)
        yield f"{total - len(absent)} of {total} annotated videos are here: {len(absent)} missing (first: {absent[0]})"
    strangers = [file.name for name, file in files.items() if name not in annotations.rows]
    if strangers:
        yield f"{len(strangers)} videos are not annotated with a class and are left out (first: {strangers[0]})"
    if num_files > len(files):
        yield f"{num_files - len(files)} files have the name of another one and are left out"
    if annotations.unlabelled:
        yield f"{annotations.unlabelled} annotated videos have no label and are left out"
    if annotations.repeated:
        yield f"{annotations.repeated} rows name a clip again with another class or split: the first row counts"
