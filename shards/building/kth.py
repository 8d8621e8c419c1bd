"""Build KTH (actions of people, grey, 25 fps) from the original .avi files: ``build kth --raw DIR --out DIR``.

In: ``personNN_action_dN_uncomp.avi``, flat in DIR or one folder per class, and ``00sequences.txt`` where it is needed.
Out: ``video``, uint8 T1HW. A part of the files builds too, with a note of what is missing.

Pictures, as published by SVG and SRVP: 25 fps, ffmpeg's bicubic resize of 160x120 straight to 64x64 (SRVP) or 128x128
(SVG), the red channel of grey videos. MEASURED on seven original clips (2949 frames) at both sizes: every pixel equals
that of the published command line's PNG files, with the programs of FFmpeg 5.1 and 9.0.

Splits, as in both papers: persons 1-20 train, 21-25 test (the header of 00sequences.txt has another, older one).
valid is SRVP's 5 % of the training videos by its seed; but SRVP shuffles an unsorted directory listing, so its members
cannot be reproduced: here the list is by class, then by name. SVG has no validation split: --valid none trains on all.

--clips whole       one sample is one whole video. Training that draws samples uniformly and then a start is SRVP's
                    sampling. People leave the picture between passes, so clips may be empty, as published.
--clips annotated   SVG's: one sample of train and valid is one sub-sequence of 00sequences.txt (a stand-in for SVG's
                    own tables, which are no longer online). SVG draws class, video, sub-sequence in turn. Of the 479
                    training videos 475 have four sub-sequences and four have three, and handclapping has 79 videos,
                    not 80; so drawing 1912 samples uniformly differs from it in this: SVG takes a sub-sequence 1.328
                    times as often if its video has three, 1.008 times in handclapping, 0.996 times elsewhere.

--test-set published   the 1000 clips of 40 frames that SRVP's script draws with seed 42, those of them whose video is
                       here. The draws depend on the lengths of all 120 test videos: decoded where the video is here,
                       otherwise the last annotated frame of 00sequences.txt, and the manifest says which. A wrong
                       length may change any later clip. MEASURED: one length with a frame too many changes nothing
                       for 115 of the 120 videos, and up to 321 clips for the others.
--test-set available   the same seed and order of draws, but only from the videos that are here: not the published
                       clips unless all are here.
--test-set videos      whole test videos. SVG tests on random clips of them and publishes no list.
--test-set none        no test split.

One more difference: SRVP sorts frame files by names with three digits, which jumbles the frames of videos longer than
999 frames; by 00sequences.txt there are six, all of them for training. Here frames are in the order of time.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from shards.building.kth_files import FPS, SEQUENCES, RawFolder, Video, find_videos, first_few
from shards.building.kth_sequences import ALL_CLIPS, Annotations, read_annotations
from shards.building.kth_test_set import NUM_FRAMES, DrawnSplit, available_clips, decoded_lengths, published_clips
from shards.building.picture import Look
from shards.building.plan import BuildPlan, Item, Notice, Survey
from shards.building.published import add_valid_argument, train_and_valid
from shards.building.video import Frames, read_video
from shards.errors import ShardError
from shards.manifest import video_spec
from shards.writer import Sample

Clips = Literal["whole", "annotated"]
TestSet = Literal["published", "available", "videos", "none"]

DEFAULT_BAD = "stop"

_SUBJECTS = "persons 1-20 train, 21-25 test"
_SPLITS = f"{_SUBJECTS}; valid: 5 % of the former by SRVP's shuffle, of a list by class and name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build kth``."""
    add = parser.add_argument
    add("--size", type=int, choices=(64, 128), default=64, help="rows and columns of a frame (default: 64)")
    clips_help = "a sample is a whole video, as SRVP trains (default), or an annotated sub-sequence, as SVG trains"
    add("--clips", choices=get_args(Clips), default="whole", help=clips_help)
    test_help = "SRVP's 1000 clips (default), 1000 clips of the videos that are here, whole videos, or no test split"
    add("--test-set", choices=get_args(TestSet), default="published", help=test_help)
    add_valid_argument(parser)
    add("--sequences", type=Path, metavar="FILE", help=f"{SEQUENCES} (default: the one in --raw, if there is one)")


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:
    """What is to be built of the files in ``args.raw``.

    Raises:
        ShardError: no KTH video there, a clip twice, or ``00sequences.txt`` is needed and not there or malformed.
        BadSource: a test video cannot be decoded, and bad sources are to stop the build.
    """
    raw = find_videos(args.raw)
    sequences = args.sequences or (args.raw / SEQUENCES if (args.raw / SEQUENCES).is_file() else None)
    annotations = read_annotations(sequences) if sequences else None
    if args.clips == "annotated":
        items = _annotated_items(raw.training, annotations, args.size)
    else:
        items = [video.whole(args.size) for video in raw.training]
    train, valid = train_and_valid(items, args.valid)
    test = _test_split(args, raw.testing, annotations, survey)
    splits = {"train": tuple(train), "valid": tuple(valid), "test": tuple(test.items)}
    unwanted = {name for name, how in (("valid", args.valid), ("test", args.test_set)) if how == "none"}
    wanted = [name for name in splits if name not in unwanted]
    empty = [name for name in wanted if not splits[name]]
    if empty == wanted:
        raise ShardError("none of the wanted splits has a video", file=args.raw, remedy="Take another --test-set.")
    return BuildPlan(
        name=f"kth-{args.size}" if args.clips == "whole" else f"kth-{args.size}-annotated",
        arrays={"video": video_spec(None, 1, args.size, args.size)},
        fps=FPS,
        splits={name: items for name, items in splits.items() if items},
        make=MakeKth(_look(args.size)),
        provenance=_provenance(args, raw, sequences, annotations) | test.provenance,
        notes=(*raw.notes(), *(f"no split {name!r}: too few videos for it" for name in empty), *test.notes),
    )


@dataclass(frozen=True)
class MakeKth:
    """Samples of an item: one whole video, its annotated sub-sequences, or one clip of the test set.

    Attributes:
        look: how a frame becomes a picture.
    """

    look: Look

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        """Decode once, cut.

        Raises:
            BadSource: the file cannot be decoded to its announced end, or is too short for what is wanted of it.
        """
        if "start" in item.args:
            yield from self._test_clip(item)
            return
        clip = read_video(item.source, self.look, Frames(fps=FPS, exact_length=True))
        yield from clip.notices
        if "ranges" not in item.args:
            yield Sample(item.key, {"video": clip.frames_TCHW}, item.args["about"])
            return
        num_frames = len(clip.frames_TCHW)
        for number, (first, last) in enumerate(item.args["ranges"], start=1):
            if last > num_frames:
                kept = f"{first}-{num_frames} kept" if first <= num_frames else "left out"
                yield Notice("annotated past the end", f"frames {first}-{last} of a video of {num_frames}: {kept}")
            if first <= num_frames:
                place = {"subsequence": number, "first_frame": first, "last_frame": min(last, num_frames)}
                video_TCHW = clip.frames_TCHW[first - 1 : last]
                yield Sample(f"{item.key}-s{number}", {"video": video_TCHW}, {**item.args["about"], **place})

    def _test_clip(self, item: Item) -> Iterator[Sample | Notice]:
        start = item.args["start"]
        clip = read_video(item.source, self.look, Frames(fps=FPS, start=start, count=NUM_FRAMES))
        yield from clip.notices
        yield Sample(item.key, {"video": clip.frames_TCHW}, item.args["about"])


def _look(size: int) -> Look:
    return Look(size, crop="squash", resize="ffmpeg-bicubic", channels="first")


def _annotated_items(videos: Sequence[Video], annotations: Annotations | None, size: int) -> list[Item]:
    """One item per video; its samples are the sub-sequences."""
    unknown = [video.name for video in videos if annotations is None or video.name not in annotations.ranges]
    if annotations is None or unknown:
        problem = f"annotated clips need {SEQUENCES}: there is none, or it has no frames for {first_few(unknown)}"
        remedy = f"Put the original {SEQUENCES} into the raw folder, give it with --sequences, or take --clips whole."
        raise ShardError(problem, remedy=remedy)
    items = []
    for video in videos:
        ranges = [list(pair) for pair in annotations.ranges[video.name]]
        num_frames = sum(last - first + 1 for first, last in ranges)
        args = {"about": video.about, "ranges": ranges}
        items.append(Item(str(video.name), video.file, args, len(ranges), num_frames * size**2))
    return items


def _test_split(
    args: argparse.Namespace, videos: Sequence[Video], annotations: Annotations | None, survey: Survey
) -> DrawnSplit:
    if args.test_set == "none" or not videos:
        return DrawnSplit([], [], {})
    if args.test_set == "videos":
        return DrawnSplit([video.whole(args.size) for video in videos], [], {})
    stop = args.bad == "stop"
    lengths, notes = decoded_lengths(videos, survey([video.file for video in videos]), stop=stop)
    if not lengths:
        return DrawnSplit([], notes, {})
    if args.test_set == "published":
        test = published_clips(videos, lengths, annotations, args.size)
    else:
        test = available_clips(videos, lengths, args.size)
    return DrawnSplit(test.items, notes + test.notes, test.provenance)


def _provenance(
    args: argparse.Namespace, raw: RawFolder, sequences: Path | None, annotations: Annotations | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "builder": "kth",
        "settings": {name: getattr(args, name) for name in ("size", "clips", "test_set", "valid")},
        "look": asdict(_look(args.size)),
        "subjects": _SPLITS if args.valid == "published" else _SUBJECTS,
        "videos": {"found": len(raw.videos), "published": len(ALL_CLIPS)},
    }
    if sequences and annotations:
        sha256 = hashlib.sha256(sequences.read_bytes()).hexdigest()
        irregular = {str(name): finding for name, finding in annotations.irregular().items()}
        facts[SEQUENCES] = {"sha256": sha256, "irregular": irregular}
    return facts
