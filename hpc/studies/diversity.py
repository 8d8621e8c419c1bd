"""Study "diversity": how much the samples of a video differ, beside how far they are from what came.

In: clips of the test split, many samples of each. Out: rms.png, rms.csv (and lpips.png, lpips.csv where its weights are
found), deviation.png (where samples differ), caption.txt.

Legend: N samples, B clips, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hpc.config import ConfigError
from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import Clips, generators, read_clips, write_caption
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.metrics.lpips import LPIPS
from odevid.pictures import style
from odevid.pictures.curves import Curve, save_curves_csv, save_curves_png
from odevid.pictures.heat import heat, heat_legend
from odevid.pictures.sheet import Cell, Lettering, film, save_sheet
from odevid.pictures.trajectory import moments
from odevid.studies.diversity import Spread, deviation, spread

CLIPS, SAMPLES = 8, 20
PICTURED, COLUMNS = 3, 12
RMS, PERCEPTUAL = "pixel RMS, black 0 to white 1", "LPIPS"


@dataclass(frozen=True)
class _Seen:
    """Of one clip: its spreads by metric, and what the picture shows."""

    spreads: dict[str, Spread]
    deviation_THW: Tensor
    mean_TCHW: Tensor
    samples_2TCHW: Tensor


def run_diversity(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: all samples of the model are the same.
        ConfigError: fewer than two samples.
    """
    if not loaded.config.model.stochastic:
        raise NotForThisRun(f"model.name={loaded.config.model.name} is deterministic: all its samples are the same")
    samples = options.samples or SAMPLES
    if samples < 2:
        raise ConfigError(f"--samples {samples}: the diversity of samples takes at least 2")
    clips = read_clips(loaded, options, CLIPS)
    network = _lpips(loaded)
    seen = [_look(loaded, clips, clip, samples, generator, network) for clip, generator in _each(options, clips)]
    files = []
    for name in seen[0].spreads:
        files += _curves(options.folder, name, [found.spreads[name] for found in seen], clips)
    files.append(_maps(options.folder / "deviation.png", seen[:PICTURED], clips))
    what = (
        f"Diversity of {samples} samples per clip: mean distance between two samples, beside the mean distance of a "
        f"sample from the truth, per frame with the 95 % interval over {len(seen)} clips; and where samples differ."
    )
    return [*files, write_caption(loaded, options, what, clips.indices)]


def _each(options: StudyOptions, clips: Clips) -> list[tuple[int, torch.Generator]]:
    return list(enumerate(generators(options, clips)))


def _lpips(loaded: LoadedRun) -> LPIPS | None:
    """LPIPS (AlexNet) on the run's device; None, and a line that says which file is missing, without its weights."""
    try:
        return LPIPS("alex", loaded.config.eval.weights or None).to(loaded.device)
    except FileNotFoundError as missing:
        print(f"LPIPS left out: {missing} (here: eval.weights=FOLDER)")
        return None


def _look(
    loaded: LoadedRun, clips: Clips, clip: int, samples: int, generator: torch.Generator, network: LPIPS | None
) -> _Seen:
    """Sample one clip's futures and measure them."""
    context = clips.context_BTCHW[clip : clip + 1]
    futures = loaded.model.predict(context, clips.n_future, samples, generator=[generator])[:, 0].clamp(0, 1)
    check_finite(futures, loaded)
    truth = clips.truth_BTCHW[clip]
    spreads = {RMS: spread(futures, truth)}
    if network is not None:
        spreads[PERCEPTUAL] = spread(network.features(futures), network.features(truth), network.distance)
    return _Seen(spreads, deviation(futures).cpu(), futures.mean(dim=0).cpu(), futures[:2].cpu())


def _curves(folder: Path, name: str, spreads: list[Spread], clips: Clips) -> list[Path]:
    """Both distances over time, as picture and table."""
    values: Mapping[str, Tensor] = {
        "between two samples": torch.stack([found.between_T for found in spreads]),
        "sample to truth": torch.stack([found.to_truth_T for found in spreads]),
    }
    curves = [Curve.of(label, values_BT.cpu(), clips.num_given + 1) for label, values_BT in values.items()]
    stem = {RMS: "rms", PERCEPTUAL: "lpips"}[name]
    paths = [folder / f"{stem}.png", folder / f"{stem}.csv"]
    save_curves_png(paths[0], curves, f"distance ({name})", f"diversity of samples, {len(spreads)} clips")
    save_curves_csv(paths[1], curves)
    return paths


def _maps(path: Path, seen: list[_Seen], clips: Clips) -> Path:
    """For each clip: truth, two samples, the mean of all, and the standard deviation of every pixel."""
    shown = moments(clips.n_future, COLUMNS)
    top = max(float(found.deviation_THW.max()) for found in seen)
    rows, names = [], []
    for clip, found in enumerate(seen):
        films = {
            f"{clips.names[clip]}: truth": film(clips.truth_BTCHW[clip].cpu(), 0, style.TRUTH),
            "sample 1": film(found.samples_2TCHW[0], 0),
            "sample 2": film(found.samples_2TCHW[1], 0),
            "mean": film(found.mean_TCHW, 0),
            "deviation": [Cell(heat(frame_HW, top), style.PREDICTED) for frame_HW in found.deviation_THW],
        }
        names += list(films)
        rows += [[cells[t] for t in shown] for cells in films.values()]
    words = Lettering(
        rows=names,
        columns=[str(clips.num_given + 1 + t) for t in shown],
        title="truth, samples, and the standard deviation of each pixel over samples (frame numbers)",
        legend=heat_legend(top, "deviation"),
        breaks=range(5, len(rows), 5),
    )
    return save_sheet(path, rows, words)
