"""A strip over time: the true frames of a video in one row, predictions below, time from left to right.

In: conditioning frames, true future, predicted futures. Out: one picture (PNG).

Legend: B videos, T frames, C channels, H rows, W columns, 3 = RGB; X, Y rows and columns of the finished picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from odevid.pictures import style
from odevid.pictures.sheet import Cell, Lettering, film, sheet
from odevid.pictures.style import Frames
from odevid.pictures.trajectory import moments


def save_strip(
    path: Path,
    context: Frames,
    truth: Frames,
    predictions: Mapping[str, Frames],
    scale: int = 1,
    max_columns: int = 15,
    rebuilt: Frames | None = None,
) -> None:
    """Write the strip as PNG. Arguments as for `strip`."""
    Image.fromarray(strip(context, truth, predictions, scale, max_columns, rebuilt)).save(path, format="PNG")


def strip(
    context: Frames,
    truth: Frames,
    predictions: Mapping[str, Frames],
    scale: int = 1,
    max_columns: int = 15,
    rebuilt: Frames | None = None,
) -> np.ndarray:
    """One picture of several videos over time: for each video truth on top, predictions below.

    Conditioning frames stand in the row of the truth, with a green border under a bar "given"; the predictions begin
    after them, with red borders, or begin with the given frames as the model rebuilt them. Frames are numbered from 1.

    Args:
        context: BTCHW conditioning frames, uint8 or float in [0, 1], grey or RGB.
        truth: BTCHW true future.
        predictions: name of row -> BTCHW predicted future.
        scale: enlargement, whole number.
        max_columns: of longer videos so many frames are shown, evenly spaced, first and last among them.
        rebuilt: BTCHW conditioning frames as the model shows them, the same in every row of predictions.

    Returns:
        uint8 (X, Y, 3).

    Raises:
        ValueError: shapes that do not fit.
    """
    style.check_predictions(context, truth, predictions, rebuilt)
    futures = {"truth": truth, **predictions}
    num_given, num_frames = context.shape[1], context.shape[1] + truth.shape[1]
    times = moments(num_frames, max_columns)
    shown_given = int((times < num_given).sum())
    cells = []
    for video, given_TCHW in enumerate(context):
        for name, future in futures.items():
            row: list[Cell | None] = [None] * num_given
            if name == "truth":
                row = [*film(given_TCHW, num_given, scale=scale)]
            elif rebuilt is not None:
                row = [*film(rebuilt[video], 0, scale=scale)]
            row = [*row, *film(future[video], 0, style.TRUTH if name == "truth" else style.PREDICTED, scale)]
            cells.append([row[t] for t in times])
    bars = (
        ("given", style.GIVEN, 0, shown_given),
        ("predicted", style.PREDICTED, shown_given, len(times)),
    )
    words = Lettering(
        rows=[*futures] * len(context),
        columns=[str(t + 1) for t in times],
        bars=[bar for bar in bars if bar[2] < bar[3]],
        breaks=range(len(futures), len(cells), len(futures)),
    )
    return sheet(cells, words)
