"""What a build will write, and whether there is room for it: the dry run, and the check before the first byte.

In: a plan and its parts. Out: text; an error if the disk is too small.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from shards.building.plan import BuildPlan, Item, Part
from shards.building.site import existing_parent
from shards.encoding import Encoding
from shards.errors import ShardError
from shards.summary import human_bytes

_PER_SAMPLE = 3 * 1024  # tar headers, padding, the .json member, the index
_COPIES = 3  # of a sample: measured 2.1 (raw); zstd holds up to one more
_PER_WORKER = 120 << 20  # interpreter, numpy, decoder: measured 52 MiB at the start, 60 MiB more at work


def expected_bytes(items: Sequence[Item]) -> int:
    """Bytes on disk of these items stored raw."""
    return sum(item.num_bytes + item.num_samples * _PER_SAMPLE for item in items)


def check_space(out: Path, parts: Sequence[Part], encoding: Encoding) -> None:
    """Refuse to begin what cannot be finished.

    Args:
        out: of the build.
        parts: still to be made, by all slices.
        encoding: only ``raw`` has a size that is known beforehand; for the others it is said that it was not checked.

    Raises:
        ShardError: the disk has less room than the parts need.
    """
    need = sum(expected_bytes(part.items) for part in parts)
    free = shutil.disk_usage(existing_parent(out)).free
    if encoding.kind != "raw" and need > free:
        room = f"{human_bytes(need)} before {encoding.kind} encoding, {human_bytes(free)} free"
        print(f"note: whether the disk has room was not checked: {room}", flush=True)
    elif need > free:
        problem = f"the build needs {human_bytes(need)}, the disk has {human_bytes(free)} free"
        remedy = f"Free space (see: df -h {existing_parent(out)}), choose another --out, or --encoding zstd or mp4."
        raise ShardError(problem, file=out, remedy=remedy)


def describe(plan: BuildPlan, parts: Sequence[Part], out: Path, encoding: Encoding, workers: int) -> str:
    """What would be written where: the text of a dry run."""
    lines = [f"{plan.name} -> {out}"]
    lines += [f"  note: {note}" for note in plan.notes]
    arrays = ", ".join(f"{name} {spec.dtype} {spec.axes or 'scalar'}" for name, spec in plan.arrays.items())
    rate = "" if plan.fps is None else f", {plan.fps:g} frames/s"
    lines.append(f"  arrays: {arrays}{rate}")
    for split, items in plan.splits.items():
        shards = sum(part.split == split for part in parts)
        samples = sum(item.num_samples for item in items)
        size = f"{shards} shards, {human_bytes(expected_bytes(items))} raw"
        lines.append(f"  {split}: {samples:,} samples from {len(items):,} items, {size}")
    free = shutil.disk_usage(existing_parent(out)).free
    total = sum(expected_bytes(items) for items in plan.splits.values())
    smaller = "" if encoding.kind == "raw" else f" before {encoding.kind} encoding"
    lines.append(f"  in all {human_bytes(total)}{smaller}; the disk has {human_bytes(free)} free")
    memory = min(workers, len(parts)) * (_PER_WORKER + _COPIES * largest_sample(plan))
    lines.append(f"  {min(workers, len(parts))} workers, about {human_bytes(memory)} of memory")
    return "\n".join(lines)


def largest_sample(plan: BuildPlan) -> int:
    """Bytes of the largest sample: what a worker holds, and copies on its way to the file."""
    items = [item for items in plan.splits.values() for item in items]
    return max(item.num_bytes // max(item.num_samples, 1) for item in items)
