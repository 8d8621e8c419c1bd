"""Does a training rank wait for data? Readers and loader on this machine's cores, against what an H200 takes.

    OMP_NUM_THREADS=1 python -m tests.bench.streaming [--data DIR] [--parts encodings,workers,published] [--rounds 3]

encodings   clips/s of one core reading in this process, for each way to store clips.
workers     the loader with 0, 1, 2, 4 worker processes: first a consumer that takes a batch and drops it ("null"), then
            one that sleeps after each batch as long as training at 80 % of that speed would take, and its share of time
            inside next(). Nothing is pinned: the loader's own thread opens batches before they are asked for.
            Workers needed: CPU seconds of the workers per clip, times the clips/s wanted, over 80 %.
published   the same clips as PNG files read the published way, by as many workers of a plain torch DataLoader.

Clips are real where --data has them, copied until they exceed the processor's cache; files are in the page cache. What
is compared takes turns within each round. CPU times are of the worker processes (all their threads), from /proc, and of
this one; numbers are medians over the rounds, ranges in brackets. Wall times depend on what else runs: see the load.

Axis letters: B batch, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shards.loader import Loader
from shards.manifest import video_spec
from shards.moving_mnist import MovingMnistClips
from shards.opening import open_source
from shards.source import ClipSource
from shards.writer import Sample, write_dataset
from tests.bench import footage, published_frames

ENCODINGS = ("raw", "zstd", "mp4", "mp4:0")
SLOW_BATCH = 10  # clips per batch where each takes milliseconds
WANTED = (1_400, 13_700)  # clips/s that one H200 takes with VGG and with DCGAN networks, estimated
PACE = 0.8  # share of the null consumer's speed at which the paced one consumes
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Workload:
    """What one rank of an experiment reads.

    Attributes:
        name: of the dataset.
        batch: clips per batch.
        num_frames: frames per clip.
        wanted: clips/s that one H200 takes, estimated.
    """

    name: str
    batch: int
    num_frames: int
    wanted: int


BAIR = Workload("BAIR", 192, 12, WANTED[0])
KTH = Workload("KTH", 100, 20, WANTED[0])
MOVING_MNIST = Workload("Moving MNIST", 128, 15, WANTED[1])


@dataclass(frozen=True)
class Flow:
    """What came of consuming for a while.

    Attributes:
        rate: clips per second of wall time.
        workers_cpu: CPU seconds of the worker processes per clip.
        own_cpu: CPU seconds of this process per clip.
        waiting: share of the time inside next().
    """

    rate: float
    workers_cpu: float
    own_cpu: float
    waiting: float


def consume(batches: Iterator[Any], batch: int, seconds: float, pause: float = 0) -> Flow:
    """Take and drop batches for some seconds, sleeping ``pause`` after each."""
    workers, own, started = workers_seconds(), time.process_time(), time.perf_counter()
    clips, waited, now = 0, 0.0, started
    while now < started + seconds:
        before = now
        taken = next(batches)
        waited += time.perf_counter() - before
        clips += batch
        del taken  # giving its memory back is this consumer's work, not waiting
        now = time.perf_counter()
        if pause:
            time.sleep(pause)
            now = time.perf_counter()
    spent = now - started
    per_clip = ((workers_seconds() - workers) / clips, (time.process_time() - own) / clips)
    return Flow(clips / spent, *per_clip, waited / spent)


def workers_seconds() -> float:
    """CPU seconds so far of the processes that this one has started with multiprocessing."""
    total = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * _TICK


def store(folder: Path, clips_TCHW: Sequence[np.ndarray], encoding: str, copies: int) -> Path:
    """The clips, ``copies`` times over, as a dataset of ours."""
    root = folder / f"{encoding.replace(':', '-')}-{clips_TCHW[0].shape[1]}"
    numbers = range(copies * len(clips_TCHW))
    samples = (Sample(f"clip{n:05d}", {"video": clips_TCHW[n % len(clips_TCHW)]}) for n in numbers)
    spec = video_spec(None, *clips_TCHW[0].shape[1:])
    write_dataset(root, "bench", {"train": samples}, {"video": spec}, encoding=encoding, samples_per_shard=64)
    return root


def copies_of(clips_TCHW: Sequence[np.ndarray], megabytes: int = 200) -> int:
    """How often clips must be repeated to fill some memory."""
    return max(1, math.ceil(megabytes * 1e6 / sum(clip.nbytes for clip in clips_TCHW)))


def measure_encodings(folder: Path, data: Path, rounds: int) -> str:
    """One core, in this process: a table."""
    readers: dict[tuple[str, str], tuple[Workload, int, ClipSource, float]] = {}
    for workload, found in ((BAIR, footage.bair(data)), (KTH, footage.kth(data))):
        for encoding in ENCODINGS:
            is_slow = encoding.startswith("mp4")
            copies = 1 if is_slow else copies_of(found.clips_TCHW)
            root = store(folder, found.clips_TCHW, encoding, copies)
            stored = sum(path.stat().st_size for path in root.glob("*.tar"))
            size = stored / (copies * sum(clip.nbytes for clip in found.clips_TCHW))
            source = open_source(root, "train", workload.num_frames)
            readers[workload.name, encoding] = (workload, SLOW_BATCH if is_slow else workload.batch, source, size)
    generator = MovingMnistClips(footage.digits(data)[1], MOVING_MNIST.num_frames)
    readers[MOVING_MNIST.name, "made on the fly"] = (MOVING_MNIST, MOVING_MNIST.batch, generator, math.nan)

    speeds: dict[tuple[str, str], list[tuple[float, float]]] = {name: [] for name in readers}
    for number in range(-1, rounds):
        for name, (_, batch, source, _) in readers.items():
            speed = read_here(source, batch, first=number * 1_000_000 + 1_000_000)
            if number >= 0:  # the first round fills the page cache
                speeds[name].append(speed)
    header = ("clips", "stored as", "size", "clips per CPU-s", "clips/s (wall)", "clips/s wanted", "cores for that")
    rows = []
    for name, (workload, _, _, size) in readers.items():
        cpu, wall = zip(*speeds[name], strict=True)
        cores = workload.wanted / statistics.median(cpu)
        shown_size = "" if math.isnan(size) else f"{size:.2f}"
        rows.append((*name, shown_size, spread(cpu), spread(wall), f"{workload.wanted:,}", f"{cores:.2f}"))
    return table(header, rows)


def read_here(source: ClipSource, batch: int, *, first: int, seconds: float = 1) -> tuple[float, float]:
    """Clips per CPU second and per second, over a second or one batch."""
    cpu, started, place = time.process_time(), time.perf_counter(), first
    while place == first or time.perf_counter() - started < seconds:
        source.fetch(np.arange(place, place + batch), 0)
        place += batch
    return (place - first) / (time.process_time() - cpu), (place - first) / (time.perf_counter() - started)


def measure_workers(folder: Path, data: Path, rounds: int, seconds: float, counts: Sequence[int]) -> str:
    """The loader against both consumers: a table, and where a worker's time goes."""
    sources: dict[Workload, ClipSource] = {}
    for workload, found in ((BAIR, footage.bair(data)), (KTH, footage.kth(data))):
        root = store(folder / "workers", found.clips_TCHW, "raw", copies_of(found.clips_TCHW))
        sources[workload] = open_source(root, "train", workload.num_frames)
    sources[MOVING_MNIST] = MovingMnistClips(footage.digits(data)[1], MOVING_MNIST.num_frames)
    cases = [(workload, workers) for workload in sources for workers in counts]
    null: dict[tuple[Workload, int], list[Flow]] = {case: [] for case in cases}
    paced: dict[tuple[Workload, int], list[Flow]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            workload, workers = case
            with our_loader(sources[workload], workload.batch, workers) as loader:
                batches = warmed_up(loader.batches(0), workers)
                null[case].append(consume(batches, workload.batch, seconds))
                pause = workload.batch / (PACE * null[case][-1].rate)
                paced[case].append(consume(batches, workload.batch, seconds, pause))
    text = table(
        (
            *("clips", "workers", "clips/s (null)", "workers' CPU us/clip", "clips/s per worker core"),
            *("own CPU us/clip", *(f"workers needed for {wanted:,} clips/s" for wanted in WANTED)),
            "% in next() when paced",
        ),
        [workers_row(*case, null[case], paced[case]) for case in cases],
    )
    costs = [hand_over_row(workload, source) for workload, source in sources.items()]
    header = ("clips", "batch, MB", "fetch, us/clip", "to shared memory, us/clip", "a copy to used memory, us/clip")
    return f"{text}\n\nWhere a worker's CPU time goes, in this process:\n\n{table(header, costs)}"


def our_loader(source: ClipSource, batch: int, workers: int) -> Loader:
    """A rank's loader, as the experiments have it."""
    return Loader(source, seed=0, global_batch=batch, micro_batch=batch, rank=0, world_size=1, workers=workers)


def warmed_up(batches: Iterator[Any], workers: int) -> Iterator[Any]:
    """The same after the workers have started and each has made a few batches."""
    for _ in range(3 * workers + 1):
        next(batches)
    return batches


def workers_row(workload: Workload, workers: int, null: Sequence[Flow], paced: Sequence[Flow]) -> tuple[str, ...]:
    """One row of the loader's table."""
    cpu = statistics.median(flow.workers_cpu for flow in null)
    cost, speed, needed = "", "", [""] * len(WANTED)
    if workers:
        cost, speed = spread([1e6 * flow.workers_cpu for flow in null]), f"{1 / cpu:,.0f}"
        needed = [str(math.ceil(wanted * cpu / PACE)) for wanted in WANTED]
    return (
        *(workload.name, str(workers), spread([flow.rate for flow in null]), cost, speed),
        *(spread([1e6 * flow.own_cpu for flow in null]), *needed),
        percent([flow.waiting for flow in paced]),
    )


def hand_over_row(workload: Workload, source: ClipSource, repeats: int = 30) -> tuple[str, ...]:
    """Reading or making a batch, and moving it to fresh shared memory as a worker does, in this process."""
    steps = ("fetch", "share", "copy")
    costs: dict[str, list[float]] = {name: [] for name in steps}
    plain = torch.zeros_like(_video(source, workload, 0))
    for number in range(1, repeats + 1):
        times = [time.process_time()]
        video = _video(source, workload, number)
        times.append(time.process_time())
        plain.copy_(video)
        times.append(time.process_time())
        video.share_memory_()
        times.append(time.process_time())
        for name, before, after in zip(("fetch", "copy", "share"), times, times[1:], strict=False):
            costs[name].append(1e6 * (after - before) / workload.batch)
    medians = [statistics.median(costs[name]) for name in steps]
    return (workload.name, f"{plain.nbytes / 1e6:.1f}", *(f"{value:.1f}" for value in medians))


def _video(source: ClipSource, workload: Workload, number: int) -> torch.Tensor:
    positions = np.arange(number * workload.batch, (number + 1) * workload.batch)
    return torch.from_numpy(source.fetch(positions, 0).arrays["video"])


def measure_published(folder: Path, data: Path, rounds: int, seconds: float, counts: Sequence[int]) -> str:
    """Ours against PNG files read the published way, taking turns: a table."""
    rows = []
    for workload, found in ((BAIR, footage.bair(data)), (KTH, footage.kth(data))):
        clips = found.clips_TCHW
        num_channels = clips[0].shape[1]
        videos = published_frames.write_frames(folder / "png" / workload.name, clips)
        first_THWC = published_frames.read_frames(videos[0], num_channels)
        assert np.array_equal(first_THWC.transpose(0, 3, 1, 2), clips[0]), "the PNG files hold other pixels"
        published = published_frames.PublishedFrames(videos, workload.num_frames, num_channels)
        root = store(folder / "published", clips, "raw", copies_of(clips))
        source = open_source(root, "train", workload.num_frames)
        for workers in counts:
            pairs = []
            for _ in range(rounds):
                with our_loader(source, workload.batch, workers) as loader:
                    ours = consume(warmed_up(loader.batches(0), workers), workload.batch, seconds)
                rival = published_frames.batches(published, workload.batch, workers)
                theirs = consume(warmed_up(rival, workers), workload.batch, 2 * seconds)
                del rival  # ends its workers
                pairs.append((ours, theirs))
            rows.append(published_row(workload, workers, pairs))
    header = ("clips", "workers", "ours, clips/s", "PNG, clips/s", "times", "CPU us/clip, ours", "PNG", "times")
    return table(header, rows)


def published_row(workload: Workload, workers: int, pairs: Sequence[tuple[Flow, Flow]]) -> tuple[str, ...]:
    """One row of ours against PNG; CPU of workers and this process together."""
    ours, theirs = zip(*pairs, strict=True)
    cells = [workload.name, str(workers)]
    for value in (lambda flow: flow.rate, lambda flow: 1e6 * (flow.workers_cpu + flow.own_cpu)):
        mine, other = [value(flow) for flow in ours], [value(flow) for flow in theirs]
        times = [max(a, b) / min(a, b) for a, b in zip(mine, other, strict=True)]
        cells += [spread(mine), spread(other), f"**{statistics.median(times):.0f}** (least {min(times):.0f})"]
    return tuple(cells)


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    digits = 0 if statistics.median(values) >= 100 else 1
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"


def percent(shares: Sequence[float]) -> str:
    """Median and range, of a hundred."""
    return f"{100 * statistics.median(shares):.2f} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measure what was asked for, print each table as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, default=footage.DEFAULT_DATA, help="folder of real data (default: %(default)s)")
    add("--parts", default="encodings,workers,published", help="which tables (default: %(default)s)")
    add("--rounds", type=int, default=3)
    add("--seconds", type=float, default=3, help="per measurement of a loader (default: 3)")
    add("--folder", type=Path, help="where to write the clips, about 2 GB (default: a temporary folder)")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores, on purpose
    print(footage.heading(), flush=True)
    origins = (footage.bair(args.data).origin, footage.kth(args.data).origin, footage.digits(args.data)[0])
    print("; ".join(origins), flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        folder = Path(temporary)
        parts: dict[str, Callable[[], str]] = {
            "encodings": lambda: measure_encodings(folder, args.data, args.rounds),
            "workers": lambda: measure_workers(folder, args.data, args.rounds, args.seconds, (0, 1, 2, 4)),
            "published": lambda: measure_published(folder, args.data, args.rounds, args.seconds, (1, 2)),
        }
        for name in args.parts.split(","):
            print(f"\n## {name} ({footage.load()} before)\n\n{parts[name]()}\n\n{footage.load()} after", flush=True)


if __name__ == "__main__":
    main()
