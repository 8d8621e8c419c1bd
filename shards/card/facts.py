"""Everything that a card says about a dataset, gathered.

In: a dataset's address. Out: :class:`Card`, plain dataclasses that a notebook can use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from shards.card.clips import shown_array
from shards.card.duplicates import Duplicates, find_duplicates
from shards.card.notes import Notes, read_notes
from shards.card.sizes import Sizes, sizes
from shards.card.values import DEFAULT_SAMPLE, Statistics, statistics
from shards.errors import ShardError
from shards.folder import Folder, open_folder
from shards.manifest import Manifest
from shards.opening import open_table

# progress("mean and std of train", 512) is a context; what it gives hears the number of clips that were dealt with
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class SplitFacts:
    """One split: amounts, classes and sources, values (None where nothing can be shown as pictures)."""

    sizes: Sizes
    notes: Notes
    values: Statistics | None


@dataclass(frozen=True)
class Card:
    """A dataset in numbers.

    Attributes:
        folder: where it is.
        manifest: its manifest.
        splits: the facts of each split that was looked at.
        duplicates: equal clips in these splits.
    """

    folder: Folder
    manifest: Manifest
    splits: dict[str, SplitFacts]
    duplicates: Duplicates

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Split -> class -> how often; only splits that have classes."""
        return {split: facts.notes.classes for split, facts in self.splits.items() if facts.notes.classes}

    @property
    def lengths_differ(self) -> bool:
        """Whether some clips have more frames than others."""
        return len({length for facts in self.splits.values() for length in facts.sizes.frames}) > 1

    @property
    def shared_sources(self) -> dict[tuple[str, str], list[str]]:
        """For two splits with samples of the same source files: the names of these."""
        shared = {}
        for one, other in combinations(self.splits, 2):
            names = sorted(self.splits[one].notes.sources & self.splits[other].notes.sources)
            if names:
                shared[one, other] = names
        return shared


def make_card(
    root: Path | str,
    *,
    splits: Sequence[str] = (),
    sample: int = DEFAULT_SAMPLE,
    progress: Progress = lambda _what, _total: nullcontext(lambda _: None),
) -> Card:
    """Look at a dataset.

    Args:
        root: folder or address of the dataset.
        splits: which, default all.
        sample: samples per split that are read for mean and standard deviation, 0 for all.
        progress: told of what is being done, see ``Progress``.

    Raises:
        DamageError: an index or a clip is gone or damaged.
        ShardError: there is no such dataset or split.
    """
    folder = open_folder(root)
    manifest = folder.manifest()
    if manifest is None:
        raise ShardError("no manifest.json, so not a dataset of ours", file=root)
    names = list(splits or manifest.splits)
    facts = {}
    for split in names:
        table = open_table(folder, manifest, split)
        with progress(f"classes of {split}", len(table)) as advance:
            notes = read_notes(table, advance)
        values = None
        if shown_array(table.arrays) is not None:
            with progress(f"mean and std of {split}", min(sample or len(table), len(table))) as advance:
                values = statistics(table, sample, advance)
        facts[split] = SplitFacts(sizes(manifest.split(split), table), notes, values)
    with progress("duplicates", sum(one.sizes.samples for one in facts.values())) as advance:
        duplicates = find_duplicates(folder, manifest, names, advance)
    return Card(folder, manifest, facts, duplicates)
