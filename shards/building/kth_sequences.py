"""KTH's clips by name, and their annotated sub-sequences: the file ``00sequences.txt`` of the original dataset.

    person01_boxing_d1		frames	1-95, 96-185, 186-245, 246-360      frames count from 1, ends are included
    person13_handclapping_d3	*missing*                               the one clip that was never there

In: that file. Out: ranges of frames for each clip. They are kept as annotated, also where they overlap or are out of
order; :meth:`Annotations.irregular` lists those. The subdivision of subjects in the file's header is that of its
authors (2004); the video prediction papers train on persons 1 to 20 and test on 21 to 25, and so does this project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from shards.errors import ShardError

CLASSES = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")
"""In the order of the published code; a class's position is its label."""

INFERRED = "inferred from 00sequences.txt"
"""What a length is called that no decoder has counted."""

_NAME = re.compile(rf"person(0[1-9]|1\d|2[0-5])_({'|'.join(CLASSES)})_d([1-4])")
_RANGE = re.compile(r"(\d+)-(\d+)")
_FORM = "expected a line like 'person01_boxing_d1  frames  1-95, 96-185' or 'person13_handclapping_d3  *missing*'"


@dataclass(frozen=True)
class ClipName:
    """Name of a clip in its parts.

    Attributes:
        action: one of :data:`CLASSES`.
        person: 1 to 25.
        trial: 1 to 4, the scenario: outdoors, with zoom, other clothes, indoors.
    """

    action: str
    person: int
    trial: int

    @classmethod
    def parse(cls, text: str) -> ClipName | None:
        """The parts of ``person01_boxing_d1``; None if that is no clip of KTH."""
        match = _NAME.fullmatch(text)
        return cls(match[2], int(match[1]), int(match[3])) if match else None

    def __str__(self) -> str:
        return f"person{self.person:02d}_{self.action}_d{self.trial}"

    @property
    def label(self) -> int:
        """Position of its class in :data:`CLASSES`."""
        return CLASSES.index(self.action)

    @property
    def is_test(self) -> bool:
        """Whether the papers test on it (persons 21 to 25)."""
        return self.person > 20


MISSING = ClipName("handclapping", 13, 3)
"""The clip that the original dataset lacks."""

ALL_CLIPS = tuple(
    clip
    for action in CLASSES
    for person in range(1, 26)
    for trial in range(1, 5)
    if (clip := ClipName(action, person, trial)) != MISSING
)
"""The 599 clips of the original dataset: by class, then by name."""


@dataclass(frozen=True)
class Annotations:
    """What ``00sequences.txt`` says.

    Attributes:
        ranges: first and last frame of each sub-sequence, counted from 1, both included, as annotated.
        missing: clips that the file marks as missing.
    """

    ranges: Mapping[ClipName, tuple[tuple[int, int], ...]]
    missing: tuple[ClipName, ...]

    def inferred_length(self, clip: ClipName) -> int:
        """The largest annotated frame: a guess at the number of frames, to be called :data:`INFERRED`.

        Raises:
            ShardError: the file has no ranges for this clip.
        """
        if clip not in self.ranges:
            raise ShardError(f"00sequences.txt has no frames for {clip}", remedy="Take the original file.")
        return max(last for _, last in self.ranges[clip])

    def irregular(self) -> dict[ClipName, str]:
        """Clips whose ranges are not four, overlap or are out of order, with what was found."""
        findings = {clip: _irregularities(ranges) for clip, ranges in self.ranges.items()}
        return {clip: finding for clip, finding in findings.items() if finding}


def read_annotations(file: Path) -> Annotations:
    """Read ``00sequences.txt``.

    Everything before the first line that begins with ``person`` is the header.

    Raises:
        ShardError: no such file, nothing in it, a line that cannot be understood (with its number), or a clip twice.
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        remedy = "Give the file of the original dataset: --sequences .../00sequences.txt"
        raise ShardError(f"cannot be read ({error.strerror})", file=file, remedy=remedy) from error
    ranges: dict[ClipName, tuple[tuple[int, int], ...]] = {}
    lines: dict[ClipName, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or not (lines or line.lstrip().startswith("person")):
            continue
        clip, found = _parse_line(line, file, number)
        if clip in lines:
            raise ShardError(f"line {number}: {clip} is in line {lines[clip]} already", file=file)
        lines[clip] = number
        if found:
            ranges[clip] = found
    if not ranges:
        raise ShardError(f"no annotated clip in it; {_FORM}", file=file)
    return Annotations(ranges, tuple(clip for clip in lines if clip not in ranges))


def _parse_line(line: str, file: Path, number: int) -> tuple[ClipName, tuple[tuple[int, int], ...]]:
    """A clip and its ranges, none if it is marked as missing."""
    name, rest = [*line.split(maxsplit=1), ""][:2]
    clip = ClipName.parse(name)
    if clip is None:
        raise ShardError(f"line {number}: {name!r} is no clip of KTH; {_FORM}", file=file)
    if rest.strip() == "*missing*":
        return clip, ()
    word, *numbers = rest.split(maxsplit=1) or [""]
    matches = [_RANGE.fullmatch(part.strip()) for part in "".join(numbers).split(",")]
    ranges = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if word != "frames" or len(ranges) != len(matches):
        raise ShardError(f"line {number}: found {line.strip()!r}; {_FORM}", file=file)
    for first, last in ranges:
        if not 1 <= first <= last:
            raise ShardError(
                f"line {number}: frames {first}-{last} of {clip} are no range; frames start at 1", file=file
            )
    return clip, ranges


def _irregularities(ranges: tuple[tuple[int, int], ...]) -> str:
    findings = [] if len(ranges) == 4 else [f"{len(ranges)} ranges"]
    for (first, last), (next_first, next_last) in pairwise(ranges):
        pair = f"{first}-{last} and {next_first}-{next_last}"
        if next_last < first:
            findings.append(f"{pair} are out of order")
        elif next_first <= last:
            findings.append(f"{pair} overlap")
    return ", ".join(findings)
