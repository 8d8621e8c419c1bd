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

    def _answer(self) -> None:
        while True:
            try:
                visitor, _ = self._door.accept()
            except OSError:
                return
            with visitor, contextlib.suppress(OSError):
                visitor.sendall(self._greeting)
                self._reached_at = self._reached_at or str(visitor.getsockname()[0])
                self._reached.set()


@contextlib.contextmanager
def answering(identity: str, port: int) -> Iterator[Reception]:
    """Rank 0, for as long as others may ask: tell them `port`.

    Raises:
        MeetingError: all agreed doors are taken.
    """
    door = _first_free(doors(identity))
    if door is None:
        raise MeetingError(f"all of the ports {doors(identity)} are taken on {socket.gethostname()}: start again")
    try:
        yield Reception(door, f"odevid {identity} {port}\n".encode())
    finally:
        with contextlib.suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)  # wakes the thread
        door.close()


def ask_port(host: str, identity: str, timeout_s: float) -> tuple[int, str]:
    """The port of rank 0's store, and this node's own address on the way there.

    Raises:
        MeetingError: nobody answered in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for door in doors(identity):
            with contextlib.suppress(OSError, ValueError):
                return _knock(host, door, identity)
        time.sleep(PAUSE_S)
    raise MeetingError(
        f"rank 0 did not answer on {host} within {timeout_s:.0f} s (ports {', '.join(map(str, doors(identity)[:3]))} "
        f"...) from {socket.gethostname()}: it has died (see its log), or a firewall closes these ports"
    )


def interface_of(address: str) -> str | None:
    """Name of the network interface that bears an IPv4 address, None if none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None


def misleading_name(address: str) -> bool:
    """Whether this node takes its own name for loopback (Debian's 127.0.1.1) though others reach it at `address`."""
    try:
        own = socket.gethostbyname(socket.gethostname())
    except OSError:
        own = "127.0.0.1"
    return own.startswith("127.") and not address.startswith("127.")


def _first_free(ports: list[int]) -> socket.socket | None:
    for port in ports:
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), backlog=1024)
    return None


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
