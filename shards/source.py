"""What a loader needs from data, and what it gets.

    positions of the endless stream --ClipSource.fetch--> Fetched(arrays with a leading batch axis, keys, substitutions)
    clip numbers of one pass        --ClipSource.read---> the same, without any randomness

Axis letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.manifest import ArraySpec


@dataclass(frozen=True)
class Substitution:
    """One damaged sample whose place another took.

    Attributes:
        position: place in the endless training stream.
        bad_key: the sample that should have been there.
        substitute_key: the sample that was.
        attempt: how many substitutes were tried, 1 when the first one was sound. With seed and position it determines
            the substitute.
        reason: why ``bad_key`` could not be used.
    """

    position: int
    bad_key: str
    substitute_key: str
    attempt: int
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for a log line or a checkpoint; ``Substitution(**d)`` reads them back."""
        return asdict(self)


@dataclass
class Fetched:
    """A batch in host memory.

    Attributes:
        arrays: by name, each with a leading batch axis; ``video`` is uint8 BTCHW.
        keys: name of each sample, B of them.
        substitutions: samples that took another's place in this batch.
    """

    arrays: dict[str, NDArray[np.generic]]
    keys: list[str]
    substitutions: list[Substitution] = field(default_factory=list)


class ClipSource(Protocol):
    """Clips by place. Implementations can be pickled, so that worker processes can have their own copy."""

    fingerprint: str
    arrays: dict[str, ArraySpec]

    def __len__(self) -> int:
        """Clips in one epoch; nominal for a generator."""
        ...

    def fetch(self, positions: NDArray[np.int64], seed: int) -> Fetched:
        """Training clips: a pure function of (seed, contents, position), whoever asks.

        Raises:
            ShardError: a sample is damaged and may not be substituted.
        """
        ...

    def read(self, indices: Sequence[int]) -> Fetched:
        """Evaluation clips: the first frames of clips ``indices`` of the split, no randomness, no substitution.

        Raises:
            ShardError: a sample is damaged.
        """
        ...

    def quarantine(self, records: Sequence[Substitution]) -> None:
        """Count the samples that a checkpoint's ledger names as damaged, without reading them again.

        Call it before the loader starts. A source that makes its clips has nothing to do here.
        """
        ...
