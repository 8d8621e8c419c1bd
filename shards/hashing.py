"""Counter hash: the source of every random choice about data.

In: a seed and whole-number counters (position in the stream, digit, draw number ...), scalars or arrays.
Out: 64 random bits for each combination of counters, and whole numbers derived from them.

There is no generator state: the value for a counter is the same whoever asks for it, in whatever order and process.
That is what makes a clip's window or a digit's motion a function of (seed, position) alone.

The mixer is the output function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), chained over the counters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WEYL = 0x9E3779B97F4A7C15  # SplitMix64's increment: 2**64 / golden ratio, odd
_MASK = (1 << 64) - 1
_MAX_CHOICES = 1 << 32


def finalise(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function: a bijection of 64-bit words whose outputs look independent.

    Args:
        words: uint64, any shape.

    Returns:
        uint64, the same shape.
    """
    with np.errstate(over="ignore"):
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)))


def mix(seed: int, *counters: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for a seed and counters.

    Args:
        seed: any whole number; its low 64 bits count.
        counters: whole numbers or integer arrays that broadcast together. Their order matters, and so does their
            number: ``mix(s, 1)``, ``mix(s, 1, 0)`` and ``mix(s, 0, 1)`` are unrelated.

    Returns:
        uint64 of the counters' broadcast shape (shape ``()`` without counters).

    Raises:
        TypeError: a counter is not of an integer type.
    """
    state = finalise(np.asarray((seed + _WEYL) & _MASK, dtype=np.uint64))
    for counter in counters:
        with np.errstate(over="ignore"):
            state = finalise((state ^ _as_words(counter)) + np.uint64(_WEYL))
    return state


def uniform_int(bits: NDArray[np.uint64], n: ArrayLike) -> NDArray[np.int64]:
    """Whole numbers in ``0 .. n - 1`` from random bits, by multiply-shift on the upper 32 bits.

    A value's probability differs from ``1 / n`` by less than ``2**-32``.

    Args:
        bits: uint64, from :func:`mix`.
        n: number of choices, 1 to 2**32, one for all or an array that broadcasts with ``bits``.

    Returns:
        int64 of the broadcast shape.

    Raises:
        ValueError: ``n`` is outside 1 .. 2**32.
    """
    choices = np.asarray(n, dtype=np.int64)
    if choices.size and (choices.min() < 1 or choices.max() > _MAX_CHOICES):
        raise ValueError(f"number of choices must lie in 1 .. 2**32, found {choices.min()} .. {choices.max()}")
    product = (np.asarray(bits, dtype=np.uint64) >> np.uint64(32)) * choices.astype(np.uint64)
    return np.asarray(product >> np.uint64(32)).astype(np.int64)


def _as_words(counter: ArrayLike) -> NDArray[np.uint64]:
    """A counter as 64-bit words; negative numbers in two's complement."""
    array = np.asarray(counter)
    if array.dtype.kind not in "iu":
        raise TypeError(f"a counter must be a whole number or an integer array, found dtype {array.dtype}")
    return array.astype(np.uint64)
