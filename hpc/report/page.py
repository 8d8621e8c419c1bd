"""One page of everything: sections in the order in which a reader asks, rendered by report.html.j2.

In: runs. Out: HTML that needs nothing but itself. Whatever comes from files is escaped by the template.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hpc.report import numbers, pictures
from hpc.report.blocks import Block, Card, Cards, Commands, Gallery, Heading, Paragraph, Section
from hpc.report.commands import reproduce
from hpc.report.costs import costs
from hpc.report.differences import usual_size
from hpc.report.facts import RunFacts
from hpc.report.provenance import provenance
from hpc.report.results import headline, overview, results, step_sizes
from hpc.report.scores_over_time import curve_pngs
from hpc.report.splits import splits
from hpc.report.step_halved import step_halved
from hpc.report.training import MAXIMUM, interruptions, series_of, training_png
from hpc.version import code_version

TEMPLATE, STYLE = "report.html.j2", "report.css"


def render(runs: Sequence[RunFacts], command: str) -> str:
    """The whole page.

    Args:
        runs: at least one.
        command: what makes this page again.
    """
    environment = Environment(
        loader=PackageLoader("hpc.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style, _, _ = environment.loader.get_source(environment, STYLE) if environment.loader else ("", "", "")
    return environment.get_template(TEMPLATE).render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        style=Markup(style),
        sections=sections(runs, command),
        made=time.strftime("%Y-%m-%d %H:%M"),
        code=code_version(),
    )


def sections(runs: Sequence[RunFacts], command: str) -> list[Section]:
    """In the order of the page; none is empty."""
    return [
        Section("summary", "Summary", _summary(runs[0]) if len(runs) == 1 else [overview(runs)]),
        Section("results", "Results beside the papers'", [*results(runs), *_splits(runs)]),
        Section("steps", "Time steps", _each(runs, _steps)),
        Section("curves", "Scores over time", _curves(runs)),
        Section("pictures", "Pictures", _each(runs, _pictures)),
        Section("training", "Training", _training(runs)),
        Section("costs", "Costs", costs(runs)),
        Section("provenance", "Provenance", [block for run in runs for block in provenance(run)]),
        Section("commands", "Make it again", [*_each(runs, _commands), *_again(command)]),
    ]


def _each(runs: Sequence[RunFacts], make: Callable[[RunFacts], list[Block]]) -> list[Block]:
    """The blocks of every run, under its name where there are several."""
    blocks: list[Block] = []
    for run in runs:
        blocks += [Heading(run.name)] if len(runs) > 1 else []
        blocks += make(run)
    return blocks


def _summary(run: RunFacts) -> list[Block]:
    total, done = run.life.total, run.life.step
    share = f" ({done / total:.0%})" if total else ""
    word, words = run.state
    size = usual_size(run.experiment)
    cards = Cards(
        [
            Card("experiment", run.experiment or "not known", f"size={run.size}" if run.size else size),
            Card("steps", f"{done:,}", f"of {total:,}{share}" if total else "of an unknown number"),
            Card("state", word, words),
        ]
    )
    return [cards, *headline(run)]


def _curves(runs: Sequence[RunFacts]) -> list[Block]:
    found = curve_pngs(runs)
    figures = [
        figure
        for name, png in found.items()
        if (figure := pictures.figure(png, f"{numbers.metric(name).label} over frames", scale=0.5))
    ]
    if not figures:
        return [Paragraph("No curves: no run here has scores at its own time step that can be read.", "missing")]
    return [
        Gallery(
            figures,
            text="Mean over the test videos at each predicted frame; the bands are 95 % intervals (1.96 "
            "standard deviations / √videos).",
        )
    ]


def _steps(run: RunFacts) -> list[Block]:
    return [*step_sizes(run), *step_halved(run)]


def _splits(runs: Sequence[RunFacts]) -> list[Block]:
    """Under a heading of its own, of the runs that have scores of another split."""
    return [
        block
        for run in runs
        if (found := splits(run))
        for block in (Heading("Splits" if len(runs) == 1 else f"Splits of {run.name}"), *found)
    ]


def _pictures(run: RunFacts) -> list[Block]:
    return [*pictures.of_evaluation(run), *pictures.of_studies(run), *pictures.of_validation(run)]


def _training(runs: Sequence[RunFacts]) -> list[Block]:
    png = training_png(runs)
    figure = pictures.figure(png, "curves of training", scale=0.72) if png else None
    if figure is None:
        why = "no journal of these runs (metrics.jsonl) holds a train record"
        return [Paragraph(f"No curves of training: {why}.", "missing")]
    text = (
        "Over optimiser steps; only what led to the present weights. Dotted lines: one attempt ended, another went on."
    )
    blocks: list[Block] = [Gallery([figure], text=text)]
    for run in runs:
        curves = series_of(run)
        if not curves:
            blocks.append(Paragraph(f"{run.name} has no curve: its journal holds no train record.", "missing"))
        stops = [f"from step {stop.step:,} (the attempt before: {stop.cause})" for stop in interruptions(run)]
        if stops:
            blocks.append(Paragraph(f"{run.name} went on {', '.join(stops)}.", "caption"))
        blocks += [
            Paragraph(
                f"{run.name}: {curve.not_finite} value{'s' * (curve.not_finite > 1)} of {name} not finite, left out.",
                "warning",
            )
            for name, curve in curves.items()
            if curve.not_finite
        ]
        if (widest := max((curve.per_point for curve in curves.values()), default=1)) > 1:
            maxima = f" (of …{MAXIMUM}: the largest)" if any(name.endswith(MAXIMUM) for name in curves) else ""
            text = f"{run.name}: a point is the mean of up to {widest} logged lines{maxima}."
            blocks.append(Paragraph(text, "caption"))
    return blocks


def _commands(run: RunFacts) -> list[Block]:
    return [Commands(reproduce(run))]


def _again(command: str) -> list[Block]:
    return [Paragraph("This page was made by"), Commands([command])]
