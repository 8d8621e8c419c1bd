"""Draws a run that was interrupted over the same run left in peace: loss and learning rate, step by step.

    python -m tests.bench.loss_curves RUN RUN_IN_PEACE [--out tests/bench/rehearsal.png]

In:  two run folders; the first may have an interruptions.jsonl (as tests/slurm/test_rehearsal.py leaves it: the attempt
     that ended, why, on how many ranks). Out: a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

from hpc.jobs.attempts import read_history
from hpc.tracking.journal import Record, read_records, surviving

matplotlib.use("agg")
from matplotlib import pyplot as plt

HERE = Path(__file__).resolve().parent
INK, QUIET, LINE, PEACE, DISCARDED = "#1a1a1a", "#6b6b6b", "#0b62a8", "#f2a93b", "#c9302c"
SHADES = {1: "#ffffff", 2: "#eef4e8", 3: "#f5efe3", 4: "#ffffff"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("in_peace", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "rehearsal.png")
    options = parser.parse_args()
    draw(options.run, options.in_peace, options.out)
    print(options.out)


def draw(run: Path, in_peace: Path, out: Path) -> None:
    """Write the picture to `out`."""
    plt.rcParams.update({"font.size": 9, "text.color": INK, "axes.edgecolor": QUIET, "axes.labelcolor": INK})
    figure, (losses, gaps, rates) = plt.subplots(
        3, 1, sharex=True, figsize=(10, 7.2), height_ratios=(5, 1.4, 1.4), layout="constrained"
    )
    _losses(losses, run, in_peace)
    _gaps(gaps, run, in_peace)
    _rates(rates, run)
    last = max(scalar(run, "loss"))
    for axes in (losses, gaps, rates):
        axes.set_xlim(0, last * 1.005)
        axes.spines[["top", "right"]].set_visible(False)
        _mark_nodes(axes, run, last)
    _mark_interruptions(losses, [gaps, rates], run)
    rates.set_xlabel("optimiser step")
    figure.savefig(out, dpi=130)
    plt.close(figure)


def scalar(run: Path, name: str) -> dict[int, float]:
    """One value of each surviving step."""
    return {r.step: r.data["scalars"][name] for r in surviving(read_records(run)) if r.kind == "train"}


def _losses(axes: Any, run: Path, in_peace: Path) -> None:
    axes.plot(*_line(in_peace, "loss"), color=PEACE, linewidth=4, label="in peace, 4 ranks of one machine")
    axes.plot(*_line(run, "loss"), color=LINE, linewidth=1, label="interrupted, 4, 2, 3 and 4 nodes of a SLURM cluster")
    bottom = axes.get_xaxis_transform()
    for first, last in _discarded(run):
        axes.plot((first - 1, last), (0.012, 0.012), color=DISCARDED, linewidth=4, transform=bottom)
    axes.plot([], [], color=DISCARDED, linewidth=4, label="steps lost to a kill and trained again")
    axes.set_ylabel("loss (negative ELBO)")
    axes.legend(loc="upper right", bbox_to_anchor=(1, 0.93), framealpha=1, edgecolor="none")


def _gaps(axes: Any, run: Path, in_peace: Path) -> None:
    mine, theirs = scalar(run, "loss"), scalar(in_peace, "loss")
    steps = sorted(mine.keys() & theirs.keys())
    gaps = [max(abs(mine[step] / theirs[step] - 1), 1e-8) for step in steps]
    axes.plot(steps, gaps, color=LINE, linewidth=1)
    axes.set(yscale="log", ylim=(5e-9, 1e-1), yticks=(1e-8, 1e-6, 1e-4, 1e-2), ylabel="their\ndifference")
    axes.set_yticklabels(["none", "1e-6", "1e-4", "1e-2"])


def _rates(axes: Any, run: Path) -> None:
    axes.plot(*_line(run, "lr"), color=LINE, linewidth=1.5)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate")
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))


def _line(run: Path, name: str) -> tuple[list[int], list[float]]:
    values = scalar(run, name)
    return sorted(values), [values[step] for step in sorted(values)]


def _discarded(run: Path) -> list[tuple[int, int]]:
    """First and last step of what each attempt trained in vain."""
    records = list(read_records(run))
    kept = {record.seq for record in surviving(records)}
    lost: dict[int, list[int]] = {}
    for record in records:
        if record.kind == "train" and record.seq not in kept:
            lost.setdefault(record.attempt, []).append(record.step)
    return [(min(steps), max(steps)) for steps in lost.values()]


def _mark_nodes(axes: Any, run: Path, last: int) -> None:
    """The number of ranks in each stretch, as a shade; in words at the top of the first axes."""
    stretches: list[list[int]] = []
    for attempt in read_history(run).attempts:
        step = attempt.training_step or 0
        if not stretches or stretches[-1][1] != attempt.world_size:
            stretches.append([step, attempt.world_size])
    ends = [step for step, _ in stretches[1:]] + [last]
    for (begin, size), end in zip(stretches, ends, strict=True):
        axes.axvspan(begin, end, color=SHADES.get(size, "#f2f2f2"), linewidth=0, zorder=0)
        if axes.get_subplotspec().is_first_row():
            axes.annotate(
                f"{size} nodes",
                ((begin + end) / 2, 0.985),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
                color=QUIET,
                bbox={"facecolor": SHADES.get(size, "#f2f2f2"), "edgecolor": "none", "pad": 1},
            )


def _mark_interruptions(top: Any, others: list[Any], run: Path) -> None:
    path = run / "interruptions.jsonl"
    kinds = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ends = _last_steps(list(read_records(run)))
    for interruption in kinds:
        step = ends[interruption["attempt"]]
        for axes in (top, *others):
            axes.axvline(step, color=QUIET, linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
        place = (step, 1.01)
        top.annotate(interruption["kind"], place, xycoords=("data", "axes fraction"), rotation=35, va="bottom")


def _last_steps(records: list[Record]) -> dict[int, int]:
    """Attempt -> the last step it took, surviving or not."""
    return {record.attempt: record.step for record in records if record.kind == "train"}


if __name__ == "__main__":
    main()
