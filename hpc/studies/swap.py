"""Study "content-swap": every motion with every content, as a moving matrix and as a strip.

In: clips of the test split. Out: matrix.gif, matrix.mp4, strip.png, scores.csv, caption.txt.

Legend: M motions, K contents, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import FPS, Clips, generators, latent_model, read_clips, write_caption, write_table
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.metrics.psnr import psnr
from odevid.pictures import style
from odevid.pictures.sheet import Cell, Lettering, film, save_animation, save_sheet, sheet
from odevid.pictures.trajectory import moments
from odevid.studies.swap import swap_content

CLIPS = 4
COLUMNS = 12
LEGEND = (("frames are given", style.GIVEN), ("after them: truth", style.TRUTH), ("prediction", style.PREDICTED))


def run_swap(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: the model has no content.
        ConfigError: fewer than two clips.
    """
    model = latent_model(loaded)
    if not model.has_content:
        raise NotForThisRun(
            "its model decodes frames from the state alone: there is no content to exchange "
            f"({loaded.config.model.content_options})"
        )
    clips = read_clips(loaded, options, CLIPS, at_least=2)
    times = range(clips.num_given + clips.n_future)
    frames_MKTCHW = swap_content(model, clips.context_BTCHW, times, generator=generators(options, clips)).cpu()
    check_finite(frames_MKTCHW, loaded)
    files = save_animation(options.folder, "matrix", _matrix(frames_MKTCHW, clips), FPS)
    files.append(_strip(options.folder / "strip.png", frames_MKTCHW, clips))
    files.append(_scores(options.folder / "scores.csv", frames_MKTCHW, clips))
    what = (
        "Content swap: each row keeps the motion of its video (the states), each column the content of its video (what "
        "all its frames share); the true videos are at the margins."
    )
    return [*files, write_caption(loaded, options, what, clips.indices)]


def _matrix(frames_MKTCHW: Tensor, clips: Clips) -> list[np.ndarray]:
    """A picture per frame: contents on top, motions at the left, their pairs between."""
    count, scale = len(clips.indices), 2 if len(clips.indices) <= 5 else 1
    truths = [film(video, clips.num_given, style.TRUTH, scale) for video in clips.video_BTCHW.cpu()]
    pairs = [[film(frames, clips.num_given, scale=scale) for frames in row] for row in frames_MKTCHW]
    words = Lettering(
        rows=["content:", *(f"motion of {name}" for name in clips.names)],
        columns=["motion:", *clips.names],
        title="rows keep their motion, columns give the content",
        legend=LEGEND,
        breaks={1},
    )
    pictures = []
    for t in range(frames_MKTCHW.shape[2]):
        cells: list[Sequence[Cell | None]] = [[None, *(truth[t] for truth in truths)]]
        cells += [[truths[row][t], *(pairs[row][column][t] for column in range(count))] for row in range(count)]
        pictures.append(sheet(cells, words))
    return pictures


def _strip(path: Path, frames_MKTCHW: Tensor, clips: Clips) -> Path:
    """For each motion: its true video, then it with each content."""
    shown = moments(frames_MKTCHW.shape[2], COLUMNS)
    rows, cells = [], []
    for motion, name in enumerate(clips.names):
        rows += [f"motion: {name}", *(f"content: {other}" for other in clips.names)]
        truth = film(clips.video_BTCHW[motion].cpu(), clips.num_given, style.TRUTH)
        swapped = [film(frames, clips.num_given) for frames in frames_MKTCHW[motion]]
        cells += [[video[t] for t in shown] for video in (truth, *swapped)]
    words = Lettering(
        rows=rows,
        columns=[str(t + 1) for t in shown],
        title="each motion with each content, over time (frame numbers)",
        legend=LEGEND,
        breaks=range(len(clips.indices) + 1, len(rows), len(clips.indices) + 1),
    )
    return save_sheet(path, cells, words)


def _scores(path: Path, frames_MKTCHW: Tensor, clips: Clips) -> Path:
    """How near each pair's future is to the true one of its motion's clip, and of its content's clip."""
    truth, lines = clips.truth_BTCHW.cpu(), []
    for motion, index in enumerate(clips.indices):
        for content, other in enumerate(clips.indices):
            future = frames_MKTCHW[motion, content, clips.num_given :]
            to_motion, to_content = (float(psnr(future, truth[clip]).mean()) for clip in (motion, content))
            lines.append((index, other, to_motion, to_content))
    return write_table(path, ("motion", "content", "psnr_to_motion_clip", "psnr_to_content_clip"), lines)
