"""How an array becomes the bytes of a tar member, and back.

    raw     the array's own bytes, C order, little-endian: exact, a window is read without the rest. Default.
    zstd    Zstandard level 3 of those bytes: exact; for synthetic sprites about 60 times smaller, and faster.
    mp4     x264 video at CRF 4, full chroma: NOT exact (43 dB on BAIR), 5 times smaller, read about 100 times slower.
    mp4:N   the same at CRF N; mp4:0 is exact (x264 in RGB), 1.5 to 2.5 times smaller than raw.

A dataset names one encoding. It applies to uint8 arrays (``mp4`` only to TCHW video with 1 or 3 channels); everything
else, such as float32 fields and labels, is stored raw.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.errors import DamageError, ShardError
from shards.manifest import ArraySpec

Kind = Literal["raw", "zstd", "mp4"]
EXTENSIONS: dict[str, str] = {"raw": "raw", "zstd": "zst", "mp4": "mp4"}
_ZSTD_LEVEL = 3
_DEFAULT_CRF = 4
_DEFAULT_FPS = 25


@dataclass(frozen=True)
class Encoding:
    """A dataset's encoding, as named by the user.

    Attributes:
        kind: raw, zstd or mp4.
        crf: x264's quality number, 0 (exact) to 51 (worst); used by mp4 only.
    """

    kind: Kind
    crf: int = _DEFAULT_CRF

    @classmethod
    def parse(cls, text: str) -> Encoding:
        """From ``raw``, ``zstd``, ``mp4`` or ``mp4:CRF``.

        Raises:
            ShardError: anything else.
        """
        kind, _, crf = text.partition(":")
        if kind == "mp4" and (not crf or (crf.isdecimal() and int(crf) <= 51)) and not text.endswith(":"):
            return cls("mp4", int(crf or _DEFAULT_CRF))
        if text == "raw":
            return cls("raw")
        if text == "zstd":
            return cls("zstd")
        raise ShardError(f"unknown encoding {text!r}; expected raw, zstd, mp4 or mp4:CRF with CRF from 0 to 51")

    def kind_for(self, spec: ArraySpec) -> Kind:
        """How an array declared like this is stored in a dataset of this encoding."""
        if spec.dtype != "uint8" or (self.kind == "mp4" and spec.axes != "TCHW"):
            return "raw"
        return self.kind

    @property
    def is_exact(self) -> bool:
        """Whether decoding gives back the values that were written."""
        return self.kind != "mp4" or self.crf == 0


def encode(array: NDArray[Any], kind: Kind, *, crf: int = _DEFAULT_CRF, fps: float | None = None) -> bytes:
    """The bytes of a tar member.

    Args:
        array: any for raw and zstd; uint8 TCHW with C 1 or 3 for mp4.
        kind: how to store it.
        crf: for mp4, see :class:`Encoding`.
        fps: for mp4, written into the file for players; not used when reading.

    Raises:
        ShardError: a shape that mp4 cannot hold.
    """
    if kind == "mp4":
        return _encode_mp4(array, crf, fps)
    data = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes()
    if kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data)
    return data


def decode(data: bytes | bytearray, kind: Kind, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of a tar member; it may be read-only.

    Args:
        data: the member's bytes.
        kind: how it was stored.
        dtype: of the array.
        shape: of the array; what is found must have this shape.

    Raises:
        DamageError: the bytes do not hold such an array.
    """
    if kind == "mp4":
        return _decode_mp4(data, shape)
    expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if kind == "zstd":
        data = _decompress(data, expected)
    if len(data) != expected:
        raise DamageError(f"found {len(data)} bytes, expected {expected} for {dtype} of shape {shape}")
    return np.frombuffer(data, dtype=np.dtype(dtype).newbyteorder("<")).reshape(shape)


def decode_frames(data: bytes | bytearray, stop: int | None = None, *, gray: bool | None = None) -> NDArray[np.uint8]:
    """The first ``stop`` frames of any video that FFmpeg reads.

    Args:
        data: a whole mp4, avi, mov, mkv, webm or gif.
        stop: number of frames wanted, None for all.
        gray: one channel (from green) if True, three if False; None takes what the video has.

    Returns:
        uint8 TCHW; fewer than ``stop`` frames if there are no more.

    Raises:
        DamageError: it is not a video, or is damaged.
    """
    import av

    frames: list[NDArray[np.uint8]] = []
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            one_channel = stream.codec_context.pix_fmt.startswith("gray") if gray is None else gray
            for frame in container.decode(stream):
                if len(frames) == stop:
                    break
                frames.append(frame.to_ndarray(format="rgb24"))
    except (av.error.FFmpegError, IndexError, ValueError, AttributeError) as error:
        raise DamageError(f"cannot be decoded as video: {error or type(error).__name__}") from error
    if not frames:
        raise DamageError("the video has no frames")
    frames_TCHW = np.stack(frames).transpose(0, 3, 1, 2)
    return frames_TCHW[:, 1:2] if one_channel else frames_TCHW


def _encode_mp4(frames_TCHW: NDArray[np.uint8], crf: int, fps: float | None) -> bytes:
    import av

    num_channels = frames_TCHW.shape[1]
    if num_channels not in (1, 3):
        raise ShardError(f"mp4 holds 1 or 3 channels, found shape {frames_TCHW.shape}; use --encoding raw or zstd")
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        rate = Fraction(fps or _DEFAULT_FPS).limit_denominator(1001)
        stream = container.add_stream("libx264" if crf else "libx264rgb", rate=rate)
        stream.height, stream.width = frames_TCHW.shape[2:]
        stream.pix_fmt = "yuv444p" if crf else "rgb24"
        # macroblock trees make x264's output differ from run to run, even with one thread
        stream.options = {"crf": str(crf), "x264-params": "no-mbtree=1"}
        stream.codec_context.thread_count = 1
        for frame_CHW in frames_TCHW:
            frame_HWC = np.ascontiguousarray(np.repeat(frame_CHW, 3 // num_channels, axis=0).transpose(1, 2, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _decode_mp4(data: bytes | bytearray, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    frames_TCHW = decode_frames(data, shape[0], gray=shape[1] == 1)
    if frames_TCHW.shape != tuple(shape):
        raise DamageError(f"found a video of shape {frames_TCHW.shape}, expected {tuple(shape)}")
    return frames_TCHW


def _decompress(data: bytes | bytearray, expected: int) -> bytes:
    import zstandard

    try:
        found = zstandard.frame_content_size(data)
        if found != expected:  # checked first: a hostile header must not make us reserve memory
            raise DamageError(f"compressed member announces {found} bytes, expected {expected}")
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise DamageError(f"cannot be decompressed: {error}") from error
