"""A dataset in a table, from its manifest alone; what is in it is told by a card (shards/card/).

In: a manifest. Out: rows of text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shards.manifest import Manifest

if TYPE_CHECKING:
    from rich.table import Table


def split_table(manifest: Manifest) -> Table:
    """The splits as a table for a terminal."""
    from rich.table import Table

    table = Table("split", "shards", "samples", "size", "arrays")
    for row in split_rows(manifest):
        table.add_row(*row)
    return table


def split_rows(manifest: Manifest) -> list[tuple[str, str, str, str, str]]:
    """For each split: its name, number of shards, number of samples, size, and the arrays of a sample."""
    rows = []
    for name, info in manifest.splits.items():
        arrays = ", ".join(describe(array, manifest) for array in info.arrays)
        rows.append((name, str(len(info.shards)), f"{info.samples:,}", human_bytes(info.bytes), arrays))
    return rows


def describe(array: str, manifest: Manifest) -> str:
    """An array in a few letters: ``video uint8 T30 C3 H64 W64``."""
    spec = manifest.arrays[array]
    axes = " ".join(
        f"{letter}{'?' if size is None else size}" for letter, size in zip(spec.axes, spec.shape, strict=True)
    )
    return f"{array} {spec.dtype} {axes}".rstrip()


def human_bytes(number: int) -> str:
    """A size with three digits and a unit: ``1.23 GB``."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
