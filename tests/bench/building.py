"""How fast KTH is built: ``build kth`` beside the published pipeline as a plain loop, on the same videos.

    OMP_NUM_THREADS=1 python -m tests.bench.building [--data DIR] [--rounds 5]

published   for each video the ffmpeg program, called as SRVP's and SVG's scripts call it, to a PNG file per frame; then
            one ``Image.open`` per frame into a uint8 array, as their test-set script reads them. Once with ffmpeg's own
            choice of threads, as published, and once with one.
ours        the builder's own maker and tar writer in this process: checksums, index and fsync included; then the clips
            read back and verified.

They take turns within each round. CPU seconds are of this process and of the ffmpeg processes it waited for. After
each round the pixels of both must be equal, else the run ends with an error.

Axis letters: T frames, C channels, H height, W width.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg  # type: ignore[import-untyped]
import numpy as np

from shards.building.kth import MakeKth
from shards.building.kth_files import FPS, Video, find_videos
from shards.building.picture import Look
from shards.folder import LocalFolder
from shards.manifest import Manifest, video_spec
from shards.reader import ShardReader, read_arrays
from shards.writer import Sample, write_dataset
from tests.bench import footage
from tests.bench.published_frames import read_frames
from tests.bench.streaming import spread, table

SIZE = 64
Clips = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cost:
    """Seconds of one step over all videos.

    Attributes:
        cpu: of this process and the children it waited for.
        wall: passed meanwhile.
    """

    cpu: float
    wall: float


def timed(action: Callable[[], object]) -> Cost:
    """Do it and say what it cost."""

    def cpu() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    before, started = cpu(), time.perf_counter()
    action()
    return Cost(cpu() - before, time.perf_counter() - started)


def to_png_files(videos: Iterable[Video], folder: Path, threads: int | None) -> None:
    """The published conversion, video after video."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    limits = ["-threads", str(threads), "-filter_threads", str(threads)] if threads else []
    for video in videos:
        place = folder / str(video.name)
        place.mkdir(parents=True)
        source = [*limits, "-i", str(video.file)]
        target = ["-r", f"{FPS:g}", "-f", "image2", "-s", f"{SIZE}x{SIZE}", *limits[:2], str(place / "image-%03d.png")]
        subprocess.run([program, "-nostdin", *source, *target], check=True, capture_output=True)


def load_png_files(folder: Path) -> Clips:
    """All clips as uint8 TCHW."""
    clips = {}
    for place in sorted(folder.iterdir()):
        paths = sorted(place.glob("*.png"), key=lambda path: int(path.stem.partition("-")[2]))
        clips[place.name] = np.ascontiguousarray(read_frames([str(path) for path in paths], 1).transpose(0, 3, 1, 2))
    return clips


def build(videos: Iterable[Video], folder: Path) -> None:
    """The same videos as a dataset, by the builder's maker and the writer."""
    make = MakeKth(Look(SIZE, crop="squash", resize="ffmpeg-bicubic", channels="first"))
    made = (piece for video in videos for piece in make(video.whole(SIZE)))
    samples = (piece for piece in made if isinstance(piece, Sample))
    write_dataset(folder, "bench", {"train": samples}, {"video": video_spec(None, 1, SIZE, SIZE)}, fps=FPS)


def load_built(folder: Path) -> Clips:
    """All clips of a dataset, checksums compared."""
    reader = ShardReader(LocalFolder(folder), Manifest.load(folder), "train", verify=True)
    return {reader.key(number): read_arrays(reader, number)["video"] for number in range(len(reader))}


def one_round(videos: list[Video], folder: Path) -> dict[str, Cost]:
    """Each step once."""
    costs: dict[str, Cost] = {}
    loaded: dict[str, Clips] = {}

    def load(name: str, read: Callable[[Path], Clips]) -> None:
        costs[f"{name}, load"] = timed(lambda: loaded.update({name: read(folder / name)}))

    for name, threads in (("published", None), ("published, one thread", 1)):
        costs[f"{name}, convert"] = timed(lambda name=name, n=threads: to_png_files(videos, folder / name, n))  # type: ignore[misc]
        load(name, load_png_files)
    costs["ours, convert"] = timed(lambda: build(videos, folder / "ours"))
    load("ours", load_built)
    ours = loaded.pop("ours")
    for name, clips in loaded.items():
        assert clips.keys() == ours.keys(), f"{name}: {sorted(clips)} against {sorted(ours)}"
        for key, clip_TCHW in clips.items():
            assert np.array_equal(clip_TCHW, ours[key]), f"{name}: the pixels of {key} differ"
    return costs


def report(rounds: list[dict[str, Cost]], num_videos: int) -> str:
    """A table in Markdown; ratios within one round."""
    rows = []
    for step in ("convert", "load", "convert and load"):
        for name in ("published", "published, one thread", "ours"):
            mine = [_cost(costs, name, step) for costs in rounds]
            ours = [_cost(costs, "ours", step) for costs in rounds]
            ratios = [[getattr(a, kind) / getattr(b, kind) for a, b in zip(mine, ours, strict=True)] for kind in KINDS]
            speeds = [[num_videos / getattr(cost, kind) for cost in mine] for kind in KINDS]
            shown = ["" if name == "ours" else f"{statistics.median(r):.1f} (least {min(r):.1f})" for r in ratios]
            rows.append((step, name, spread(speeds[0]), shown[0], spread(speeds[1]), shown[1]))
    header = ("step", "by", "videos per CPU-s", "ours is so many times cheaper", "videos/s (wall)", "times quicker")
    return table(header, rows)


KINDS = ("cpu", "wall")


def _cost(costs: dict[str, Cost], name: str, step: str) -> Cost:
    parts = [costs[f"{name}, {part}"] for part in step.split(" and ")]
    return Cost(sum(part.cpu for part in parts), sum(part.wall for part in parts))


def main() -> None:
    """Take turns, compare pixels, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=footage.DEFAULT_DATA, help="folder with kth/*.avi (default: %(default)s)")
    add("--rounds", type=int, default=5, help="after one that is not counted (default: 5)")
    args = parser.parse_args()
    print(footage.heading())
    videos = list(find_videos(args.data / "kth").videos)
    rounds = []
    for _ in range(args.rounds + 1):
        with tempfile.TemporaryDirectory() as temporary:
            rounds.append(one_round(videos, Path(temporary)))
    with tempfile.TemporaryDirectory() as temporary:
        build(videos, Path(temporary) / "ours")
        frames = sum(len(clip) for clip in load_built(Path(temporary) / "ours").values())
    print(f"{len(videos)} real KTH videos, {frames} frames; the pixels are equal in every round\n")
    print(report(rounds[1:], len(videos)))
    print(f"\n{footage.load()} after")


if __name__ == "__main__":
    main()
