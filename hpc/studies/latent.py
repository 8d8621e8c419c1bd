"""Study "latent": the way of the latent state, in two dimensions.

In: clips of the test split, several samples of each (one, where all are the same). Out: latent.png (PCA, t-SNE, UMAP if
it is installed), points.csv, variance.json, curve.csv (do consecutive states lie on a smooth curve?), caption.txt.

Legend: N samples, B clips, T frames, D size of the state, P points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import Clips, generators, latent_model, read_clips, write_caption, write_table
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.pictures.latent import save_latent_png
from odevid.studies.curve import CurveShape, curve_shape, shuffled_shape
from odevid.studies.projection import Projection, has_umap, pca, tsne, umap

CLIPS, SAMPLES = 6, 3


def run_latent(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: the model has no latent state, or one of a single dimension.
    """
    model = latent_model(loaded)
    clips = read_clips(loaded, options, CLIPS)
    samples = (options.samples or SAMPLES) if loaded.config.model.stochastic else 1
    latent = model.infer(
        clips.context_BTCHW,
        samples,
        n_future=clips.n_future,
        generator=generators(options, clips),
    )
    states_NBTD = model.trajectory(latent, range(clips.num_given + clips.n_future))
    if states_NBTD.shape[-1] < 2:
        raise NotForThisRun("its state has one dimension: there is nothing to project")
    check_finite(states_NBTD, loaded)
    shape_NBT = (states_NBTD.shape[0], states_NBTD.shape[1], states_NBTD.shape[2])
    points_PD = states_NBTD.flatten(0, 2)
    found = [pca(points_PD), tsne(points_PD, options.seed)]
    if has_umap():
        found.append(umap(points_PD, options.seed))
    else:
        print("UMAP left out: it is not installed (pip install umap-learn)")
    share = sum(found[0].shares)
    curves, told = _curves(options.folder / "curve.csv", states_NBTD, clips, options.seed)
    what = (
        f"Latent trajectories of {_samples(samples)} per clip, one point per frame, colour is time, squares where "
        f"the frames were given; the two components of PCA hold {share:.0%} of the variance.{told}"
    )
    return [
        save_latent_png(options.folder / "latent.png", found, shape_NBT, clips.num_given, clips.names),
        _points(options.folder / "points.csv", found, shape_NBT, clips),
        _variance(options.folder / "variance.json", found[0]),
        curves,
        write_caption(loaded, options, what, clips.indices),
    ]


def _samples(count: int) -> str:
    return f"{count} sample{'s' * (count > 1)}"


def _points(path: Path, found: Sequence[Projection], shape_NBT: tuple[int, int, int], clips: Clips) -> Path:
    """A line per sample, clip and frame, with its place in each projection."""
    samples, count, frames = shape_NBT
    header = ["sample", "clip", "frame", "given"]
    header += [f"{projection.method.lower()}_{axis}" for projection in found for axis in (1, 2)]
    places = [projection.points_P2.tolist() for projection in found]
    lines = []
    for point in range(samples * count * frames):
        sample, clip, frame = point // (count * frames), point // frames % count, point % frames
        given = int(frame < clips.num_given)
        where = [value for projected in places for value in projected[point]]
        lines.append((sample, clips.indices[clip], frame + 1, given, *where))
    return write_table(path, header, lines)


def _curves(path: Path, states_NBTD: Tensor, clips: Clips, seed: int) -> tuple[Path, str]:
    """A line per sample and clip, beside the same numbers of its states in a random order; their means in words."""
    shapes = curve_shape(states_NBTD), shuffled_shape(states_NBTD, seed)
    names = {"arc": "arc", "turning": "turning_degrees", "straightness": "chord_over_arc"}
    columns = {
        f"{order}{column}": getattr(shape, name)
        for order, shape in zip(("", "random_"), shapes, strict=True)
        for name, column in names.items()
    }
    lines = [
        (sample, index, *(float(values_NB[sample, clip]) for values_NB in columns.values()))
        for sample in range(states_NBTD.shape[0])
        for clip, index in enumerate(clips.indices)
    ]
    return write_table(path, ("sample", "clip", *columns), lines), _told(*shapes)


def _told(ours: CurveShape, random: CurveShape) -> str:
    """Empty where no state moves on twice, so that there is no angle."""
    turning, straight, turning_random, straight_random = (
        float(values.nanmean()) for values in (ours.turning, ours.straightness, random.turning, random.straightness)
    )
    if math.isnan(turning):
        return ""
    return (
        f" From frame to frame the way of the states turns by {turning:.0f} degrees on average, and the straight line "
        f"from the first to the last has {straight:.2f} of its length; with the same states in a random order it is "
        f"{turning_random:.0f} degrees and {straight_random:.2f}."
    )


def _variance(path: Path, found: Projection) -> Path:
    path.write_text(json.dumps({"pca_share_of_variance": found.shares}, indent=1) + "\n")
    return path
