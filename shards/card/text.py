"""A card in words: the same sections for a terminal and for ``card.md``.

In: :class:`shards.card.facts.Card`. Out: sections of lines and tables.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from shards.card.clips import is_block, shown_array
from shards.card.facts import Card, SplitFacts
from shards.card.notes import all_classes
from shards.card.values import Statistics
from shards.manifest import ArraySpec, Manifest
from shards.summary import describe, human_bytes

_LISTED_CLASSES = 120
_LISTED_VALUES = 10
_NONE = "–"
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Section:
    """A part of a card.

    Attributes:
        title: heading.
        header: names of the columns of its table; empty without one.
        rows: the table.
        lines: sentences below it.
        commands: what was typed, word for word.
    """

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


def sections(card: Card) -> dict[str, Section]:
    """The parts of a card by name, in their order; those with nothing to say are left out."""
    parts = {
        "splits": _splits(card),
        "arrays": _arrays(card),
        "classes": _classes(card),
        "values": _values(card),
        "duplicates": _duplicates(card),
        "making": _making(card.manifest),
    }
    return {name: part for name, part in parts.items() if part.rows or part.lines or part.commands}


def warnings(card: Card) -> list[str]:
    """Loud lines: clips of one split that are in another too."""
    lines = []
    for one, other in combinations(card.splits, 2):
        shared = card.duplicates.shared(one, other)
        if shared:
            example = " = ".join(str(next(place for place in shared[0] if place.split == s)) for s in (other, one))
            count, total = card.duplicates.leaked(one, other), _num_clips(card.splits[other])
            lines.append(f"LEAKAGE: {one} holds {count:,} of the {total:,} clips of {other}; first: {example}")
    return lines


def duration(seconds: float) -> str:
    """A length of time with two units at most: ``8.4 s``, ``3 min 5 s``, ``26 h 40 min``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _splits(card: Card) -> Section:
    rows, lines = [], []
    fps = card.manifest.fps
    for split, facts in card.splits.items():
        amount = facts.sizes
        samples = f"{amount.samples:,}"
        if _is_block(card.manifest, split):
            samples = f"{_num_clips(facts):,} pictures in {amount.samples:,}"
            lines.append(f"{split} holds pictures; clips of them are drawn endlessly while training.")
        frames = _frames(amount.spread_of_frames)
        length = _NONE if fps is None or not amount.total_frames else duration(amount.total_frames / fps)
        ratio = f"{amount.raw_bytes / max(amount.stored_bytes, 1):.2f}"
        stored, raw = human_bytes(amount.stored_bytes), human_bytes(amount.raw_bytes)
        rows.append((split, samples, f"{amount.shards:,}", frames, length, stored, raw, ratio))
    lines.append("Ratio: bytes of all arrays before encoding, over bytes of the tars.")
    if any("/" in row[3] for row in rows):
        lines.insert(0, "Frames: of the shortest/median/longest clip.")
    header = ("split", "samples", "shards", "frames", "duration", "stored", "raw", "ratio")
    return Section("Splits", header, tuple(rows), tuple(lines))


def _frames(lengths: tuple[int, float, int] | None) -> str:
    """Shortest, median and longest clip; one number if they are the same."""
    if lengths is None:
        return _NONE
    shown = lengths if lengths[0] < lengths[-1] else lengths[:1]
    return "/".join(f"{length:,.10g}" for length in shown)


def _arrays(card: Card) -> Section:
    rows = []
    for name, spec in card.manifest.arrays.items():
        holders = [split for split in card.splits if name in card.manifest.split(split).arrays]
        if holders:
            _, dtype, *shape = describe(name, card.manifest).split()
            rows.append((name, dtype, " ".join(shape) or "one number", _range(spec), ", ".join(holders)))
    return Section("Arrays", ("array", "type", "shape", "range", "splits"), tuple(rows))


def _range(spec: ArraySpec) -> str:
    low, high = spec.range
    return "any" if high >= _LARGEST and low <= -_LARGEST else f"{low:g} to {high:g}"


def _classes(card: Card) -> Section:
    names = all_classes(card.classes)
    if not names:
        return Section("Classes")
    shown, lines = names, []
    if len(names) > _LISTED_CLASSES:
        totals = {name: sum(counts.get(name, 0) for counts in card.classes.values()) for name in names}
        by_size = sorted(names, key=lambda name: -totals[name])
        half = _LISTED_CLASSES // 4
        shown = by_size[:half] + by_size[-half:]
        lines.append(f"The {half} largest and the {half} smallest of {len(names):,} classes.")
    rows = [(name, *(f"{counts.get(name, 0):,}" for counts in card.classes.values())) for name in shown]
    rows.append(("in all", *(f"{sum(counts.values()):,}" for counts in card.classes.values())))
    for split, counts in card.classes.items():
        missing = [name for name in names if name not in counts]
        if missing:
            lines.append(f"{split} lacks {len(missing)} of {len(names)} classes: {_listed(missing)}.")
    if any(sum(counts.values()) > _num_clips(card.splits[split]) for split, counts in card.classes.items()):
        lines.append("A clip with several things in it counts once for each.")
    return Section("Classes", ("class", *card.classes), tuple(rows), tuple(lines))


def _values(card: Card) -> Section:
    rows, lines = [], []
    for split, facts in card.splits.items():
        if facts.values is not None:
            rows += _rows_of(split, facts.values)
            lines += _empty_clips(split, facts.values)
    if rows:
        lines.insert(0, "Over all pixels; the array's declared range is [0, 1]. Clips read are spread evenly.")
    header = ("split", "array", "channel", "mean", "std", "min", "max", "clips read")
    return Section("Values", header, tuple(rows), tuple(lines))


def _rows_of(split: str, values: Statistics) -> list[tuple[str, ...]]:
    channels = {1: ("grey",), 3: ("red", "green", "blue")}.get(len(values.mean))
    names = channels or tuple(map(str, range(len(values.mean))))
    numbers = zip(names, values.mean, values.std, values.minimum, values.maximum, strict=True)
    read = f"{values.clips:,} of {values.of:,}"
    return [
        (split, values.array, name, f"{mean:.4f}", f"{std:.4f}", f"{low:.3f}", f"{high:.3f}", read)
        for name, mean, std, low, high in numbers
    ]


def _empty_clips(split: str, values: Statistics) -> list[str]:
    found = {"black": values.black, "of one colour": values.constant, "without motion": values.still}
    read = f"of the {values.clips:,} clips read of {split}"
    return [f"{count:,} {read}: {kind}." for kind, count in found.items() if count]


def _duplicates(card: Card) -> Section:
    found = card.duplicates
    lines = warnings(card)
    for split in found.splits:
        if found.within(split):
            group = next(group for group in found.groups if sum(place.split == split for place in group) > 1)
            first, second = [str(place) for place in group if place.split == split][:2]
            lines.append(f"{split}: {found.within(split):,} repeats of an earlier clip; first: {second} = {first}")
    if not found.groups and any(shown_array(_specs(card.manifest, split)) for split in found.splits):
        total = sum(_num_clips(facts) for facts in card.splits.values())
        lines.append(f"No clip occurs twice among {total:,}.")
    for (one, other), sources in card.shared_sources.items():
        what = "source file has" if len(sources) == 1 else "source files have"
        lines.append(f"{len(sources):,} {what} samples in both {one} and {other}: {_listed(sources)}")
    return Section("Duplicates", lines=tuple(lines))


def _making(manifest: Manifest) -> Section:
    rate = "no frame rate" if manifest.fps is None else f"{manifest.fps:g} frames/s"
    lines = [f"{manifest.name}: {rate}, encoding {manifest.encoding}", f"fingerprint: {manifest.fingerprint}"]
    provenance = dict(manifest.provenance)
    typed = [provenance.pop("command", None), *_as_list(provenance.pop("history", []))]
    lines += [f"note: {note}" for note in _as_list(provenance.pop("notes", []))]
    lines += [f"{name}: {_in_words(value)}" for name, value in provenance.items()]
    return Section("How it was made", lines=tuple(lines), commands=tuple(str(one) for one in typed if one))


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _in_words(value: Any) -> str:
    """A value of the provenance in one line; of a long list its beginning."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return _listed([_in_words(inner) for inner in value])
    return value if isinstance(value, str) else json.dumps(value)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED_VALUES:,} more" if len(names) > _LISTED_VALUES else ""
    return ", ".join(names[:_LISTED_VALUES]) + more


def _specs(manifest: Manifest, split: str) -> dict[str, Any]:
    return {name: manifest.arrays[name] for name in manifest.split(split).arrays}


def _is_block(manifest: Manifest, split: str) -> bool:
    name = shown_array(_specs(manifest, split))
    return name is not None and is_block(manifest.arrays[name])


def _num_clips(facts: SplitFacts) -> int:
    return facts.sizes.samples if facts.values is None else facts.values.of
