"""Where the time of a training step of model (b) goes, part by part: encoder, GRU, solve, decoder.

    python -m tests.bench.rnnode_step [--clips 8] [--repeats 5] [--device cpu|cuda]

Full width (the configuration's defaults). Each part runs forward, then backward from a gradient of its output, on
tensors of the shapes of a step; the parts take turns. Out: a markdown table of medians in CPU-milliseconds of one
thread (on a GPU: wall time between two synchronisations) and each part's share of the whole.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from odevid.config import RNNODEConfig
from odevid.registry import build_model

Part = tuple[Callable[[Tensor], Tensor], Tensor]  # what it does, to what


def parts_of(config: RNNODEConfig, clips: int, device: str) -> dict[str, Part]:
    """The parts of a step and what they take."""
    torch.manual_seed(0)
    model = build_model(config).to(device).train()
    frames, size = config.nt_cond, config.nlatent
    times = [frame * config.frame_time for frame in range(frames)]

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device).requires_grad_()

    return {
        "encoder": (lambda x: model.encoder(x)[0], drawn(clips * frames, config.nc, 64, 64).detach()),
        "GRU and q(z)": (lambda x: model.q_z(model.rnn(x)[1][0]), drawn(clips, frames, size)),
        "solve": (lambda x: model.solver(model.field, x, times).states_BTD, drawn(clips, size)),
        "decoder": (lambda x: model.decoder(x, model.decoder.share(None, [])), drawn(clips, frames, size)),
    }


def measure(part: Part, clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds forward and backward."""
    work, given = part
    begin = clock()
    found = work(given)
    middle = clock()
    found.backward(torch.ones_like(found))
    return middle - begin, clock() - middle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="measured turns, after one to warm up")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)

    def clock() -> float:
        if options.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    parts = parts_of(RNNODEConfig(), options.clips, options.device)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
    for turn in range(options.repeats + 1):
        for name, part in parts.items():
            seconds = measure(part, clock)
            if turn:
                taken[name].append(seconds)
    medians = {
        name: [1e3 * statistics.median(way) for way in zip(*turns, strict=True)] for name, turns in taken.items()
    }
    whole = sum(map(sum, medians.values()))
    print("| part | forward ms | backward ms | share of the step |\n|---|---|---|---|")
    for name, (forward, backward) in medians.items():
        print(f"| {name} | {forward:.1f} | {backward:.1f} | {(forward + backward) / whole:.1%} |")
    print(f"| all | | {whole:.1f} | |")


if __name__ == "__main__":
    main()
