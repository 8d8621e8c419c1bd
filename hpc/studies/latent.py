"""Study "latent": the way of the latent state, in two dimensions.

In: clips of the test split, several samples of each. Out: latent.png (PCA, t-SNE, UMAP if it is installed), points.csv,
variance.json, caption.txt.

Legend: N samples, B clips, T frames, D size of the state, P points.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hpc.given_runs import LoadedRun
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import Clips, generators, latent_model, read_clips, write_caption, write_table
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.pictures.latent import save_latent_png
from odevid.studies.projection import Projection, has_umap, pca, tsne, umap

CLIPS, SAMPLES = 6, 3


def run_latent(loaded: LoadedRun, options: StudyOptions) -> list[Path]:
    """
    Raises:
        NotForThisRun: the model has no latent state, or one of a single dimension.
    """
    model = latent_model(loaded)
    clips = read_clips(loaded, options, CLIPS)
    latent = model.infer(
        clips.context_BTCHW,
        options.samples or SAMPLES,
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
    what = (
        f"Latent trajectories of {shape_NBT[0]} samples per clip, one point per frame, colour is time, squares where "
        f"the frames were given; the two components of PCA hold {share:.0%} of the variance."
    )
    return [
        save_latent_png(options.folder / "latent.png", found, shape_NBT, clips.num_given, clips.names),
        _points(options.folder / "points.csv", found, shape_NBT, clips),
        _variance(options.folder / "variance.json", found[0]),
        write_caption(loaded, options, what, clips.indices),
    ]


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


def _variance(path: Path, found: Projection) -> Path:
    path.write_text(json.dumps({"pca_share_of_variance": found.shares}, indent=1) + "\n")
    return path
