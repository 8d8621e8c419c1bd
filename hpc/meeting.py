"""How the ranks of a SLURM step agree on a port that is free: rank 0 takes one, and tells whoever asks.

    rank 0   store on any free port P; answers at the first free one of a few agreed doors: "odevid IDENTITY P"
    others   knock at those doors of rank 0's node, one after the other, until one answers with the right identity

In: an identity that all ranks compute alike, another one after every requeue. Out: the store's port, and the address
of this node that the others reach. A door taken by a stranger costs its visitors a moment, nothing else. No torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator

FIRST_DOOR, NUM_DOORS = 20_000, 12_000  # below Linux's ephemeral range, which starts at 32768
DOORS = 16
STRIDE = 743
KNOCK_S, PAUSE_S = 5.0, 0.2
SIOCGIFADDR = 0x8915


class MeetingError(RuntimeError):
    """Rank 0 cannot be reached."""


def doors(identity: str) -> list[int]:
    """Where rank 0 may be listening, in the order of its trying."""
    first = zlib.crc32(identity.encode())
    return [FIRST_DOOR + (first + k * STRIDE) % NUM_DOORS for k in range(DOORS)]


class Reception:
    """Rank 0's side of a meeting."""

    def __init__(self, door: socket.socket, greeting: bytes) -> None:
        self._door, self._greeting = door, greeting
        self._reached_at: str | None = None
        self._reached = threading.Event()
        threading.Thread(target=self._answer, daemon=True, name="meeting").start()

    def own_address(self, timeout_s: float) -> str | None:
        """The address at which the first of the others found this node; None if nobody comes in time."""
        self._reached.wait(timeout_s)
        return self._reached_at

    def _knock(host: str, door: int, identity: str) -> tuple[int, str]:
    """ValueError or OSError if it is not rank 0 who answers."""
    with socket.create_connection((host, door), timeout=KNOCK_S) as line:
        line.settimeout(KNOCK_S)
        heard = b""
        while not heard.endswith(b"\n") and len(heard) < 200 and (more := line.recv(200)):
            heard += more
        word, found, port = heard.decode(errors="replace").split()
        if (word, found) != ("odevid", identity):
            raise ValueError(f"a stranger: {heard!r}")
        return int(port), str(line.getsockname()[0])
