"""The verb `study`: one of the papers' experiments on a run, or all of them.

In: the words after `study`. Out: files in RUN/studies/NAME/, and their paths on the terminal. No torch import before a
study runs.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpc.config import ConfigError
from hpc.errors import FAILURE, USER_ERROR
from hpc.given_runs import LoadedRun, load_run, runs_of
from hpc.run_folder import RunFolder
from hpc.studies.registry import OPTIONS, STUDIES, NotForThisRun, Study, StudyOptions, find_study

ALL = "all"

EPILOG = """\
studies
{studies}
  {all:14} each of these that the model, the data and the options allow; says which it leaves out, and why

examples
  python hpc/launch.py study all run=RUN
  python hpc/launch.py study content-swap run=RUN --clips 0,3,5
  python hpc/launch.py study diversity run=RUN --count 16 --samples 20 eval.test_num_frames=40
  python hpc/launch.py study frame-rate run=RUN eval.checkpoint=best --device cpu
  python hpc/launch.py study motion run=RUN --count 2 --digits 5 --samples 40

Pictures (PNG; GIF and MP4 where something moves), numbers (CSV, JSON) and caption.txt go to RUN/studies/NAME/, which is
written anew each time.
Clips are those of the test split, numbered from 0; the model is given its first model.nt_cond frames.

exit code
  0  done; `all`: what it left out makes no sense for this model or this data
  1  `all`: some studies ran, and one failed for another reason, such as a --count that it cannot use
  2  nothing ran
"""


@dataclass(frozen=True)
class _Asked:
    """The command line, understood."""

    study: Study | None
    """None: all of them."""
    run: RunFolder
    overrides: list[str]
    options: argparse.Namespace


def main(words: Sequence[str]) -> int:
    """Run the study that `words` name; 0. Of `all`: 2 when none ran, 1 when some ran and one failed although it fits
    the run.

    Raises:
        ConfigError: an unknown study, run, clip or key; a single study that fails.
    """
    asked = _parse(words)
    loaded = load_run(asked.run, asked.overrides, asked.options.device)
    if asked.study is not None:
        _print(asked.study, _run(asked.study, loaded, asked.options))
        return 0
    return _run_all(loaded, asked.options)


def _run_all(loaded: LoadedRun, options: argparse.Namespace) -> int:
    """Each study, whatever becomes of the others; the exit code."""
    left_out: dict[str, ConfigError] = {}
    for study in STUDIES:
        try:
            _print(study, _run(study, loaded, options))
        except ConfigError as reason:
            left_out[study.name] = reason
    for name, why in left_out.items():
        print(f"left out {name}: {why}")
    if len(left_out) == len(STUDIES):
        return USER_ERROR
    return 0 if all(isinstance(why, NotForThisRun) for why in left_out.values()) else FAILURE


def _run(study: Study, loaded: LoadedRun, options: argparse.Namespace) -> Sequence[Path]:
    """The study's files. It writes beside its folder, which is replaced when all is there: no file is of older ones."""
    folder, beside = loaded.folder.studies / study.name, loaded.folder.studies / f".{study.name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    taken = {name: getattr(options, name) or 0 for name in study.takes}
    asked = StudyOptions(beside, options.clips, options.count or 0, seed=options.seed, **taken)
    try:
        files = study.load()(loaded, asked)
        shutil.rmtree(folder, ignore_errors=True)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / path.relative_to(beside) for path in files]


def _print(study: Study, files: Sequence[Path]) -> None:
    for path in files:
        print(f"{study.name:14} {path}", flush=True)


def _parse(words: Sequence[str]) -> _Asked:
    options = _parser().parse_intermixed_args(list(words))
    runs, rest = runs_of(options.words)
    names = [word for word in rest if "=" not in word]
    if len(names) != 1:
        raise ConfigError(
            f"{'which study?' if not names else f'one study at a time, not {len(names)}:'} {' '.join(names)} "
            f"choose one of {', '.join(study.name for study in STUDIES)}, {ALL}"
        )
    if len(runs) != 1:
        raise ConfigError(f"study takes one run=DIR, got {len(runs)}: python hpc/launch.py study {names[0]} run=RUN")
    if options.clips and options.count is not None:
        raise ConfigError("--clips names the clips and --count counts them: give one of them")
    study = None if names[0] == ALL else find_study(names[0])
    for name in ("count", *OPTIONS):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: expected at least 1")
        if value is not None and study is not None and name in OPTIONS and name not in study.takes:
            raise ConfigError(
                f"--{name} {value} ({OPTIONS[name]}) means nothing to {study.name}: leave it out; "
                f"it is for {_takers(name)}"
            )
    return _Asked(study, runs[0], [word for word in rest if "=" in word], options)


def _takers(option: str) -> str:
    """Studies that take the option."""
    return ", ".join(study.name for study in STUDIES if option in study.takes)


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {study.name:14} {study.summary}" for study in STUDIES)
    parser = argparse.ArgumentParser(
        prog="launch.py study",
        description="The papers' experiments on a trained run, each with its pictures.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=EPILOG.format(studies=listed, all=ALL),
    )
    parser.add_argument("words", nargs="*", metavar="NAME run=RUN [key=value]", help="study, run, keys of its config")
    parser.add_argument("--clips", type=_numbers, default=(), metavar="0,3", help="numbers of test clips")
    parser.add_argument("--count", type=int, metavar="N", help="so many test clips, from the first on")
    for name, counted in OPTIONS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{counted} (of {_takers(name)})")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the samples (default 1)")
    parser.add_argument("--device", default="", metavar="NAME", help="cpu, cuda:1 ... (default: a GPU if there is one)")
    return parser


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected numbers of clips such as 0,3")
    return tuple(int(part) for part in parts)
