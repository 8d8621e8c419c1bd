"""Carry out a plan: parts in parallel, each complete or not at all; the last one in puts the dataset together.

In: a :class:`BuildPlan` and where to. Out: the dataset's folder, or an error that says what to do. The same command
after an interruption, or after a source was repaired, makes only the parts that are missing or whose sources changed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shards.building.made_with import made_with
from shards.building.merge import finished_notes, merge, tidy
from shards.building.part import Bad, BadSources, PartMaker, PartNote, Remark, note_path
from shards.building.plan import BuildPlan, Part, cut_into_parts, sources_digest
from shards.building.report import REPORT_FILE, print_report
from shards.building.site import Site, Slice, explained
from shards.building.space import check_space
from shards.building.workers import WorkerKilled, run_in_workers, tick
from shards.encoding import Encoding
from shards.errors import ShardError
from shards.manifest import Manifest


@dataclass(frozen=True)
class BuildOptions:
    """How a plan is carried out.

    Attributes:
        out: the new folder; missing or empty.
        encoding: ``raw``, ``zstd``, ``mp4`` or ``mp4:CRF``, see encoding.py.
        workers: processes.
        bad: ``stop`` or ``skip``: what a source that cannot be used does.
        part_of: which parts are this process's.
        shard_mb: aim for the size of a tar; None lets the plan decide.
        command: for the manifest: what a person typed.
    """

    out: Path
    encoding: str = "raw"
    workers: int = 1
    bad: Bad = "stop"
    part_of: Slice = field(default_factory=Slice)
    shard_mb: int | None = None
    command: str = ""


def build(plan: BuildPlan, options: BuildOptions) -> Manifest | None:
    """Build a dataset, or this process's slice of it.

    Returns:
        The manifest; None if parts of other slices are still missing (the last slice to end puts it together).

    Raises:
        ShardError: bad options, no room, sources that cannot be used, another process at work in this folder.
    """
    empty = [split for split, items in plan.splits.items() if not items]
    if empty or not plan.splits:
        raise ShardError(
            f"nothing to build for split {', '.join(empty) or 'any'}", remedy="Check --raw and the options."
        )
    parts = cut_into_parts(plan, options.shard_mb)
    site = Site.of(options.out)
    settings, sources = _settings(plan, options), sources_digest(plan)
    site.reach()
    try:
        with site.joined(settings, sources, options.part_of) as complete:
            if complete is not None:
                return _already(site, complete, options)
            _make_parts(site, plan, parts, options)
            with site.alone():
                kept_elsewhere = {"name", "encoding", "settings"}  # in the manifest
                ours = {name: value for name, value in settings.items() if name not in kept_elsewhere}
                about = {"command": options.command, "build": {"sources": sources, **ours}}
                return _finish(site, plan, parts, options, about)
    except OSError as error:
        if options.part_of.count > 1 and (complete := site.built(settings, sources)) is not None:
            return complete  # another slice has put the dataset together while this one looked for work
        raise explained(error, site.out) from error


def _make_parts(site: Site, plan: BuildPlan, parts: Sequence[Part], options: BuildOptions) -> None:
    mine = [part for number, part in enumerate(parts) if options.part_of.owns(number)]
    done = finished_notes(site, plan, mine, options.bad)
    missing = [part for part in mine if part.tar not in done]
    if done:
        print(f"going on: {len(done)} of {len(mine)} shards are complete already", flush=True)
    encoding = Encoding.parse(options.encoding)
    others = [part for number, part in enumerate(parts) if not options.part_of.owns(number)]
    still_others = [part for part in others if not note_path(site.folder, part).exists()]
    check_space(site.out, [*missing, *still_others], encoding)
    maker = PartMaker(site, replace(plan, splits={}), encoding, options.bad)
    refused = _survive(site, maker, missing, options.workers)
    if refused:
        print_report(sorted(refused, key=lambda remark: (remark.split, remark.key)), "")
        problem = f"{len(refused)} sources cannot be used; the shards without them are complete and kept"
        remedy = "Repair them and run the same command again (it goes on from here), or leave them out with --bad skip."
        raise ShardError(problem, file=site.out, remedy=remedy)


def _survive(site: Site, maker: PartMaker, parts: Sequence[Part], workers: int) -> list[Remark]:
    """Make parts; returns what is said of sources that cannot be used.

    When a worker is killed, what the workers were at is made again alone. An item that kills its worker also then is
    noted as deadly, and is from then on a source that cannot be used.

    Raises:
        WorkerKilled: workers are killed, and not by what they make.
    """
    refused: dict[str, tuple[Remark, ...]] = {}
    waiting = {part.tar: part for part in parts}

    def attempt(some: Sequence[Part], processes: int) -> None:
        work = partial(_attempt, replace(maker, deadly=site.deadly()))
        steps = sum(len(part.items) for part in some)
        for part, made in run_in_workers(work, some, processes, maker.plan.name, steps=steps):
            waiting.pop(part.tar)
            if isinstance(made, BadSources):
                refused[part.tar] = made.remarks

    while waiting:
        before = len(waiting), len(site.deadly())
        try:
            attempt(list(waiting.values()), workers)
        except WorkerKilled as killed:
            for tar in sorted({tar for tar, _, _ in site.take_suspects()} & {*waiting}):
                try:
                    attempt([waiting[tar]], 1)
                except WorkerKilled:
                    for _, split, key in site.take_suspects():
                        print(f"note: {key} of {split} kills its worker, also alone", flush=True)
                        site.add_deadly(split, key)
            if (len(waiting), len(site.deadly())) == before:
                raise killed
    return [remark for remarks in refused.values() for remark in remarks]


def _attempt(maker: PartMaker, part: Part) -> PartNote | BadSources:
    """In a worker: bad sources are collected over all parts, anything else ends the build."""
    try:
        return maker(part, tick)
    except BadSources as error:
        return error


def _finish(
    site: Site, plan: BuildPlan, parts: Sequence[Part], options: BuildOptions, about: dict[str, Any]
) -> Manifest | None:
    """Put the dataset together if all parts of all slices are there."""
    if not site.folder.exists():  # another slice was quicker
        return Manifest.load(site.out)
    missing = sum(not note_path(site.folder, part).exists() for part in parts)
    if missing:
        print(f"slice {options.part_of} is done; {missing} of {len(parts)} shards are still the other slices' to make")
        return None
    notes = finished_notes(site, plan, parts, options.bad)  # this looks at every source
    if len(notes) < len(parts):
        first = next(part.tar for part in parts if part.tar not in notes)
        problem = f"{len(parts) - len(notes)} shards (first: {first}) were made of other sources than are there now"
        remedy = "Have all slices the same raw files, with the same time stamps? Run all again: only these are made."
        raise ShardError(problem, file=site.out, remedy=remedy)
    remarks = [remark for part in parts for remark in notes[part.tar].remarks]
    try:
        manifest = merge(site, plan, parts, notes, options.encoding, about)
    except ShardError:
        print_report(remarks, "")
        raise
    print_report(remarks, str(site.out / REPORT_FILE))
    return manifest


def _already(site: Site, manifest: Manifest, options: BuildOptions) -> Manifest:
    tidy(site)  # a process may have been killed at it
    if options.part_of.count > 1:
        return manifest
    problem = f"already holds {manifest.name}, built with these options"
    raise ShardError(problem, file=site.out, remedy=f"Check it: python -m shards verify {options.out}; or delete it.")


def _settings(plan: BuildPlan, options: BuildOptions) -> dict[str, Any]:
    """What two processes must agree on to build one dataset, and what it is made with."""
    settings = {
        "name": plan.name,
        "encoding": options.encoding,
        "shard_mb": options.shard_mb,
        "settings": plan.provenance.get("settings"),
        "made with": made_with(),
    }
    return json.loads(json.dumps(settings))
