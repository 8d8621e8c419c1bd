"""The tables of scores: ours, with both intervals, beside the papers' numbers.

In: runs with their evaluations, and odevid.paper_results. Out: blocks of the page. What was not computed says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpc.evaluation.scores import STEP_HALVED
from hpc.evaluation.time_steps import TimeStep, is_at_a_step, time_steps
from hpc.report import numbers
from hpc.report.blocks import Block, Bullets, Card, Cards, Cell, Commands, Heading, Paragraph, Row, Table
from hpc.report.commands import evaluate_command
from hpc.report.differences import absent, differences, has_numbers, usual_protocol
from hpc.report.facts import Evaluation, RunFacts
from odevid import paper_results
from odevid.paper_results import PaperResult

INTERVALS = (
    "± is the half-width of the 95 % interval over test videos, 1.96 standard deviations / √videos, which is the "
    "formula of SRVP's camera-ready tables; [±] below it is the mean over frames of the half-widths of each frame, "
    "never narrower, as the preprint's wider ones may have been made."
)
BEST = "Best of N: for each metric and video the sample that scores best, as the papers do."
DASH = "–: no number known here."
FVD_NOTE = "FVD: of the first samples of each video, one set after another; ± over the sets."
HEADLINE = ("psnr", "ssim", "lpips", "fvd")


def headline(run: RunFacts) -> list[Block]:
    """The main numbers of one run as cards, each with the paper's."""
    blocks: list[Block] = []
    if run.evaluation is None:
        text = f"{run.no_scores}. There is no number for the tables; this command makes them:"
        blocks.append(Paragraph(text, "warning" if run.is_unreadable else "missing"))
        blocks.append(Commands([evaluate_command(run, run.folder.path)]))
        return blocks
    if run.evaluation_from:
        blocks.append(Paragraph(f"{run.evaluation_from}.", "warning"))
    return [*blocks, Cards([_card(run, run.evaluation, name) for name in HEADLINE])]


def _card(run: RunFacts, evaluation: Evaluation, name: str) -> Card:
    known = numbers.metric(name)
    value = main_number(evaluation, name)
    below = [] if value.missing else [_of_what(evaluation, name)]
    theirs = [r for r in _paper_rows(run.experiment) if r.metric == name and r.method == "Ours"]
    if theirs:
        below.append(f"paper: {_printed(theirs[0])}")
        if not value.missing and _another_protocol(run, evaluation):
            below.append("another protocol than the paper's, see below")
    return Card(known.label, value.text, " · ".join(below), value.missing)


def _of_what(evaluation: Evaluation, name: str) -> str:
    """Of how many samples and videos a main number is."""
    if name == "fvd":
        fvd = evaluation.scores.fvd
        return "one sample per video" + (f" · {_videos(fvd.videos)}" if fvd else "")
    line = evaluation.scores.score("best", name)
    return f"best of {evaluation.samples}" + (f" · {_videos(line.videos)}" if line else "")


def _videos(count: int) -> str:
    return f"{count:,} video{'s' * (count != 1)}"


def _another_protocol(run: RunFacts, evaluation: Evaluation) -> bool:
    """A metric that is missing makes no other one incomparable."""
    return any(line not in absent(evaluation) for line in differences(run, evaluation))


def overview(runs: Sequence[RunFacts]) -> Table:
    """The main numbers of several runs, one line each."""
    rows = []
    for run in runs:
        words = [run.experiment + (f", size={run.size}" if run.size else ""), f"{run.life.step:,}"]
        total = f"of {run.life.total:,}" if run.life.total else ""
        cells = [Cell(run.name, run.state[0]), Cell(words[0]), Cell(words[1], total)]
        for name in HEADLINE:
            if run.evaluation is None:
                cells.append(_no_number(run))
            else:
                cells.append(Cell((cell := main_number(run.evaluation, name)).text, missing=cell.missing))
        rows.append(Row(cells))
    names = ["run", "experiment", "steps", *(numbers.metric(name).head for name in HEADLINE)]
    notes = ["PSNR, SSIM and LPIPS: best of the samples of each test video. FVD: one sample per video."]
    return Table([Cell(name) for name in names], rows, notes, text_columns=2, name="overview")


def _no_number(run: RunFacts) -> Cell:
    """Of a run without an evaluation."""
    return Cell("cannot be read" if run.is_unreadable else "not computed", missing=True)


def main_number(evaluation: Evaluation, name: str) -> Cell:
    """The number that stands for a metric."""
    return cell_of(evaluation, "single" if name == "fvd" else "best", name)


def cell_of(evaluation: Evaluation, method: str, name: str) -> Cell:
    """A method's metric, or that there is none."""
    return _ours(evaluation, method, name)[0]


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
    """From the usual protocol, in words: first what all runs of an experiment have in common."""
    lines = {run.name: differences(run, run.evaluation) for run in runs}
    common = [line for line in lines[runs[0].name] if all(line in found for found in lines.values())]
    experiment = runs[0].experiment
    title = f"How this differs from {usual_protocol(experiment)}"
    usual = "the published one" if has_numbers(experiment) else f"that of {usual_protocol(experiment)}"
    blocks: list[Block] = [Bullets(title, common)] if common else []
    for name, found in lines.items():
        own = [line for line in found if line not in common]
        if own:
            blocks.append(Bullets(f"{title}: {name}" if not common else name, own))
        elif not found:
            blocks.append(Paragraph(f"The protocol of {name} is {usual}."))
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
    if run.evaluation and run.evaluation_from:
        step += f", from evaluation/{run.evaluation.folder.name}"
    rows = [Row([Cell(f"{run.name}{step}")], "head")]
    evaluation = run.evaluation
    if evaluation is None:
        missing = [_no_number(run) for _ in metrics]
        return [*rows, Row([Cell(run.no_scores_word, missing=True), Cell("–"), *missing])]
    methods = dict.fromkeys(line.method for line in evaluation.scores.table if line.method != STEP_HALVED)
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
        if run.evaluation_from or run.is_unreadable:
            found.append(Paragraph(f"{run.name}: {run.evaluation_from or run.no_scores}.", "warning"))
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
    own = run.own_substeps
    steps = time_steps([(found.folder, found.scores) for found in run.evaluations], own)
    unread: list[Block] = [
        Paragraph(f"{why}.", "warning") for folder, why in run.unreadable.items() if is_at_a_step(folder)
    ]
    if run.has_free_steps and not steps:
        return [Paragraph("The solver of this model chooses its own steps: there is no time step to vary."), *unread]
    if len(steps) < 2:
        return [
            Paragraph(
                "Not computed: the run was not evaluated at several time steps. This command does it:", "missing"
            ),
            Commands([evaluate_command(run, run.folder.path, ["eval.substeps=[1,2,3,4,5]"])]),
            *unread,
        ]
    papers = [result for result in paper_results.for_experiment(run.experiment) if over_steps(result)]
    metrics = numbers.in_order(
        {line.metric for step in steps for line in step.scores.table if line.method == "best"}
        | {"fvd" for step in steps if step.scores.fvd}
        | {result.metric for result in papers}
    )
    rows = [_step_row(step, own, metrics) for step in steps]
    notes = [INTERVALS, BEST, DASH] + ([FVD_NOTE] if "fvd" in metrics else [])
    if papers:
        rows.append(Row([Cell("The paper's numbers")], "head"))
        paper_rows, sources = _rows_of_papers(papers, metrics)
        rows += [Row([row.cells[0], Cell(""), *row.cells[1:]], row.group) for row in paper_rows]
        notes += sources
    else:
        notes.append("No number of a paper over time steps is known here: what was not read is not in the tables.")
    words = ("time step Δt", "videos x samples", "step", *(numbers.metric(name).head for name in metrics))
    return [Table([Cell(text) for text in words], rows, notes, name="step-sizes"), *_not_alike(run, steps), *unread]


def _step_name(step: TimeStep, own: int | None) -> str:
    return ("1" if step.substeps == 1 else f"1/{step.substeps}") + (" (as trained)" if step.substeps == own else "")


def _step_row(step: TimeStep, own: int | None, metrics: Sequence[str]) -> Row:
    found = Evaluation(step.folder, step.scores)
    name = Cell(_step_name(step, own), f"not to be compared: {step.differs}" if step.differs else "")
    size = Cell(f"{step.scores.protocol.get('num_clips', '?')} x {found.samples}")
    trained = f"{step.trained:,}" if isinstance(step.trained, int) else str(step.trained)
    return Row([name, size, Cell(trained), *(main_number(found, metric) for metric in metrics)])


def _not_alike(run: RunFacts, steps: Sequence[TimeStep]) -> list[Block]:
    """In words: rows that were made otherwise than most, and where the one as trained is not the main numbers."""
    own = run.own_substeps
    blocks: list[Block] = [
        Paragraph(
            f"Δt = {_step_name(step, own)} was scored with another protocol than the other rows, so it may not be "
            f"compared with them: {step.differs}.",
            "warning",
        )
        for step in steps
        if step.differs
    ]
    trained = [step for step in steps if step.substeps == own]
    if run.evaluation and trained and trained[0].folder != run.evaluation.folder:
        text = f"Δt = {_step_name(trained[0], own)} is evaluation/{trained[0].folder.name}, made like the other rows; "
        blocks.append(Paragraph(f"{text}the main numbers above are those of evaluation/ itself.", "caption"))
    return blocks
