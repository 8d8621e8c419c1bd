"""One optimiser step of SRVP, ours beside the released code: CPU-seconds and peak memory.

    python tests/bench/srvp_step.py --official DIR [--shape smmnist|bair] [--steps 4] [--threads 1]

In: a checkout of the released code (github.com/edouardelasalles/srvp); without one there is nothing to compare, and
the script says so. Out: a markdown table. Each side lives in its own process (so that peak memory is its own) and steps
only when told to; the two take turns step by step, on the same batch, so that both meet the same machine. A step is
forward, loss, backward and Adam, in training mode. CPU-seconds are those of the process, user and system, all threads.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPES = {"smmnist": (16, 15), "bair": (4, 12)}  # clips, frames
LEARNING_RATE = 3e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="checkout of the released code")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="default: all")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each side, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not (options.official / "module" / "srvp.py").is_file():
        print(f"skipped: no released code at {options.official} (module/srvp.py is missing)")
        return
    print("| shape | clips x frames | side | CPU-s/step median | min | x faster | peak MiB | x memory |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in options.shape or SHAPES:
        compare(shape, options)


def compare(shape: str, options: argparse.Namespace) -> None:
    """Measure both sides on `shape`, in turns, and print two rows."""
    sides = {side: Side(side, shape, options) for side in ("released", "ours")}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for step in range(options.steps + 1):
        for name, side in sides.items():
            taken = side.step()
            if step:
                seconds[name].append(taken)
    peaks = {name: side.finish() for name, side in sides.items()}
    clips, frames = SHAPES[shape]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name in sides:
        speed, memory = medians["released"] / medians[name], peaks[name] / peaks["released"]
        print(
            f"| {shape} | {clips} x {frames} | {name} | {medians[name]:.2f} | {min(seconds[name]):.2f} "
            f"| {speed:.2f} | {peaks[name]:.0f} | {memory:.2f} |",
            flush=True,
        )


class Side:
    """A process that makes one step each time it is asked."""

    def __init__(self, name: str, shape: str, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        arguments = (far_end, name, shape, str(options.official), options.threads)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()

    def step(self) -> float:
        """CPU-seconds of one step."""
        self.pipe.send("step")
        return float(self.pipe.recv())

    def finish(self) -> float:
        """End the process; its peak resident memory, in MiB."""
        self.pipe.send("finish")
        peak = float(self.pipe.recv())
        self.process.join()
        return peak


def serve(pipe: Connection, name: str, shape: str, official: str, threads: int) -> None:
    """Body of a side's process: answer "step" with CPU-seconds, "finish" with peak memory."""
    import torch

    torch.set_num_threads(threads)
    step = ours(shape) if name == "ours" else released(shape, official)
    while pipe.recv() == "step":
        start = time.process_time()
        step()
        pipe.send(time.process_time() - start)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def ours(shape: str) -> Callable[[], None]:
    """One optimiser step of this project's model."""
    sys.path.insert(0, str(REPOSITORY))
    import torch

    from odevid.config import published_srvp
    from odevid.registry import build_model

    torch.manual_seed(0)
    config = published_srvp(shape)
    clips, frames = SHAPES[shape]
    model = build_model(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    generator = torch.Generator().manual_seed(0)
    video = torch.rand(clips, frames, config.nc, 64, 64, generator=torch.Generator().manual_seed(1))

    def step() -> None:
        optimizer.zero_grad()
        terms = model({"video": video}, model.draw_noise(clips, frames, generator))
        terms["loss"].backward()
        optimizer.step()
        for value in terms.values():
            value.item()

    return step


def released(shape: str, official: str) -> Callable[[], None]:
    """One call of the released code's own training function; its data sets and argument parser are left out."""
    sys.path.insert(0, str(REPOSITORY))
    from odevid.config import published_srvp

    sys.path.insert(0, official)
    import torch

    network = import_module("module.srvp")
    train = _import_train()
    torch.manual_seed(0)
    c = published_srvp(shape)
    clips, frames = SHAPES[shape]
    sizes = (64, c.nc, c.nf, c.nhx, c.ny, c.nz, c.skip_connections, c.nt_inf, c.nh_inf, c.nlayers_inf)
    model = network.StochasticLatentResidualVideoPredictor(*sizes, c.nh_res, c.nlayers_res, c.architecture)
    model.init(res_gain=c.res_gain)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    video = torch.rand(clips, frames, c.nc, 64, 64, generator=torch.Generator().manual_seed(1))
    batch = video.transpose(0, 1).contiguous()
    del video
    options = SimpleNamespace(
        n_euler_steps=c.n_euler_steps,
        obs_scale=c.obs_scale,
        beta_y=c.beta_y,
        beta_z=c.beta_z,
        l2_res=c.l2_res,
        torch_amp=False,
        apex_amp=False,
    )
    return lambda: train.train(model, optimizer, None, batch, torch.device("cpu"), options)


def _import_train() -> ModuleType:
    """The released `train.py`, without the data sets, argument parser and progress bar that it imports."""
    absent = {name: ModuleType(name) for name in ("configargparse", "tqdm", "yaml", "data", "data.base")}
    vars(absent["tqdm"])["tqdm"] = None
    with patch.dict(sys.modules, absent):
        return import_module("train")


if __name__ == "__main__":
    main()
