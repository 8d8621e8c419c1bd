"""What an evaluation leaves in the run folder: a table, curves as PNG and CSV, pictures as GIF and PNG, all scores.

In: an `Evaluation`. Out: files, and the table as text for the terminal.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc.evaluation import METRICS, MODEL, REPEAT, SINGLE, VELOCITY, Evaluation
from odevid.pictures.curves import Curve, save_curves_csv, save_curves_png
from odevid.pictures.gif import save_gif, save_mp4
from odevid.pictures.grid import video_grid
from odevid.pictures.strip import save_strip

LABELS = {
    MODEL: "model, best of {samples}",
    SINGLE: "model, one sample",
    REPEAT: "last frame repeated",
    VELOCITY: "constant velocity",
}


def write_validation_pictures(found: Evaluation, folder: Path, step: int) -> dict[str, Path]:
    """GIF of the pictured clips at a step of the training: name -> file."""
    if not found.pictures:
        return {}
    path = folder / f"samples-{step:09d}.gif"
    save_gif(path, _grid(found))
    return {"samples": path}


def write_results(found: Evaluation, folder: Path, about: dict[str, object]) -> dict[str, Path]:
    """Everything of a test evaluation: what it is -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"table": folder / "metrics.csv", "scores": folder / "scores.json"}
    _write_table(files["table"], found)
    scores = {"about": about, "summary": found.scalars(), "clips": [vars(clip) for clip in found.clips]}
    files["scores"].write_text(json.dumps(scores, allow_nan=True))
    for metric in METRICS:
        curves = [
            Curve.of(_label(method, found), found.curves(method, metric.name), found.protocol.num_context + 1)
            for method in found.methods(metric.name)
        ]
        files[f"{metric.name} curve"] = folder / f"{metric.name}.png"
        unit = f"{metric.name.upper()} ({metric.unit})" if metric.unit else metric.name.upper()
        save_curves_png(folder / f"{metric.name}.png", curves, unit)
        save_curves_csv(folder / f"{metric.name}.csv", curves)
    if found.pictures:
        files["GIF"], files["MP4"] = folder / "samples.gif", folder / "samples.mp4"
        files["strip"] = folder / "samples.png"
        save_gif(files["GIF"], _grid(found))
        save_mp4(files["MP4"], _grid(found))
        given, truth, predictions = _rows(found, limit=4)
        save_strip(files["strip"], given, truth, predictions)
    return files


def table_rows(found: Evaluation) -> list[list[str]]:
    """Header and one row per method: name, then each metric as `mean ± half-width`, centroid error in pixels."""
    header = ["", *(f"{metric.name.upper()}{' (' + metric.unit + ')' if metric.unit else ''}" for metric in METRICS)]
    if found.protocol.centroid:
        header.append("centroid error, first 5 predicted frames (px, median)")
    rows = [header]
    for method in (MODEL, SINGLE, VELOCITY, REPEAT):
        if method not in found.methods(METRICS[0].name):
            continue
        row = [_label(method, found), *(str(found.interval(method, metric.name)) for metric in METRICS)]
        if found.protocol.centroid:
            has = method in found.methods("centroid")
            row.append(f"{found.median_centroid_error(method):.2f}" if has else "")
        rows.append(row)
    return rows


def format_table(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _write_table(path: Path, found: Evaluation) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["method", "metric", "mean", "half_width_95", "videos", "samples"])
        for method in LABELS:
            for metric in METRICS:
                if method in found.methods(metric.name):
                    value = found.interval(method, metric.name)
                    samples = found.protocol.samples if method in (MODEL, SINGLE) else 1
                    writer.writerow([method, metric.name, value.mean, value.half_width, value.count, samples])
            if found.protocol.centroid and method in found.methods("centroid"):
                error = found.median_centroid_error(method)
                writer.writerow([method, "median_centroid_error_px_first_5", error, "", len(found.clips), ""])


def _label(method: str, found: Evaluation) -> str:
    return LABELS[method].format(samples=found.protocol.samples)


def _grid(found: Evaluation) -> np.ndarray:
    given, truth, predictions = _rows(found, limit=len(found.pictures))
    return video_grid(given, truth, predictions)


def _rows(found: Evaluation, limit: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Given frames, true future and predictions (uint8 BTCHW) of the first pictured clips."""
    chosen = found.pictures[:limit]
    clips = torch.stack([picture.truth_TCHW for picture in chosen])
    k = found.protocol.num_context
    predictions = {"best": torch.stack([picture.best_TCHW for picture in chosen])}
    if found.protocol.samples > 1:
        predictions["worst"] = torch.stack([picture.worst_TCHW for picture in chosen])
    return clips[:, :k], clips[:, k:], predictions
