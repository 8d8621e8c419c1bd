"""Which evaluation stands for which time step of the solver, and which of them may be compared. No torch.

In: evaluations of one run, RUN/evaluation and RUN/evaluation/substeps-N. Out: at most one for each time step, and in
words where one was made otherwise than most: a table over time steps means nothing where rows have other protocols.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hpc.evaluation.scores import Scores

SUBSTEPS = "substeps-"
PROTOCOL = {
    "num_clips": "{} videos instead of {}",
    "samples": "{} samples instead of {}",
    "num_frames": "clips of {} frames instead of {}",
    "seed": "seed {} instead of {}",
    "step": "weights of step {} instead of {}",
}
"""What has to be the same in two evaluations whose scores are compared, and how a difference is told."""


@dataclass(frozen=True)
class TimeStep:
    """The evaluation that stands for `substeps` solver steps per frame."""

    substeps: int
    folder: Path
    scores: Scores
    differs: str
    """How it was made otherwise than most, such as "2 videos instead of 16"; empty: as they were."""

    @property
    def trained(self) -> object:
        """Step of the weights."""
        return self.scores.about.get("step", "unknown")


def is_at_a_step(folder: Path) -> bool:
    """Whether it is one of a time step that was asked for, substeps-N, and not RUN/evaluation itself."""
    return folder.name.startswith(SUBSTEPS)


def step_of(folder: Path) -> int | None:
    """N of a folder substeps-N; None of any other."""
    found = re.fullmatch(rf"{SUBSTEPS}([0-9]+)", folder.name)
    return int(found[1]) if found else None


def time_steps(evaluations: Iterable[tuple[Path, Scores]], own: int | None) -> list[TimeStep]:
    """Coarse to fine. Of one time step, substeps-N stands before RUN/evaluation: its like made the other rows.

    Args:
        evaluations: folder and scores of each. A folder substeps-N whose N is no number is left out.
        own: solver steps per frame in training; None: not known, so RUN/evaluation is left out.
    """
    found: dict[int, tuple[Path, Scores]] = {}
    for folder, scores in sorted(evaluations, key=lambda pair: not is_at_a_step(pair[0])):
        substeps = step_of(folder) if is_at_a_step(folder) else scores.protocol.get("substeps") or own
        if substeps:
            found.setdefault(substeps, (folder, scores))
    protocols = [_protocol(scores) for _, scores in found.values()]
    usual = Counter(protocols).most_common(1)[0][0] if protocols else ()
    return [
        TimeStep(substeps, folder, scores, _differences(_protocol(scores), usual))
        for substeps, (folder, scores) in sorted(found.items())
    ]


def _protocol(scores: Scores) -> tuple[object, ...]:
    known = {**scores.protocol, "step": scores.about.get("step")}
    return tuple(known.get(name) for name in PROTOCOL)


def _differences(protocol: tuple[object, ...], usual: tuple[object, ...]) -> str:
    return ", ".join(
        words.format(*("unknown" if value is None else value for value in (here, there)))
        for words, here, there in zip(PROTOCOL.values(), protocol, usual, strict=True)
        if here != there
    )
