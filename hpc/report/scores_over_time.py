"""A metric frame by frame with its interval, several runs and the baselines in one axis, drawn by odevid.pictures.

In: evaluations. Out: PNGs as bytes. odevid.pictures needs torch, which is imported when a picture is drawn, not before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.evaluation.scores import RECONSTRUCTION, STEP_HALVED
from hpc.report import numbers
from hpc.report.facts import Evaluation, RunFacts

MAX_NAME = 32
OF_A_MODEL = (*numbers.MODEL_METHODS, RECONSTRUCTION)
OF_SEVERAL = ("best", RECONSTRUCTION)
"""What is drawn of each of several runs: more would be a thicket."""

if TYPE_CHECKING:
    from odevid.pictures.curves import Curve


def curve_pngs(runs: Sequence[RunFacts]) -> dict[str, bytes]:
    """Metric -> picture, for every metric that an evaluation has curves of."""
    scored = [(run, run.evaluation) for run in runs if run.evaluation]
    names = {
        curve.metric for _, evaluation in scored for curve in evaluation.scores.curves if curve.method != STEP_HALVED
    }
    return {name: _png(name, scored) for name in numbers.in_order(names)}


def _png(name: str, scored: Sequence[tuple[RunFacts, Evaluation]]) -> bytes:
    from odevid.pictures.curves import save_curves_png

    curves = [curve for run, evaluation in scored for curve in _model_curves(run, evaluation, name, len(scored) > 1)]
    curves += _baselines(scored, name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curve.png"
        save_curves_png(path, curves, numbers.metric(name).label)
        return path.read_bytes()


def _model_curves(run: RunFacts, evaluation: Evaluation, name: str, several: bool) -> list[Curve]:
    """What the run's model predicts, and how it shows the given frames, if that was scored."""
    found = _curves(evaluation, name)
    methods = OF_SEVERAL if several and "best" in found else OF_A_MODEL
    return [
        _as_curve(evaluation, name, method, _label(run, evaluation, method, several))
        for method in methods
        if method in found
    ]


def _label(run: RunFacts, evaluation: Evaluation, method: str, several: bool) -> str:
    if not several:
        return numbers.method_label(method, evaluation.samples)
    what = "given frames" if method == RECONSTRUCTION else f"best of {evaluation.samples}"
    return f"{_short(run.name)} ({what})"


def _short(name: str) -> str:
    """A legend has little room: the end of a name tells more than its beginning."""
    return name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"


def _baselines(scored: Sequence[tuple[RunFacts, Evaluation]], name: str) -> list[Curve]:
    """Once for runs with the same test: their baselines are the same."""
    curves, seen = [], set()
    for run, evaluation in scored:
        for method, means in _curves(evaluation, name).items():
            if method in OF_A_MODEL or (method, means) in seen:
                continue
            seen.add((method, means))
            again = sum(other == method for other, _ in seen) > 1
            label = numbers.method_label(method, 1) + (f" ({_short(run.name)})" if again else "")
            curves.append(_as_curve(evaluation, name, method, label))
    return curves


def _curves(evaluation: Evaluation, name: str) -> Mapping[str, tuple[float, ...]]:
    """Method -> its values; a change is none of the metric's."""
    curves = [curve for curve in evaluation.scores.curves if curve.metric == name and curve.method != STEP_HALVED]
    return {curve.method: tuple(curve.mean) for curve in curves}


def _as_curve(evaluation: Evaluation, name: str, method: str, label: str) -> Curve:
    from odevid.metrics.interval import Interval
    from odevid.pictures.curves import Curve

    found = next(curve for curve in evaluation.scores.curves if (curve.method, curve.metric) == (method, name))
    line = evaluation.scores.score(method, name)
    count = line.videos if line else 0
    intervals = [Interval(mean, half, count) for mean, half in zip(found.mean, found.half_width, strict=True)]
    return Curve(label, found.first_frame, intervals)
