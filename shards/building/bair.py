"""Build BAIR robot pushing (64x64, colour, 30 frames) from its TFRecords: ``build bair --raw DIR --out DIR``.

In: DIR is ``softmotion30_44k``, or the folder that holds it: ``{train,test}/*.tfrecords``, in each record a video.
Out: of each video
    video                  uint8 T3HW   30 frames as stored, not resized
    actions                float32 TA   4 numbers per frame
    endeffector_positions  float32 TP   3 numbers per frame

Keys are RECORD_FILE/KKK with KKK counted from 001 as SRVP's and SVG's conversion does; meta says source and record.
A part of the files builds too, with a note of what is missing (published: 43,264 videos for training, 256 for testing).

--camera aux1   the one of both papers (default); main is the other one of the recording.

Splits: test is every test video, whole, in the order of file and record.
--valid published   train and valid are SRVP's 95 % and 5 % of the training videos, as its code does; its list is
                    sorted by file and record, so with all files the members are the published ones.
--valid none        all training videos train, as SVG and as SRVP's paper says, which names a validation split only for
                    KTH and Human3.6M; then train with eval.every=0.

--train-frames N    only the first N of the 30 frames of training videos are stored. SRVP starts its 12 frames anywhere
                    in 30 (default); SVG always at frame 0, so that it sees only the first 12: --train-frames 12 and
                    data.num_frames=12 in training. Both test from frame 0.

SVG takes test videos in the order of an unsorted directory listing.

A record whose checksum is wrong, or that lacks a frame, is one bad source. A file that is cut short, or where a length
is damaged, has lost what follows: with --bad stop nothing is built, with --bad skip the records before are used.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shards.building.plan import BadSource, BuildPlan, Item, Notice, Survey
from shards.building.published import Valid, add_valid_argument, train_and_valid
from shards.building.tfrecord import Scan, Values, parse_example, read_record, scan_records
from shards.errors import ShardError
from shards.manifest import ArraySpec, video_spec
from shards.writer import Sample

Camera = Literal["aux1", "main"]

DEFAULT_BAD = "stop"
NUM_FRAMES = 30
SIZE = 64
PUBLISHED = {"train": 43_264, "test": 256}
"""Number of videos. Source: the catalogue of TensorFlow Datasets, bair_robot_pushing_small."""

_FOLDER = "softmotion30_44k"
_LAYOUT = f"{_FOLDER}/train/*.tfrecords and {_FOLDER}/test/*.tfrecords, or these two folders themselves"
_FRAME_BYTES = SIZE * SIZE * 3
_BYTES_PER_FRAME = _FRAME_BYTES + 4 * 4 + 3 * 4
_ANY_NUMBER = float(np.finfo(np.float32).max)  # no range is published
_FILES_AT_ONCE = 16
# Array -> feature of a frame, numbers per frame. Source: as _PUBLISHED, and SVG's convert_bair.py.
_STATES = {"actions": ("action", 4), "endeffector_positions": ("endeffector_pos", 3)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build bair``."""
    camera_help = "which of the two cameras (default: aux1, as published)"
    parser.add_argument("--camera", choices=get_args(Camera), default="aux1", help=camera_help)
    add_valid_argument(parser)
    frames_help = "store the first N frames of training videos (default: all 30; SVG trains on the first 12)"
    parser.add_argument("--train-frames", type=int, default=NUM_FRAMES, metavar="N", help=frames_help)


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:  # noqa: ARG001 lengths are known
    """What is to be built of the record files in ``args.raw``.

    Raises:
        ShardError: no record files there, two whose names cannot be told apart in keys, or an option out of range.
        BadSource: files that cannot be read, are cut short or not TFRecords, and bad sources are to stop the build.
    """
    if not 1 <= args.train_frames <= NUM_FRAMES:
        raise ShardError(f"--train-frames {args.train_frames}: expected 1 to {NUM_FRAMES}")
    root = _find_root(args.raw)
    scans = {split: _scan(root / split) for split in PUBLISHED}
    lost = _lost([scan for scans in scans.values() for scan in scans.values()], stop=args.bad == "stop")
    videos = {split: _items(scans[split]) for split in PUBLISHED}
    files = {split: len(scans[split]) for split in PUBLISHED}
    found = {split: len(items) for split, items in videos.items()}
    if not any(found.values()):
        raise ShardError("no BAIR records here", file=root, remedy=f"Expected {_LAYOUT}.")
    train, valid = train_and_valid(videos["train"], args.valid)
    splits = {"train": _first_frames(train, args.train_frames), "valid": valid, "test": videos["test"]}
    return BuildPlan(
        name="bair-64" if args.camera == "aux1" else f"bair-64-{args.camera}",
        arrays=_arrays(NUM_FRAMES if args.train_frames == NUM_FRAMES else None),
        fps=None,
        splits={split: tuple(items) for split, items in splits.items() if items},
        make=MakeVideo(root, args.camera),
        provenance={
            "builder": "bair",
            "settings": {name: getattr(args, name) for name in ("camera", "valid", "train_frames")},
            "videos": {"found": found, "published": PUBLISHED},
        },
        notes=(*_missing(found, files, args.valid), *lost),
    )


@dataclass(frozen=True)
class MakeVideo:
    """Reads the record of an item.

    Attributes:
        root: ``softmotion30_44k``.
        camera: whose frames.
    """

    root: Path
    camera: Camera

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        """One sample.

        Raises:
            BadSource: the file cannot be read, a checksum is wrong, or the record is not a video of this dataset.
        """
        number = item.args["record"]
        data = read_record(item.source, number, item.args["offset"])
        where = f"{item.source}, record {number}, offset {item.args['offset']}"
        try:
            features = parse_example(data)
            arrays: dict[str, NDArray[Any]] = {"video": _video(features, self.camera)}
            for name, (feature, length) in _STATES.items():
                arrays[name] = _numbers(features, feature, length)
            arrays = {name: array[: item.args["frames"]] for name, array in arrays.items()}
        except BadSource as error:
            raise BadSource(error.kind, f"{where}: {error.detail}") from error
        yield Sample(item.key, arrays, {"source": str(item.source.relative_to(self.root)), "record": number})


def _video(features: Mapping[str, Values], camera: Camera) -> NDArray[np.uint8]:
    """Frames TCHW of a record: each is stored as the bytes of its pixels, HWC, though its name says encoded."""
    video_TCHW = np.empty((NUM_FRAMES, 3, SIZE, SIZE), np.uint8)
    for frame in range(NUM_FRAMES):
        name = f"{frame}/image_{camera}/encoded"
        values = features.get(name, [])
        if len(values) != 1 or not isinstance(values[0], bytes) or len(values[0]) != _FRAME_BYTES:
            expected = f"{_FRAME_BYTES} bytes ({SIZE}x{SIZE} pixels of 3)"
            raise BadSource("not a BAIR record", f"feature {name!r} is {_in_words(values)}, expected {expected}")
        frame_HWC = np.frombuffer(values[0], np.uint8).reshape(SIZE, SIZE, 3)
        video_TCHW[frame] = frame_HWC.transpose(2, 0, 1)
    return video_TCHW


def _numbers(features: Mapping[str, Values], feature: str, length: int) -> NDArray[np.float32]:
    """The vectors TX of all frames."""
    vectors_TX = np.empty((NUM_FRAMES, length), np.float32)
    for frame in range(NUM_FRAMES):
        name = f"{frame}/{feature}"
        values = features.get(name, [])
        if len(values) != length or isinstance(values[0], bytes) or not np.isfinite(np.array(values, float)).all():
            detail = f"feature {name!r} is {_in_words(values)}, expected {length} finite numbers"
            raise BadSource("not a BAIR record", detail)
        vectors_TX[frame] = values
    return vectors_TX


def _in_words(values: Values) -> str:
    if not values:
        return "missing or empty"
    if isinstance(values[0], bytes):
        return f"{len(values)} strings, the first of {len(values[0])} bytes"
    return f"{len(values)} numbers: {', '.join(f'{value:g}' for value in values[:8])}"


def _arrays(num_frames: int | None) -> dict[str, ArraySpec]:
    def state(name: str, axes: str) -> ArraySpec:
        return ArraySpec("float32", axes, (num_frames, _STATES[name][1]), (-_ANY_NUMBER, _ANY_NUMBER))

    return {
        "video": video_spec(num_frames, 3, SIZE, SIZE),
        "actions": state("actions", "TA"),
        "endeffector_positions": state("endeffector_positions", "TP"),
    }


def _find_root(raw: Path) -> Path:
    """The folder that holds train and test."""
    for root in (raw / _FOLDER, raw):
        if any((root / split).is_dir() for split in PUBLISHED):
            return root
    remedy = f"Expected {_LAYOUT}. How to get it: python -m shards download bair"
    raise ShardError("no BAIR record files here", file=raw, remedy=remedy)


def _scan(folder: Path) -> dict[Path, Scan]:
    """The records of the files of a split, in the published order: by the file's name without its ending.

    Raises:
        ShardError: the names of two files become the same in keys.
    """
    files = sorted(folder.glob("*.tfrecords"), key=lambda file: file.stem)
    twice = [stem for stem, number in Counter(map(_key_of, files)).items() if number > 1]
    if twice:
        problem = f"names of several files become {twice[0]!r} in keys, which have letters, digits and _ - = +"
        raise ShardError(problem, file=folder, remedy="Rename them; the published names differ.")
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:  # waits for the file system, not for the processor
        return dict(zip(files, pool.map(scan_records, files), strict=True))


def _key_of(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_=+-]", "_", file.stem)


def _lost(scans: Sequence[Scan], *, stop: bool) -> list[str]:
    """Notes of files whose end is lost.

    Raises:
        BadSource: there are some, and they are to stop the build.
    """
    troubled = [(scan, scan.trouble) for scan in scans if scan.trouble is not None]
    if stop and troubled:
        raise BadSource(troubled[0][1].kind, "\n  ".join(trouble.detail for _, trouble in troubled))
    return [f"{t.kind}: {t.detail}; {len(scan.records)} records before it are used" for scan, t in troubled]


def _items(scans: Mapping[Path, Scan]) -> list[Item]:
    """A record each: an unusable one costs no other, and reading stays in the order of the file."""
    return [
        Item(
            key=f"{_key_of(file)}/{record.number:03d}",
            source=file,
            args={"record": record.number, "offset": record.offset, "frames": NUM_FRAMES},
            num_samples=1,
            num_bytes=NUM_FRAMES * _BYTES_PER_FRAME,
        )
        for file, scan in scans.items()
        for record in scan.records
    ]


def _first_frames(items: Sequence[Item], num_frames: int) -> list[Item]:
    """The same records, of which only so many frames are stored."""
    size = num_frames * _BYTES_PER_FRAME
    return [replace(item, args={**item.args, "frames": num_frames}, num_bytes=size) for item in items]


def _missing(found: Mapping[str, int], files: Mapping[str, int], valid: Valid) -> list[str]:
    notes = []
    for split, published in PUBLISHED.items():
        if found[split] != published:
            what = f"{found[split]:,} of {published:,} published {split} videos are here, in {files[split]} files"
            drawn = split == "train" and valid == "published"
            meaning = "; so train and valid are not the published ones" if drawn else ""
            notes.append(what + meaning)
    return notes
