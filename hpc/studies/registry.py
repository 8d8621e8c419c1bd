"""The table of studies. One study is one function; adding a line to `STUDIES` adds it to the command and to `all`.

In: a study's name. Out: its function, imported only when it runs (no torch here: `study --help` is quick).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.config import ConfigError

if TYPE_CHECKING:
    from hpc.given_runs import LoadedRun

    RunStudy = Callable[["LoadedRun", "StudyOptions"], Sequence[Path]]


class NotForThisRun(ConfigError):
    """The study makes no sense for this model or this data. `study all` goes on without it and says why."""


@dataclass(frozen=True)
class StudyOptions:
    """What the command line asks of a study; 0 and () leave the choice to the study."""

    folder: Path
    """Where the study writes: it exists and is empty, and becomes RUN/studies/NAME when the study has ended well."""
    clips: tuple[int, ...] = ()
    """Numbers of test clips."""
    count: int = 0
    """Or how many of them, from the first on."""
    samples: int = 0
    """Futures per clip, for a study that takes them."""
    digits: int = 0
    """Digits on each trajectory, for a study that takes them."""
    seed: int = 1


OPTIONS = {"samples": "futures per clip", "digits": "different digits on each trajectory"}
"""Options that only some studies take: what they count."""


@dataclass(frozen=True)
class Study:
    """A study: the word of the command line, a line for --help, and "module:function".

    The function takes (LoadedRun, StudyOptions), writes caption.txt among its files and returns their paths. It raises
    NotForThisRun before it computes anything if the model or the data do not allow it.
    """

    name: str
    summary: str
    function: str
    takes: tuple[str, ...] = ()
    """Options beyond those of every study, of OPTIONS."""

    def load(self) -> RunStudy:
        """The function."""
        module, name = self.function.split(":")
        run: RunStudy = getattr(import_module(module), name)
        return run


STUDIES: tuple[Study, ...] = (
    Study("content-swap", "the motion of one video with the content of another", "hpc.studies.swap:run_swap"),
    Study("interpolation", "roll-outs between two initial states", "hpc.studies.interpolation:run_interpolation"),
    Study("frame-rate", "doubled, quadrupled frame rate; scores by time step", "hpc.studies.frame_rate:run_frame_rate"),
    Study("latent", "latent trajectories in 2-D: PCA, t-SNE, UMAP", "hpc.studies.latent:run_latent", ("samples",)),
    Study("diversity", "how much the samples of a video differ", "hpc.studies.diversity:run_diversity", ("samples",)),
    Study(
        "motion",
        "moves of a known digit over samples; --count initial states",
        "hpc.studies.motion:run_motion",
        ("samples", "digits"),
    ),
)


def find_study(name: str) -> Study:
    """
    Raises:
        ConfigError: there is no such study.
    """
    for study in STUDIES:
        if study.name == name:
            return study
    raise ConfigError(f"no study {name!r}; studies: {', '.join(study.name for study in STUDIES)}, all")
