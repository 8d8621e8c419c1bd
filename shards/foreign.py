"""Anyone's WebDataset tars of videos, read in place: no manifest, no conversion, nothing unpacked, nothing unpickled.

    a.tar: clip1.mp4 clip1.txt  clip2.mp4 ...  --foreign_index.py--> places, shapes --foreign_decode.py--> frames

What counts as a clip is said in foreign_decode.py. Other members (text, labels) are left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from shards.checksum import crc32
from shards.errors import DamageError, ShardError
from shards.foreign_decode import IMAGES, Member, decode_clip
from shards.foreign_index import index_tar
from shards.manifest import ArraySpec, video_spec


class ForeignReader:
    """:class:`shards.reader.ClipTable` of foreign tars: one uint8 array ``video`` per clip.

    Args:
        tars: the tars of a split, in order. Those without an index are scanned now.
        verify: compare the CRC-32 of what is read with that of the scan.
        cache: folder for the indexes; default beside each tar.

    Raises:
        ShardError: a tar cannot be read or has no clips.
    """

    def __init__(self, tars: Sequence[Path], *, verify: bool = True, cache: Path | None = None) -> None:
        self._verify = verify
        self._tars = [Path(tar) for tar in tars]
        self._clips = [(tar, clip) for tar in self._tars for clip in index_tar(tar, cache=cache).clips]
        shapes = {clip.shape[1:] for _, clip in self._clips if not clip.damage}
        sizes = [({shape[axis] for shape in shapes}) for axis in range(3)]
        channels, height, width = (next(iter(size)) if len(size) == 1 else None for size in sizes)
        self.arrays: dict[str, ArraySpec] = {"video": video_spec(None, channels, height, width)}
        content = [[clip.key, clip.shape, [m.crc for m in clip.members]] for _, clip in self._clips]
        self.fingerprint = hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._clips)

    def key(self, clip: int) -> str:
        """Name of a clip, as in its tar."""
        return self._clips[clip][1].key

    def shapes(self, clip: int) -> Mapping[str, tuple[int, ...]]:
        """Shape of a clip when its tar was scanned."""
        tar, found = self._clips[clip]
        if found.damage:
            first = found.members[0]
            raise DamageError(found.damage, file=tar, member=first.name, offset=first.offset)
        return {"video": found.shape}

    def read_into(self, clip: int, name: str, start: int, out: NDArray[Any]) -> None:  # noqa: ARG002 - only "video"
        """Decode a window of a clip into ``out``; a video is decoded from its beginning."""
        tar, found = self._clips[clip]
        wanted = found.members
        is_sequence = wanted[0].extension in IMAGES
        first = wanted[0]
        if is_sequence:
            wanted, start = wanted[start : start + len(out)], 0
        try:
            payloads = list(self._payloads(tar, wanted))
            frames_TCHW = decode_clip(wanted, payloads, start + len(out))[start:]
            if frames_TCHW.shape != out.shape:
                raise DamageError(f"found frames of shape {frames_TCHW.shape}, expected {out.shape}")
        except DamageError as error:
            raise DamageError(str(error), file=tar, member=first.name, offset=first.offset) from error
        out[...] = frames_TCHW

    def meta(self, clip: int) -> dict[str, Any]:
        """Where a clip comes from, for a dataset that is made from it."""
        tar, found = self._clips[clip]
        return {"tar": tar.name, "members": [member.name for member in found.members]}

    def place(self, clip: int) -> tuple[str, int]:
        """File and byte offset at which a clip's data begins."""
        tar, found = self._clips[clip]
        return tar.name, found.members[0].offset

    def _payloads(self, tar: Path, members: Sequence[Member]) -> Iterator[bytes]:
        try:
            descriptor = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DamageError("the tar is missing") from error
        try:
            for member in members:
                data = os.pread(descriptor, member.size, member.offset)
                if len(data) < member.size or (self._verify and crc32(data) != member.crc):
                    what = "truncated" if len(data) < member.size else "corrupt: CRC-32 is not that of the first scan"
                    raise DamageError(f"{what}; if the tar was replaced: python -m shards index {tar}")
                yield data
        finally:
            os.close(descriptor)


def find_tars(root: Path | str, split: str, *, cache: Path | None = None) -> list[Path]:
    """The tars of a split: ``root/split/*.tar`` or ``root/split*.tar``; all of ``root/*.tar`` if split is "all".

    A ``root`` that is itself a tar (also by http) is the only one, whatever the split.

    Raises:
        ShardError: there are none.
    """
    text = str(root)
    if text.startswith(("http:", "https:")):
        from shards.remote import fetch_tar

        return [fetch_tar(text, cache=cache)]
    folder = Path(root)
    if folder.suffix == ".tar":
        return [folder]
    every = sorted(folder.glob("*.tar"))
    found = every if split == "all" else sorted(folder.glob(f"{split}/*.tar")) or sorted(folder.glob(f"{split}*.tar"))
    if not found:
        names = ", ".join(path.name for path in every[:5]) or "no tars"
        problem = f"no manifest.json, and no tars of split {split!r} ({split}/*.tar or {split}*.tar); found {names}"
        remedy = 'Name the split as the tars are named, or "all" for every tar; or build: python -m shards build --help'
        raise ShardError(problem, file=folder, remedy=remedy)
    return found
