"""How far a run is and how fast, from the heads of its journal's lines: no value is decoded, so 15,000 lines are quick.

In:  RUN/metrics*.jsonl. Out: `Progress`: the step where the surviving lineage stands, the speed in it, the last sign of
     life of each attempt (an attempt that was killed has left no other), how long saves took.

A login node asks this about every run: `read_progress` reads the whole journal of one, `newest_sign` only its end.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hpc.tracking.journal import journal_files

TAIL_BYTES = 1 << 16
SPEED_LINES = 2000
"""Logged steps, the newest ones, over which speed is measured: validations and saves are in it."""
LONG_GAP_S = 3600.0
"""Two lines further apart than this, and than ten usual distances, were not training all the time: the processes were
suspended, or the clock was set."""

_HEAD = re.compile(
    rb'^\{"v":\d+,"seq":\d+,"kind":"(\w+)","attempt":(\d+),"step":(\d+),"time":([\d.e+]+)(.*)\n', re.MULTILINE
)
_STEP_S = re.compile(rb'"step_s":([\d.e+-]+)')


class Sign(NamedTuple):
    """Head of a line of the journal."""

    kind: str
    attempt: int
    step: int
    time: float


class Span(NamedTuple):
    """Training between two lines of one attempt."""

    attempt: int
    steps: int
    seconds: float


@dataclass
class Progress:
    """What the journal says about where a run stands."""

    step: int = 0
    """The last one known of the lineage that led to the present weights."""
    newest: Sign | None = None
    last: dict[int, Sign] = field(default_factory=dict)
    """The last sign of each attempt."""
    spans: list[Span] = field(default_factory=list)
    """Training in the surviving lineage, oldest first: steps that were computed twice are in it once."""
    step_s: float = 0.0
    """Seconds of a step by the newest line: all there is to know of the speed when no span is complete."""
    save_s: list[float] = field(default_factory=list)
    error: str = ""
    """The newest error, and"""
    error_sign: Sign | None = None
    """when it happened."""

    @property
    def trained_s(self) -> float:
        """Seconds of training that the present weights are made of."""
        return sum(span.seconds for span in self.spans)

    def speed(self, attempts: Sequence[int] | None = None) -> tuple[float, list[int]] | None:
        """Steps per second while training, lately, and the attempts that it was measured in; None: not known.

        Args:
            attempts: only of these.
        """
        spans = [span for span in self.spans if attempts is None or span.attempt in attempts][-SPEED_LINES:]
        if seconds := sum(span.seconds for span in spans):
            return sum(span.steps for span in spans) / seconds, sorted({span.attempt for span in spans})
        if self.step_s > 0 and self.newest and (attempts is None or self.newest.attempt in attempts):
            return 1 / self.step_s, [self.newest.attempt]
        return None


def read_progress(run_dir: Path) -> Progress:
    """The whole journal of a run; empty for a folder without one. Lines that are no records are passed over."""
    return _progress(path.read_bytes() for path in journal_files(run_dir))


def newest_sign(run_dir: Path) -> Progress:
    """The same from the end of the journal only: where the run stands, and its speed in the last minutes."""
    for path in reversed(journal_files(run_dir)):
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            found = _progress([file.read()])
        if found.newest:
            return found
    return Progress()


def _progress(parts: Iterable[bytes]) -> Progress:
    found, signs = Progress(), []
    for part in parts:
        for match in _HEAD.finditer(part):
            sign = Sign(match[1].decode(), int(match[2]), int(match[3]), float(match[4]))
            signs.append(sign)
            found.last[sign.attempt] = sign
            if sign.kind == "event":
                _take_event(found, sign, match[5])
            elif sign.kind == "train" and (step_s := _STEP_S.search(match[5])):
                found.step_s = float(step_s[1])
    if signs:
        found.newest = signs[-1]
        kept = _surviving(signs)
        found.step = max((sign.step for sign in kept), default=0)
        found.spans = _spans(kept)
    return found


def _take_event(found: Progress, sign: Sign, rest: bytes) -> None:
    """Of the events only the length of saves and the words of errors are wanted."""
    if b'"name":"saved"' not in rest and b'"name":"error"' not in rest:
        return
    try:
        details = json.loads(b"{" + rest.lstrip(b","))["details"]
    except (ValueError, KeyError):
        return
    if "seconds" in details:
        found.save_s.append(float(details["seconds"]))
    elif "message" in details:
        found.error, found.error_sign = f"{details.get('type', 'error')}: {details['message']}", sign


def _surviving(signs: list[Sign]) -> list[Sign]:
    """As `hpc.tracking.journal.surviving`, which decodes the lines: a resume line's step is where it goes on from."""
    kept, newest_step = [], float("inf")
    for sign in reversed(signs):
        if sign.step <= newest_step:
            kept.append(sign)
        if sign.kind == "resume":
            newest_step = min(newest_step, sign.step or -1)
    return kept[::-1]


def _spans(kept: list[Sign]) -> list[Span]:
    """A clock that was set back makes a span of no length; such spans are left out."""
    lines = [sign for sign in kept if sign.kind == "train"]
    pairs = [(a, b) for a, b in itertools.pairwise(lines) if a.attempt == b.attempt and b.step > a.step]
    spans = [Span(b.attempt, b.step - a.step, b.time - a.time) for a, b in pairs if b.time > a.time]
    if not spans:
        return []
    longest = max(LONG_GAP_S, 10 * statistics.median(span.seconds for span in spans))
    return [span for span in spans if span.seconds <= longest]
