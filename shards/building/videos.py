"""Build your own videos: ``python -m shards build videos --raw FOLDER --out DIR --size 64 --fps 10``.

In, one of:

    a folder            all videos in it and below
    a .csv file         a header, then a video in each row: path, and perhaps label (a word) and split (train, valid or
                        test); paths are relative to the file's folder; .tsv: the same with tabs for commas
    another text file   the path of a video in each line, relative to the file's folder; empty lines and those that
                        begin with # are passed over

Out: ``video``, uint8 TCHW; with labels also ``label``, int32: the place of the class among all names in sorted order.

--fps F           frames are taken by their time stamps, so files may differ in their rates. Without it every frame is
                  taken, and the dataset has a rate only if all files have the same.
--split F         a share F of the videos is train, and half of the rest each valid and test, which get at least one
                  video each where there are three; or three shares train,valid,test. Names decide where a video goes
                  (the rank of its name's digest with --split-seed), not the order of files.
--max-frames N    a longer video becomes several samples, one after the other, of at most N frames, all in one split; a
                  rest shorter than --min-frames is left out. MEASURED: a process of --workers needs the size of its
                  largest sample twice (2048 frames of 256x256 are 384 MiB), with --encoding mp4 three times and,
                  if --gray too, seven times.
--crop            center: the centre square; squash: the whole frame; L,T,R,B: a box in pixels of the frame.

Files that cannot be read, are truncated or too short are left out and listed at the end, unless --bad stop. Of a long
video the pieces before its damage are used, but not with --bad stop.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast, get_args

from shards.building.class_folders import MakeLabelled, check_video_arguments, plain_keys
from shards.building.picture import Crop, Look, Resize
from shards.building.plan import BadSource, BuildPlan, Item, Survey
from shards.building.video import Probe
from shards.building.video_list import SPLITS, ListedVideo, list_videos
from shards.errors import ShardError
from shards.manifest import ArraySpec, video_spec

DEFAULT_BAD = "skip"
DEFAULT_SPLIT = "0.9"

_SAME_RATE = 1e-4  # 29.97 and 30 frames per second differ by 1e-3

Plain = Literal["center", "squash"]
Shares = tuple[float, float, float]
Probed = Sequence[Probe | BadSource]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build videos``."""
    add = parser.add_argument
    add("--size", type=int, default=64, metavar="S", help="height and width of a frame (default: 64)")
    add("--fps", type=float, metavar="F", help="frames per second (default: every frame as it is stored)")
    split_help = f"share of train, or three shares train,valid,test (default: {DEFAULT_SPLIT}, or the CSV's split)"
    add("--split", metavar="F", help=split_help)
    add("--split-seed", type=int, default=0, metavar="N", help="draws the split (default: 0)")
    add("--crop", default="center", metavar="HOW", help="center (default), squash, or a box L,T,R,B in pixels")
    add("--gray", action="store_true", help="one channel")
    add("--resize", choices=get_args(Resize), default="lanczos", help="how frames are resized (default: lanczos)")
    add("--min-frames", type=int, default=2, metavar="N", help="videos with fewer are too short (default: 2)")
    add("--max-frames", type=int, default=2048, metavar="N", help="longest sample, see above (default: 2048)")
    labels_help = "a video's class is the name of the folder it lies in (default: none, or the CSV's label)"
    add("--labels", choices=("from-folders",), help=labels_help)


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:
    """What is to be built of the videos that ``args.raw`` names; reads containers' headers, decodes nothing.

    Raises:
        ShardError: no videos, none that can be opened, a malformed list, or options that do not fit.
    """
    check_video_arguments(args)
    if args.max_frames < args.min_frames:
        raise ShardError(f"--max-frames {args.max_frames} is less than --min-frames {args.min_frames}")
    look = Look(args.size, parse_crop(args.crop), args.resize, "luma" if args.gray else "rgb")
    videos = _with_labels(list_videos(args.raw), args.labels, args.raw)
    classes = sorted({video.label for video in videos if video.label is not None})
    headers = survey.probes([video.file for video in videos])
    probed = [headers[video.file] for video in videos]
    splits, how = _splits(videos, probed, args)
    fps, notes = _common_rate(videos, probed, args.fps, args.raw)
    make = MakeLabelled(look, args.fps, args.min_frames, args.max_frames, keep_pieces=args.bad == "skip")
    items = _items(videos, probed, classes, make)
    arrays = {"video": video_spec(None, look.num_channels, look.size, look.size)}
    if classes:
        arrays["label"] = ArraySpec("int32", "", (), (0, len(classes) - 1))
    names = ("size", "fps", "split", "split_seed", "crop", "gray", "resize", "min_frames", "max_frames", "labels")
    provenance = {
        "builder": "videos",
        "settings": {name: getattr(args, name) for name in names},
        "look": asdict(look),
        "split from": how,
        "videos planned": {split: len(places) for split, places in splits.items()},
        **({"classes": classes} if classes else {}),
    }
    empty = [f"no split {name}: there are no videos for it" for name in SPLITS if not splits[name]]
    return BuildPlan(
        name=f"videos-{args.size}",
        arrays=arrays,
        fps=fps,
        splits={split: tuple(items[place] for place in places) for split, places in splits.items() if places},
        make=make,
        provenance=provenance,
        notes=(*notes, *empty),
    )


def parse_crop(text: str) -> Crop:
    """From ``center``, ``squash`` or ``L,T,R,B``.

    Raises:
        ShardError: anything else.
    """
    if text in get_args(Plain):
        return cast(Plain, text)
    try:
        left, top, right, bottom = (int(number) for number in text.split(","))
    except ValueError as error:
        remedy = "A box is four numbers of pixels: left,top,right,bottom, such as --crop 100,100,900,900"
        raise ShardError(f"--crop {text}: expected center, squash or L,T,R,B", remedy=remedy) from error
    return left, top, right, bottom


def parse_split(text: str) -> Shares:
    """Shares of train, valid and test from one number F (F and twice half of the rest) or three.

    Raises:
        ShardError: not such numbers, or they do not add up to 1.
    """
    remedy = "Give the share of train, such as --split 0.9, or three shares, such as --split 0.8,0.1,0.1"
    try:
        shares = tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise ShardError(f"--split {text}: not numbers", remedy=remedy) from error
    if len(shares) == 1:
        shares = (shares[0], (1 - shares[0]) / 2, (1 - shares[0]) / 2)
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ShardError(f"--split {text}: expected one share from 0 to 1, or three that add up to 1", remedy=remedy)
    return shares[0], shares[1], shares[2]


def split_counts(num: int, shares: Shares) -> tuple[int, int, int]:
    """How many of ``num`` videos each split gets: train its share, rounded down; valid and test divide the rest.

    Of a remainder valid gets the odd one. No split with a share stays empty as long as another has two videos.
    """
    train_share, *others = shares
    train = int(train_share * num + 1e-9)
    rest = num - train
    valid_part = others[0] / sum(others) if sum(others) else 0.0
    valid = math.ceil(rest * valid_part - 1e-9)
    counts = [train, valid, rest - valid]
    for place, share in enumerate(shares):
        largest = counts.index(max(counts))
        if share and not counts[place] and (counts[largest] > 1 or place == 0) and num:
            counts[largest] -= 1
            counts[place] += 1
    return counts[0], counts[1], counts[2]


def draw_split(names: Sequence[str], shares: Shares, seed: int) -> dict[str, list[int]]:
    """Places of the videos of each split, rising: the first ones by digest of seed and name are train, then valid."""
    ranked = sorted(range(len(names)), key=lambda place: _digest(seed, names[place]))
    train, valid, _ = split_counts(len(names), shares)
    bounds = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, len(names))}
    return {split: sorted(ranked[begin:end]) for split, (begin, end) in bounds.items()}


def _digest(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _with_labels(videos: list[ListedVideo], labels: str | None, raw: Path) -> list[ListedVideo]:
    """The same with their folders as classes, if so wanted."""
    if labels is None:
        return videos
    if any(video.label is not None for video in videos):
        raise ShardError("--labels from-folders, but the column 'label' has classes too; leave one out", file=raw)
    loose = [video.name for video in videos if not PurePosixPath(video.name).parent.name]
    if loose:
        problem = f"--labels from-folders: {len(loose)} videos lie in no class folder (first: {loose[0]})"
        raise ShardError(problem, file=raw, remedy="Expected CLASS/VIDEO. Move them, or leave --labels out.")
    return [replace(video, label=PurePosixPath(video.name).parent.name) for video in videos]


def _splits(
    videos: Sequence[ListedVideo], probed: Probed, args: argparse.Namespace
) -> tuple[dict[str, list[int]], str]:
    """Places of the videos of each split, and where the split comes from.

    Files whose headers say that they cannot be used have no part in the draw: they are listed with train.
    """
    if videos[0].split is None:
        shares = parse_split(args.split or DEFAULT_SPLIT)
        hopeless = [place for place, found in enumerate(probed) if _is_hopeless(found, args.fps, args.min_frames)]
        hopeful = sorted({*range(len(videos))} - {*hopeless})
        drawn = draw_split([videos[place].name for place in hopeful], shares, args.split_seed)
        places = {split: [hopeful[place] for place in drawn[split]] for split in SPLITS}
        return places | {"train": sorted(places["train"] + hopeless)}, "sha256 of seed and name"
    if args.split is not None:
        raise ShardError(f"--split {args.split}, but the column 'split' says it too; leave one out", file=args.raw)
    places = {split: [place for place, video in enumerate(videos) if video.split == split] for split in SPLITS}
    return places, "column 'split'"


def _is_hopeless(found: Probe | BadSource, fps: float | None, min_frames: int) -> bool:
    return isinstance(found, BadSource) or 0 < _length(found, fps) < min_frames


def _common_rate(
    videos: Sequence[ListedVideo], probed: Probed, fps: float | None, raw: Path
) -> tuple[float | None, list[str]]:
    """The dataset's rate, and what is to be said of the files' headers.

    Raises:
        ShardError: no file can be opened.
    """
    bad = [(video, found) for video, found in zip(videos, probed, strict=True) if isinstance(found, BadSource)]
    if len(bad) == len(videos):
        problem = f"none of the {len(videos)} videos can be opened (first: {bad[0][1].detail})"
        raise ShardError(problem, file=raw, remedy="Are they complete? Try: ffmpeg -i FILE -f null -")
    notes = []
    if bad:
        notes.append(f"{len(bad)} of {len(videos)} videos cannot be opened (first: {bad[0][0].name})")
    if fps is not None:
        return fps, notes
    rates = Counter(found.rate for found in probed if isinstance(found, Probe))
    known = sorted(rate for rate in rates if rate is not None)
    if known and len(known) == len(rates) and known[-1] - known[0] <= _SAME_RATE * known[0]:
        return rates.most_common(1)[0][0], notes
    table = ", ".join(f"{rate:.6g} ({n})" if rate else f"unknown ({n})" for rate, n in rates.most_common(5))
    notes.append(f"frame rates differ: {table}; the dataset gets none. --fps F takes all at one rate")
    return None, notes


def _items(videos: Sequence[ListedVideo], probed: Probed, classes: Sequence[str], make: MakeLabelled) -> list[Item]:
    """An item per video, in order. Where a header does not tell the length, it is taken to be the usual one."""
    lengths = [_length(found, make.fps) if isinstance(found, Probe) else 0 for found in probed]
    usual = int(statistics.median([length for length in lengths if length] or [make.max_frames or 1]))
    keys = plain_keys([str(PurePosixPath(video.name.lstrip("/")).with_suffix("")) for video in videos])
    labels = {name: label for label, name in enumerate(classes)}
    items = []
    for video, key, length, found in zip(videos, keys, lengths, probed, strict=True):
        frames = 0 if isinstance(found, BadSource) else length or usual
        about = _about(video, labels, found)
        num_samples = -(-frames // (make.max_frames or frames or 1))
        settings = {"about": about} | ({"label": about["label"]} if "label" in about else {})
        items.append(Item(key, video.file, settings, num_samples, frames * make.look.num_bytes))
    return items


def _about(video: ListedVideo, labels: Mapping[str, int], found: Probe | BadSource) -> dict[str, Any]:
    """For the sample's metadata."""
    about: dict[str, Any] = {"source": video.name}
    if video.label is not None:
        about |= {"class": video.label, "label": labels[video.label]}
    if isinstance(found, Probe) and found.rate:
        about["source_fps"] = found.rate
    return about


def _length(found: Probe, fps: float | None) -> int:
    """About how many frames will be taken; 0 if the header does not say."""
    if fps is not None and found.duration:
        return max(1, round(found.duration * fps))
    return found.frames or 0
