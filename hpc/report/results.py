"""The tables of scores: ours, with both intervals, beside the papers' numbers.

In: runs with their evaluations, and odevid.paper_results. Out: blocks of the page. What was not computed says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc.report import numbers
from hpc.report.blocks import Block, Bullets, Card, Cards, Cell, Commands, Heading, Paragraph, Row, Table
from hpc.report.commands import evaluate_command
from hpc.report.differences import differences
from hpc.report.facts import Evaluation, RunFacts
from odevid import paper_results
from odevid.paper_results import PaperResult

INTERVALS = (
    "± is the half-width of the 95 % interval over test videos, 1.96 standard deviations / √videos, which is the "
    "formula of SRVP's camera-ready tables; [±] below it is the mean over frames of the half-widths of each frame, "
    "never narrower, as the preprint's wider ones may have been made."
)
BEST = "Best of N: for each metric and video the sample that scores best, as the papers do."
DASH = "–: nobody computed this number."
FVD_NOTE = "FVD: of the first samples of each video, one set after another; ± over the sets."
HEADLINE = ("psnr", "ssim", "lpips", "fvd")


def headline(run: RunFacts) -> list[Block]:
    """The main numbers of one run as cards, each with the paper's."""
    blocks: list[Block] = []
    if run.evaluation is None:
        blocks.append(
            Paragraph(
                "Not evaluated on its test split yet: there is no number for the tables. Evaluate it with", "missing"
            )
        )
        blocks.append(Commands([evaluate_command(run, run.folder.path)]))
        return blocks
    cards = [_card(run, run.evaluation, name) for name in HEADLINE]
    return [Cards(cards)]


def _card(run: RunFacts, evaluation: Evaluation, name: str) -> Card:
    known = numbers.metric(name)
    value = _main(evaluation, name)
    below = [] if value.missing else ["one sample per video" if name == "fvd" else f"best of {evaluation.samples}"]
    theirs = [r for r in _paper_rows(run.experiment) if r.metric == name and r.method == "Ours"]
    if theirs:
        below.append(f"paper: {_printed(theirs[0])}")
    return Card(known.label, value.text, " · ".join(below), value.missing)


def overview(runs: Sequence[RunFacts]) -> Table:
    """The main numbers of several runs, one line each."""
    rows = []
    for run in runs:
        words = [run.experiment + (f", size={run.size}" if run.size else ""), f"{run.life.step:,}"]
        total = f"of {run.life.total:,}" if run.life.total else ""
        cells = [Cell(run.name, run.state[0]), Cell(words[0]), Cell(words[1], total)]
        for name in HEADLINE:
            if run.evaluation is None:
                cells.append(Cell("not computed", missing=True))
            else:
                cells.append(Cell((cell := _main(run.evaluation, name)).text, missing=cell.missing))
        rows.append(Row(cells))
    names = ["run", "experiment", "steps", *(numbers.metric(name).head for name in HEADLINE)]
    notes = ["PSNR, SSIM and LPIPS: best of the samples of each test video. FVD: one sample per video."]
    return Table([Cell(name) for name in names], rows, notes, text_columns=2, name="overview")


def _main(evaluation: Evaluation, name: str) -> Cell:
    """The number that stands for a metric."""
    return _ours(evaluation, "single" if name == "fvd" else "best", name)[0]


def results(runs: Sequence[RunFacts]) -> list[Block]:
    """One table per experiment: its runs, then the papers; and in words where they differ."""
    blocks: list[Block] = []
    experiments = list(dict.fromkeys(run.experiment for run in runs))
    for experiment in experiments:
        of_it = [run for run in runs if run.experiment == experiment]
        papers = _paper_rows(experiment)
        if len(experiments) > 1:
            blocks.append(Heading(experiment))
        blocks.append(_table(of_it, papers))
        if not papers:
            blocks.append(Paragraph(f"No number of a paper is known for the experiment {experiment}.", "missing"))
        blocks += [*_how_it_differs(of_it), *_warnings(of_it)]
    return blocks


def _how_it_differs(runs: Sequence[RunFacts]) -> list[Block]:
    """From the published protocol, in words: first what all runs of an experiment have in common."""
    lines = {run.name: differences(run, run.evaluation) for run in runs}
    common = [line for line in lines[runs[0].name] if all(line in found for found in lines.values())]
    title = "How this differs from the paper's protocol"
    blocks: list[Block] = [Bullets(title, common)] if common else []
    for name, found in lines.items():
        own = [line for line in found if line not in common]
        if own:
            blocks.append(Bullets(f"{title}: {name}" if not common else name, own))
        elif not found:
            blocks.append(Paragraph(f"The protocol of {name} is the published one."))
    return blocks


def _table(runs: Sequence[RunFacts], papers: Sequence[PaperResult]) -> Table:
    wanted = {result.metric for result in papers} | {"psnr", "ssim"}
    for run in runs:
        if run.evaluation:
            wanted |= {line.metric for line in run.evaluation.scores.table} | run.evaluation.scores.absent.keys()
            wanted |= {"fvd"} if run.evaluation.scores.fvd else set()
    metrics = numbers.in_order(wanted)
    rows: list[Row] = []
    for run in runs:
        rows += _rows_of(run, metrics)
    notes = [INTERVALS, BEST, DASH] + ([FVD_NOTE] if "fvd" in metrics else [])
    if papers:
        rows.append(Row([Cell("The papers' numbers")], "head"))
        paper_rows, sources = _rows_of_papers(papers, metrics)
        rows += paper_rows
        notes += sources
    header = [Cell(""), Cell("videos"), *(Cell(numbers.metric(name).head) for name in metrics)]
    return Table(header, rows, notes, name="results")


def _rows_of(run: RunFacts, metrics: Sequence[str]) -> list[Row]:
    step = f", step {int(run.evaluation.scores.about.get('step', run.life.step)):,}" if run.evaluation else ""
    rows = [Row([Cell(f"{run.name}{step}")], "head")]
    evaluation = run.evaluation
    if evaluation is None:
        missing = [Cell("not computed", missing=True) for _ in metrics]
        return [*rows, Row([Cell("not evaluated", missing=True), Cell("–"), *missing])]
    methods = list(dict.fromkeys(line.method for line in evaluation.scores.table))
    for method in methods:
        cells, videos = [], 0
        for name in metrics:
            cell, count = _ours(evaluation, method, name)
            cells.append(cell)
            videos = max(videos, count)
        label = numbers.method_label(method, evaluation.samples)
        rows.append(Row([Cell(label), Cell(f"{videos:,}" if videos else ""), *cells]))
    return rows


def _ours(evaluation: Evaluation, method: str, name: str) -> tuple[Cell, int]:
    """The cell of a method and metric, and over how many videos it is."""
    known, scores = numbers.metric(name), evaluation.scores
    if name == "fvd" and method == "single" and scores.fvd:
        fvd = scores.fvd
        text = numbers.with_interval(fvd.mean, fvd.half_width, known.decimals)
        return Cell(text, f"{len(fvd.sets)} set{'s' * (len(fvd.sets) > 1)} of {fvd.videos:,} videos"), 0
    line = scores.score(method, name)
    if line is not None:
        text = numbers.with_interval(line.mean, line.half_width, known.decimals)
        frames = line.half_width_of_frames
        return Cell(text, f"[{_half(frames, known.decimals)}]" if frames is not None else ""), line.videos
    computed = any(other.metric == name for other in scores.table) or (name == "fvd" and scores.fvd)
    if method in numbers.MODEL_METHODS and not computed:
        return Cell("not computed", missing=True), 0
    return Cell("–", missing=True), 0


def _half(half_width: float, decimals: int) -> str:
    return f"± {numbers.number(half_width, decimals)}"


def _warnings(runs: Sequence[RunFacts]) -> list[Block]:
    found: list[Block] = []
    for run in runs:
        fvd = run.evaluation.scores.fvd if run.evaluation else None
        if fvd and fvd.videos <= fvd.dimension:
            found.append(
                Paragraph(
                    f"{run.name}: FVD is rank-deficient: {fvd.videos:,} videos are no more than the {fvd.dimension:,} "
                    "features, so the covariances are singular and the value is too large; compare it only with one of "
                    "as many videos.",
                    "warning",
                )
            )
    return found


def _paper_rows(experiment: str) -> list[PaperResult]:
    """Without the tables over step sizes, which have a place of their own."""
    return [result for result in paper_results.for_experiment(experiment) if not over_steps(result)]


def over_steps(result: PaperResult) -> bool:
    """Whether a number belongs to SRVP's tables 7 to 9: their rows are time steps."""
    return "Δt" in result.method


def _rows_of_papers(papers: Sequence[PaperResult], metrics: Sequence[str]) -> tuple[list[Row], list[str]]:
    """A row per paper and method, a second one where it gives a number twice, and the sources as notes."""
    tables: dict[tuple[str, str, str, str], int] = {}
    lines: list[tuple[str, str, dict[str, PaperResult]]] = []
    for result in papers:
        tables.setdefault(_table_of(result), len(tables) + 1)
        fitting = [
            found
            for paper, method, found in lines
            if (paper, method) == (result.paper, result.method) and result.metric not in found
        ]
        if not fitting:
            fitting = [{}]
            lines.append((result.paper, result.method, fitting[0]))
        fitting[0][result.metric] = result
    rows = []
    for paper, method, found in lines:
        cells = [Cell(_printed(found[name])) if name in found else Cell("–") for name in metrics]
        marks = ", ".join(dict.fromkeys(str(tables[_table_of(result)]) for result in found.values()))
        name = method.replace("Ours", paper.partition(",")[0], 1) if method.startswith("Ours") else method
        rows.append(Row([Cell(name, f"{paper} ({marks})"), Cell(""), *cells], "paper"))
    notes = [
        f"({number}) {paper}, {table}." + (f" {note[:1].upper()}{note[1:]}." if note else "") + f" Source: {source}."
        for (paper, table, note, source), number in tables.items()
    ]
    return rows, notes


def _table_of(result: PaperResult) -> tuple[str, str, str, str]:
    return result.paper, result.table, result.note, result.source


def _printed(result: PaperResult) -> str:
    return numbers.with_interval(result.value, result.half_width, _decimals(result))


def _decimals(result: PaperResult) -> int:
    """A paper's number keeps the digits it was printed with, as far as a float tells, and at least ours but for FVD."""
    printed = len(f"{result.value:.10g}".partition(".")[2])
    return printed if result.metric == "fvd" else max(printed, numbers.metric(result.metric).decimals)


def step_sizes(run: RunFacts) -> list[Block]:
    """SRVP's tables 7 to 9: scores over the solver's steps per frame, ours and the paper's."""
    by_steps = {int(found.folder.name.rpartition("-")[2]): found for found in run.other_steps}
    own = int(run.setting("model.n_euler_steps", 0) or 0)
    if run.evaluation and own:
        by_steps[int(run.evaluation.scores.protocol.get("substeps") or own)] = run.evaluation
    if len(by_steps) < 2:
        return [
            Paragraph(
                "Not computed: the run was not evaluated at several time steps. This command does it:", "missing"
            ),
            Commands([evaluate_command(run, run.folder.path, ["eval.substeps=[1,2,3,4,5]"])]),
        ]
    papers = [result for result in paper_results.for_experiment(run.experiment) if over_steps(result)]
    metrics = numbers.in_order(
        {line.metric for found in by_steps.values() for line in found.scores.table if line.method == "best"}
        | {"fvd" for found in by_steps.values() if found.scores.fvd}
        | {result.metric for result in papers}
    )
    rows = []
    for steps, found in sorted(by_steps.items()):
        cells = [_main(found, name) for name in metrics]
        trained = " (as trained)" if steps == own else ""
        rows.append(Row([Cell(f"1/{steps}{trained}" if steps > 1 else f"1{trained}"), *cells]))
    notes = [f"Best of {found.samples} samples. {INTERVALS}"]
    if papers:
        rows.append(Row([Cell("The paper's numbers")], "head"))
        paper_rows, sources = _rows_of_papers(papers, metrics)
        rows += [Row([row.cells[0], *row.cells[2:]], row.group) for row in paper_rows]
        notes += sources
    else:
        notes.append("No number of a paper over time steps is known here: what was not read is not in the tables.")
    header = [Cell("time step Δt"), *(Cell(numbers.metric(name).head) for name in metrics)]
    return [Table(header, rows, notes, name="step-sizes")]
