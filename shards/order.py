"""The order in which training sees a dataset: endless, shuffled, without memory.

    position p of the stream --> epoch p // N, place p % N in it --> clip number in 0 .. N - 1

Each epoch is a permutation of all N clips. It is never stored: a keyed bijection maps place to clip number in constant
memory and time, so a stream is resumed at any position by asking for it, and every rank and worker that asks agrees.

The bijection is a Feistel network over pairs (i, j) with i < a, j < b and a * b >= N just above N, as in
Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002), method 3, with their cycle walking: a result
outside 0 .. N - 1 is sent through again until it lies inside.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from shards.hashing import finalise, mix

_ROUNDS = 12  # with 8, orders of a handful of clips are visibly uneven (see tests/shards/test_order.py)


class Order:
    """The stream's order, one pure function of (seed, fingerprint, position).

    Args:
        seed: the run's seed.
        fingerprint: of the dataset's contents: other contents, other order.
        num_samples: N, clips in an epoch, 1 to 2**62.

    Raises:
        ValueError: there is no sample.
    """

    def __init__(self, seed: int, fingerprint: str, num_samples: int) -> None:
        if not 1 <= num_samples <= 1 << 62:
            raise ValueError(f"an order needs 1 to 2**62 samples, found {num_samples}")
        digest = hashlib.sha256(f"{seed}\n{fingerprint}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "little")
        self._num_samples = num_samples
        self._rows = math.isqrt(num_samples - 1) + 1
        self._columns = -(-num_samples // self._rows)

    def index(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Clip number at each position of the stream.

        Args:
            positions: non-negative int64, any shape.

        Returns:
            int64 in 0 .. N - 1, the same shape.

        Raises:
            ValueError: a negative position.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"positions in the stream start at 0, found {positions.min()}")
        epochs, places = np.divmod(positions.ravel(), self._num_samples)
        round_keys = self._round_keys(epochs)
        places = self._permute(places, round_keys)
        outside = np.flatnonzero(places >= self._num_samples)
        while outside.size:
            places[outside] = self._permute(places[outside], round_keys[:, outside])
            outside = outside[places[outside] >= self._num_samples]
        return places.reshape(positions.shape)

    def _round_keys(self, epochs: NDArray[np.int64]) -> NDArray[np.uint64]:
        """One 64-bit key per round and position, the same for all positions of an epoch."""
        return mix(self._key, epochs[None, :], np.arange(_ROUNDS, dtype=np.int64)[:, None])

    def _permute(self, places: NDArray[np.int64], round_keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """One pass of the network: a bijection of 0 .. rows * columns - 1."""
        high, low = np.divmod(places, self._columns)
        for number, keys in enumerate(round_keys):
            noise = finalise(finalise(low.astype(np.uint64) ^ keys) ^ keys)
            modulus = self._rows if number % 2 == 0 else self._columns
            high, low = low, (high + (noise % np.uint64(modulus)).astype(np.int64)) % modulus
        return high * self._columns + low
