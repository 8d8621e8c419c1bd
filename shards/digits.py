"""Digit banks: the little pictures that Moving MNIST moves about.

In: nothing (scikit-learn's bundled handwritten digits) or a folder with the four original MNIST files.
Out: :class:`DigitBank` objects, one per split, whose digits are disjoint: ``train``, ``valid``, ``test``.

    load_digits 8x8   --resample, centre--> 28x28 \
                                                   > {"train": DigitBank, "valid": DigitBank, "test": DigitBank}
    *-ubyte.gz 28x28  --check, split -------------/

Axes: N digits, H rows, W columns.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.errors import ShardError

DIGIT_SIZE = 28

_BOX = 20  # MNIST fits every digit into a 20x20 box of the 28x28 frame
_SMALL_SPLIT = {"train": slice(0, 1297), "valid": slice(1297, 1497), "test": slice(1497, 1797)}
_IDX_UINT8 = bytes((0, 0, 0x08))
_MAX_BYTES = 1 << 30  # EMNIST, the largest of the family, has 0.6 GB
_FOLD_SEED = 42
_FOLD_TRAIN_SHARE = 0.95
_COPY_AGAIN = "Copy the original MNIST file there again."
_MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


@dataclass(frozen=True)
class DigitBank:
    """Digits of one split.

    Attributes:
        images_NHW: uint8, 28x28, 0 is background.
        labels_N: uint8, 0 to 9.
        origin: ``mnist`` or ``sklearn-digits``, for provenance.
    """

    images_NHW: NDArray[np.uint8]
    labels_N: NDArray[np.uint8]
    origin: str

    def __post_init__(self) -> None:
        count = len(self.labels_N)
        if self.images_NHW.shape != (count, DIGIT_SIZE, DIGIT_SIZE) or count == 0:
            raise ValueError(
                f"a digit bank needs N >= 1 images of {DIGIT_SIZE}x{DIGIT_SIZE} and N labels, "
                f"found images {self.images_NHW.shape} and labels {self.labels_N.shape}"
            )
        if self.images_NHW.dtype != np.uint8 or self.labels_N.dtype != np.uint8:
            raise ValueError(
                f"digit banks are uint8, found images {self.images_NHW.dtype} and labels {self.labels_N.dtype}"
            )

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images_NHW).data)
        digest.update(np.ascontiguousarray(self.labels_N).data)
        return digest.hexdigest()

    def take(self, indices: NDArray[np.int64]) -> DigitBank:
        """The bank of the digits at ``indices``, in that order."""
        return DigitBank(self.images_NHW[indices], self.labels_N[indices], self.origin)


def load_digit_banks(mnist: Path | None = None) -> dict[str, DigitBank]:
    """The three banks: of MNIST if its folder is given, otherwise of the digits bundled with scikit-learn."""
    return sklearn_banks() if mnist is None else mnist_banks(mnist)


def sklearn_banks() -> dict[str, DigitBank]:
    """The 1797 digits of scikit-learn (8x8, 17 grey levels), enlarged to look like MNIST's.

    Split in file order without a shuffle, 1297 / 200 / 300: digits of one writer lie side by side in the file, so that
    a shuffle would put the same hands in all three.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository (test part).
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images_NHW = np.stack([enlarge(small_HW) for small_HW in bunch.images])
    labels_N = bunch.target.astype(np.uint8)
    return {
        split: DigitBank(images_NHW[part], labels_N[part], "sklearn-digits") for split, part in _SMALL_SPLIT.items()
    }


def enlarge(small_HW: NDArray[np.floating]) -> NDArray[np.uint8]:
    """An 8x8 digit of values 0 to 16 as a 28x28 digit of values 0 to 255.

    As MNIST was made: resampled to a 20x20 box (bicubic, from float, rounded once), then placed in the 28x28 frame by
    the whole-pixel shift that brings the centre of mass nearest to the centre while the box stays in the frame.
    """
    from PIL import Image

    scaled = Image.fromarray((np.asarray(small_HW) * (255 / 16)).astype(np.float32))
    box_HW = np.asarray(scaled.resize((_BOX, _BOX), Image.Resampling.BICUBIC), dtype=np.float64)
    box_HW = np.clip(np.rint(box_HW), 0, 255)
    row, column = (_offset(box_HW.sum(axis=axis)) for axis in (1, 0))
    frame_HW = np.zeros((DIGIT_SIZE, DIGIT_SIZE), dtype=np.uint8)
    frame_HW[row : row + _BOX, column : column + _BOX] = box_HW
    return frame_HW


def mnist_banks(folder: Path) -> dict[str, DigitBank]:
    """MNIST from its four original files (``train-images-idx3-ubyte.gz`` and so on).

    The training digits are divided as SRVP's published code does: a legacy ``RandomState(42)`` shuffles the indices,
    the first 95 % are for training and the rest for validation (57,000 / 3,000), each in the file's order. Test: the
    10,000 test digits in the file's order.

    Raises:
        ShardError: a file is missing, damaged, or not what its name says.
    """
    missing = [name for names in _MNIST_FILES.values() for name in names if not (folder / name).is_file()]
    if missing:
        remedy = "Give --mnist the folder of the four original .gz files, or leave it out to use scikit-learn's digits."
        raise ShardError(f"MNIST files missing: {', '.join(missing)}", file=folder, remedy=remedy)
    learning, test = (_read_bank(folder, *names) for names in _MNIST_FILES.values())
    order = list(range(len(learning)))
    np.random.RandomState(_FOLD_SEED).shuffle(order)
    cut = int(_FOLD_TRAIN_SHARE * len(order))
    train, valid = (learning.take(np.sort(np.array(part, dtype=np.int64))) for part in (order[:cut], order[cut:]))
    return {"train": train, "valid": valid, "test": test}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of a gzipped idx file of unsigned bytes.

    Raises:
        ShardError: names the file, what was found and what was expected.
    """
    try:
        with gzip.open(path, "rb") as stream:
            shape = _read_header(stream, path)
            expected = math.prod(shape)
            content = stream.read(expected + 1)  # one more than expected, to notice a longer file without reading it
    except (OSError, EOFError, zlib.error) as error:
        raise ShardError(f"damaged gzip file ({error})", file=path, remedy=_COPY_AGAIN) from error
    if len(content) != expected:
        found = f"only {len(content)}" if len(content) < expected else "more"
        problem = f"{found} bytes of data, expected {expected} for the shape {shape} in its header"
        raise ShardError(problem, file=path, remedy=_COPY_AGAIN)
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read_header(stream: gzip.GzipFile, path: Path) -> tuple[int, ...]:
    """The shape announced by an idx file: two zero bytes, the type, the number of axes, then each axis's length."""
    magic = stream.read(4)
    if len(magic) != 4 or magic[:3] != _IDX_UINT8 or not 1 <= magic[3] <= 3:
        problem = f"starts with 0x{magic.hex()}, expected 0x00000801 (labels) or 0x00000803 (images)"
        raise ShardError(problem, file=path, remedy=_COPY_AGAIN)
    header = stream.read(4 * magic[3])
    if len(header) != 4 * magic[3]:
        problem = f"header cut after {len(header)} bytes, expected {4 * magic[3]}"
        raise ShardError(problem, file=path, remedy=_COPY_AGAIN)
    shape = struct.unpack(f">{magic[3]}I", header)
    if math.prod(shape) > _MAX_BYTES:
        problem = f"announces an array of shape {shape}, expected at most {_MAX_BYTES} bytes"
        raise ShardError(problem, file=path, remedy=_COPY_AGAIN)
    return shape


def _read_bank(folder: Path, images: str, labels: str) -> DigitBank:
    """An image file and its label file, checked against each other."""
    images_NHW, labels_N = read_idx(folder / images), read_idx(folder / labels)
    if images_NHW.ndim != 3 or images_NHW.shape[1:] != (DIGIT_SIZE, DIGIT_SIZE) or len(images_NHW) == 0:
        problem = f"array of shape {images_NHW.shape}, expected (N, {DIGIT_SIZE}, {DIGIT_SIZE})"
        raise ShardError(problem, file=folder / images, remedy=_COPY_AGAIN)
    if labels_N.shape != (len(images_NHW),):
        problem = f"labels of shape {labels_N.shape}, expected ({len(images_NHW)},) as in {images}"
        raise ShardError(problem, file=folder / labels, remedy=_COPY_AGAIN)
    return DigitBank(images_NHW, labels_N, "mnist")


def _offset(mass: NDArray[np.float64]) -> int:
    """Where the box starts on one axis of the frame, from the ink per line of the box."""
    centre_of_mass = float((mass * np.arange(_BOX)).sum() / max(mass.sum(), 1.0))
    wanted = round((DIGIT_SIZE - 1) / 2 - centre_of_mass)
    return min(max(wanted, 0), DIGIT_SIZE - _BOX)
