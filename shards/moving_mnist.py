"""Endless Moving MNIST: clips of digits whose motion is drawn on the fly.

In: a bank of digits, the rules of the motion, positions of the endless training stream. Out: uint8 clips.

    (seed, position, digit) --hash--> which digit, start, speed --bounce (hash per bounce)--> corners --draw--> video

Everything random about clip ``position`` is a function of (seed, position): no generator state, so any worker of any
rank makes the same clip. The distribution is that of SRVP's published generator: digit uniform in the bank; start
uniform over the whole pixels of the box; each component of the speed uniform in ``-max_speed .. max_speed``.

Axes: B clips, T frames, D digits per clip, N = B * D moving points, C channels, H rows, W columns,
2 (row, column), 4 (row, column, row speed, column speed).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shards.bouncing import Trajectory, bounce
from shards.digits import DIGIT_SIZE, DigitBank
from shards.errors import ShardError
from shards.hashing import mix, uniform_int
from shards.manifest import ArraySpec, Manifest, video_spec
from shards.source import Fetched, Substitution
from shards.sprites import draw_sprites

if TYPE_CHECKING:
    from shards.reader import ClipTable

NOMINAL_LENGTH = 500_000  # clips per "epoch", as in the published code; the stream is endless
READING_SEED = 0x5EED_0F_C11B5  # seed of the clips that read() gives, whatever the seed of the training

_DRAW_DIGIT, _DRAW_START, _DRAW_SPEED, _DRAW_FIRST_BOUNCE = 0, 1, 2, 3
_RULES_VERSION = 1  # part of the fingerprint: raise it when the same (seed, position) gives another clip


@dataclass(frozen=True)
class MotionRules:
    """What moves, and how.

    Attributes:
        digits: digits per clip.
        deterministic: reflect at the walls; otherwise draw a new speed there.
        frame_size: side of the square frame, in pixels.
        max_speed: largest component of a speed, in pixels per frame.

    Raises:
        ShardError: a number is out of range.
    """

    digits: int = 2
    deterministic: bool = False
    frame_size: int = 64
    max_speed: int = 4

    def __post_init__(self) -> None:
        if self.digits < 1:
            raise ShardError(f"digits={self.digits}: a clip needs at least one digit")
        if self.frame_size < DIGIT_SIZE:
            raise ShardError(f"frame_size={self.frame_size}: a digit of {DIGIT_SIZE} pixels does not fit")
        if self.max_speed < 0:
            raise ShardError(f"max_speed={self.max_speed}: must be 0 or more pixels per frame")

    @property
    def limit(self) -> int:
        """Largest coordinate of a digit's corner, in pixels."""
        return self.frame_size - DIGIT_SIZE


@dataclass(frozen=True)
class GeneratedClips:
    """Clips with all that was drawn for them.

    Attributes:
        video_BTHW: uint8.
        latents_BTD4: int64, rounded position and speed of each digit: row, column, row speed, column speed.
        labels_BD: uint8, which numeral each digit is.
    """

    video_BTHW: NDArray[np.uint8]
    latents_BTD4: NDArray[np.int64]
    labels_BD: NDArray[np.uint8]


class MovingMnistClips:
    """A :class:`shards.source.ClipSource` that makes its clips.

    Args:
        bank: the digits of the split.
        num_frames: frames per clip.
        rules: what moves, and how.
    """

    def __init__(self, bank: DigitBank, num_frames: int, rules: MotionRules = MotionRules()) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: a clip needs at least one frame")
        self.bank = bank
        self.num_frames = num_frames
        self.rules = rules
        size = rules.frame_size
        self.arrays: dict[str, ArraySpec] = {"video": video_spec(num_frames, 1, size, size)}
        identity = ("moving-mnist", _RULES_VERSION, bank.fingerprint, sorted(asdict(rules).items()))
        self.fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()

    def __len__(self) -> int:
        return NOMINAL_LENGTH

    def fetch(self, positions: NDArray[np.int64], seed: int) -> Fetched:
        """Clips ``positions`` of the endless stream of ``seed``: ``video`` is uint8 BTCHW."""
        positions_B = np.asarray(positions, dtype=np.int64)
        clips = generate_clips(self.bank, self.rules, self.num_frames, positions_B, seed)
        return Fetched({"video": clips.video_BTHW[:, :, None]}, [f"generated-{place:012d}" for place in positions_B])

    def read(self, indices: Sequence[int]) -> Fetched:
        """Clips ``indices`` of one fixed stream, the same for every training seed."""
        return self.fetch(np.asarray(indices, dtype=np.int64), READING_SEED)

    def quarantine(self, records: Sequence[Substitution]) -> None:
        """Nothing to do: generated clips are never damaged, so ``records`` names none of them."""


def is_endless(manifest: Manifest, split: str) -> bool:
    """Whether a split holds digits to make clips of, instead of clips."""
    return "digits" in manifest.split(split).arrays


def open_endless(manifest: Manifest, table: ClipTable, num_frames: int) -> MovingMnistClips:
    """The source that draws clips from the digits of a split.

    Args:
        manifest: of a dataset of build_moving_mnist.py; its provenance holds the rules of the motion.
        table: the split's samples: blocks of digits and their labels.
        num_frames: frames per clip.

    Raises:
        ShardError: the manifest does not tell the rules, or a block of digits is damaged.
    """
    rules = _rules_from(manifest.provenance.get("generator"))
    blocks = [_read_block(table, number) for number in range(len(table))]
    images_NHW, labels_N = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    return MovingMnistClips(DigitBank(images_NHW, labels_N, origin=manifest.name), num_frames, rules)


def _read_block(table: ClipTable, number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Digits and labels of one sample."""
    shapes = table.shapes(number)
    images_NHW, labels_N = (np.empty(shapes[name], dtype=np.uint8) for name in ("digits", "labels"))
    table.read_into(number, "digits", 0, images_NHW)
    table.read_into(number, "labels", 0, labels_N)
    return images_NHW, labels_N


def _rules_from(settings: Any) -> MotionRules:
    """The rules of the motion as a manifest tells them."""
    wanted = {field.name: type(field.default) for field in fields(MotionRules)}
    found = {name: type(value) for name, value in settings.items()} if isinstance(settings, Mapping) else settings
    if found != wanted:
        expected = ", ".join(f"{name} ({kind.__name__})" for name, kind in wanted.items())
        problem = f"provenance.generator of the manifest is {settings!r}; endless clips need {expected}"
        raise ShardError(problem, remedy="Build the dataset again: python -m shards build moving-mnist --help")
    return MotionRules(**settings)


def generate_clips(
    bank: DigitBank, rules: MotionRules, num_frames: int, positions_B: NDArray[np.int64], seed: int
) -> GeneratedClips:
    """The clips at ``positions_B`` of the endless stream of ``seed``."""
    digits_BD = draw_digits(seed, positions_B, rules.digits, len(bank))
    motion = draw_motion(seed, positions_B, num_frames, rules)
    latents_T4N = np.concatenate([motion.corner_T2N, motion.velocity_T2N], axis=1)
    latents_BTD4 = latents_T4N.reshape(num_frames, 4, *digits_BD.shape).transpose(2, 0, 3, 1)
    video_BTHW = draw_sprites(bank.images_NHW[digits_BD], latents_BTD4[..., :2], rules.frame_size)
    return GeneratedClips(video_BTHW, latents_BTD4, bank.labels_N[digits_BD])


def draw_digits(seed: int, positions_B: NDArray[np.int64], digits: int, bank_size: int) -> NDArray[np.int64]:
    """Places in the bank of each clip's digits, BD."""
    return uniform_int(mix(seed, positions_B[:, None], np.arange(digits), _DRAW_DIGIT), bank_size)


def draw_motion(seed: int, positions_B: NDArray[np.int64], num_frames: int, rules: MotionRules) -> Trajectory:
    """Motion of all digits of the clips at ``positions_B``, with N running over clips, then digits."""
    position_N = np.repeat(positions_B, rules.digits)
    digit_N = np.tile(np.arange(rules.digits), len(positions_B))
    start_2N = _uniform_pairs(mix(seed, position_N, digit_N, _DRAW_START), rules.limit + 1)
    speed_2N = draw_speeds(mix(seed, position_N, digit_N, _DRAW_SPEED), rules.max_speed)

    def redraw(points_n: NDArray[np.int64], bounces_n: NDArray[np.int64]) -> NDArray[np.int64]:
        bits_n = mix(seed, position_N[points_n], digit_N[points_n], _DRAW_FIRST_BOUNCE + bounces_n)
        return draw_speeds(bits_n, rules.max_speed)

    chance: Callable[..., NDArray[np.int64]] | None = None if rules.deterministic else redraw
    return bounce(start_2N, speed_2N, num_frames, rules.limit, chance)


def draw_speeds(bits_N: NDArray[np.uint64], max_speed: int) -> NDArray[np.int64]:
    """Speeds 2N, each component uniform in ``-max_speed .. max_speed``, one word of random bits for each pair."""
    return _uniform_pairs(bits_N, 2 * max_speed + 1) - max_speed


def _uniform_pairs(bits_N: NDArray[np.uint64], choices: int) -> NDArray[np.int64]:
    """Two independent whole numbers in ``0 .. choices - 1`` from each word of random bits, 2N."""
    return np.stack(np.divmod(uniform_int(bits_N, choices**2), choices))
