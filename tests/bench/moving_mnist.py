"""How many Moving MNIST clips one core makes in a second: this project's generator and the published one.

    OMP_NUM_THREADS=1 python -m tests.bench.moving_mnist [--official CHECKOUT] [--mnist FOLDER]

In: optionally a checkout of the published SRVP code (https://github.com/edouardelasalles/srvp), which is run from
where it lies. Out: a Markdown table on standard output. The contestants take turns within one run, in batches of equal
size, so that a busy machine slows all of them; what counts is CPU time, and of that the median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from shards.digits import DigitBank, load_digit_banks
from shards.moving_mnist import MotionRules, MovingMnistClips

Contestant = Callable[[], object]
"""Makes one batch of clips."""


def ours(bank: DigitBank, deterministic: bool, frames: int, batch: int) -> Contestant:
    """The endless source: a uint8 batch BTCHW."""
    clips = MovingMnistClips(bank, frames, MotionRules(deterministic=deterministic))
    numbers = count()
    return lambda: clips.fetch(np.arange(batch) + next(numbers) * batch, 0)


def official(bank: DigitBank, deterministic: bool, frames: int, batch: int) -> tuple[Contestant, Contestant]:
    """The published dataset: a list of uint8 clips; and the same collated to its float batch."""
    from data.base import collate_fn  # type: ignore[import-not-found]
    from data.mmnist import MovingMNIST  # type: ignore[import-not-found]

    dataset: Any = MovingMNIST(list(bank.images_NHW), 64, frames, 4, deterministic, 2, True)
    return (
        lambda: [dataset[i] for i in range(batch)],
        lambda: collate_fn([dataset[i] for i in range(batch)]),
    )


def make_official_importable(checkout: Path) -> None:
    """Put the checkout on the path; torchvision, which only its reader of digits needs, is replaced by an empty one."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(checkout))
    stand_in = types.ModuleType("torchvision")
    stand_in.datasets = types.ModuleType("torchvision.datasets")  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision", stand_in)


def measure(contestants: dict[str, Contestant], rounds: int, batch: int) -> dict[str, float]:
    """Clips per CPU second of each contestant: median over rounds in which all take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()  # warm-up
    for _ in range(rounds):
        for name, contestant in contestants.items():
            start = time.process_time()
            contestant()
            seconds[name].append(time.process_time() - start)
    return {name: batch / statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="checkout of the published SRVP code")
    parser.add_argument("--mnist", type=Path, help="folder of the MNIST .gz files; without it scikit-learn's digits")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128, help="clips per batch")
    parser.add_argument("--frames", type=int, default=15, help="frames per clip")
    args = parser.parse_args()
    bank = load_digit_banks(args.mnist)["train"]
    if args.official:
        make_official_importable(args.official)
    print(f"Two digits, {args.frames} frames of 64x64, batches of {args.batch}; clips per CPU second, one core.\n")
    print("| generator | stochastic | deterministic |\n| --- | ---: | ---: |")
    columns = []
    for deterministic in (False, True):
        case = (bank, deterministic, args.frames, args.batch)
        contestants = {"ours, uint8 batch": ours(*case)}
        if args.official:
            plain, collated = official(*case)
            contestants |= {"published, list of uint8 clips": plain, "published, its float32 batch": collated}
        columns.append(measure(contestants, args.rounds, args.batch))
    for name in columns[0]:
        print(f"| {name} | {columns[0][name]:,.0f} | {columns[1][name]:,.0f} |")


if __name__ == "__main__":
    main()
