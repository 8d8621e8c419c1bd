"""Members of one sample of a foreign tar -> the frames of its clip.

By extension (the part after the last dot):

    mp4 avi mov mkv webm m4v gif   decoded by FFmpeg
    npy npz                        one uint8 array, TCHW, THWC or THW (.npz: the only array, or the one called "video")
    jpg jpeg png                   all of the sample's images in the order of their names: one frame each

Nothing is ever unpickled: arrays are loaded with ``allow_pickle=False``, pickles not at all.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.encoding import decode_frames
from shards.errors import DamageError, ShardError

VIDEOS = frozenset({"mp4", "avi", "mov", "mkv", "webm", "m4v", "gif"})
ARRAYS = frozenset({"npy", "npz"})
IMAGES = frozenset({"jpg", "jpeg", "png"})


@dataclass(frozen=True)
class Member:
    """One file in a tar: name, byte offset and length of its data, CRC-32 of them when it was indexed."""

    name: str
    offset: int
    size: int
    crc: int = 0

    @property
    def extension(self) -> str:
        """Lower-case letters after the last dot."""
        return self.name.rpartition(".")[2].lower()


def choose_members(members: Sequence[Member]) -> list[Member]:
    """Those members of a sample that make up its clip: a video, else an array, else all images; none if there is none.

    Raises:
        ShardError: two videos or two arrays, so that it is not clear which.
    """
    for extensions in (VIDEOS, ARRAYS):
        found = [member for member in members if member.extension in extensions]
        if len(found) > 1:
            names = ", ".join(member.name for member in found)
            raise ShardError(f"several clips in one sample: {names}", remedy="Give each clip a key of its own.")
        if found:
            return found
    return sorted((member for member in members if member.extension in IMAGES), key=lambda m: _natural(m.name))


def decode_clip(members: Sequence[Member], payloads: Sequence[bytes], stop: int | None = None) -> NDArray[np.uint8]:
    """Frames of a clip.

    Args:
        members: of one clip, see :func:`choose_members`.
        payloads: their bytes.
        stop: number of frames wanted, None for all.

    Returns:
        uint8 TCHW, at most ``stop`` frames.

    Raises:
        DamageError: they cannot be decoded.
    """
    if members[0].extension in VIDEOS:
        return decode_frames(payloads[0], stop)
    if members[0].extension in ARRAYS:
        return _decode_array(payloads[0])[:stop]
    return _decode_images(payloads[:stop])


def _decode_array(data: bytes) -> NDArray[np.uint8]:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(loaded, np.lib.npyio.NpzFile):
            names = loaded.files
            chosen = "video" if "video" in names else names[0]
            if len(names) > 1 and chosen != "video":
                raise DamageError(f'arrays {names}; expected one, or one called "video"')
            loaded = loaded[chosen]
    except (ValueError, OSError, EOFError, KeyError, IndexError) as error:
        raise DamageError(f"not a readable array (pickled ones are never loaded): {error}") from error
    if loaded.dtype != np.uint8 or loaded.ndim not in (3, 4):
        raise DamageError(f"found {loaded.dtype} of shape {loaded.shape}, expected uint8 TCHW, THWC or THW")
    if loaded.ndim == 3:
        return loaded[:, None]
    if loaded.shape[1] in (1, 3):
        return loaded
    if loaded.shape[3] in (1, 3):
        return loaded.transpose(0, 3, 1, 2)
    raise DamageError(f"found shape {loaded.shape}, expected 1 or 3 channels: TCHW or THWC")


def _decode_images(payloads: Sequence[bytes]) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    frames = []
    try:
        for data in payloads:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
            frames.append(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))
        return np.stack(frames)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DamageError(f"not a readable sequence of images of one size: {error}") from error


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Sort key by which frame2 comes before frame10."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]
