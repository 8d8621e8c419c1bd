"""One call from a dataset's address to a source of clips: stored ones, or generated from what is stored.

root --manifest--> clips of tars (dataset.py), or digits to make Moving MNIST of, endlessly (moving_mnist.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shards.cache import AUTOMATIC, cache_place
from shards.dataset import ShardClips
from shards.folder import Folder, open_folder
from shards.foreign import ForeignReader, find_tars
from shards.manifest import Manifest
from shards.moving_mnist import is_endless, open_endless
from shards.reader import ClipTable, ShardReader
from shards.source import ClipSource


def open_source(
    root: Path | str,
    split: str,
    num_frames: int,
    *,
    verify: bool = True,
    max_substitutions: int = 0,
    shard_url: str | None = None,
    allow_pipe: Sequence[str] = (),
    cache: Path | None = None,
    cache_gb: float = AUTOMATIC,
) -> ClipSource:
    """The clips of a split, ready for a :class:`shards.loader.Loader`.

    Args:
        root: folder, http(s) or file address, or ``pipe:`` command of the dataset, or a single tar, see folder.py.
        split: name of the split.
        num_frames: frames per clip in a batch.
        verify: check CRC-32 on every read.
        max_substitutions: damaged samples that the run may replace; 0 makes the first one an error.
        shard_url: where the tars are if not beside the manifest, with ``{shard}`` for the file name.
        allow_pipe: ``pipe:`` command prefixes that the user allows, besides those of the user's own file.
        cache: where fetched shards are kept; default ``$ODEVID_CACHE`` or ``~/.cache/odevid``.
        cache_gb: how much may be kept there, in GB; 0: as much as the disk has; negative: see cache.py.

    Raises:
        ShardError: there is no such dataset or split.
        RefusedError: a ``pipe:`` command that the user has not allowed.
    """
    cache = cache_place(cache) if cache is not None else None
    folder = open_folder(root, shard_url=shard_url, cache=cache, cache_gb=cache_gb, allow_pipe=allow_pipe)
    manifest = folder.manifest()
    table = open_table(folder, manifest, split, verify=verify, cache=cache)
    if manifest is not None:
        folder.expect(manifest, split)
    if manifest is not None and is_endless(manifest, split):
        return open_endless(manifest, table, num_frames)
    return ShardClips(table, num_frames, max_substitutions=max_substitutions)


def open_table(
    folder: Folder, manifest: Manifest | None, split: str, *, verify: bool = True, cache: Path | None = None
) -> ClipTable:
    """The samples of a split by number: of our own shards, or without a manifest of anyone's tars.

    Raises:
        ShardError: there is no such split, or there are no tars.
    """
    if manifest is not None:
        return ShardReader(folder, manifest, split, verify=verify)
    return ForeignReader(find_tars(folder.location, split, cache=cache), verify=verify, cache=cache)
