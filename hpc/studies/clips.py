"""What every study starts from and ends with: clips of the test split on the run's device, and a caption.

In: a loaded run and the options of the command line. Out: `Clips`; RUN/studies/NAME/caption.txt.

Legend: B clips, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hpc.config import ConfigError
from hpc.data import ensure_dataset, open_split, to_unit_range
from hpc.given_runs import LoadedRun, short_name
from hpc.noise import step_generator
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.model import LatentModel

FPS = 6.25
"""Frames of the data a second in animations; four times as many are still a GIF's whole hundredths of a second."""


@dataclass(frozen=True)
class Clips:
    """Clips of the test split, float in [0, 1] on the run's device: what the model is given, and what came then."""

    indices: tuple[int, ...]
    keys: tuple[str, ...]
    context_BTCHW: Tensor
    truth_BTCHW: Tensor

    @property
    def num_given(self) -> int:
        return self.context_BTCHW.shape[1]

    @property
    def n_future(self) -> int:
        return self.truth_BTCHW.shape[1]

    @property
    def video_BTCHW(self) -> Tensor:
        """Whole clips."""
        return torch.cat((self.context_BTCHW, self.truth_BTCHW), dim=1)

    @property
    def names(self) -> list[str]:
        """How pictures call them."""
        return [f"clip {index}" for index in self.indices]


def read_clips(loaded: LoadedRun, options: StudyOptions, count: int, at_least: int = 1) -> Clips:
    """The clips that the command line names, or the first ones of the test split.

    Args:
        count: how many if the command line does not say.
        at_least: fewer make no sense for the study.

    Raises:
        ConfigError: there is no such clip, or too few are asked for.
        NotForThisRun: the test split has too few.
    """
    config = loaded.config
    ensure_dataset(config.data)
    source = open_split(config.data, "test", config.eval.test_num_frames, loaded.folder.allowed_pipes())
    wanted = options.clips or tuple(range(min(options.count or max(count, at_least), len(source))))
    if wrong := [index for index in wanted if not 0 <= index < len(source)]:
        raise ConfigError(f"--clips {wrong[0]}: the test split has clips 0 to {len(source) - 1}")
    if len(wanted) < at_least:
        if len(source) < at_least:
            raise NotForThisRun(f"it takes {at_least} clips, and the test split has {len(source)}")
        raise ConfigError(f"{len(wanted)} clips: this study takes at least {at_least} (--clips 0,1 or --count 2)")
    fetched = source.read(list(wanted))
    video = to_unit_range({"video": torch.from_numpy(fetched.arrays["video"])}, loaded.device)["video"]
    given = config.model.nt_cond
    return Clips(wanted, tuple(fetched.keys), video[:, :given], video[:, given:])


def generators(options: StudyOptions, clips: Clips) -> list[torch.Generator]:
    """A generator per clip, a function of (seed, clip): a clip's samples do not depend on which others are shown."""
    return [step_generator(options.seed, index, "study") for index in clips.indices]


def latent_model(loaded: LoadedRun) -> LatentModel:
    """The run's model, if its latent state can be taken out.

    Raises:
        NotForThisRun: it cannot.
    """
    if not isinstance(loaded.model, LatentModel):
        raise NotForThisRun(f"model {loaded.config.model.name!r} has no latent state that can be taken out")
    return loaded.model


def write_table(path: Path, header: Sequence[str], lines: Iterable[Sequence[object]]) -> Path:
    """A CSV file; the path."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
    return path


def write_caption(loaded: LoadedRun, options: StudyOptions, what: str, indices: Sequence[int] = ()) -> Path:
    """caption.txt: what is shown, of which run and step, which clips."""
    which = f", test clip{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}" if indices else ""
    path = options.folder / "caption.txt"
    path.write_text(f"{what} Run {short_name(loaded.folder)}, step {loaded.step}{which}, seed {options.seed}.\n")
    return path
