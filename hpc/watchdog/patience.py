"""How long a rank may do nothing, learned from how long it usually takes.

In: durations of moves from one phase to the next. Out: seconds after which silence is a hang. A move, not a phase, is
what has a usual duration: a rank that goes from a validation to the agreement waits there for rank 0's pictures.
"""

from __future__ import annotations

DECAY = 0.9
"""A longest duration counts for less with every shorter one after it: a slow first step is forgotten after dozens."""

Move = tuple[str, str]
"""The phase before and the phase that lasts."""


class Patience:
    """
    Args:
        factor: how many times the usual duration is too long.
        min_s: shortest patience, whatever is usual.
        start_s: patience with a move that was never completed before.
    """

    def __init__(self, factor: float, min_s: float, start_s: float) -> None:
        self._factor, self._min_s, self._start_s = factor, min_s, start_s
        self._usual: dict[Move, float] = {}

    def learn(self, move: Move, seconds: float) -> None:
        """A move is over after `seconds`."""
        usual = self._usual.get(move, 0.0) * DECAY
        self._usual[move] = seconds if seconds > usual else usual

    def seconds(self, move: Move) -> float:
        """How long this move may last."""
        usual = self._usual.get(move)
        patience = self._start_s if usual is None else self._factor * usual
        return patience if patience > self._min_s else self._min_s
