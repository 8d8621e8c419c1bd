"""An index that was lost, made again from its tar: ``python -m shards index DIR``

In: a tar that writer.py wrote, and the dataset's manifest. Out: the same index file, bit for bit, or an error.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from shards.atomic import write_atomically
from shards.checksum import crc32
from shards.encoding import Kind
from shards.errors import DamageError
from shards.folder import LocalFolder
from shards.index import Index, MemberPlace, SamplePlace, piece_crcs
from shards.manifest import ArraySpec, Manifest, ShardInfo
from shards.reader import load_index


def mend_indexes(folder: LocalFolder, manifest: Manifest) -> list[str]:
    """Make every index again that is missing or damaged; returns their names.

    Raises:
        DamageError: a tar is not the one that the manifest describes, so that its index cannot be made.
    """
    mended = []
    for info in manifest.splits.values():
        specs = {name: manifest.arrays[name] for name in info.arrays}
        for shard in info.shards:
            try:
                load_index(folder, shard, specs)
            except DamageError:
                write_atomically(folder.root / shard.index_file, index_of(folder.root / shard.file, shard, specs))
                mended.append(shard.index_file)
    return mended


def index_of(tar: Path, shard: ShardInfo, specs: dict[str, ArraySpec]) -> bytes:
    """The index file of a tar.

    Raises:
        DamageError: the tar is gone, cannot be read, or is not the one that the manifest describes.
    """
    kinds: dict[str, Kind] = {}
    try:
        with tar.open("rb") as file:
            places = list(_places(file, specs, kinds))
            length = file.seek(0, 2)
    except FileNotFoundError as error:
        raise DamageError("the shard is missing", file=tar) from error
    except (tarfile.TarError, ValueError, KeyError) as error:
        raise DamageError(f"not a readable shard: {error!r}", file=tar) from error
    index = Index.from_places(tar.name, length, places, specs, kinds).to_bytes()
    if hashlib.sha256(index).hexdigest() != shard.index_sha256:
        problem = "not the shard that the manifest describes: its index would be another one"
        raise DamageError(problem, file=tar, remedy="Copy the shard again, or build the dataset again.")
    return index


def _places(file: IO[bytes], specs: dict[str, ArraySpec], kinds: dict[str, Kind]) -> Iterator[SamplePlace]:
    """Samples of a tar in order, each ending with its .json member; notes each array's encoding in ``kinds``."""
    begin = 0
    found: dict[str, tuple[int, bytes]] = {}
    with tarfile.open(fileobj=file, mode="r:") as opened:
        for member in opened:
            stored = opened.extractfile(member)
            data = stored.read() if stored is not None else b""
            key, _, field = member.name.partition(".")
            if field != "json":
                found[field.partition(".")[0]] = (member.offset_data, data)
                continue
            about, arrays = json.loads(data), {}
            for name, spec in specs.items():
                offset, payload = found[name]
                shape, kinds[name] = tuple(about[name]["shape"]), about[name]["encoding"]
                arrays[name] = MemberPlace(offset, len(payload), shape, piece_crcs(payload, shape, spec, kinds[name]))
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield SamplePlace(key, begin, end, arrays, (member.offset_data, len(data), crc32(data)))
            begin, found = end, {}
