"""Study "frame-rate": prediction at 2 and 4 times the frame rate, and the scores at several time steps.

In: clips of the test split; evaluations of the run, if there are any. Out: rates.gif, rates.mp4 (all rates side by
side, each at its speed), strip.png, frames.csv; substeps.csv, substeps.json and substeps.png from RUN/evaluation,
unless the solver chooses its own steps; caption.txt.

Legend: B clips, T frames, C channels, H rows, W columns (last axis).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from hpc.config import ConfigError
from hpc.evaluation.scores import MODEL, SCORES, SINGLE, Score, Scores, evaluations_in, read_scores
from hpc.evaluation.time_steps import TimeStep, time_steps
from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import FPS, Clips, generators, read_clips, write_caption, write_table
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.pictures import style
from odevid.pictures.sheet import Cell, Lettering, film, save_animation, save_sheet, sheet
from odevid.pictures.steps import StepScore, save_steps_png, step_name
from odevid.studies.frame_rate import FineFrames, matching_substeps, predict_fine

CLIPS = 3
FACTORS = (1, 2, 4)
STRIP_FRAMES = 3
"""Frames of the data that the strip shows, at every rate."""
STEPS = (1, 2, 3, 4, 5)
"""Solver steps per frame of SRVP's tables 7 to 9."""
HEADER = (
    "step", "substeps", "metric", "unit", "method", "mean", "half_width",
    "videos", "samples", "training_step", "differs",
)  # fmt: skip
"""Of substeps.csv: `method` is best (of `samples`) or single, `differs` how a row was made otherwise than most."""
LEGEND = (
    ("given", style.GIVEN),
    ("truth", style.TRUTH),
    ("predicted at a time of the data", style.PREDICTED),
    ("predicted between", style.BETWEEN),
)


def run_frame_rate(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: the model has no time step that could be refined.
    """
    own = loaded.model.own_substeps
    if not loaded.config.model.continuous:
        raise NotForThisRun("its model maps frame to frame: there is no time step to refine")
    clips = read_clips(loaded, options, CLIPS)
    fine = {
        factor: predict_fine(
            loaded.model,
            clips.context_BTCHW,
            clips.n_future,
            factor,
            matching_substeps(own, factor),
            generator=generators(options, clips),
        )
        for factor in FACTORS
    }
    for found in fine.values():
        check_finite(found.frames_BTCHW, loaded)
    files = save_animation(options.folder, "rates", _moving(fine, clips), FPS * max(FACTORS))
    files.append(_strip(options.folder / "strip.png", fine, clips))
    files.append(_frames(options.folder / "frames.csv", fine, clips))
    tables, note = _tables(loaded, options.folder, own)
    steps = "" if own is None else ", the time step of the solver refined to match"
    what = (
        f"Frame rate: predictions at once, twice and four times the frame rate of the data{steps}; frames between the "
        f"data's times have a blue border. {note}"
    )
    return [*files, *tables, write_caption(loaded, options, what, clips.indices)]


def _row_names() -> list[str]:
    return ["truth", *(f"x {factor}" for factor in FACTORS)]


def _films(fine: Mapping[int, FineFrames], clip: int, scale: int) -> dict[int, list[Cell]]:
    """The frames of each rate after the given ones, as cells."""
    films = {}
    for factor, found in fine.items():
        cells = film(found.frames_BTCHW[clip].cpu(), 0, scale=scale)
        films[factor] = [
            Cell(cell.frame_HW3, style.PREDICTED if whole else style.BETWEEN)
            for cell, whole in zip(cells, found.is_whole, strict=True)
        ]
    return films


def _moving(fine: Mapping[int, FineFrames], clips: Clips) -> list[np.ndarray]:
    """All rates side by side, as many pictures as the finest has frames; coarser ones hold theirs."""
    finest = max(FACTORS)
    truths = [film(video, clips.num_given, style.TRUTH, 2) for video in clips.video_BTCHW.cpu()]
    films = [_films(fine, clip, 2) for clip in range(len(clips.indices))]
    pictures = []
    for tick in range((1 - clips.num_given) * finest, clips.n_future * finest + 1):
        frame = clips.num_given - 1 + tick // finest
        rows = [[truth[frame] for truth in truths]]
        for factor in FACTORS:
            seen = tick * factor // finest  # predicted frames of this rate until now
            rows.append([rates[factor][seen - 1] for rates in films] if seen > 0 else rows[0])
        words = Lettering(_row_names(), clips.names, f"frame rate of the data, x 2, x 4: frame {frame + 1}", LEGEND)
        pictures.append(sheet(rows, words))
    return pictures


def _strip(path: Path, fine: Mapping[int, FineFrames], clips: Clips) -> Path:
    """For each clip: truth and every rate, from the last given frame on, each frame under its time."""
    finest = max(FACTORS)
    shown = min(STRIP_FRAMES, clips.n_future)
    names = [_time_name(Fraction(tick, finest) + clips.num_given) for tick in range(shown * finest + 1)]
    rows: list[list[Cell | None]] = []
    for clip in range(len(clips.indices)):
        truth, films = film(clips.video_BTCHW[clip].cpu(), clips.num_given, style.TRUTH), _films(fine, clip, 1)
        rows.append(
            [truth[clips.num_given - 1 + tick // finest] if tick % finest == 0 else None for tick in _ticks(shown)]
        )
        for factor in FACTORS:
            every = finest // factor
            line = [films[factor][tick // every - 1] if tick and tick % every == 0 else None for tick in _ticks(shown)]
            rows.append(line)
    per_clip = len(FACTORS) + 1
    words = Lettering(
        rows=[f"{name}: {row}" if row == "truth" else row for name in clips.names for row in _row_names()],
        columns=names,
        title="the frame rate of the data, doubled and quadrupled (time in frames)",
        legend=LEGEND,
        breaks=range(per_clip, len(rows), per_clip),
    )
    return save_sheet(path, rows, words)


def _ticks(frames: int) -> range:
    return range(frames * max(FACTORS) + 1)


def _time_name(time: Fraction) -> str:
    """A time in frames, counted from 1 as everywhere in pictures."""
    whole, part = divmod(time, 1)
    return str(whole) if not part else f"{float(time):g}"


def _frames(path: Path, fine: Mapping[int, FineFrames], clips: Clips) -> Path:
    """How far each frame is from the one before (pixel RMS), at every rate: small steps where motion is smooth."""
    lines = []
    for factor, found in fine.items():
        change_BT = (found.frames_BTCHW[:, 1:] - found.frames_BTCHW[:, :-1]).square().mean(dim=(2, 3, 4)).sqrt()
        for index, changes in zip(clips.indices, change_BT.tolist(), strict=True):
            lines += [
                (index, factor, found.substeps, time + 1, change)
                for time, change in zip(found.times[1:], changes, strict=True)
            ]
    return write_table(path, ("clip", "factor", "substeps", "frame", "rms_change"), lines)


def _tables(loaded: LoadedRun, folder: Path, own: int | None) -> tuple[list[Path], str]:
    """The scores over step sizes as files, and sentences about them; the missing ones are named on the terminal."""
    if own is None:
        return [], "There are no scores over time steps: the solver chooses its own."
    scored = _scored(loaded.folder.evaluation, own)
    missing = [step for step in STEPS if step not in {found.substeps for found in scored}]
    if missing:
        steps = ",".join(map(str, STEPS))
        print(
            f"no scores at time step{'s' if len(missing) > 1 else ''} {', '.join(map(step_name, missing))} of a frame; "
            f"for the table over step sizes:\n"
            f"    python hpc/launch.py evaluate run={loaded.folder.path} 'eval.substeps=[{steps}]'\n"
            f"then this study again"
        )
    if not scored:
        return [], "The run has not been scored at several time steps."
    lines = [_line(found, line) for found in scored for line in _lines(found.scores)]
    table = write_table(folder / "substeps.csv", HEADER, lines)
    numbers = folder / "substeps.json"
    numbers.write_text(json.dumps([dict(zip(HEADER, line, strict=True)) for line in lines], indent=1) + "\n")
    files = [table, numbers]
    alike = [found for found in scored if not found.differs]
    if len(alike) > 1:
        title = "scores over the time step of the solver (dashed: the step of the training)"
        files.append(save_steps_png(folder / "substeps.png", _panels(alike), own, title))
    return files, _told(scored, own)


def _told(scored: Sequence[TimeStep], own: int) -> str:
    """Which time steps were scored how, and which of them are not to be compared with the others."""
    alike = [found for found in scored if not found.differs]
    first = alike[0]
    protocol = first.scores.protocol
    told = (
        f"Scores at the time steps {', '.join(step_name(found.substeps) for found in alike)} of a frame (training: "
        f"{step_name(own)}), on {protocol['num_clips']} clips and {protocol['samples']} samples, of step "
        f"{first.trained}."
    )
    for found in scored:
        if found.differs:
            told += (
                f" Time step {step_name(found.substeps)} was scored with another protocol ({found.differs}): it is in "
                "the table but not in the picture, and may not be compared."
            )
    return told


def _scored(evaluation: Path, own: int) -> list[TimeStep]:
    """
    Raises:
        ConfigError: scores that cannot be read.
    """
    found: list[tuple[Path, Scores]] = []
    for folder in evaluations_in(evaluation):
        try:
            found.append((folder, read_scores(folder)))
        except ConfigError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise ConfigError(
                f"{folder / SCORES} cannot be read ({error!r}): evaluate the run anew, or move {folder} away"
            ) from error
    return time_steps(found, own)


def _lines(found: Scores) -> list[Score]:
    """What the paper's tables hold: the best sample's metrics, and FVD, which is of one sample per video and set."""
    lines = [line for line in found.table if line.method == MODEL]
    if found.fvd:
        lines.append(Score(SINGLE, "fvd", "", found.fvd.mean, found.fvd.half_width, None, found.fvd.videos, 1))
    return lines


def _line(found: TimeStep, line: Score) -> tuple[object, ...]:
    return (
        step_name(found.substeps), found.substeps, line.metric, line.unit, line.method, line.mean, line.half_width,
        line.videos, line.samples, found.scores.about.get("step", ""), found.differs,
    )  # fmt: skip


def _panels(scored: Sequence[TimeStep]) -> dict[str, Sequence[StepScore]]:
    panels: dict[str, list[StepScore]] = {}
    for found in scored:
        for line in _lines(found.scores):
            label = line.metric.upper() + (f" ({line.unit})" if line.unit else "")
            of_what = f"best of {line.samples}" if line.method == MODEL else "one sample per video"
            panels.setdefault(f"{label}, {of_what}", []).append(StepScore(found.substeps, line.mean, line.half_width))
    return dict(panels)
