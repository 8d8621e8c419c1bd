"""Build a Moving MNIST dataset: ``python -m shards build moving-mnist --out DIR``.

In: a bank of digits (scikit-learn's, or MNIST's files) and the rules of the motion. Out: a dataset folder.

    sequences = 0 (default, as the paper trains)    train, valid: the digits themselves, in blocks; a source opened on
                                                    them draws the motion on the fly, endlessly (moving_mnist.py)
    sequences = N                                   train: N clips; valid: N / 20 clips of the held-out digits, longer
                                                    ones if asked for (--valid-frames)
    test set published | generated | none           test: clips of the test digits, with their latents

Clips are generated from hash(seed, position), so the same options give the same bytes.

Axes: N digits of a bank, B clips, T frames, C channels, H rows, W columns, D digits per clip,
S (row, column, row speed, column speed).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shards.digits import DIGIT_SIZE, DigitBank, load_digit_banks
from shards.errors import ShardError
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.mmnist_test_set import PUBLISHED_FRAMES_DETERMINISTIC, PUBLISHED_FRAMES_STOCHASTIC, published_videos
from shards.moving_mnist import MotionRules, generate_clips
from shards.writer import Sample, write_dataset

TestSet = Literal["published", "generated", "none"]

_DIGITS_PER_BLOCK = 1000
_CLIPS_AT_A_TIME = 64
_SAMPLES_PER_SHARD = 4096
_TRAIN_CLIPS_PER_VALID_CLIP = 20
# Splits take their motion from far apart places of the stream, to which endless training does not come either.
_FIRST_POSITION = {"train": 0, "valid": 1 << 40, "test": 1 << 41}


@dataclass(frozen=True)
class BuildOptions:
    """What to build.

    Attributes:
        mnist: folder of MNIST's four files; None for scikit-learn's digits.
        digits: digits per clip.
        deterministic: reflect at the walls; otherwise draw a new speed there.
        sequences: training clips to store; 0 stores the digits, for endless training.
        frames: frames of a stored training clip; None for the published 15. Only with ``sequences``.
        valid_frames: frames of a stored validation clip; None for as many. Only with ``sequences``.
        seed: of stored training clips and of a generated test set.
        test_set: ``published`` is the published construction, each test digit once; ``generated`` has any number of
            clips; or ``none``.
        test_sequences: test clips; None for all of the published construction, or 5000 generated ones.
        test_frames: frames of a test clip; None for the published 25 (stochastic) or 100 (deterministic).
        encoding: how pixels are stored, see encoding.py.

    Raises:
        ShardError: an option that would do nothing, or a number out of range.
    """

    mnist: Path | None = None
    digits: int = 2
    deterministic: bool = False
    sequences: int = 0
    frames: int | None = None
    valid_frames: int | None = None
    seed: int = 0
    test_set: TestSet = "published"
    test_sequences: int | None = None
    test_frames: int | None = None
    encoding: str = "zstd"

    def __post_init__(self) -> None:
        if self.test_set not in get_args(TestSet):
            raise ShardError(f"test set {self.test_set!r}: expected one of {', '.join(get_args(TestSet))}")
        if self.sequences < 0:
            raise ShardError(f"sequences={self.sequences}: expected a number of clips, or 0 for endless training")
        for name in ("frames", "valid_frames", "test_sequences", "test_frames"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ShardError(f"{name}={value}: expected at least 1")
        for name in ("frames", "valid_frames"):
            if (value := getattr(self, name)) is not None and self.sequences == 0:
                option = f"--{name.replace('_', '-')}"
                remedy = f"Give --sequences too, or leave {option} out: endless clips get their length when drawn."
                raise ShardError(f"{name}={value} would do nothing without stored training clips", remedy=remedy)
        if self.test_set == "none" and (self.test_sequences or self.test_frames):
            raise ShardError("test_sequences and test_frames would do nothing with test set 'none'; leave them out")

    @property
    def rules(self) -> MotionRules:
        """What moves, and how."""
        return MotionRules(digits=self.digits, deterministic=self.deterministic)

    @property
    def training_frames(self) -> int:
        """Frames of a stored training clip."""
        return self.frames or 15

    @property
    def validation_frames(self) -> int:
        """Frames of a stored validation clip."""
        return self.valid_frames or self.training_frames

    @property
    def testing_frames(self) -> int:
        """Frames of a test clip."""
        published = PUBLISHED_FRAMES_DETERMINISTIC if self.deterministic else PUBLISHED_FRAMES_STOCHASTIC
        return self.test_frames or published


@dataclass(frozen=True)
class _Split:
    """A split to write: its samples, how many, and the arrays they have."""

    samples: Iterator[Sample]
    count: int
    arrays: dict[str, ArraySpec]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``build moving-mnist``: one for each field of :class:`BuildOptions`, and ``--out``."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the new dataset; missing or empty")
    add("--mnist", type=Path, metavar="DIR", help="folder of the four MNIST .gz files (default: scikit-learn's digits)")
    motion = parser.add_mutually_exclusive_group()
    stochastic_help = "draw a new speed at each bounce (default)"
    motion.add_argument("--stochastic", action="store_false", dest="deterministic", help=stochastic_help)
    motion.add_argument("--deterministic", action="store_true", help="reflect at the walls")
    parser.set_defaults(deterministic=False)
    add("--digits", type=int, default=2, metavar="N", help="digits per clip (default: 2)")
    sequences_help = "training clips to store (default 0: store the digits and draw clips endlessly while training)"
    add("--sequences", type=int, default=0, metavar="N", help=sequences_help)
    add("--frames", type=int, metavar="T", help="frames of a stored training clip (default: 15)")
    add("--valid-frames", type=int, metavar="T", help="frames of a stored validation clip (default: as --frames)")
    add("--seed", type=int, default=0, help="of stored training clips and a generated test set (default: 0)")
    test_help = "published: each test digit once, draw for draw as published (default); generated: any number of clips"
    add("--test-set", choices=get_args(TestSet), default="published", help=test_help)
    add("--test-sequences", type=int, metavar="N", help="test clips (default: all published ones, or 5000 generated)")
    add("--test-frames", type=int, metavar="T", help="of a test clip (default: 25 if stochastic, 100 if deterministic)")
    add("--encoding", default="zstd", help="zstd (default), raw, mp4 or mp4:CRF")


def run(args: argparse.Namespace, command: str) -> Manifest:
    """Build as the parsed options of :func:`add_arguments` say; ``command`` is what a person typed."""
    options = {name: getattr(args, name) for name in BuildOptions.__dataclass_fields__}
    return build_moving_mnist(args.out, command=command, **options)


def build_moving_mnist(out: Path | str, *, command: str = "", **options: Any) -> Manifest:
    """Write a Moving MNIST dataset folder, with a progress bar on a terminal.

    Args:
        out: the new folder; missing or empty.
        command: that a person would type to build the same, for the manifest.
        options: fields of :class:`BuildOptions`.

    Returns:
        The manifest, as saved.

    Raises:
        ShardError: options that do not fit, MNIST files that are not as they should be, no room on the disk.
    """
    wanted = BuildOptions(**options)
    banks = load_digit_banks(wanted.mnist)
    splits = _plan(wanted, banks)
    motion = "deterministic" if wanted.deterministic else "stochastic"
    with _progress_bar({name: split.count for name, split in splits.items()}) as on_sample:
        return write_dataset(
            out,
            f"moving-mnist-{banks['train'].origin}-{wanted.digits}digit-{motion}",
            {name: split.samples for name, split in splits.items()},
            _merge_specs([split.arrays for split in splits.values()]),
            encoding=wanted.encoding,
            samples_per_shard=_SAMPLES_PER_SHARD,
            provenance=_provenance(wanted, banks, command),
            on_sample=on_sample,
        )


def _plan(options: BuildOptions, banks: dict[str, DigitBank]) -> dict[str, _Split]:
    """The splits to write."""
    if options.sequences == 0:
        splits = {name: _digit_split(banks[name]) for name in ("train", "valid")}
    else:
        held_out = max(1, options.sequences // _TRAIN_CLIPS_PER_VALID_CLIP)
        splits = {
            name: _generated_split(name, banks[name], options, count, num_frames)
            for name, count, num_frames in (
                ("train", options.sequences, options.training_frames),
                ("valid", held_out, options.validation_frames),
            )
        }
    if options.test_set == "published":
        splits["test"] = _published_split(banks["test"], options)
    elif options.test_set == "generated":
        count = options.test_sequences or 5000
        splits["test"] = _generated_split("test", banks["test"], options, count, options.testing_frames)
    return splits


def _digit_split(bank: DigitBank) -> _Split:
    """The digits of a bank, in blocks."""
    starts = range(0, len(bank), _DIGITS_PER_BLOCK)
    arrays = {
        "digits": ArraySpec("uint8", "NHW", (None, DIGIT_SIZE, DIGIT_SIZE), (0, 255)),
        "labels": ArraySpec("uint8", "N", (None,), (0, 9)),
    }

    def samples() -> Iterator[Sample]:
        for number, start in enumerate(starts):
            block = slice(start, start + _DIGITS_PER_BLOCK)
            yield Sample(f"digits{number:04d}", {"digits": bank.images_NHW[block], "labels": bank.labels_N[block]})

    return _Split(samples(), len(starts), arrays)


def _generated_split(split: str, bank: DigitBank, options: BuildOptions, count: int, num_frames: int) -> _Split:
    """Clips from hash(seed, position)."""
    rules, first = options.rules, _FIRST_POSITION[split]

    def samples() -> Iterator[Sample]:
        for start in range(0, count, _CLIPS_AT_A_TIME):
            numbers = np.arange(start, min(start + _CLIPS_AT_A_TIME, count))
            clips = generate_clips(bank, rules, num_frames, first + numbers, options.seed)
            for clip, number in enumerate(numbers.tolist()):
                yield _clip_sample(number, clips.video_BTHW[clip], clips.latents_BTD4[clip], clips.labels_BD[clip])

    return _Split(samples(), count, _clip_specs(rules, num_frames))


def _published_split(bank: DigitBank, options: BuildOptions) -> _Split:
    """Clips of the published test set, from its beginning."""
    rules, num_frames = options.rules, options.testing_frames
    available = len(bank) // rules.digits
    count = options.test_sequences or available
    if count > available or available == 0:
        problem = f"the published construction gives {available} clips of {rules.digits} of the {len(bank)} test digits"
        raise ShardError(f"{problem}, asked for {count}", remedy="Ask for fewer, or give --test-set generated.")

    def samples() -> Iterator[Sample]:
        videos = published_videos(bank, num_frames, rules.digits, deterministic=rules.deterministic)
        for number, video in enumerate(islice(videos, count)):
            yield _clip_sample(number, video.video_THW, video.latents_TD4, video.labels_D)

    return _Split(samples(), count, _clip_specs(rules, num_frames))


def _clip_sample(
    number: int, video_THW: NDArray[np.uint8], latents_TDS: NDArray[np.int64], labels_D: NDArray[np.uint8]
) -> Sample:
    arrays: dict[str, NDArray[Any]] = {"video": video_THW[:, None], "latents": latents_TDS.astype(np.int16)}
    return Sample(f"{number:07d}", arrays, {"labels": labels_D.tolist()})


def _clip_specs(rules: MotionRules, num_frames: int) -> dict[str, ArraySpec]:
    latents = ArraySpec("int16", "TDS", (num_frames, rules.digits, 4), (-rules.max_speed, rules.limit))
    return {"video": video_spec(num_frames, 1, rules.frame_size, rules.frame_size), "latents": latents}


def _merge_specs(specs: list[dict[str, ArraySpec]]) -> dict[str, ArraySpec]:
    """Declarations for the dataset: a length of an axis that differs between splits becomes None."""
    merged: dict[str, ArraySpec] = {}
    for name, spec in (item for arrays in specs for item in arrays.items()):
        other = merged.get(name, spec)
        shape = tuple(a if a == b else None for a, b in zip(spec.shape, other.shape, strict=True))
        merged[name] = ArraySpec(spec.dtype, spec.axes, shape, spec.range)
    return merged


def _provenance(options: BuildOptions, banks: dict[str, DigitBank], command: str) -> dict[str, Any]:
    """For the manifest. ``generator`` holds the rules by which clips are drawn from the digits of train and valid."""
    settings = asdict(options)
    del settings["mnist"], settings["encoding"]  # a path of this machine; the manifest has the encoding
    if options.sequences:
        settings |= {"frames": options.training_frames, "valid_frames": options.validation_frames}
    return {
        **({"command": command} if command else {}),
        "builder": "moving-mnist",
        "generator": asdict(options.rules),
        "settings": settings,
        "digits": {"origin": banks["train"].origin} | {name: bank.fingerprint for name, bank in banks.items()},
    }


@contextmanager
def _progress_bar(totals: dict[str, int]) -> Iterator[Callable[[str], None]]:
    """A bar per split on standard error, if that is a terminal. Yields what is to be called for every sample."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        tasks = {split: progress.add_task(split, total=total) for split, total in totals.items()}
        yield lambda split: progress.advance(tasks[split])
