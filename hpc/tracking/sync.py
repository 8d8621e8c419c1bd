"""Rebuilds a W&B run from the journal: only the surviving lineage, so one curve without repeated steps.

In:  a run folder, its evaluations included. Out: a new W&B run (a W&B run cannot take back rows, so the id is a fresh
     one), offline or online.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.evaluation.scores import evaluations_in, read_scores, splits_in
from hpc.tracking.evaluation_mirror import UNREADABLE, findings_of
from hpc.tracking.journal import CURRENT, JournalError, Record, read_records, surviving
from hpc.tracking.wandb_mirror import MirrorSpec, choose_mode, new_id, open_run, write_findings, write_record


@dataclass(frozen=True)
class Rebuilt:
    """What came of a rebuild."""

    run_id: str
    where: str
    """Address of the run, or folder of its offline files."""
    mode: str
    rows: int
    superseded: int
    """Records left out because a later attempt went back before them."""
    missing_videos: int
    """Videos of the journal whose files are gone."""
    evaluations: int
    """Whose scores are in its summary."""
    unreadable: list[str]
    """Why others are not."""


def rebuild(run_dir: Path, project: str = "", mode: str = "auto") -> Rebuilt:
    """Write the surviving lineage of `run_dir` into a new W&B run.

    Args:
        project: W&B project; empty: the one of the run's own configuration.
        mode: auto, online or offline.

    Raises:
        JournalError: there is nothing to rebuild from. MirrorError: W&B refuses. OSError: W&B's folder cannot be made.
    """
    records = list(read_records(run_dir))
    if not records:
        raise JournalError(f"no records in {run_dir / CURRENT}: give the folder of a started run; they are under runs/")
    kept = surviving(records)
    config = _config(kept)
    log = config.get("log", {})
    folder, chosen = run_dir.resolve(), choose_mode(mode)
    spec = MirrorSpec(
        run_dir=str(folder),
        mode=chosen,
        project=project or log.get("project", "odevid"),
        group=log.get("group", ""),
        run_id=new_id(),
        title=f"{folder.parent.name}/{folder.name} (rebuilt)",
        pid=os.getpid(),
    )
    run = open_run(spec, chosen, config, finish_timeout_s=0)
    missing = sum(not write_record(run, record, run_dir) for record in kept)
    evaluations, unreadable = _write_evaluations(run, run_dir)
    address = run.url if chosen == "online" else str(Path(run.dir).parent)
    run.finish()
    rows, superseded = len(kept) - missing, len(records) - len(kept)
    return Rebuilt(spec.run_id, address, chosen, rows, superseded, missing, evaluations, unreadable)


def _write_evaluations(run: Any, run_dir: Path) -> tuple[int, list[str]]:
    """How many are in the summary now, and why others are not."""
    unreadable = []
    evaluation = run_dir / "evaluation"
    folders = [where for split in (evaluation, *splits_in(evaluation).values()) for where in evaluations_in(split)]
    for where in folders:
        try:
            write_findings(run, findings_of(read_scores(where), where))
        except UNREADABLE as error:
            unreadable.append(f"{where}: {error}")
    return len(folders) - len(unreadable), unreadable


def _config(records: list[Record]) -> dict[str, Any]:
    """The configuration of the last start, if there was one."""
    found = [record.data["config"] for record in records if record.kind == "start"]
    return found[-1] if found else {}
