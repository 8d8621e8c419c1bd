"""What the builder noted about each sample: its class, and the file that it was cut from.

In: a table of clips, whose metadata is read (not its videos). Out: :class:`Notes`.

A class is ``meta["class"]``, else ``meta["label"]``; a clip of several things, such as two moving digits, has
``meta["labels"]`` and counts once for each. A block of digits has an array ``labels``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shards.card.clips import is_block, read_array, shown_array
from shards.reader import ClipTable


@dataclass(frozen=True)
class Notes:
    """Of one split.

    Attributes:
        classes: how often each occurs; empty if the samples have none.
        sources: names of the files that the samples come from; empty if that was not noted.
    """

    classes: dict[str, int]
    sources: frozenset[str]


def read_notes(table: ClipTable, on_sample: Callable[[int], None] = lambda _: None) -> Notes:
    """Read the metadata of every sample of a split.

    Args:
        table: the split.
        on_sample: hears 1 after each.

    Raises:
        DamageError: a sample's metadata is gone or damaged.
    """
    classes: Counter[str] = Counter()
    sources: set[str] = set()
    name = shown_array(table.arrays)
    in_blocks = name is not None and is_block(table.arrays[name]) and "labels" in table.arrays
    for number in range(len(table)):
        meta = table.meta(number)
        classes.update(map(str, read_array(table, number, "labels").tolist()) if in_blocks else classes_of(meta))
        if isinstance(meta.get("source"), str):
            sources.add(meta["source"])
        on_sample(1)
    return Notes({name: classes[name] for name in all_classes({"": classes})}, frozenset(sources))


def all_classes(classes: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The names that occur in any split, in order: numbers first, names after them."""
    return sorted({name for counts in classes.values() for name in counts}, key=_natural)


def classes_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes of a sample by its metadata: none, one, or one for each thing in it."""
    for name in ("class", "label"):
        if isinstance(meta.get(name), str | int):
            return (str(meta[name]),)
    labels = meta.get("labels")
    return tuple(map(str, labels)) if isinstance(labels, list) else ()


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
