"""From a decoded frame to a picture of the dataset: crop, resize, channels.

In: a frame as the decoder gives it (any pixel format, any rotation). Out: uint8 CHW of one size.

Three ways to resize, each that of a published preparation:

    ffmpeg-bicubic    the FFmpeg program's ``-s WxH``: scaled and converted to RGB in one go (KTH). Bit-equal to it.
    lanczos           converted to RGB as the FFmpeg program does, then Pillow's LANCZOS (Human3.6M). Bit-equal to both.
    opencv-bicubic    converted to RGB, then OpenCV's INTER_CUBIC: no antialiasing, a = -0.75 (UCF101 for video GANs)

Axis letters: H height, W width, C channels, K taps of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.building.plan import BadSource
from shards.errors import ShardError

if TYPE_CHECKING:
    import av

Box = tuple[int, int, int, int]
Crop = Literal["squash", "center"] | Box
Resize = Literal["ffmpeg-bicubic", "lanczos", "opencv-bicubic"]
Channels = Literal["rgb", "first", "luma"]

# Filters that turn a frame by so many quarters counterclockwise, and their arguments.
_TURNS = ((), (("transpose", "cclock"),), (("hflip",), ("vflip",)), (("transpose", "clock"),))
_CUBIC_A = -0.75
_ONE = 2048  # fixed-point unit of OpenCV's weights


@dataclass(frozen=True)
class Look:
    """How a decoded frame becomes a picture of the dataset.

    Attributes:
        size: height and width of the picture.
        crop: ``squash`` takes the whole frame, whatever its shape. ``center`` takes the centre square: with ``lanczos``
            the square is cut first, then resized; with the bicubics the short side is resized to ``size`` and the long
            side in proportion, rounded down (320x240 to 85x64), then the centre is cut from column int((85 - 64) / 2)
            on (published for UCF101). Or a box (left, top, right, bottom) in source pixels, cut first.
        resize: see the head of this file.
        channels: ``rgb``; ``first`` is R alone, as published loaders take it from grey videos; ``luma`` is Pillow's
            "L" of the resized picture (ITU-R 601 weights).

    Raises:
        ShardError: a size below 1, an empty box, or an unknown word.
    """

    size: int
    crop: Crop = "squash"
    resize: Resize = "lanczos"
    channels: Channels = "rgb"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ShardError(f"size {self.size}: expected at least 1 pixel")
        if isinstance(self.crop, tuple):
            left, top, right, bottom = self.crop
            if not (0 <= left < right and 0 <= top < bottom):
                raise ShardError(
                    f"crop box {self.crop}: expected left, top, right, bottom with left < right, top < bottom"
                )
        elif self.crop not in ("squash", "center"):
            raise ShardError(f"crop {self.crop!r}: expected squash, center or a box")
        for name, word, words in (("resize", self.resize, Resize), ("channels", self.channels, Channels)):
            if word not in get_args(words):
                raise ShardError(f"{name} {word!r}: expected one of {', '.join(get_args(words))}")

    @property
    def num_channels(self) -> int:
        """Channels of a picture."""
        return 3 if self.channels == "rgb" else 1

    @property
    def num_bytes(self) -> int:
        """Bytes of a picture."""
        return self.num_channels * self.size**2

    def picture(self, frame: av.VideoFrame, pixel_aspect: Fraction = Fraction(1)) -> NDArray[np.uint8]:
        """The picture of one frame, turned upright if its rotation metadata asks for it.

        Args:
            frame: as decoded.
            pixel_aspect: width over height of one stored pixel; matters to ``center`` only.

        Returns:
            uint8 CHW, contiguous.

        Raises:
            BadSource: the frame does not contain the crop box.
        """
        if _quarters(frame) % 2:
            pixel_aspect = 1 / pixel_aspect
        if isinstance(self.crop, tuple):
            frame = _cut(frame, self.crop)
        if self.resize == "lanczos":
            pixels_HWC = self._lanczos(frame, pixel_aspect)
        else:
            pixels_HWC = self._bicubic(frame, pixel_aspect)
        if self.channels == "luma":
            return np.asarray(Image.fromarray(pixels_HWC).convert("L"))[None].copy()
        return np.ascontiguousarray(pixels_HWC[..., : self.num_channels].transpose(2, 0, 1))

    def _lanczos(self, frame: av.VideoFrame, pixel_aspect: Fraction) -> NDArray[np.uint8]:
        if self.crop == "center":
            whole_width, whole_height = _size(frame)
            side = min(whole_width * pixel_aspect, Fraction(whole_height))
            width, height = max(1, int(side / pixel_aspect)), max(1, int(side))
            left, top = (whole_width - width) // 2, (whole_height - height) // 2
            frame = _cut(frame, (left, top, left + width, top + height))
        image = Image.fromarray(_rgb(frame))
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.LANCZOS))

    def _bicubic(self, frame: av.VideoFrame, pixel_aspect: Fraction) -> NDArray[np.uint8]:
        size = self.size
        width = height = size
        if self.crop == "center":
            whole_width, whole_height = _size(frame)
            shape = whole_width * pixel_aspect / whole_height
            width, height = max(size, int(size * shape)), max(size, int(size / shape))
        if self.resize == "ffmpeg-bicubic":
            scaled_HWC = _rgb(frame, width, height)
        else:
            scaled_HWC = resize_as_opencv(_rgb(frame), width, height)
        left, top = (width - size) // 2, (height - size) // 2
        return scaled_HWC[top : top + size, left : left + size]


def resize_as_opencv(pixels_HWC: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize like OpenCV's ``cv2.resize(..., interpolation=cv2.INTER_CUBIC)``.

    Keys' cubic convolution with a = -0.75, four taps whatever the scale (no antialiasing), edge pixels repeated,
    weights in OpenCV's 11-bit fixed point. OpenCV sums in floats on some processors: MEASURED against 5.0.0 on x86, no
    value differs by more than 1, and at 85x64 1 % of the values of UCF101 frames do, 2 % of those of noise.

    Args:
        pixels_HWC: uint8.
        width: of the result.
        height: of the result.

    Returns:
        uint8 HWC.
    """
    rows_HK, row_weights_HK = _cubic_taps(pixels_HWC.shape[0], height)
    columns_WK, column_weights_WK = _cubic_taps(pixels_HWC.shape[1], width)
    taps = range(rows_HK.shape[1])
    scaled_rows = [pixels_HWC[rows_HK[:, tap]] * row_weights_HK[:, tap, None, None] for tap in taps]
    tall_HWC = reduce(np.add, scaled_rows)
    sums_HWC = reduce(np.add, [tall_HWC[:, columns_WK[:, tap]] * column_weights_WK[:, tap, None] for tap in taps])
    return np.clip((sums_HWC + _ONE * _ONE // 2) // (_ONE * _ONE), 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _cubic_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """For each of ``target`` positions: the four source positions and their weights, in units of 1 / 2048."""
    centre = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(centre)
    far = (centre - first)[:, None] + np.array([1, 0, -1, -2], dtype=np.float32)
    distance = np.abs(far)
    a = np.float32(_CUBIC_A)
    near_weights = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far_weights = ((distance - 5) * distance + 8) * distance * a - 4 * a
    weights = np.where(distance <= 1, near_weights, far_weights)
    taps = first.astype(np.intp)[:, None] + np.arange(-1, 3)
    return np.clip(taps, 0, source - 1), np.rint(weights * _ONE).astype(np.int32)


def forget_filters() -> None:
    """To be called before the first frame of each file.

    Filters keep properties of the first frame they see, not all of which a frame shows us: without this a picture could
    depend on the files that were read before.
    """
    _filters.cache_clear()


def _rgb(frame: av.VideoFrame, width: int | None = None, height: int | None = None) -> NDArray[np.uint8]:
    """HWC: turned upright, converted and scaled as the FFmpeg program does it."""
    whole_width, whole_height = _size(frame)
    properties = {
        "video_size": f"{frame.width}x{frame.height}",
        "pix_fmt": frame.format.name,
        "colorspace": str(int(frame.colorspace)),
        "range": str(int(frame.color_range)),
        "time_base": "1/25",
    }
    graph = _filters(tuple(properties.items()), _quarters(frame), width or whole_width, height or whole_height)
    graph.vpush(frame)
    pixels_HWC: NDArray[np.uint8] = graph.vpull().to_ndarray()
    return pixels_HWC


@lru_cache(maxsize=16)
def _filters(properties: tuple[tuple[str, str], ...], quarters: int, width: int, height: int) -> av.filter.Graph:
    """The program's own filters: frames of these properties in, upright scaled RGB frames out, one by one.

    ``VideoFrame.reformat`` is not the same: it places the samples of chroma elsewhere (MEASURED: up to 13 levels on
    UCF101 frames; none where a frame is truly grey, as nearly all of KTH).
    """
    import av

    graph = av.filter.Graph()
    graph.threads = 1
    graph.link_nodes(
        graph.add("buffer", **dict(properties)),
        *(graph.add(name, *arguments) for name, *arguments in _TURNS[quarters]),
        graph.add("scale", f"{width}:{height}:flags=bicubic"),
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _from_rgb(pixels_HWC: NDArray[np.uint8]) -> av.VideoFrame:
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24")


def _cut(frame: av.VideoFrame, box: Box) -> av.VideoFrame:
    left, top, right, bottom = box
    width, height = _size(frame)
    if right > width or bottom > height:
        raise BadSource("outside the frame", f"crop box {box} in a frame of {width}x{height} pixels")
    return _from_rgb(_rgb(frame)[top:bottom, left:right])


def _size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height when upright."""
    return (frame.height, frame.width) if _quarters(frame) % 2 else (frame.width, frame.height)


def _quarters(frame: av.VideoFrame) -> int:
    """Quarter turns, counterclockwise, that the rotation metadata of phones asks for."""
    return round(frame.rotation / 90) % 4
