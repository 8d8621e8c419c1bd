"""`python hpc/launch.py predict run=RUN clip.mp4`: what comes after a video's first frames, says the run's model.

In: words of the command line: a run, video files or folders, options. Out: for each video a folder with GIF, MP4,
strip and npz in RUN/predictions/ or --out; exit code 1 where one of several videos could not be done.
No torch import at module level: `--help` is at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpc import config as configs
from hpc.config import ConfigError
from hpc.given_runs import load_run, runs_of
from shards.building.plan import BadSource

if TYPE_CHECKING:
    from rich.progress import Progress

    from hpc.given_runs import LoadedRun
    from hpc.predicting.files import Source
    from hpc.predicting.reading import Opening, Reading
    from hpc.predicting.sampling import Wish

DESCRIPTION = """\
Continue videos: the run's model is given the first frames of each (model.nt_cond of them) and samples what follows.
Frames are cropped, resized and taken at a rate as the run's dataset was built; --crop and --fps say otherwise.
"""

EPILOG = """\
examples
  python hpc/launch.py predict run=runs/srvp_kth/20261120-101500 clip.mp4 --n-future 30 --samples 5
  python hpc/launch.py predict run=RUN clip.mp4 --start 2.5 --fps 25     from second 2.5 on, at 25 frames per second
  python hpc/launch.py predict run=RUN clip.mp4 --crop 100,0,580,480     a box of the frame: left,top,right,bottom
  python hpc/launch.py predict run=RUN clip.mp4 --times-per-frame 4      four times the video's frame rate
  python hpc/launch.py predict run=RUN videos/ --out predictions/        all videos of a folder and below
  python hpc/launch.py predict run=RUN clip.mp4 eval.checkpoint=best     any key=value of the run's configuration

in RUN/predictions/NAME/ (NAME is that of the file; --out DIR: DIR/NAME/)
  samples.gif, samples.mp4   truth and samples side by side; green: given, red: predicted
  samples.png                the same over time
  prediction.npz             given, samples (N,T,H,W,C), truth: uint8; times in frames; fps, seed, run, step, ...
The same seed gives the same samples, for each video alone or among others. In a folder a file that cannot be used is
listed at the end, and the exit code is 1.
"""


def main(words: Sequence[str]) -> int:
    """Do what the words say.

    Raises:
        ConfigError: words that do not fit, no checkpoint, no room, or the only video cannot be used.
        ShardError: a folder without videos, or a crop that is none.
    """
    arguments, overrides = _parse(words)
    from hpc.predicting.files import find_sources
    from hpc.predicting.reading import reading_of

    folder = arguments.run
    sources = find_sources(arguments.videos)
    reading = reading_of(configs.load_file(folder.config, overrides), arguments.fps, arguments.crop)
    loaded = load_run(folder, overrides, arguments.device)
    wish = _wish(arguments, loaded)
    print(f"step {loaded.step} of {folder.path} on {loaded.device}; {reading.why}", flush=True)
    out = arguments.out or folder.predictions
    failed: list[tuple[Source, str]] = []
    with _progress(len(sources)) as progress:
        for source in progress.track(sources, description="predict"):
            try:
                opening = _opening(source, reading, arguments.start, wish, loaded)
                _predict(source, opening, out / source.name, wish, loaded, reading, progress)
            except BadSource as error:
                if len(sources) == 1:
                    raise ConfigError(f"{source.shown}: {_reason(error, source)}") from error
                failed.append((source, _reason(error, source)))
    _report(failed, len(sources))
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.py predict",
        usage="launch.py predict run=RUN VIDEO [VIDEO ...] [options] [key=value ...]",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="VIDEO", help="video files, or folders of videos")
    add("--n-future", type=_whole(1), default=30, metavar="N", help="frames to predict (default: 30)")
    add("--samples", type=_whole(1), default=5, metavar="N", help="futures to draw (default: 5)")
    add("--start", type=_seconds, default=0.0, metavar="SECONDS", help="where the given frames begin (default: 0)")
    add("--fps", default="", metavar="F", help="frames per second, or own: every frame (default: as the run's data)")
    add("--crop", default="", metavar="HOW", help="center, squash, or a box L,T,R,B (default: as the run's data)")
    times_help = "predicted frames in the time of one (default: 1): 2 doubles the frame rate"
    add("--times-per-frame", type=_whole(1), default=1, metavar="K", help=times_help)
    substeps_help = "solver steps per frame (default: the model's own, or so many that K fits)"
    add("--substeps", type=_whole(1), metavar="S", help=substeps_help)
    add("--seed", type=_whole(0), default=1, metavar="N", help="draws the samples (default: 1)")
    add("--device", default="", metavar="NAME", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    add("--out", type=Path, metavar="DIR", help="where the videos' folders go (default: RUN/predictions)")
    return parser


def _parse(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, with `run` and `videos`, and the overrides of the run's configuration."""
    runs, others = runs_of(words)
    arguments = _parser().parse_intermixed_args(others)
    if len(runs) != 1:
        raise ConfigError(f"predict takes one run=RUN, found {len(runs)}: runs started here are under runs/")
    overrides = [word for word in arguments.words if "=" in word and not Path(word).exists()]
    arguments.videos = [Path(word) for word in arguments.words if word not in overrides]
    arguments.run = runs[0]
    return arguments, overrides


def _wish(arguments: argparse.Namespace, loaded: LoadedRun) -> Wish:
    from hpc.predicting.sampling import Wish, check_steps

    per_frame = arguments.times_per_frame
    substeps = check_steps(per_frame, arguments.substeps, loaded.config.model)
    return Wish(arguments.n_future, arguments.samples, per_frame, substeps, arguments.seed)


def _opening(source: Source, reading: Reading, start_s: float, wish: Wish, loaded: LoadedRun) -> Opening:
    from hpc.predicting.reading import read_opening

    model = loaded.config.model
    return read_opening(source.file, reading, start_s, model.nt_cond, wish.n_future, model.min_context)


def _predict(
    source: Source,
    opening: Opening,
    folder: Path,
    wish: Wish,
    loaded: LoadedRun,
    reading: Reading,
    progress: Progress,
) -> None:
    """Sample and write one video, and say what was done."""
    from hpc.predicting.pictures import MOST_SHOWN
    from hpc.predicting.sampling import predict_video
    from hpc.predicting.writing import write_prediction

    prediction = predict_video(loaded, opening, wish)
    about: dict[str, str | int] = {
        "run": str(loaded.folder.path),
        "step": loaded.step,
        "source": source.shown,
        "reading": reading.why,
    }
    try:
        write_prediction(folder, prediction, about)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}; choose a folder with --out") from error
    rate = f" at {opening.fps:g} per second" if opening.fps else ""
    true = len(opening.truth_TCHW)
    facts = [f"{len(opening.given_TCHW)} frames given{rate}", f"{wish.n_future} predicted", f"{true} of them known"]
    if wish.samples > MOST_SHOWN:
        facts.append(f"pictures show {MOST_SHOWN} of {wish.samples} samples, the npz all")
    facts += [f"note: {notice.kind} ({notice.detail})" for notice in opening.notices]
    progress.console.print(f"{source.shown}: {', '.join(facts)}\n    {folder}", soft_wrap=True, markup=False)


@contextmanager
def _progress(videos: int) -> Iterator[Progress]:
    """A bar on a terminal where there are several videos; lines are printed above it."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=sys.stdout, highlight=False)
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=videos == 1 or not console.is_terminal) as progress:
        yield progress


def _reason(error: BadSource, source: Source) -> str:
    """What is wrong, without the file's name, which stands before it."""
    detail = error.detail.removeprefix(f"{source.file}: ").removeprefix(f"{source.file} ")
    return f"{error.kind}: {detail}"


def _report(failed: Sequence[tuple[Source, str]], total: int) -> None:
    """A table of the videos that could not be done, if any."""
    if not failed:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(failed)} of {total} videos could not be used", title_justify="left")
    table.add_column("video", overflow="fold")
    table.add_column("why", overflow="fold")
    for source, reason in failed:
        table.add_row(source.shown, reason)
    console = Console(stderr=True, highlight=False, markup=False)
    console.print(table)


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least {least}")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0 or more")
    return value
