"""Study "interpolation": roll-outs from initial states between those of two videos.

In: pairs of clips of the test split. Out: trajectories.png (one image per weight, colour = time), strip-A-B.png per
pair, weights.gif, weights.mp4, scores.csv, caption.txt.

Legend: P pairs, W weights, T frames, C channels, H rows, W columns (last axis).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hpc.config import ConfigError
from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import FPS, Clips, latent_model, read_clips, write_caption, write_table
from hpc.studies.registry import StudyOptions
from odevid.metrics.psnr import psnr
from odevid.pictures import style
from odevid.pictures.sheet import Cell, Lettering, film, save_animation, save_sheet, sheet
from odevid.pictures.trajectory import moments, time_legend, trajectory_image
from odevid.studies.interpolation import interpolate

PAIRS = 3
WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
COLUMNS = 12
LEGEND = (("truth", style.TRUTH), ("roll-out", style.PREDICTED))


def run_interpolation(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: the model has no latent state.
        ConfigError: an odd number of clips.
    """
    model = latent_model(loaded)
    clips = read_clips(loaded, options, 2 * PAIRS, at_least=2)
    if len(clips.indices) % 2:
        raise ConfigError(f"{len(clips.indices)} clips: interpolation takes pairs, such as --clips 0,1,4,7")
    times = range(clips.num_given + clips.n_future)
    pairs = [slice(first, first + 2) for first in range(0, len(clips.indices), 2)]
    found = [
        interpolate(model, clips.context_BTCHW[pair], WEIGHTS, times, seed=options.seed).frames_WTCHW.cpu()
        for pair in pairs
    ]
    check_finite(torch.stack(found), loaded)
    videos = [
        [*_framed(frames_WTCHW, clips.video_BTCHW[pair].cpu())] for frames_WTCHW, pair in zip(found, pairs, strict=True)
    ]
    names = [clips.names[pair] for pair in pairs]
    files = [_trajectories(options.folder / "trajectories.png", videos, names)]
    for rows, pair, ends in zip(videos, pairs, names, strict=True):
        first, second = clips.indices[pair]
        files.append(_strip(options.folder / f"strip-{first}-{second}.png", rows, ends))
    files += save_animation(options.folder, "weights", _moving(videos, names), FPS)
    files.append(_scores(options.folder / "scores.csv", found, clips))
    what = (
        "Interpolation: roll-outs from initial states on the line between those inferred of two videos, with the same "
        "noise and with the content along the same line where the model has them; in a trajectory image colour is time."
    )
    return [*files, write_caption(loaded, options, what, clips.indices)]


def _framed(frames_WTCHW: Tensor, truth_2TCHW: Tensor) -> list[Tensor]:
    """Videos TCHW: the first true one, a roll-out per weight, the second true one."""
    return [truth_2TCHW[0], *frames_WTCHW, truth_2TCHW[1]]


def _row_names(ends: list[str]) -> list[str]:
    return [f"{ends[0]} (true)", *(f"{weight:g}" for weight in WEIGHTS), f"{ends[1]} (true)"]


def _border(row: int) -> style.Colour:
    return style.TRUTH if row in (0, len(WEIGHTS) + 1) else style.PREDICTED


def _trajectories(path: Path, videos: list[list[Tensor]], names: list[list[str]]) -> Path:
    """A row per pair: trajectory images of the first video, the weights, the second video."""
    cells = [
        [Cell(trajectory_image(video, scale=2), _border(column)) for column, video in enumerate(row)] for row in videos
    ]
    words = Lettering(
        rows=[f"{first} to {second}" for first, second in names],
        columns=["first, true", *(f"weight {weight:g}" for weight in WEIGHTS), "second, true"],
        title="from the first video's initial state to the second's: everything that the video passes through",
        legend=time_legend(len(videos[0][0])),
    )
    return save_sheet(path, cells, words)


def _strip(path: Path, videos: list[Tensor], ends: list[str]) -> Path:
    """A row per weight: the trajectory image, then the frames."""
    shown = moments(len(videos[0]), COLUMNS)
    cells = []
    for row, video in enumerate(videos):
        frames = film(video, 0, _border(row))
        cells.append([Cell(trajectory_image(video), _border(row)), *(frames[t] for t in shown)])
    words = Lettering(
        rows=_row_names(ends),
        columns=["all", *(str(t + 1) for t in shown)],
        title=f"weights from {ends[0]} (0) to {ends[1]} (1), over time (frame numbers); 'all': colour is time",
        legend=LEGEND,
        breaks={1, len(WEIGHTS) + 1},
    )
    return save_sheet(path, cells, words)


def _moving(videos: list[list[Tensor]], names: list[list[str]]) -> list[np.ndarray]:
    """The roll-outs side by side, a picture per frame."""
    films = [[film(video, 0, _border(column)) for column, video in enumerate(row)] for row in videos]
    words = Lettering(
        rows=[f"{first} to {second}" for first, second in names],
        columns=["first", *(f"{weight:g}" for weight in WEIGHTS), "second"],
        title="roll-outs from initial states between two videos'",
        legend=LEGEND,
    )
    return [sheet([[cells[t] for cells in row] for row in films], words) for t in range(len(films[0][0]))]


def _scores(path: Path, found: list[Tensor], clips: Clips) -> Path:
    """PSNR of every roll-out to the true video at either end, over all frames."""
    lines = []
    for pair, frames_WTCHW in enumerate(found):
        first, second = clips.indices[2 * pair : 2 * pair + 2]
        ends = clips.video_BTCHW[2 * pair : 2 * pair + 2].cpu()
        for weight, frames in zip(WEIGHTS, frames_WTCHW, strict=True):
            lines.append((first, second, weight, *(float(psnr(frames, truth).mean()) for truth in ends)))
    return write_table(path, ("first", "second", "weight", "psnr_to_first", "psnr_to_second"), lines)
