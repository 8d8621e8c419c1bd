"""Reads what `faulthandler` wrote about a rank: where its thread is, and whether that is inside a collective.

In: text of RUN/hangs/.../rank-N.txt. Out: `Position` of the thread that beats.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)\b.*:$")
FRAME = re.compile(r'^  File "(.*)", line (\d+|\?+) in (.*)$')
LIBRARY = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen", "<string>")
COMMUNICATION = ("/torch/distributed/", "/deepspeed/comm/")
WRAPPERS = ("wrapper", "log_wrapper", "inner", "<lambda>")
AUTOGRAD = "_engine_run_backward"
"""On a GPU the gradients are reduced by autograd's own thread while the beating one waits for it here."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Frame:
    file: str
    line: str
    function: str

    @property
    def is_library(self) -> bool:
        return any(part in self.file for part in LIBRARY)

    def __str__(self) -> str:
        path = Path(self.file)
        if path.is_relative_to(ROOT):
            path = path.relative_to(ROOT)
        elif self.is_library:
            path = Path(re.split("site-packages/|dist-packages/|/lib/", self.file)[-1])
        return f"{path}:{self.line}"


@dataclass(frozen=True)
class Position:
    """Where a thread is."""

    where: str
    """file:line of the innermost call that is not in a library."""
    function: str
    """Function at the very top of the stack."""
    collective: str
    """The collective in which it waits; empty if it does not."""


def threads(text: str) -> dict[int, list[Frame]]:
    """Frames of each thread, innermost first; of several dumps the latest counts."""
    found: dict[int, list[Frame]] = {}
    frames: list[Frame] = []
    for line in text.splitlines():
        if match := THREAD.match(line):
            frames = found[int(match[1], 16)] = []
        elif match := FRAME.match(line):
            frames.append(Frame(match[1], match[2], match[3]))
    return found


def position(text: str, thread: int) -> Position | None:
    """Where the thread was in the latest dump; None if the text does not hold it."""
    stacks = threads(text)
    frames = stacks.get(thread)
    if not frames:
        return None
    collective = _collective(frames)
    if not collective and any(frame.function == AUTOGRAD for frame in frames):
        others = (_collective(other) for number, other in stacks.items() if number != thread)
        collective = next(filter(None, others), "")
    own = next((frame for frame in frames if not frame.is_library), frames[0])
    return Position(str(own), frames[0].function, collective)


def _collective(frames: list[Frame]) -> str:
    """The outermost function of the communication library above the first frame that is not a library's."""
    name = ""
    for frame in frames:
        if not frame.is_library:
            break
        if any(part in frame.file for part in COMMUNICATION) and frame.function not in WRAPPERS:
            name = frame.function
    return name
