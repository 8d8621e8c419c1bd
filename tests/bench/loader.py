"""Clips per second of one core: our reader beside ``tarfile`` and plain ``webdataset`` on the same shards.

    python -m tests.bench.loader [--clips 512] [--repeats 7] [--folder DIR]

Clips are textured, 30 frames of 3x64x64 uint8 (368,640 bytes), stored raw; the files are in the page cache. Every
method makes batches of 64 clips in memory. The methods take turns within each repeat, so that a busy machine slows all
of them; ratios are medians over the repeats of ratios within one repeat. CPU time is that of the process.

"bare" tars hold one member per clip and nothing else, which is kinder to ``webdataset`` than our own, which have a
.json member beside each clip.

Axis letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import webdataset

from shards.dataset import ShardClips
from shards.folder import LocalFolder
from shards.manifest import Manifest, video_spec
from shards.reader import ShardReader
from shards.writer import Sample, write_dataset

SHAPE = (30, 3, 64, 64)
WINDOW = 15
BATCH = 64
CLIPS_PER_SHARD = 128
Method = Callable[[], int]


def textured_clips(num_clips: int) -> Iterator[np.ndarray]:
    """Moving waves with noise, uint8 TCHW: as hard to compress as filmed texture."""
    rng = np.random.default_rng(0)
    t, c, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2], : SHAPE[3]]
    for _ in range(num_clips):
        phase, pitch = rng.uniform(0, 6.3), rng.uniform(2, 9)
        wave = 127 + 80 * np.sin(x / (pitch + c) + t / 4 + phase) + 20 * np.cos(y / 5)
        yield (wave + rng.normal(0, 6, SHAPE)).clip(0, 255).astype(np.uint8)


def write_shards(folder: Path, num_clips: int) -> tuple[list[str], list[str]]:
    """Our dataset and the same clips in bare tars; returns both lists of tars."""
    samples = (Sample(f"clip{n:06d}", {"video": clip}) for n, clip in enumerate(textured_clips(num_clips)))
    arrays = {"video": video_spec(*SHAPE)}
    write_dataset(folder / "ours", "bench", {"train": samples}, arrays, samples_per_shard=CLIPS_PER_SHARD)
    ours = sorted(str(path) for path in (folder / "ours").glob("*.tar"))
    bare = []
    for number, path in enumerate(ours):
        bare.append(str(folder / f"bare-{number:06d}.tar"))
        with webdataset.TarWriter(bare[-1]) as writer:
            for sample in webdataset.WebDataset(path, shardshuffle=False):
                writer.write({"__key__": sample["__key__"], "video.raw": sample["video.raw"]})
    return ours, bare


def batches(clips_TCHW: Iterable[np.ndarray]) -> int:
    """Stack clips into batches of 64; returns the number of clips."""
    count, batch = 0, []
    for clip_TCHW in clips_TCHW:
        batch.append(clip_TCHW)
        if len(batch) == BATCH:
            count += len(np.stack(batch))
            batch = []
    return count


def by_tarfile(tars: list[str], num_frames: int) -> int:
    """A bare loop over members."""

    def clips() -> Iterator[np.ndarray]:
        for path in tars:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.name.endswith(".raw"):
                        stored = tar.extractfile(member)
                        assert stored is not None
                        yield np.frombuffer(stored.read(), np.uint8).reshape(SHAPE)[:num_frames]

    return batches(clips())


def by_webdataset(tars: list[str], num_frames: int) -> int:
    """Plain webdataset; the shape comes from the .json member where there is one."""

    def clips() -> Iterator[np.ndarray]:
        for sample in webdataset.WebDataset(tars, shardshuffle=False):
            shape = json.loads(sample["json"])["video"]["shape"] if "json" in sample else SHAPE
            yield np.frombuffer(sample["video.raw"], np.uint8).reshape(shape)[:num_frames]

    return batches(clips())


def by_ours(folder: Path, num_frames: int, verify: bool) -> Method:
    """Our source, in shuffled order with windows at random places, as in training."""
    reader = ShardReader(LocalFolder(folder), Manifest.load(folder), "train", verify=verify)
    source = ShardClips(reader, num_frames)

    def read() -> int:
        starts = range(0, len(source), BATCH)
        return sum(len(source.fetch(np.arange(start, start + BATCH), 0).arrays["video"]) for start in starts)

    return read


def make_methods(folder: Path, ours: list[str], bare: list[str]) -> dict[str, Method]:
    """The contestants by name; "whole" are clips of 30 frames, "window" of 15."""
    methods: dict[str, Method] = {}
    for name, frames in (("whole", SHAPE[0]), ("window", WINDOW)):
        methods[f"tarfile, {name}"] = partial(by_tarfile, ours, frames)
        methods[f"webdataset, {name}"] = partial(by_webdataset, ours, frames)
        methods[f"webdataset on bare tars, {name}"] = partial(by_webdataset, bare, frames)
        methods[f"ours, {name}, verify off"] = by_ours(folder / "ours", frames, verify=False)
        methods[f"ours, {name}, verify on"] = by_ours(folder / "ours", frames, verify=True)
    return methods


def measure(methods: dict[str, Method], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """For each method and repeat: clips per CPU second, and per second."""
    speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for repeat in range(-1, repeats):
        for name, method in methods.items():
            cpu, wall = time.process_time(), time.perf_counter()
            count = method()
            speed = count / (time.process_time() - cpu), count / (time.perf_counter() - wall)
            if repeat >= 0:  # the first round fills the page cache
                speeds[name].append(speed)
    return speeds


def report(speeds: dict[str, list[tuple[float, float]]]) -> str:
    """A table in Markdown."""
    lines = [
        "| method | clips/CPU-s best | median | clips/s (wall) best | median | x webdataset | x same, bare tars |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in speeds.items():
        kind = "whole" if "whole" in name else "window"
        ratios = []
        for rival in (f"webdataset, {kind}", f"webdataset on bare tars, {kind}"):
            pairs = zip(values, speeds[rival], strict=True)
            ratios.append(statistics.median(mine[0] / theirs[0] for mine, theirs in pairs))
        cpu, wall = zip(*values, strict=True)
        numbers = [max(cpu), statistics.median(cpu), max(wall), statistics.median(wall)]
        cells = [name, *(f"{number:,.0f}" for number in numbers), *(f"{ratio:.2f}" for ratio in ratios)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the shards, let the methods take turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=512, help="a multiple of 64 (default: 512, 190 MB in two copies)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds after the first (default: 7)")
    parser.add_argument("--folder", type=Path, help="where to write the shards (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        ours, bare = write_shards(folder, options.clips)
        print(report(measure(make_methods(folder, ours, bare), options.repeats)))


if __name__ == "__main__":
    main()
