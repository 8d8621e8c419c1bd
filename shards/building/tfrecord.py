"""TFRecord files and the ``tf.train.Example`` messages in them, read without TensorFlow.

In: a file. Out: where its records lie, the bytes of one of them, and its named lists of values.

    uint64 length | masked CRC-32C of these 8 bytes | data | masked CRC-32C of the data        all little-endian

Source: TensorFlow's documentation of TFRecord and ``tensorflow/core/example/feature.proto``. Memory is bounded by one
record, and a record by its file: a length that a damaged or hostile file claims is compared with the file's own before
anything is read. Lengths are checked by their CRC when a file is scanned, data by theirs when they are read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from shards.building.plan import BadSource

FRAME_BYTES = 16
"""What a record takes besides its data."""

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}

Values = list[bytes] | list[float] | list[int]


@dataclass(frozen=True)
class Record:
    """Where a record lies: its number in the file, from 1; byte offset of its frame; length of its data."""

    number: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of what follows."""
        return self.offset + FRAME_BYTES + self.length


@dataclass(frozen=True)
class Scan:
    """The records of a file up to its end, or up to the first that cannot be framed: ``trouble`` says why not."""

    records: tuple[Record, ...]
    trouble: BadSource | None


def scan_records(path: Path) -> Scan:
    """Find the records of a file by their lengths alone: 12 bytes are read of each."""
    records: list[Record] = []
    try:
        with _opened(path) as (descriptor, size):
            offset = 0
            while offset < size:
                records.append(_record_at(descriptor, path, len(records) + 1, offset, size))
                offset = records[-1].end
    except BadSource as trouble:
        return Scan(tuple(records), trouble)
    return Scan(tuple(records), None)


def count_records(path: Path) -> int:
    """Number of records of a file, by their lengths alone.

    Raises:
        BadSource: unreadable, truncated, a damaged length, or not a TFRecord file.
    """
    scan = scan_records(path)
    if scan.trouble is not None:
        raise scan.trouble
    return len(scan.records)


def read_record(path: Path, number: int, offset: int) -> bytes:
    """Data of the record at a byte offset; ``number`` is for messages.

    Raises:
        BadSource: unreadable, truncated, a length or data whose CRC is wrong, or not a TFRecord file.
    """
    with _opened(path) as (descriptor, size):
        return _data_of(descriptor, path, _record_at(descriptor, path, number, offset, size))


def read_records(path: Path) -> Iterator[bytes]:
    """Data of all records in turn, one in memory at a time.

    Raises:
        BadSource: as :func:`read_record`, once the sound records before it have been given.
    """
    with _opened(path) as (descriptor, size):
        number, offset = 1, 0
        while offset < size:
            record = _record_at(descriptor, path, number, offset, size)
            yield _data_of(descriptor, path, record)
            number, offset = number + 1, record.end


def masked_crc32c(data: bytes) -> int:
    """CRC-32C of data as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def parse_example(data: bytes) -> Mapping[str, Values]:
    """The features of a serialised ``tf.train.Example``: bytes, floats (float32 precision) or integers by name.

    A feature without any list is an empty one.

    Raises:
        BadSource: not such a message.
    """
    try:
        example = _EXAMPLE.FromString(data)
    except DecodeError as error:
        raise BadSource("not an Example", f"{len(data)} bytes are not a tf.train.Example message") from error
    return {name: _values(feature) for name, feature in example.features.feature.items()}


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a file; BadSource where the system cannot open or read it."""
    try:
        with path.open("rb", buffering=0) as file:
            yield file.fileno(), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise BadSource("unreadable", f"{path}: {error.strerror or error}") from error


def _values(feature: Any) -> Values:
    kind = feature.WhichOneof("kind")
    return [] if kind is None else list(getattr(feature, kind).value)


def _record_at(descriptor: int, path: Path, number: int, offset: int, size: int) -> Record:
    """The frame at ``offset`` of a file of ``size`` bytes."""
    header = os.pread(descriptor, _HEADER.size, offset)
    where = f"{path}, record {number}, offset {offset}"
    if len(header) < _HEADER.size:
        raise BadSource("truncated", f"{where}: {len(header)} of the {_HEADER.size} bytes of its length are there")
    length, crc = _HEADER.unpack(header)
    if masked_crc32c(header[:8]) != crc:
        if offset == 0:
            raise BadSource("not a TFRecord file", f"{where}: {_beginning(header)}")
        raise BadSource("bad checksum", f"{where}: wrong CRC-32C of the length, so what follows cannot be found")
    record = Record(number, offset, length)
    if record.end > size:
        raise BadSource("truncated", f"{where}: it ends at byte {record.end}, the file at byte {size}")
    return record


def _beginning(header: bytes) -> str:
    how = _COMPRESSED.get(header[:2])
    if how is not None:
        return f"begins like a {how} file; unpack it first"
    return f"begins with {header[:8].hex(' ')}, not with a length and its CRC-32C"


def _data_of(descriptor: int, path: Path, record: Record) -> bytes:
    data = _pread_all(descriptor, record.length + _FOOTER.size, record.offset + _HEADER.size)
    where = f"{path}, record {record.number}, offset {record.offset}"
    if len(data) < record.length + _FOOTER.size:
        raise BadSource("truncated", f"{where}: the file became shorter while it was read")
    content = data[: record.length]
    found, (expected,) = masked_crc32c(content), _FOOTER.unpack(data[record.length :])
    if found != expected:
        detail = f"{where}: {record.length} bytes with masked CRC-32C {found:08x}, stored {expected:08x}"
        raise BadSource("bad checksum", detail)
    return content


def _pread_all(descriptor: int, length: int, offset: int) -> bytes:
    """Up to ``length`` bytes: the system gives at most 2 GB at a time, a network file system less."""
    blocks: list[bytes] = []
    while length > 0 and (block := os.pread(descriptor, length, offset)):
        blocks.append(block)
        length, offset = length - len(block), offset + len(block)
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def _declare_example() -> Any:
    """The class of ``tf.train.Example``, declared by hand in a pool of its own: TensorFlow's may be there too."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tfrecord", syntax="proto3")

    def message(name: str, *fields: Any, parent: Any = file.message_type) -> Any:
        added = parent.add(name=name)
        added.field.extend(fields)
        return added

    def one(name: str, number: int, kind: Any, type_name: str | None = None, **more: Any) -> Any:
        return field(name=name, number=number, type=kind, type_name=type_name, label=field.LABEL_OPTIONAL, **more)

    def many(name: str, number: int, kind: Any, type_name: str | None = None) -> Any:
        return field(name=name, number=number, type=kind, type_name=type_name, label=field.LABEL_REPEATED)

    message("BytesList", many("value", 1, field.TYPE_BYTES))
    message("FloatList", many("value", 1, field.TYPE_FLOAT))
    message("Int64List", many("value", 1, field.TYPE_INT64))
    lists = (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List"))
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(lists, start=1):
        feature.field.append(one(name, number, field.TYPE_MESSAGE, f".tfrecord.{kind}", oneof_index=0))
    features = message("Features", many("feature", 1, field.TYPE_MESSAGE, ".tfrecord.Features.FeatureEntry"))
    key, value = one("key", 1, field.TYPE_STRING), one("value", 2, field.TYPE_MESSAGE, ".tfrecord.Feature")
    message("FeatureEntry", key, value, parent=features.nested_type).options.map_entry = True
    message("Example", one("features", 1, field.TYPE_MESSAGE, ".tfrecord.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tfrecord.Example"))


_EXAMPLE = _declare_example()
