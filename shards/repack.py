"""The same samples in other tars: ``python -m shards repack DIR --out NEW``

In: a dataset, ours or a folder of anyone's tars. Out: a new dataset with another shard size or encoding. A change that
loses nothing keeps the fingerprint, and with it the order in which training sees the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from shards.errors import ShardError
from shards.folder import open_folder
from shards.manifest import ArraySpec, Manifest
from shards.opening import open_table
from shards.reader import ClipTable, read_arrays
from shards.writer import Sample, write_dataset

_DEFAULT_SHARD_BYTES = 256 << 20


def repack(
    root: Path | str,
    out: Path,
    *,
    samples_per_shard: int | None = None,
    encoding: str | None = None,
    splits: Sequence[str] = (),
    min_frames: int = 1,
    command: str = "",
    on_sample: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Write a dataset again.

    Args:
        root: the dataset: see folder.py.
        out: folder of the new one; missing or empty.
        samples_per_shard: samples in each new tar; default about 256 MB of them.
        encoding: of the new one; default as before, and raw for foreign tars.
        splits: which splits; default all. Needed for foreign tars, which have no list of them.
        min_frames: clips with fewer frames are left out.
        command: noted in the new manifest.
        on_sample: hears the split after each sample.

    Raises:
        ShardError: a sample is damaged, or the new dataset cannot be written.
    """
    folder = open_folder(root)
    manifest = folder.manifest()
    names = list(splits or (manifest.splits if manifest else ()))
    if not names:
        raise ShardError("which splits? A folder without manifest.json has no list", remedy='Add e.g. --split "all".')
    tables = {name: open_table(folder, manifest, name) for name in names}
    history = [*(manifest.provenance.get("history", []) if manifest else []), command]
    first = next(iter(tables.values()))
    return write_dataset(
        out,
        manifest.name if manifest else Path(folder.location).stem,
        {name: _samples(table, min_frames) for name, table in tables.items()},
        _merged_specs(tables.values()),
        encoding=encoding or (manifest.encoding if manifest else "raw"),
        samples_per_shard=samples_per_shard or _shard_size(first),
        fps=manifest.fps if manifest else None,
        provenance=(manifest.provenance if manifest else {}) | {"history": history},
        on_sample=on_sample,
    )


def _samples(table: ClipTable, min_frames: int) -> Iterator[Sample]:
    timed = [name for name, spec in table.arrays.items() if spec.has_time]
    for clip in range(len(table)):
        if all(table.shapes(clip)[name][0] >= min_frames for name in timed):
            yield Sample(plain_key(table.key(clip)), read_arrays(table, clip), table.meta(clip))


def plain_key(key: str) -> str:
    """A key that a dataset of ours may have: other characters, such as those of ``../x``, become underscores."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-=+/") else "_" for letter in key)
    return "/".join(part for part in kept.split("/") if part) or "_"


def _merged_specs(tables: Iterable[ClipTable]) -> dict[str, ArraySpec]:
    """Declarations that hold for every split: a length that differs between them becomes None."""
    merged: dict[str, ArraySpec] = {}
    for table in tables:
        for name, spec in table.arrays.items():
            other = merged.get(name, spec)
            shape = tuple(a if a == b else None for a, b in zip(spec.shape, other.shape, strict=True))
            merged[name] = replace(spec, shape=shape)
    return merged


def _shard_size(table: ClipTable) -> int:
    """Samples that make about 256 MB, judged by the first."""
    num_bytes = sum(array.nbytes for array in read_arrays(table, 0).values())
    return max(1, _DEFAULT_SHARD_BYTES // max(1, num_bytes))
