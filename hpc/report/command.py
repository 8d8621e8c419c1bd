"""The verb `report`: `python hpc/launch.py report RUN [RUN2 ...] [--out FILE]`; `run=RUN` names one, too.

In: the words after the verb. Out: one HTML file, written whole or not at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from hpc.checkpoint.durable import replace_text
from hpc.config import ConfigError
from hpc.given_runs import runs_of

EPILOG = """\
The page holds the scores beside the papers' numbers, curves, pictures, costs, provenance and the commands that make it
again. What was not computed says so: run `evaluate` and the studies first. It needs no server and no network: copy the
file and open it in a browser.

examples
  python hpc/launch.py report run=runs/srvp_kth/20261120-101500
  python hpc/launch.py report run=runs/a run=runs/b --out both.html      several runs in one axis
  python hpc/launch.py report runs/srvp_kth/*                            run= may be left out
"""
TYPE = "give a file in a folder that you may write to, such as --out report.html"


def main(words: Sequence[str]) -> int:
    """
    Raises:
        ConfigError: no run, a folder that is none, an unknown word, or a file that cannot be written.
    """
    parser = argparse.ArgumentParser(
        prog="launch.py report",
        description="One HTML file on one or several runs, beside the papers' numbers.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("words", nargs="*", metavar="RUN", help="folder of a started run; several are compared")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: report.html in the run)")
    options = parser.parse_args(words)
    folders, rest = runs_of([_as_run(word) for word in options.words])
    if rest:
        raise ConfigError(f"report takes run=RUN and --out FILE: what is {' '.join(rest)}?")
    if not folders:
        raise ConfigError("report needs run=RUN, the folder of a started run (they are under runs/)")
    out: Path = options.out or folders[0].report
    _check(out)

    from hpc.report.commands import report_command
    from hpc.report.facts import gather_run
    from hpc.report.page import render

    command = report_command([folder.path for folder in folders], options.out)
    page = render([gather_run(folder) for folder in folders], command)
    try:
        replace_text(out, page)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); {TYPE}") from error
    print(f"wrote {out} ({out.stat().st_size / 2**20:.1f} MiB): one file, open it in any browser")
    return 0


def _as_run(word: str) -> str:
    """A plain path is a run's folder, as for the other verbs that look at one."""
    is_path = "=" not in word or "/" in word.partition("=")[0]
    return f"run={word}" if is_path else word


def _check(out: Path) -> None:
    """What can be known before the page is made.

    Raises:
        ConfigError: `out` cannot be a file.
    """
    try:
        is_folder, has_folder = out.is_dir(), out.parent.is_dir()
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}; {TYPE}") from error
    if is_folder:
        raise ConfigError(f"{out} is a folder, not a file: give one, such as --out {out / 'report.html'}")
    if not has_folder:
        raise ConfigError(f"--out {out}: there is no folder {out.parent}; {TYPE}")
