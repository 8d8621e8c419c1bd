"""Where a run comes from: code, data, machine, dates, and its whole configuration.

In: a run. Out: a table of facts, and the text of config.yaml to unfold. What is not known says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from hpc.report.blocks import Block, Cell, Details, Paragraph, Row, Table
from hpc.report.costs import device_names
from hpc.report.differences import usual_size
from hpc.report.facts import RunFacts, at

NOT_KNOWN = "not known"


def provenance(run: RunFacts) -> list[Block]:
    rows = [Row([Cell(name), Cell(text, missing=text == NOT_KNOWN)]) for name, text in _facts(run)]
    blocks: list[Block] = [
        Table([Cell(run.name), Cell("")], rows, text_columns=2, name="provenance"),
        Details(f"Configuration of {run.name} (config.yaml)", run.config_text),
    ]
    if run.troubles:
        blocks += [Paragraph(f"{trouble}.", "warning") for trouble in run.troubles]
    return blocks


def _facts(run: RunFacts) -> list[tuple[str, str]]:
    versions = [v for event in run.events("preflight") if isinstance(v := event.get("versions"), Mapping)]
    attempts = run.life.history.attempts
    dates = [attempt.time for attempt in attempts] + ([run.life.heard] if run.life.heard else [])
    ranks = _several(attempt.world_size for attempt in attempts if attempt.verb == "train")
    evaluated = run.evaluation.scores.about if run.evaluation else {}
    facts = [
        ("folder", str(run.folder.path)),
        ("experiment", f"{run.experiment}, {f'size={run.size}' if run.size else usual_size(run.experiment)}"),
        ("seed", str(run.setting("seed", NOT_KNOWN))),
        ("code", _several(about.get("code") for about in run.starts())),
        ("libraries", _libraries(versions)),
        ("devices", ", ".join(device_names(run)) or NOT_KNOWN),
        ("nodes", _several(node for attempt in attempts for node in attempt.nodes)),
        ("ranks", ranks),
        ("batches", _several(about.get("plan") for about in run.starts())),
        ("dates", f"{_date(min(dates))} to {_date(max(dates))}" if dates else NOT_KNOWN),
        *_dataset(run),
    ]
    if run.evaluation:
        told = [f"step {evaluated.get('step', NOT_KNOWN)}"]
        told += [str(evaluated[key]) for key in ("date", "code", "command") if evaluated.get(key)]
        facts.append(("evaluation", ", ".join(told)))
    return facts


def _libraries(versions: Iterable[Mapping[str, object]]) -> str:
    found = _several(
        ", ".join(f"{name} {version[name]}" for name in ("torch", "deepspeed", "python") if name in version)
        for version in versions
    )
    return found or NOT_KNOWN


def _dataset(run: RunFacts) -> list[tuple[str, str]]:
    name, root = run.setting("data.name", NOT_KNOWN), run.setting("data.root")
    facts = [("dataset", f"{name} at {root}" if root else str(name))]
    if run.manifest is None:
        return [*facts, ("fingerprint", NOT_KNOWN)]
    facts.append(("fingerprint", str(run.manifest.get("fingerprint", NOT_KNOWN))))
    if origin := at(run.manifest, "provenance.digits.origin"):
        facts.append(("digits", str(origin)))
    if command := at(run.manifest, "provenance.command"):
        facts.append(("built by", str(command)))
    return facts


def _several(values: Iterable[object]) -> str:
    """Each once, in their order."""
    return ", ".join(dict.fromkeys(str(value) for value in values if value is not None)) or NOT_KNOWN


def _date(then: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(then))
