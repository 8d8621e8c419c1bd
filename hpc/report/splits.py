"""The scores of several splits side by side: does the model fit its training set, does it fail on validation?

In: a run. Out: a small table where there are scores of another split than the test one. No torch.
"""

from __future__ import annotations

from hpc.config import ConfigError
from hpc.evaluation.scores import RECONSTRUCTION, SCORES, read_scores, splits_in
from hpc.report import numbers
from hpc.report.blocks import Block, Cell, Paragraph, Row, Table
from hpc.report.facts import Evaluation, RunFacts
from hpc.report.results import BEST, INTERVALS, cell_of, main_number

ORDER = ("train", "valid", "test")
NOTE = (
    "train and valid: clips by their number and from their first frame on; of digits that are drawn for ever, clips of "
    "the same digits and rules that no training drew."
)


def splits(run: RunFacts) -> list[Block]:
    """The table; nothing where only the test split was scored."""
    found, unread = _evaluations(run)
    if not found:
        return unread
    if run.evaluation:
        found["test"] = run.evaluation
    metrics = numbers.in_order(
        {line.metric for evaluation in found.values() for line in evaluation.scores.table if line.method == "best"}
        | {"fvd" for evaluation in found.values() if evaluation.scores.fvd}
    )
    rebuilt = [name for name in metrics if any(e.scores.score(RECONSTRUCTION, name) for e in found.values())]
    rows = [_row(split, found[split], metrics, rebuilt) for split in sorted(found, key=_place)]
    words = ["split", "videos x samples", "frames", "step", *(numbers.metric(name).head for name in metrics)]
    words += [f"{numbers.metric(name).head}, given frames" for name in rebuilt]
    table = Table([Cell(text) for text in words], rows, [INTERVALS, BEST, NOTE], name="splits")
    return [table, *unread]


def _place(split: str) -> tuple[int, str]:
    return (ORDER.index(split) if split in ORDER else len(ORDER)), split


def _evaluations(run: RunFacts) -> tuple[dict[str, Evaluation], list[Block]]:
    """Of other splits than the test one, at the model's own time step; and which of them cannot be read."""
    found: dict[str, Evaluation] = {}
    unread: list[Block] = []
    for split, folder in splits_in(run.folder.evaluation).items():
        if not (folder / SCORES).is_file():
            continue
        try:
            found[split] = Evaluation(folder, read_scores(folder))
        except (ConfigError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            unread.append(Paragraph(f"{folder / SCORES} cannot be read ({type(error).__name__}: {error}).", "warning"))
    return found, unread


def _row(split: str, evaluation: Evaluation, metrics: list[str], rebuilt: list[str]) -> Row:
    scores = evaluation.scores
    step = scores.about.get("step", "unknown")
    cells = [
        Cell(split),
        Cell(f"{scores.protocol.get('num_clips', '?')} x {evaluation.samples}"),
        Cell(str(scores.protocol.get("num_frames", "?"))),
        Cell(f"{step:,}" if isinstance(step, int) else str(step)),
        *(main_number(evaluation, name) for name in metrics),
        *(cell_of(evaluation, RECONSTRUCTION, name) for name in rebuilt),
    ]
    return Row(cells)
