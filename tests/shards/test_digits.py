"""Digit banks: the real MNIST split as published, the bundled digits, and damaged files."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from shards.digits import DIGIT_SIZE, DigitBank, enlarge, load_digit_banks, mnist_banks, read_idx, sklearn_banks
from shards.errors import ShardError

SHARED = Path(os.environ.get("ODEVID_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs the real MNIST files (shared data)")


def write_idx(path: Path, array: np.ndarray, *, magic: int | None = None, drop: int = 0) -> None:
    """An idx file made by hand; ``drop`` bytes are cut from its end."""
    header = struct.pack(f">I{array.ndim}I", 0x800 + array.ndim if magic is None else magic, *array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content[: len(content) - drop]))


@pytest.fixture
def small_mnist(tmp_path: Path) -> Path:
    """A folder like MNIST's with 40 training and 10 test digits; the first pixel numbers the digit."""
    for prefix, count in (("train", 40), ("t10k", 10)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = np.arange(count)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return tmp_path


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@needs_mnist
def test_mnist_is_divided_as_the_published_code_divides_it():
    banks = mnist_banks(SHARED / "mnist")
    assert {split: len(bank) for split, bank in banks.items()} == {"train": 57_000, "valid": 3_000, "test": 10_000}
    # Digests of the arrays that the published code's own get_fold gave, run on the same files.
    assert sha256(banks["train"].images_NHW) == "851464392af60469057e0ac4a34e541d5cb99bffa05627b0576745a6c92eb909"
    assert sha256(banks["valid"].images_NHW) == "61142a2d0a85f40aa9dcf1af2d1a43646d49f1065882cc4ea07f47e9e6a6f429"
    # Known facts of MNIST: mean grey value of the training images, count of each training digit.
    learning = np.concatenate([banks["train"].images_NHW, banks["valid"].images_NHW])
    labels = np.concatenate([banks["train"].labels_N, banks["valid"].labels_N])
    assert learning.mean() == pytest.approx(33.3184, abs=1e-4)
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_splits_of_an_mnist_folder_are_disjoint_and_complete(small_mnist):
    banks = load_digit_banks(small_mnist)
    numbers = {split: bank.images_NHW[:, 0, 0].tolist() for split, bank in banks.items()}
    assert len(numbers["train"]) == 38
    assert sorted(numbers["train"] + numbers["valid"]) == list(range(40))
    assert numbers["train"] == sorted(numbers["train"])
    assert numbers["test"] == list(range(10))
    assert all(bank.labels_N.tolist() == [n % 10 for n in numbers[split]] for split, bank in banks.items())


def test_bundled_digits_have_disjoint_splits_with_every_label():
    banks = sklearn_banks()
    assert {split: len(bank) for split, bank in banks.items()} == {"train": 1297, "valid": 200, "test": 300}
    assert all(np.unique(bank.labels_N).tolist() == list(range(10)) for bank in banks.values())
    pictures = [image.tobytes() for bank in banks.values() for image in bank.images_NHW]
    assert len(set(pictures)) == len(pictures)


def test_bundled_digits_look_like_mnist():
    images_NHW = sklearn_banks()["train"].images_NHW.astype(float)
    mass = images_NHW.sum(axis=(1, 2))
    rows = (images_NHW.sum(axis=2) * np.arange(DIGIT_SIZE)).sum(axis=1) / mass
    columns = (images_NHW.sum(axis=1) * np.arange(DIGIT_SIZE)).sum(axis=1) / mass
    assert np.abs(rows - 13.5).max() <= 0.5
    assert np.abs(columns - 13.5).max() <= 0.5
    assert images_NHW.max() == 255
    assert 30 < images_NHW.mean() < 50  # MNIST: 33.3
    ink_boxes = [np.ptp(np.nonzero(image)[0]) + 1 for image in images_NHW]
    assert max(ink_boxes) <= 20


def test_enlarging_keeps_flat_areas_and_is_bounded():
    full = enlarge(np.full((8, 8), 16.0))
    assert full.sum() == 255 * 20 * 20
    assert (full[4:24, 4:24] == 255).all()
    checkers = enlarge(np.indices((8, 8)).sum(axis=0) % 2 * 16.0)  # bicubic overshoots here: it must be clipped
    assert checkers.max() == 255
    assert checkers.min() == 0
    assert enlarge(np.zeros((8, 8))).max() == 0


def test_enlarged_digit_is_moved_by_its_centre_of_mass():
    corner = np.zeros((8, 8))
    corner[:2, 6:] = 16
    rows, columns = np.nonzero(enlarge(corner) > 127)
    assert rows.min() == 8  # as far down and to the left as the box may go
    assert columns.max() == 19


def test_missing_files_are_named(small_mnist):
    (small_mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ShardError, match=r"missing: t10k-labels-idx1-ubyte\.gz[\s\S]*--mnist"):
        mnist_banks(small_mnist)


def test_a_damaged_file_is_named_with_what_was_expected(small_mnist):
    path = small_mnist / "train-images-idx3-ubyte.gz"
    images = np.zeros((40, 28, 28))
    for arguments, message in [
        ({"drop": 1}, r"only 31359 bytes of data, expected 31360"),
        ({"magic": 0xD03}, r"starts with 0x00000d03, expected 0x00000801"),
        ({"drop": 31_366}, r"header cut after 6 bytes, expected 12"),
    ]:
        write_idx(path, images, **arguments)
        with pytest.raises(ShardError, match=message) as caught:
            mnist_banks(small_mnist)
        assert str(path) in str(caught.value)


def test_a_file_with_too_much_or_absurdly_announced_data_is_an_error(tmp_path):
    path = tmp_path / "long.gz"
    path.write_bytes(gzip.compress(struct.pack(">II", 0x801, 3) + bytes(4)))
    with pytest.raises(ShardError, match="more bytes of data, expected 3"):
        read_idx(path)
    path.write_bytes(gzip.compress(struct.pack(">IIII", 0x803, 1 << 31, 1 << 31, 1 << 31)))
    with pytest.raises(ShardError, match="expected at most"):
        read_idx(path)


def test_a_cut_or_plain_file_is_an_error(tmp_path):
    path = tmp_path / "cut.gz"
    write_idx(path, np.arange(2000) % 251)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ShardError, match="damaged gzip"):
        read_idx(path)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(ShardError, match="damaged gzip"):
        read_idx(path)


def test_images_and_labels_must_agree(small_mnist):
    write_idx(small_mnist / "train-labels-idx1-ubyte.gz", np.zeros(39))
    with pytest.raises(ShardError, match=r"labels of shape \(39,\), expected \(40,\)"):
        mnist_banks(small_mnist)
    write_idx(small_mnist / "train-images-idx3-ubyte.gz", np.zeros((40, 28, 27)))
    with pytest.raises(ShardError, match=r"shape \(40, 28, 27\), expected"):
        mnist_banks(small_mnist)


def test_a_bank_refuses_other_shapes_and_types():
    with pytest.raises(ValueError, match="28x28"):
        DigitBank(np.zeros((2, 32, 32), np.uint8), np.zeros(2, np.uint8), "mnist")
    with pytest.raises(ValueError, match="uint8"):
        DigitBank(np.zeros((2, 28, 28), np.float32), np.zeros(2, np.uint8), "mnist")


def test_fingerprint_tells_banks_apart():
    banks = sklearn_banks()
    assert len({bank.fingerprint for bank in banks.values()}) == 3
    assert banks["test"].fingerprint == sklearn_banks()["test"].fingerprint
