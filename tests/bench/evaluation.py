"""What scoring a sample costs: the released SRVP evaluation beside ours, with the same weights, videos and noise.

    OMP_NUM_THREADS=1 python -m tests.bench.evaluation --official DIR [--shapes smmnist kth bair] [--repeats 3]
    OMP_NUM_THREADS=1 python -m tests.bench.evaluation --ranks 1 2 [--shapes smmnist]
    python -m tests.bench.evaluation --official DIR --device cuda

In: a checkout of the released code (github.com/edouardelasalles/srvp); its weights by formula, as in its own checkpoint
file; clips of noise and a moving square, as long as the paper's test clips. Out: markdown tables.

released    the checkout's own `test.main`, whole: for every sample a forward pass over the given frames, roll-out,
            decoding, PSNR, SSIM, best and worst. Left out: LPIPS, FVD, the files written at the end.
ours        `hpc.evaluation.evaluate` on one rank, PSNR and SSIM, the two baselines included.

Each lives in its own process (so that peak memory is its own); they take turns. The clock starts at the first batch and
stops at the last score. CPU-seconds are of the process, user and system, all threads. The released code takes its noise
from our generators, so both must find the same best PSNR and SSIM for each video: the largest difference is printed.
With --ranks our evaluation alone, shared out over processes of one thread each. With --device cuda the clock is the
wall's, memory is the GPU's, and our own evaluation that draws one sample at a time is a third side. fp32, without TF32.

Axis letters: N samples, B clips, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from hpc.distributed import World
from hpc.evaluation.evaluate import evaluate
from hpc.evaluation.protocol import Protocol
from hpc.evaluation.scores import MODEL
from hpc.noise import step_generator
from hpc.rendezvous import Ranks
from odevid.config import SRVPConfig, published_srvp
from odevid.models.srvp import SRVP, load_published
from shards.source import Fetched
from tests.bench.streaming import table
from tests.hpc.ranks import on_ranks
from tests.odevid.formula import weights

RELEASED, OURS, ONE_BY_ONE = "released", "ours", "ours, a sample at a time"
METRICS = ("psnr", "ssim")
SEED = 1


@dataclass(frozen=True)
class Shape:
    """Test clips of a data set and how many of them a repeat scores.

    Attributes:
        name: of the published setting.
        frames: of a clip, the given ones included, as the released README tests.
        videos, samples: of a repeat; chosen for about a minute of the released code.
        batch: clips of a batch, the released default.
    """

    name: str
    frames: int
    videos: int
    samples: int
    batch: int = 16

    @property
    def config(self) -> SRVPConfig:
        return published_srvp(self.name)

    @property
    def scored(self) -> int:
        """Samples of all videos."""
        return self.videos * self.samples

    def __str__(self) -> str:
        given = self.config.nt_cond
        return f"{self.name} ({given} + {self.frames - given}), {self.videos} x {self.samples}"


SHAPES = {
    shape.name: shape for shape in (Shape("smmnist", 25, 16, 20), Shape("kth", 40, 4, 6), Shape("bair", 30, 4, 8))
}


@dataclass(frozen=True)
class Found:
    """One evaluation: what it took and, per metric, the best sample's value of each video."""

    cpu_s: float
    wall_s: float
    best: dict[str, list[float]]


def main() -> None:
    options = _options()
    shapes = [
        replace(shape, videos=options.videos or shape.videos, samples=options.samples or shape.samples)
        for shape in (SHAPES[name] for name in options.shapes)
    ]
    print(f"commit {_commit()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start")
    if options.ranks:
        _print_scaling(shapes, options.ranks, options.repeats)
        return
    sides = [OURS, ONE_BY_ONE] if options.device == "cuda" else [OURS]
    if options.official is None or not (options.official / "test.py").is_file():
        print(f"no released code at {options.official} (test.py is missing): not compared with it")
    else:
        sides.insert(0, RELEASED)
    for shape in shapes:
        _print_comparison(shape, sides, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the released code")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--videos", type=int, default=0, help="default: by the shape")
    parser.add_argument("--samples", type=int, default=0, help="of each video; default: by the shape")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ranks", type=int, nargs="+", default=[], help="compare these numbers of processes instead")
    return parser.parse_args()


def _commit() -> str:
    command = ("git", "describe", "--always", "--dirty")
    found = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=30, check=False
    ).stdout.strip()
    return found or "unknown"


# -- sides in turns ----------------------------------------------------------------------------------------------------


def _print_comparison(shape: Shape, names: Sequence[str], options: argparse.Namespace) -> None:
    """Let all sides evaluate `shape` in turns, and print a row of each."""
    sides = {name: Side(name, shape, options) for name in names}
    found: dict[str, list[Found]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name, side in sides.items():
            found[name].append(side.evaluate())
    peaks = {name: side.finish() for name, side in sides.items()}
    clock = "wall" if options.device == "cuda" else "CPU"
    seconds = {
        name: [(each.wall_s if clock == "wall" else each.cpu_s) / shape.scored for each in several]
        for name, several in found.items()
    }
    rows = [
        [
            *(str(shape), name, f"{statistics.median(seconds[name]):.4f}", f"{min(seconds[name]):.4f}"),
            *(f"{statistics.median(seconds[name]) / statistics.median(seconds[OURS]):.2f}", f"{peaks[name]:.0f}"),
            _difference(found[name][0], found[OURS][0]),
        ]
        for name in names
    ]
    heads = ["videos x samples", "side", f"{clock}-s per video and sample", "min", "times ours", "peak MiB"]
    print(table([*heads, "largest difference"], rows))
    print(f"{options.repeats} repeats in turns, load {os.getloadavg()[0]:.1f} at the end\n", flush=True)


def _difference(one: Found, other: Found) -> str:
    """Largest distance of two sides' best values of a video, by metric."""
    if one is other:
        return ""
    largest = {name: np.abs(np.subtract(one.best[name], other.best[name])).max() for name in METRICS}
    return f"PSNR {largest['psnr']:.1e} dB, SSIM {largest['ssim']:.1e}"


class Side:
    """A process that evaluates each time it is asked."""

    def __init__(self, name: str, shape: Shape, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        arguments = (far_end, name, shape, options.official, options.device)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        far_end.close()

    def evaluate(self) -> Found:
        self.pipe.send("evaluate")
        found: Found = self.pipe.recv()
        return found

    def finish(self) -> float:
        """End the process; its peak memory in MiB: resident, or on the GPU what was allocated."""
        self.pipe.send("finish")
        peak = float(self.pipe.recv())
        self.process.join()
        return peak


def _serve(pipe: Connection, name: str, shape: Shape, official: Path | None, device: str) -> None:
    """Body of a side's process: answer "evaluate" with `Found`, "finish" with peak memory."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    if name == RELEASED:
        assert official is not None
        run = released(shape, official, device)
    else:
        run = ours(shape, device, chunk=1 if name == ONE_BY_ONE else 0)
    while pipe.recv() == "evaluate":
        pipe.send(run())
    on_gpu = device == "cuda"
    pipe.send(torch.cuda.max_memory_allocated() / 2**20 if on_gpu else _peak_resident_mib())


def _peak_resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def checkpoint(config: SRVPConfig) -> dict[str, Tensor]:
    """Weights by formula, fp32, under the names of a released checkpoint."""
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in SRVP(config).state_dict().items()}
    return {name: value.float() if value.is_floating_point() else value for name, value in weights(shapes).items()}


# -- ours --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clips:
    """Clips of faint noise with a bright square that moves, each at its own speed; uint8 BTCHW."""

    videos_BTCHW: np.ndarray
    fingerprint: str = "squares"

    @classmethod
    def of(cls, shape: Shape) -> Clips:
        random = np.random.default_rng(SEED)
        size = (shape.videos, shape.frames, *shape.config.frame_shape)
        videos = random.integers(0, 64, size, dtype=np.uint8)
        for video_TCHW, velocity in zip(videos, random.integers(-3, 4, (shape.videos, 2)), strict=True):
            for time_step, frame_CHW in enumerate(video_TCHW):
                row, column = (24 + velocity * time_step) % 48
                frame_CHW[:, row : row + 16, column : column + 16] += 160
        return cls(videos)

    def __len__(self) -> int:
        return len(self.videos_BTCHW)

    def read(self, indices: Sequence[int]) -> Fetched:
        return Fetched({"video": self.videos_BTCHW[list(indices)]}, [str(index) for index in indices])


def protocol_of(shape: Shape, chunk: int = 0) -> Protocol:
    return Protocol(
        num_clips=shape.videos,
        num_context=shape.config.nt_cond,
        num_frames=shape.frames,
        samples=shape.samples,
        batch=shape.batch,
        chunk=chunk,
        clips_of_split=shape.videos,
        seed=SEED,
    )


def ours(shape: Shape, device: str, chunk: int) -> Callable[[], Found]:
    """Our evaluation on one rank; `chunk` 0 draws as many samples at a time as it likes."""
    model = load_published(checkpoint(shape.config), shape.config).to(device)
    clips, protocol = Clips.of(shape), protocol_of(shape, chunk)
    world = World(Ranks(0, 0, 1, 1, "127.0.0.1", 0), torch.device(device), None)

    def run() -> Found:
        clock = Clock()
        evaluation = evaluate(model, clips, protocol, world, autocast=contextlib.nullcontext)  # type: ignore[arg-type]
        best = {name: evaluation.curves(MODEL, name).mean(dim=1).tolist() for name in METRICS}
        return clock.found(best)

    return run


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def found(self, best: dict[str, list[float]]) -> Found:
        return Found(time.process_time() - self._cpu, time.perf_counter() - self._wall, best)


# -- the released code -------------------------------------------------------------------------------------------------


def released(shape: Shape, official: Path, device: str) -> Callable[[], Found]:
    """The checkout's `test.main` with a checkpoint folder as it wants one, our clips and our noise."""
    sys.path.insert(0, str(official))
    script = _import_test(official)
    config, folder = shape.config, tempfile.TemporaryDirectory()
    torch.save(checkpoint(config), Path(folder.name, "model.pt"))
    names = (
        *("nc", "nf", "nhx", "ny", "nz", "nt_inf", "nh_inf", "nlayers_inf", "nh_res", "nlayers_res"),
        *("n_euler_steps", "nt_cond"),
    )
    renamed = {"nx": 64, "skipco": config.skip_connections, "archi": config.architecture, "seq_len_test": shape.frames}
    settings = {**renamed, **{name: getattr(config, name) for name in names}}
    Path(folder.name, "config.json").write_text(json.dumps(settings))
    helper = sys.modules["helper"]
    videos_BTHWC = Clips.of(shape).videos_BTCHW.transpose(0, 1, 3, 4, 2)
    videos = [video[..., 0] if config.nc == 1 else video for video in videos_BTHWC]
    fold = SimpleNamespace(get_fold=lambda _: videos)

    def run() -> Found:
        options = helper.DotDict(  # what it reads of the command line; anything else is None, as by default
            test_seed=SEED, xp_dir=folder.name, model_name="model.pt", nt_gen=shape.frames,
            n_samples=shape.samples, batch_size=shape.batch, device=0 if device == "cuda" else None, fvd=False,
        )  # fmt: skip
        watched = _Watched()
        with (
            patch.object(script, "tqdm", watched.batches),
            patch.object(script.data, "load_dataset", lambda *_: fold),
            patch.object(script, "_lpips_wrapper", lambda sample, *_: torch.zeros(sample.shape[:2])),
            patch.object(script.np, "savez_compressed", watched.keep),
            patch("torch.distributions.normal._standard_normal", _draws_of(shape, torch.device(device))),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", message=".*pin_memory")  # it asks for it without a GPU too
            script.main(options)
        assert watched.found is not None
        return watched.found

    return run


class _Watched:
    """Starts the clock at the first batch, stops it when the released code hands over its results to be saved."""

    def __init__(self) -> None:
        self.found: Found | None = None

    def batches(self, loader: Any, **_: Any) -> Iterator[Any]:
        self._clock = Clock()
        yield from loader

    def keep(self, _path: str, **arrays: Any) -> None:
        if self.found is None:
            self.found = self._clock.found({name: arrays[name].tolist() for name in METRICS})


def _draws_of(shape: Shape, device: torch.device) -> Callable[..., Tensor]:
    """Stands for torch's standard normal of a given size: our noise, in the order in which the released code asks.

    That order: batch by batch and sample by sample, first for y_0, then for the z of each transition.
    """
    config = shape.config
    sizes = [config.ny] + [config.nz] * (shape.frames - 1)

    def noise() -> Iterator[Tensor]:
        for start in range(0, shape.videos, shape.batch):
            clips = range(start, min(start + shape.batch, shape.videos))
            generators = [step_generator(SEED, clip, "evaluation") for clip in clips]
            for _ in range(shape.samples):
                eps = torch.stack([torch.randn(sum(sizes), generator=generator) for generator in generators])
                yield from eps.to(device).split(sizes, dim=1)

    source = noise()

    def draw(size: Sequence[int], **_: Any) -> Tensor:
        eps = next(source)
        assert tuple(eps.shape) == tuple(size), f"noise of shape {tuple(eps.shape)} where {tuple(size)} was asked for"
        return eps

    return draw


def _import_test(official: Path) -> ModuleType:
    """The released `test.py`, without the argument parser, progress bar, LPIPS and FVD that it imports."""
    absent = {name: ModuleType(name) for name in ("configargparse", "tqdm", "metrics.lpips.loss", "metrics.fvd.score")}
    vars(absent["tqdm"])["tqdm"] = None
    vars(absent["metrics.lpips.loss"])["PerceptualLoss"] = lambda _folder: None
    vars(absent["metrics.fvd.score"])["fvd"] = None
    spec = spec_from_file_location("released_test", official / "test.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    with patch.dict(sys.modules, absent):
        spec.loader.exec_module(script)
        kept = {name: sys.modules[name] for name in ("helper", "data", "data.base")}
    sys.modules.update(kept)
    return script


# -- over ranks --------------------------------------------------------------------------------------------------------


def _print_scaling(shapes: Sequence[Shape], ranks: Sequence[int], repeats: int) -> None:
    """A row per shape and number of processes; the first number is what the others are compared with.

    The busiest rank's CPU-seconds say what the wall-clock would be with a core for each, also where other work runs.
    """
    rows = []
    for shape in shapes:
        costs: dict[int, list[RanksCost]] = {size: [] for size in ranks}
        for _ in range(repeats):
            for size in ranks:
                costs[size].append(on_ranks(size, _cost, shape)[0])
        first = RanksCost.median(costs[ranks[0]])
        for size in ranks:
            cost = RanksCost.median(costs[size])
            faster, lighter = first.wall_s / cost.wall_s, first.busiest_cpu_s / cost.busiest_cpu_s
            seconds = (f"{cost.wall_s:.1f}", f"{cost.cpu_s:.1f}", f"{cost.busiest_cpu_s:.1f}")
            rows.append([str(shape), str(size), *seconds, f"{faster:.2f}", f"{lighter:.2f}"])
    heads = [
        "videos x samples",
        "ranks",
        "wall s",
        "CPU-s, all ranks",
        "CPU-s, busiest",
        "wall, times",
        "busiest, times",
    ]
    print(table(heads, rows))
    print(f"{repeats} repeats in turns, load {os.getloadavg()[0]:.1f} at the end, {os.cpu_count()} cores", flush=True)


@dataclass(frozen=True)
class RanksCost:
    """What an evaluation took on several ranks."""

    wall_s: float
    cpu_s: float
    busiest_cpu_s: float

    @classmethod
    def median(cls, several: Sequence[RanksCost]) -> RanksCost:
        columns = zip(*((each.wall_s, each.cpu_s, each.busiest_cpu_s) for each in several), strict=True)
        return cls(*map(statistics.median, columns))


def _cost(world: World, shape: Shape) -> RanksCost:
    model = load_published(checkpoint(shape.config), shape.config).to(world.device)
    clips = Clips.of(shape)
    world.barrier()
    clock = Clock()
    evaluate(model, clips, protocol_of(shape), world, autocast=contextlib.nullcontext)  # type: ignore[arg-type]
    found = world.gather(clock.found({}))
    cpu_s = [each.cpu_s for each in found]
    return RanksCost(max(each.wall_s for each in found), sum(cpu_s), max(cpu_s))


if __name__ == "__main__":
    main()
