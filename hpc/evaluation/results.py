"""What an evaluation leaves in the run folder: a table, curves as PNG and CSV, pictures as GIF and PNG, all scores.

In: an `Evaluation`. Out: files and the `Scores` that describe them; the table as text for the terminal.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc.config import ConfigError
from hpc.evaluation.evaluate import Evaluation
from hpc.evaluation.parts import Picture
from hpc.evaluation.scores import (
    CENTROID,
    MODEL,
    RECONSTRUCTION,
    REPEAT,
    SINGLE,
    STEP_HALVED,
    VELOCITY,
    CurveScores,
    FvdScores,
    Score,
    Scores,
    read_scores,
)
from odevid.metrics.best_of import PSNR
from odevid.metrics.interval import Interval, interval_per_frame
from odevid.pictures.curves import Curve, save_curves_csv, save_curves_png
from odevid.pictures.gif import save_gif, save_mp4
from odevid.pictures.grid import video_grid
from odevid.pictures.strip import save_strip

LABELS = {
    MODEL: "model, best of {samples}",
    SINGLE: "model, one sample",
    RECONSTRUCTION: "model, given frames rebuilt",
    STEP_HALVED: "change with half the step",
    VELOCITY: "constant velocity",
    REPEAT: "last frame repeated",
}
"""In the order of the tables."""
TITLES = {"fvd": "FVD", CENTROID: "centroid error, first 5 frames (px, median)", "ssim_svg": "SSIM (SVG's)"}


def write_validation_pictures(found: Evaluation, folder: Path, step: int) -> dict[str, Path]:
    """GIF of the pictured clips at a step of the training: name -> file."""
    if not found.pictures:
        return {}
    path = folder / f"samples-{step:09d}.gif"
    save_gif(path, _grid(found))
    return {"samples": path}


def write_results(found: Evaluation, folder: Path, about: Mapping[str, object], fvd: FvdScores | None = None) -> Scores:
    """Everything of a test evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"table": "metrics.csv", "curves": "curves.npz", **_write_curves(found, folder)}
    if found.pictures:
        files |= _write_pictures(found, folder)
    scores = Scores(
        about=dict(about),
        protocol={**asdict(found.protocol), "metrics": [metric.name for metric in found.scorers.metrics]},
        table=_table(found),
        curves=[
            _curve(found, method, metric) for metric in _units(found, *LABELS) for method in _methods(found, metric)
        ],
        cost=found.cost,
        fvd=fvd,
        absent=found.scorers.absent,
        files=files,
    )
    _write_table(folder / "metrics.csv", scores)
    scores.save(folder, _arrays(found))
    return scores


def move_former(folder: Path, step: int, protocol: Mapping[str, object]) -> Path | None:
    """Make room for new results: files of the same evaluation are deleted, those of another are moved to former-DATE/.

    Returns:
        Where another evaluation's files are now; None if there were none.
    """
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    try:
        kept = read_scores(folder)
        is_same = kept.about["step"] == step and kept.protocol == protocol
    except (ConfigError, KeyError, TypeError, ValueError):
        is_same = False
    if is_same or not files:
        for path in files:
            path.unlink()
        return None
    former = folder / f"former-{time.strftime('%Y%m%d-%H%M%S')}"
    former.mkdir(exist_ok=True)
    for path in files:
        path.rename(former / path.name)
    return former


def table_rows(scores: Scores) -> list[list[str]]:
    """Header and one row per method: name, then each metric as `mean ± half-width`, and what FVD is."""
    metrics = list(dict.fromkeys(line.metric for line in scores.table))
    units = {line.metric: line.unit for line in scores.table}
    rows = [["", *(title(metric, units[metric]) for metric in metrics), *(["FVD"] if scores.fvd else [])]]
    for method in LABELS:
        lines = [scores.score(method, metric) for metric in metrics]
        if any(lines):
            cells = [_cell(line) for line in lines]
            rows.append([label(method, scores.protocol["samples"]), *cells, *([""] if scores.fvd else [])])
    if scores.fvd:
        rows[1 + list(LABELS).index(SINGLE)][-1] = _fvd_cell(scores.fvd)  # FVD is of single samples
    return rows


def format_table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def label(method: str, samples: int) -> str:
    """How tables and legends call a method."""
    return LABELS[method].format(samples=samples)


def title(metric: str, unit: str = "") -> str:
    """How tables and axes call a metric."""
    return TITLES.get(metric) or metric.replace("_", " ").upper() + (f" ({unit})" if unit else "")


def _cell(line: Score | None) -> str:
    if line is None:
        return ""
    if line.half_width is None:
        return f"{line.mean:.2f}"
    if line.method == STEP_HALVED:
        return f"{line.mean:+.3f} ± {line.half_width:.3f}"
    return str(Interval(line.mean, line.half_width, line.videos))


def _fvd_cell(fvd: FvdScores) -> str:
    interval = f" ± {fvd.half_width:.1f}" if fvd.half_width is not None else ""
    return f"{fvd.mean:.1f}{interval}" + (" (N <= D)" if fvd.videos <= fvd.dimension else "")


def _methods(found: Evaluation, metric: str) -> list[str]:
    return [method for method in LABELS if method in found.methods(metric)]


def _units(found: Evaluation, *methods: str) -> dict[str, str]:
    """Metrics of frames that some methods have -> their unit. A halved step has PSNR whatever the others have."""
    units = {metric.name: metric.unit for metric in (*found.scorers.metrics, PSNR)}
    return {name: unit for name, unit in units.items() if any(method in found.methods(name) for method in methods)}


def _first_frame(found: Evaluation, method: str) -> int:
    """Number of the first frame that a method has, counted from 1."""
    return 1 if method == RECONSTRUCTION else found.protocol.num_context + 1


def _table(found: Evaluation) -> list[Score]:
    lines = []
    videos = len(found.clips)
    for method in LABELS:
        samples = found.protocol.samples if method in (MODEL, SINGLE) else 1
        for metric, unit in _units(found, method).items():
            mean = found.interval(method, metric)
            of_frames = found.interval_of_frames(method, metric)
            lines.append(
                Score(*(method, metric, unit, mean.mean, mean.half_width, of_frames.half_width), *(videos, samples))
            )
        if found.protocol.centroid and method in found.methods(CENTROID):
            error = found.median_centroid_error(method)
            lines.append(Score(method, CENTROID, "px", error, None, None, videos, samples))
    return lines


def _curve(found: Evaluation, method: str, metric: str) -> CurveScores:
    frames = interval_per_frame(found.curves(method, metric))
    return CurveScores(
        method,
        metric,
        _first_frame(found, method),
        [frame.mean for frame in frames],
        [frame.half_width for frame in frames],
    )


def _arrays(found: Evaluation) -> dict[str, np.ndarray]:
    """Every value, for curves.npz."""
    arrays = {"keys": np.array([clip.key for clip in found.clips])}
    for metric in [*_units(found, *LABELS), *([CENTROID] if found.protocol.centroid else [])]:
        for method in _methods(found, metric):
            arrays[f"{method}/{metric}"] = found.curves(method, metric).float().numpy()
    for metric in found.clips[0].best_sample:
        arrays[f"best_sample/{metric}"] = np.array([clip.best_sample[metric] for clip in found.clips])
    return arrays


def _write_table(path: Path, scores: Scores) -> None:
    """One line per method and metric: the mean and both half-widths of its 95 % interval."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["method", "metric", "unit", "mean", "half_width_95", "half_width_95_of_frames", "videos", "samples"]
        )
        for line in scores.table:
            widths = ["" if width is None else width for width in (line.half_width, line.half_width_of_frames)]
            writer.writerow([line.method, line.metric, line.unit, line.mean, *widths, line.videos, line.samples])
        if scores.fvd:
            width = "" if scores.fvd.half_width is None else scores.fvd.half_width
            writer.writerow([SINGLE, "fvd", "", scores.fvd.mean, width, "", scores.fvd.videos, len(scores.fvd.sets)])


def _write_curves(found: Evaluation, folder: Path) -> dict[str, str]:
    """PNG and CSV per metric: what it is -> file. A change is no score: it is in the CSV alone."""
    files = {}
    samples = found.protocol.samples
    for metric in found.scorers.metrics:
        curves = {
            method: Curve.of(label(method, samples), found.curves(method, metric.name), _first_frame(found, method))
            for method in _methods(found, metric.name)
        }
        files[f"{metric.name} curve"] = f"{metric.name}.png"
        drawn = [curve for method, curve in curves.items() if method != STEP_HALVED]
        save_curves_png(folder / f"{metric.name}.png", drawn, title(metric.name, metric.unit))
        save_curves_csv(folder / f"{metric.name}.csv", list(curves.values()))
    return files


def _write_pictures(found: Evaluation, folder: Path) -> dict[str, str]:
    pictures = _grid(found)
    save_gif(folder / "samples.gif", pictures)
    save_mp4(folder / "samples.mp4", pictures)
    given, truth, predictions, rebuilt = _rows(found, limit=4)
    save_strip(folder / "samples.png", given, truth, predictions, rebuilt=rebuilt)
    return {"GIF": "samples.gif", "MP4": "samples.mp4", "strip": "samples.png"}


def _grid(found: Evaluation) -> np.ndarray:
    given, truth, predictions, rebuilt = _rows(found, limit=len(found.pictures))
    return video_grid(given, truth, predictions, rebuilt=rebuilt)


def _rows(found: Evaluation, limit: int) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor | None]:
    """Given frames, true future, predictions, and the given frames rebuilt (uint8 BTCHW), of the first clips."""
    chosen: list[Picture] = found.pictures[:limit]
    clips = torch.stack([picture.truth_TCHW for picture in chosen])
    k = found.protocol.num_context
    predictions = {"best": torch.stack([picture.best_TCHW for picture in chosen])}
    if found.protocol.samples > 1:
        predictions["worst"] = torch.stack([picture.worst_TCHW for picture in chosen])
        for number in range(len(chosen[0].random)):
            predictions[f"random {number + 1}"] = torch.stack([picture.random[number] for picture in chosen])
    shown = [picture.rebuilt_TCHW for picture in chosen if picture.rebuilt_TCHW is not None]
    return clips[:, :k], clips[:, k:], predictions, torch.stack(shown) if shown else None
