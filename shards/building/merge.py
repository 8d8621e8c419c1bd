"""The last step of a build: all parts are there, so the dataset is put together and takes its name.

In: the notes of all parts in the plan's order. Out: manifest.json and report.csv, and the folder of parts becomes OUT.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from shards.atomic import sync_folder, write_atomically
from shards.building.part import Bad, PartNote, Remark, note_path
from shards.building.plan import BuildPlan, Part
from shards.building.report import REPORT_FILE, report_csv
from shards.building.site import STATE_FILES, Site
from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, Manifest, SplitInfo
from shards.writer import ContentDigest


def finished_notes(site: Site, plan: BuildPlan, parts: Sequence[Part], bad: Bad) -> dict[str, PartNote]:
    """By their tars, the notes of the parts that are complete.

    A part counts if its sources and its files are as they were; with ``bad`` = ``stop``, only if it lacks no source.
    """
    found = {}
    for part in parts:
        note = PartNote.load(note_path(site.folder, part))
        if note is None or note.identity != part.identity(plan) or not _files_are_there(site, note):
            continue
        if bad == "skip" or all(remark.used for remark in note.remarks):
            found[part.tar] = note
    return found


def _files_are_there(site: Site, note: PartNote) -> bool:
    if note.info is None:
        return True
    tar, index = site.folder / note.info.file, site.folder / note.info.index_file
    if not tar.exists() or tar.stat().st_size != note.info.bytes or not index.exists():
        return False
    return hashlib.sha256(index.read_bytes()).hexdigest() == note.info.index_sha256


def merge(
    site: Site,
    plan: BuildPlan,
    parts: Sequence[Part],
    notes: Mapping[str, PartNote],
    encoding: str,
    about: Mapping[str, Any],
) -> Manifest:
    """Put the dataset together. The caller holds ``site.alone()``.

    Whatever happens in between, either the parts with their notes are there, or the dataset is.

    Args:
        site: with all parts in it.
        plan: of the build.
        parts: all parts.
        notes: of all parts, by their tars.
        encoding: how uint8 arrays were stored.
        about: for the manifest's provenance: the command, what the build was made with.

    Returns:
        The manifest, as saved.

    Raises:
        ShardError: two samples have one key, or a split has none.
    """
    notes_of = {split: [notes[part.tar] for part in parts if part.split == split] for split in plan.splits}
    empty = [split for split, found in notes_of.items() if not any(note.keys for note in found)]
    if empty and (len(empty) == len(notes_of) or "train" in empty):
        sources = sum(len(plan.splits[split]) for split in empty)
        problem = f"split {', '.join(empty)}: none of {sources} sources can be used"
        raise ShardError(problem, remedy="See the table of sources, and check the options.")
    splits = {split: _split_info(plan, split, found) for split, found in notes_of.items() if split not in empty}
    remarks = [remark for part in parts for remark in notes[part.tar].remarks]
    provenance = dict(about) | plan.provenance
    missing = [f"no split {split}: none of its {len(plan.splits[split])} sources can be used" for split in empty]
    if plan.notes or missing:
        provenance["notes"] = [*plan.notes, *missing]
    for note in missing:
        print(f"note: {note}", flush=True)
    if remarks:
        provenance["remarks"] = _counts(remarks)
        write_atomically(site.folder / REPORT_FILE, report_csv(remarks).encode("utf-8", "replace"))
    manifest = Manifest(plan.name, dict(plan.arrays), plan.fps, encoding, splits, provenance)
    _drop_strays(site, manifest)
    manifest.save(site.folder)
    sync_folder(site.folder)
    if site.out.is_dir():
        site.out.rmdir()  # empty: seen when the build began
    site.folder.replace(site.out)
    sync_folder(site.out.parent)
    tidy(site)
    return manifest


def tidy(site: Site) -> None:
    """Remove from a finished dataset what only its build needed; nothing else that may lie there."""
    for path in [*site.out.glob("*.part.json"), *(site.out / name for name in STATE_FILES)]:
        path.unlink(missing_ok=True)
    site.lengths.unlink(missing_ok=True)


def _drop_strays(site: Site, manifest: Manifest) -> None:
    """Remove from the parts what an earlier plan or a killed process has left."""
    shards = [shard for info in manifest.splits.values() for shard in info.shards]
    names = [name for shard in shards for name in (shard.file, shard.index_file)]
    wanted = {MANIFEST_FILE, REPORT_FILE, *names, *STATE_FILES}
    for path in site.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in wanted and not path.name.endswith(".part.json"):
            path.unlink()


def _split_info(plan: BuildPlan, split: str, notes: Sequence[PartNote]) -> SplitInfo:
    content, keys = ContentDigest(), set()
    for note in notes:
        for key, digest in zip(note.keys, note.digests, strict=True):
            if key in keys:
                raise ShardError(f"key {key!r} occurs twice in split {split!r}")
            keys.add(key)
            content.add(bytes.fromhex(digest))
    shards = tuple(note.info for note in notes if note.info is not None)
    return SplitInfo(tuple(plan.arrays), shards, content.hexdigest())


def _counts(remarks: Sequence[Remark]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for remark in remarks:
        label = remark.kind if remark.used else f"left out: {remark.kind}"
        counts[label] = counts.get(label, 0) + 1
    return counts
