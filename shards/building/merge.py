"""The last step of a build: all parts are there, so the dataset is put together and takes its name.

In: the notes of all parts in the plan's order. Out: manifest.json and report.csv, and the folder of parts becomes OUT.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

from shards.atomic import sync_folder, write_atomically
from shards.building.part import Bad, PartNote, Remark, note_path
from shards.building.plan import BuildPlan, Part
from shards.building.report import REPORT_FILE, report_csv
from shards.building.site import Site
from shards.errors import ShardError
from shards.manifest import MANIFEST_FILE, Manifest, SplitInfo
from shards.writer import ContentDigest


def finished_notes(site: Site, parts: Sequence[Part], bad: Bad) -> dict[str, PartNote]:
    """By their tars, the notes of the parts that are complete.

    A part counts if its sources are as they were; with ``bad`` = ``stop``, only if none of them was left out.
    """
    found = {}
    for part in parts:
        note = PartNote.load(note_path(site.folder, part))
        if note is None or note.identity != part.identity():
            continue
        if bad == "skip" or all(remark.used for remark in note.remarks):
            found[part.tar] = note
    return found


def merge(
    site: Site, plan: BuildPlan, parts: Sequence[Part], notes: Mapping[str, PartNote], encoding: str, command: str
) -> Manifest:
    """Put the dataset together. The caller holds ``site.alone()``.

    Args:
        site: with all parts in it.
        plan: of the build.
        parts: all parts.
        notes: of all parts, by their tars.
        encoding: how uint8 arrays were stored.
        command: that a person would type to build this.

    Returns:
        The manifest, as saved.

    Raises:
        ShardError: two samples have one key, or a split has none.
    """
    notes_of = {split: [notes[part.tar] for part in parts if part.split == split] for split in plan.splits}
    splits = {split: _split_info(plan, split, notes_of[split]) for split in plan.splits}
    remarks = [remark for part in parts for remark in notes[part.tar].remarks]
    provenance = {"command": command} | plan.provenance
    if plan.notes:
        provenance["notes"] = list(plan.notes)
    if remarks:
        provenance["remarks"] = _counts(remarks)
        write_atomically(site.folder / REPORT_FILE, report_csv(remarks).encode("utf-8", "replace"))
    manifest = Manifest(plan.name, dict(plan.arrays), plan.fps, encoding, splits, provenance)
    _keep_only(site, manifest)
    manifest.save(site.folder)
    sync_folder(site.folder)
    if site.out.is_dir():
        site.out.rmdir()  # empty: seen when the build began
    site.folder.replace(site.out)
    sync_folder(site.out.parent)
    site.lengths.unlink(missing_ok=True)
    return manifest


def _split_info(plan: BuildPlan, split: str, notes: Sequence[PartNote]) -> SplitInfo:
    content, keys = ContentDigest(), set()
    for note in notes:
        for key, digest in zip(note.keys, note.digests, strict=True):
            if key in keys:
                raise ShardError(f"key {key!r} occurs twice in split {split!r}")
            keys.add(key)
            content.add(bytes.fromhex(digest))
    if not keys:
        problem = f"split {split!r} has no sample: none of its {len(plan.splits[split])} sources can be used"
        raise ShardError(problem, remedy="See the table of sources, and check the options.")
    shards = tuple(note.info for note in notes if note.info is not None)
    return SplitInfo(tuple(plan.arrays), shards, content.hexdigest())


def _counts(remarks: Sequence[Remark]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for remark in remarks:
        label = remark.kind if remark.used else f"left out: {remark.kind}"
        counts[label] = counts.get(label, 0) + 1
    return counts


def _keep_only(site: Site, manifest: Manifest) -> None:
    """Remove notes, settings, and what an earlier plan or a killed process has left."""
    shards = [shard for info in manifest.splits.values() for shard in info.shards]
    wanted = {MANIFEST_FILE, REPORT_FILE, *(s.file for s in shards), *(s.index_file for s in shards)}
    for path in site.folder.iterdir():
        if path.name in wanted:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
