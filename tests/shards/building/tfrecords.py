"""Writes TFRecord files for tests, byte by byte: no protobuf library, no CRC library, nothing of the code under test.

CRC-32C by its definition (reflected polynomial 0x82F63B78) through a table; messages by the rules of the wire format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

POLYNOMIAL = 0x82F63B78


def _table() -> list[int]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        rows.append(byte)
    return rows


_TABLE = _table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)


def frame(data: bytes) -> bytes:
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked(crc32c(length))), data, struct.pack("<I", masked(crc32c(data)))))


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field (wire type 2)."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def example(features: Mapping[str, bytes | Iterable[float]]) -> bytes:
    """A tf.train.Example: bytes become a bytes_list, numbers a packed float_list."""
    entries = b""
    for name, value in features.items():
        if isinstance(value, bytes):
            feature = field(1, field(1, value))
        else:
            feature = field(2, field(1, np.asarray(list(value), dtype="<f4").tobytes()))
        entries += field(1, field(1, name.encode()) + field(2, feature))
    return field(1, entries)


def bair_features(
    video_THWC: np.ndarray, actions_TA: np.ndarray, positions_TP: np.ndarray, main_THWC: np.ndarray | None = None
) -> dict[str, bytes | Iterable[float]]:
    """The features of one BAIR record, named as in softmotion30_44k."""
    features: dict[str, bytes | Iterable[float]] = {}
    for t in range(len(video_THWC)):
        features[f"{t}/action"] = actions_TA[t].tolist()
        features[f"{t}/endeffector_pos"] = positions_TP[t].tolist()
        features[f"{t}/image_aux1/encoded"] = video_THWC[t].tobytes()
        features[f"{t}/image_main/encoded"] = (video_THWC if main_THWC is None else main_THWC)[t].tobytes()
    return features


def write_tfrecord(path: Path, records: Iterable[bytes]) -> None:
    """Write a file of records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(frame(record) for record in records))
