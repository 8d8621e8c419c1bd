"""Build Human3.6M (people in a studio, colour, 6.25 Hz) from the original videos: ``build human --raw DIR --out DIR``.

In: DIR/S1, S5, S6, S7, S8 (training) and S9, S11 (test), each with ``Videos/*.mp4``: 1000x1000 pixels, 50 Hz. Files
whose names begin with "_" (``_ALL 1.54138969.mp4``) are left out, as published. A part of the files builds too, with a
note of what is missing.
Out: ``video``, uint8 T3HW.

Pictures, as published by SRVP (after Minderer et al. 2019): from each frame the box from (100, 100) to (900, 900), then
Pillow's Lanczos resize to 64x64.

--stride 8      every 8th frame is stored, the rate at which SRVP trains and tests: 50 / 8 = 6.25 Hz. (SRVP stores all
                frames and leaves seven of eight out when it reads.)
--phases N      SRVP's training windows begin at any frame of the 50 Hz video, so they show all 8 phases of the stride.
                Default 1: only frames 0, 8, 16 ... are stored. N stores N samples of each training video, the first
                frames of which are spread over the stride; --phases 8 has every window that SRVP can draw, equally
                often but for the one frame by which phases differ in length, at 8 times the size. Validation and test
                videos are stored in phase 0.
--min-frames    a training video must give so many frames at the stored rate; 16 is what SRVP trains on, 121 raw frames.
                A validation or test video must give --test-frames of them.

Splits: subjects as above, as in the paper. valid is SRVP's 5 % of the training videos: numpy seed 42 over the sorted
file names, so it is the published one if all 600 videos are here; with --valid none all of them train.

--test-set published   1000 clips that SRVP's script draws with seed 42: a video among the sorted ones, then a first
                       frame of the 50 Hz video. The paper's text speaks of clips of 40 frames; its code and its
                       protocol (8 given, 45 predicted) have 53, the default of --test-frames. Samples are in the order
                       of the draw; SRVP's loader reads its files as test_0, test_1, test_10 ...
                       The draw depends on how many test videos there are and on the decoded length of each. SRVP
                       expects 120 per subject; copies are known that lack S11's ``Directions.54138969.mp4``. If the
                       authors' did, their clips are those of 239 videos: no list of them is published.
--test-set videos      whole test videos.
--test-set none        no test split.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from shards.building.class_folders import estimate_frames, may_be_video, plain_keys
from shards.building.picture import Look
from shards.building.plan import BadSource, BuildPlan, Item, Notice, Survey
from shards.building.published import Valid, add_valid_argument, train_and_valid
from shards.building.video import Clip, Frames, read_video
from shards.errors import ShardError
from shards.manifest import video_spec
from shards.writer import Sample

TestSet = Literal["published", "videos", "none"]

DEFAULT_BAD = "stop"
TRAIN_SUBJECTS = (1, 5, 6, 7, 8)
TEST_SUBJECTS = (9, 11)
RATE = 50.0
BOX = (100, 100, 900, 900)

_VIDEOS_PER_SUBJECT = 120
_PUBLISHED_STRIDE = 8
_PUBLISHED_CLIPS = 1000
_PUBLISHED_FRAMES = 53
_SEED = 42
_LAYOUT = "expected folders S1, S5, S6, S7, S8, S9, S11, each with Videos/*.mp4 such as 'Directions 1.54138969.mp4'"


@dataclass(frozen=True)
class HumanVideo:
    """One video: its file and the number of its subject."""

    file: Path
    subject: int

    @property
    def published_name(self) -> str:
        """Name of the file that the published preparation makes of it, by which videos are sorted."""
        return f"S{self.subject}-{self.file.stem}.npz"

    @property
    def about(self) -> dict[str, Any]:
        """For the sample's metadata: ``Directions 1.54138969`` is the action and the number of the camera."""
        action, _, camera = self.file.stem.rpartition(".")
        return {
            "subject": self.subject,
            "class": re.sub(r" \d+$", "", action),
            "action": action,
            "camera": camera,
            "source": f"S{self.subject}/Videos/{self.file.name}",
        }


@dataclass(frozen=True)
class MakeHuman:
    """Samples of an item: a training video in some phases, a whole video, or a clip of the test set.

    Attributes:
        look: how a frame becomes a picture.
        stride: raw frames from one stored frame to the next.
    """

    look: Look
    stride: int

    def __call__(self, item: Item) -> Iterator[Sample | Notice]:
        """Decode once, keep the frames of the stride.

        Raises:
            BadSource: the file cannot be decoded, or has too few frames for its split.
        """
        if "draw" in item.args:
            yield from self._clip(item)
            return
        phases: list[int] = item.args["phases"]
        step = self.stride if phases == [0] else 1
        clip = read_video(item.source, self.look, Frames(stride=step))
        yield from _notices(clip)
        least, keys = item.args["min_frames"], item.args["keys"]
        for key, phase in zip(keys, phases, strict=True):
            frames_TCHW = clip.frames_TCHW[phase :: self.stride // step]
            if len(frames_TCHW) < least:
                problem = f"{len(frames_TCHW)} frames at a stride of {self.stride} from frame {phase}"
                raise BadSource("too short", f"{problem}, its split needs {least}")
            yield Sample(key, {"video": frames_TCHW}, item.args["about"] | {"start": phase, "stride": self.stride})

    def _clip(self, item: Item) -> Iterator[Sample | Notice]:
        start, wanted = item.args["start"], item.args["frames"]
        clip = read_video(item.source, self.look, Frames(start=start, count=wanted, stride=self.stride))
        yield from _notices(clip)
        place = {"draw": item.args["draw"], "start": start, "stride": self.stride}
        yield Sample(item.key, {"video": clip.frames_TCHW}, item.args["about"] | place)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build human``."""
    add = parser.add_argument
    add("--size", type=int, default=64, metavar="S", help="height and width of a frame (default: 64)")
    stride_help = "store every Nth frame of the 50 Hz videos (default: 8, that is 6.25 Hz)"
    add("--stride", type=int, default=_PUBLISHED_STRIDE, metavar="N", help=stride_help)
    add("--phases", type=int, default=1, metavar="N", help="samples per training video, see above (default: 1)")
    least_help = "frames that a training video must give at the stored rate (default: 16)"
    add("--min-frames", type=int, default=16, metavar="T", help=least_help)
    add_valid_argument(parser)
    test_help = "SRVP's drawn clips (default), whole videos, or no test split"
    add("--test-set", choices=get_args(TestSet), default="published", help=test_help)
    clips_help = "clips to draw (default: 1000; fewer are the first of them)"
    add("--test-clips", type=int, default=_PUBLISHED_CLIPS, metavar="N", help=clips_help)
    frames_help = "frames of a test clip (default: 53, as the published code; the paper's text says 40)"
    add("--test-frames", type=int, default=_PUBLISHED_FRAMES, metavar="T", help=frames_help)


def plan(args: argparse.Namespace, survey: Survey) -> BuildPlan:
    """What is to be built of the videos in ``args.raw``.

    Raises:
        ShardError: no such videos there, options out of range, or test videos whose length cannot be known.
    """
    _check_options(args)
    training, testing = find_videos(args.raw, TRAIN_SUBJECTS), find_videos(args.raw, TEST_SUBJECTS)
    if not training and not testing:
        raise ShardError(f"no Human3.6M video here; {_LAYOUT}", file=args.raw)
    train, valid = train_and_valid(training, args.valid)
    phases = [number * args.stride // args.phases for number in range(args.phases)]
    splits = {
        "train": _whole_videos(train, args, phases, args.min_frames),
        "valid": _whole_videos(valid, args, [0], args.test_frames),
    }
    test = _TestSplit([])
    if args.test_set == "videos":
        test = _TestSplit(_whole_videos(testing, args, [0], args.test_frames))
    elif args.test_set == "published" and testing:
        test = _drawn_clips(testing, args, survey)
    filled = {name: tuple(items) for name, items in (splits | {"test": test.items}).items() if items}
    if not filled:
        raise ShardError("only test videos, and no test set is wanted", file=args.raw, remedy="Leave --test-set out.")
    look = Look(args.size, BOX, "lanczos")
    return BuildPlan(
        name=f"human-{args.size}",
        arrays={"video": video_spec(None, 3, args.size, args.size)},
        fps=RATE / args.stride,
        splits=filled,
        make=MakeHuman(look, args.stride),
        provenance=_provenance(args, look, training, testing) | test.provenance,
        notes=(*_missing(training, testing, args.valid), *_absent_splits(filled, args), *test.notes),
    )


def find_videos(raw: Path, subjects: Sequence[int]) -> list[HumanVideo]:
    """Videos of some subjects in the published order: that of the file names ``S11-Directions 1.54138969.npz``."""
    found = []
    for subject in subjects:
        folder = raw / f"S{subject}" / "Videos"
        files = folder.iterdir() if folder.is_dir() else ()
        found += [HumanVideo(f, subject) for f in files if _is_wanted(f)]
    return sorted(found, key=lambda video: video.published_name)


def _is_wanted(file: Path) -> bool:
    return file.suffix.lower() == ".mp4" and file.name[0] not in "_." and may_be_video(file)


def draw_clips(lengths: Sequence[int], num_clips: int, num_frames: int, stride: int) -> list[tuple[int, int]]:
    """SRVP's test clips (``preprocessing/human/make_test_set.py``): numpy's legacy stream with seed 42.

    Args:
        lengths: raw frames of each test video in the published order; each is at least a clip long.
        num_clips: how many.
        num_frames: of a clip.
        stride: raw frames from one frame of a clip to the next.

    Returns:
        For each clip the place of its video in the list and its first raw frame.
    """
    draws = np.random.RandomState(_SEED)
    span = _span(num_frames, stride)
    clips = []
    for _ in range(num_clips):
        video = int(draws.randint(len(lengths)))
        clips.append((video, int(draws.randint(lengths[video] - span + 1))))
    return clips


@dataclass(frozen=True)
class _TestSplit:
    """Items of the test split, and what is to be said of them."""

    items: list[Item]
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)


def _span(num_frames: int, stride: int) -> int:
    """Raw frames from the first to the last frame of a clip."""
    return (num_frames - 1) * stride + 1


def _check_options(args: argparse.Namespace) -> None:
    for name in ("size", "stride", "phases", "min_frames", "test_clips", "test_frames"):
        if (value := getattr(args, name)) < 1:
            raise ShardError(f"--{name.replace('_', '-')} {value}: expected at least 1")
    if args.phases > args.stride:
        raise ShardError(f"--phases {args.phases}: a stride of {args.stride} has only {args.stride} phases")
    if args.test_set != "published" and args.test_clips != _PUBLISHED_CLIPS:
        raise ShardError(f"--test-clips {args.test_clips} would do nothing with --test-set {args.test_set}")


def _whole_videos(videos: Sequence[HumanVideo], args: argparse.Namespace, phases: list[int], least: int) -> list[Item]:
    keys = _keys(videos)
    items = []
    for video, key, num_frames in zip(videos, keys, estimate_frames([v.file for v in videos]), strict=True):
        own = [key] if len(phases) == 1 else [f"{key}=phase{phase}" for phase in phases]
        settings = {"about": video.about, "phases": phases, "keys": own, "min_frames": least}
        size = len(phases) * (num_frames // args.stride) * 3 * args.size**2
        items.append(Item(key, video.file, settings, len(phases), size))
    return items


def _drawn_clips(testing: Sequence[HumanVideo], args: argparse.Namespace, survey: Survey) -> _TestSplit:
    """The published draw over the videos that are here and can be used."""
    lengths, notes = _usable_lengths(testing, args, survey)
    videos = [video for video in testing if video in lengths]
    draw = draw_clips([lengths[v] for v in videos], args.test_clips, args.test_frames, args.stride)
    items = []
    for number, (place, start) in enumerate(draw):
        settings = {"about": videos[place].about, "draw": number, "start": start, "frames": args.test_frames}
        size = args.test_frames * 3 * args.size**2
        items.append(Item(f"test_{number:04d}", videos[place].file, settings, 1, size))
    wanted = {"videos": len(TEST_SUBJECTS) * _VIDEOS_PER_SUBJECT, "stride": _PUBLISHED_STRIDE}
    wanted |= {"frames": _PUBLISHED_FRAMES}
    found = {"videos": len(videos), "stride": args.stride, "frames": args.test_frames}
    differing = [f"{name} {found[name]}, published {wanted[name]}" for name in wanted if found[name] != wanted[name]]
    if differing:
        notes += (f"test: these are NOT the published clips: {'; '.join(differing)}",)
    drawn = {"seed": _SEED, "clips": args.test_clips, **found, "differs": differing}
    return _TestSplit(items, notes, {"test_draw": drawn, "lengths": {"decoded": len(lengths)}})


def _usable_lengths(
    testing: Sequence[HumanVideo], args: argparse.Namespace, survey: Survey
) -> tuple[dict[HumanVideo, int], tuple[str, ...]]:
    """Decoded lengths of the test videos that are long enough; a note if others are left out.

    Raises:
        ShardError: some cannot be decoded or are too short and none may be left out, or none is left.
    """
    found = survey([video.file for video in testing])
    span = _span(args.test_frames, args.stride)
    lengths: dict[HumanVideo, int] = {}
    refused = []
    for video in testing:
        length = found[video.file]
        if isinstance(length, BadSource):
            refused.append(f"{video.file} ({length})")
        elif length < span:
            refused.append(f"{video.file} (too short: {length} frames, a clip spans {span})")
        else:
            lengths[video] = length
    if refused:
        problem = f"{len(refused)} of {len(testing)} test videos cannot be drawn from: {refused[0]}"
        if (getattr(args, "bad", None) or DEFAULT_BAD) == "stop" or not lengths:
            remedy = "Repair them, or give --bad skip (then other clips are drawn) or --test-set none."
            raise ShardError(problem, remedy=remedy)
        return lengths, (f"test: {problem}",)
    return lengths, ()


def _keys(videos: Sequence[HumanVideo]) -> list[str]:
    return plain_keys([f"S{video.subject}/{video.file.stem}" for video in videos])


def _notices(clip: Clip) -> Iterator[Notice]:
    yield from clip.notices
    if clip.rate is not None and abs(clip.rate - RATE) > 0.01:
        yield Notice("other frame rate", f"{clip.rate:g} Hz, expected {RATE:g}: frames are counted, not timed")


def _missing(training: Sequence[HumanVideo], testing: Sequence[HumanVideo], valid: Valid) -> Iterator[str]:
    """A line for the training and for the test videos if they are not as many as published."""
    for name, videos, subjects in (("train", training, TRAIN_SUBJECTS), ("test", testing, TEST_SUBJECTS)):
        counts = Counter(video.subject for video in videos)
        others = [f"S{s}: {counts[s]}" for s in subjects if counts[s] != _VIDEOS_PER_SUBJECT]
        if others:
            expected = len(subjects) * _VIDEOS_PER_SUBJECT
            problem = f"{name}: {len(videos)} of {expected} videos are here ({', '.join(others)}; expected 120 each)"
            drawn = name == "train" and valid == "published"
            yield problem + ("; the validation videos are not the published ones" if drawn else "")


def _absent_splits(filled: dict[str, tuple[Item, ...]], args: argparse.Namespace) -> Iterator[str]:
    for name in ("train", "valid", "test"):
        unwanted = {"valid": args.valid, "test": args.test_set}.get(name) == "none"
        if name not in filled and not unwanted:
            yield f"no split {name}: there are no videos for it"


def _provenance(
    args: argparse.Namespace, look: Look, training: Sequence[HumanVideo], testing: Sequence[HumanVideo]
) -> dict[str, Any]:
    names = ("size", "stride", "phases", "min_frames", "valid", "test_set", "test_clips", "test_frames")
    return {
        "builder": "human",
        "settings": {name: getattr(args, name) for name in names},
        "look": asdict(look),
        "subjects": {"train": list(TRAIN_SUBJECTS), "test": list(TEST_SUBJECTS)},
        "videos": {"train and valid": len(training), "test": len(testing), "published": {"train": 600, "test": 240}},
    }
