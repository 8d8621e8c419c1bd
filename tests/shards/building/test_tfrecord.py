"""TFRecords are read as they were written, and what is damaged is named by file, record and offset."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest

from shards.building.plan import BadSource
from shards.building.tfrecord import (
    count_records,
    masked_crc32c,
    parse_example,
    read_record,
    read_records,
    scan_records,
)
from tests.shards.building.tfrecords import crc32c, example, frame, write_tfrecord


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums_are_those_of_rfc_3720(data, expected):
    assert crc32c(data) == expected
    rotated = int(f"{expected:032b}"[-15:] + f"{expected:032b}"[:-15], 2)
    assert masked_crc32c(data) == (rotated + 0xA282EAD8) % 2**32


def test_a_record_is_framed_as_the_format_says(tmp_path):
    """Bytes by hand: CRC-32C("123456789") = E3069283 is the check value of the catalogue of CRCs."""
    length = bytes([9, 0, 0, 0, 0, 0, 0, 0])
    stored = (((0xE3069283 >> 15) | (0xE3069283 << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
    whole = length + struct.pack("<I", masked_crc32c(length)) + b"123456789" + stored.to_bytes(4, "little")
    assert frame(b"123456789") == whole
    (tmp_path / "one").write_bytes(whole)
    assert list(read_records(tmp_path / "one")) == [b"123456789"]


def test_records_are_found_by_their_lengths_and_read_from_their_places(tmp_path):
    contents = [b"first", b"", bytes(100_000), b"last"]
    path = tmp_path / "many.tfrecords"
    write_tfrecord(path, contents)
    scan = scan_records(path)
    assert scan.trouble is None
    assert [(r.number, r.offset, r.length) for r in scan.records] == [
        (1, 0, 5),
        (2, 21, 0),
        (3, 37, 100_000),
        (4, 100_053, 4),
    ]
    assert [read_record(path, r.number, r.offset) for r in scan.records] == contents
    assert list(read_records(path)) == contents
    assert count_records(path) == 4
    (tmp_path / "none").write_bytes(b"")
    assert count_records(tmp_path / "none") == 0


def test_an_example_written_by_hand_is_read():
    """a: bytes "x" and "yz"; f: floats 1.5 and -2, not packed; i: integer 300; n: nothing."""
    a = b"\x0a\x01a" + b"\x12\x09" + b"\x0a\x07" + b"\x0a\x01x" + b"\x0a\x02yz"
    f = b"\x0a\x01f" + b"\x12\x0c" + b"\x12\x0a" + b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2)
    i = b"\x0a\x01i" + b"\x12\x06" + b"\x1a\x04" + b"\x0a\x02\xac\x02"
    n = b"\x0a\x01n" + b"\x12\x00"
    features = b"".join(b"\x0a" + bytes([len(entry)]) + entry for entry in (a, f, i, n))
    message = b"\x0a" + bytes([len(features)]) + features
    assert parse_example(message) == {"a": [b"x", b"yz"], "f": [1.5, -2.0], "i": [300], "n": []}


def test_packed_floats_keep_their_bits():
    values = np.array([0.1, -1e-38, 3.4e38, np.pi], np.float32)
    found = parse_example(example({"x": values.tolist(), "y": b"\x00\xff"}))
    assert np.array_equal(np.array(found["x"], np.float32), values)
    assert found["y"] == [b"\x00\xff"]


@pytest.mark.parametrize("message", [b"\x0a\x05abc", b"\xff" * 20, b"\x0a\x07\x0a\x05\x0a\x03a"])
def test_a_record_that_is_no_example_is_named(message):
    with pytest.raises(BadSource, match="not an Example: "):
        parse_example(message)


def test_a_truncated_file_gives_the_records_before_the_cut(tmp_path):
    path = tmp_path / "cut.tfrecords"
    write_tfrecord(path, [b"a" * 10, b"b" * 10, b"c" * 10])
    whole = path.read_bytes()
    for kept, at in ((len(whole) - 1, 52), (52 + 5, 52), (52 + 12, 52), (26 + 20, 26)):
        path.write_bytes(whole[:kept])
        scan = scan_records(path)
        number = 1 + at // 26
        assert len(scan.records) == number - 1
        assert scan.trouble is not None and scan.trouble.kind == "truncated"
        assert f"{path}, record {number}, offset {at}: " in str(scan.trouble)
        assert str(kept) in str(scan.trouble) or "5 of the 12 bytes" in str(scan.trouble)
        with pytest.raises(BadSource, match="truncated"):
            count_records(path)
        given = []
        with pytest.raises(BadSource, match="truncated"):  # noqa: PT012
            for data in read_records(path):
                given.append(data)  # noqa: PERF402
        assert given == [b"a" * 10, b"b" * 10][: number - 1]


def test_a_flipped_bit_of_data_costs_its_record_only(tmp_path):
    path = tmp_path / "flipped.tfrecords"
    write_tfrecord(path, [b"a" * 10, b"b" * 10, b"c" * 10])
    content = bytearray(path.read_bytes())
    content[26 + 12 + 3] ^= 4
    path.write_bytes(content)
    assert count_records(path) == 3
    assert read_record(path, 3, 52) == b"c" * 10
    with pytest.raises(BadSource, match=f"bad checksum: {path}, record 2, offset 26: 10 bytes with masked CRC-32C"):
        read_record(path, 2, 26)


def test_a_flipped_bit_of_a_length_ends_what_can_be_found(tmp_path):
    path = tmp_path / "flipped.tfrecords"
    write_tfrecord(path, [b"a" * 10, b"b" * 10, b"c" * 10])
    content = bytearray(path.read_bytes())
    content[26] ^= 1
    path.write_bytes(content)
    scan = scan_records(path)
    assert [record.number for record in scan.records] == [1]
    assert scan.trouble is not None and scan.trouble.kind == "bad checksum"
    assert f"{path}, record 2, offset 26: wrong CRC-32C of the length" in str(scan.trouble)


def test_other_files_are_told_apart(tmp_path):
    for content, said in (
        (b"RIFF....AVI LIST", "begins with 52 49 46 46"),
        (b"\x1f\x8b" + bytes(20), "like a gzip file; unpack it first"),
        (b"\x78\x9c" + bytes(20), "like a zlib file"),
    ):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(BadSource, match=f"not a TFRecord file: .*record 1, offset 0: .*{said}"):
            count_records(tmp_path / "other")


def test_a_hostile_length_reserves_no_memory(tmp_path):
    """A length of 2**62 with its right CRC."""
    length = struct.pack("<Q", 1 << 62)
    path = tmp_path / "hostile"
    path.write_bytes(length + struct.pack("<I", masked_crc32c(length)) + b"data")
    tracemalloc.start()
    with pytest.raises(BadSource, match=r"truncated: .*ends at byte 4611686018427387920, the file at byte 16"):
        read_record(path, 1, 0)
    with pytest.raises(BadSource, match="truncated"):
        list(read_records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_reading_a_file_holds_one_record_at_a_time(tmp_path):
    path = tmp_path / "large"
    write_tfrecord(path, [bytes(300_000)] * 2)
    with path.open("ab") as file:
        one = path.read_bytes()[: 300_000 + 16]
        for _ in range(98):
            file.write(one)
    assert path.stat().st_size == 100 * 300_016
    tracemalloc.start()
    number = sum(1 for _ in read_records(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == 100
    assert peak < 4 * 300_016


def test_tensorflow_s_own_message_class_may_be_loaded_too():
    """A message called tensorflow.Example in the default pool does not collide with ours."""
    from google.protobuf import descriptor_pb2, descriptor_pool

    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tfrecord", syntax="proto3")
    file.message_type.add(name="Example")
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    assert parse_example(example({"x": [1.0]})) == {"x": [1.0]}
