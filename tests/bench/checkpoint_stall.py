"""What a checkpoint costs the training loop: SRVP at its published width, saving now and then, in one run.

    python tests/bench/checkpoint_stall.py [--steps 30] [--every 5] [--ranks 1] [--run FOLDER] [key=value ...]

In:  nothing; words like data.root=... or train.global_batch=128 go to the launcher. It trains srvp_smmnist with batches
     small enough for a CPU: the weights and moments, which are what is saved, are those of the publication.
Out: a markdown table: how long the loop stands still for a save (its share of ten minutes, the default interval), how
     long the writing goes on behind it, and what the steps beside a save cost more than the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INTERVAL_S = 600.0
SETTINGS = (
    "experiment=srvp_smmnist",
    "train.global_batch=8",
    "optimizer.constant_steps=-1",
    "eval.every=0",
    "checkpoint.every_minutes=0",
    "log.every=1",
    "log.wandb=disabled",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--every", type=int, default=5, help="steps between saves")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--run", type=Path, help="folder of the run, kept; default: a temporary one")
    parser.add_argument("words", nargs="*", metavar="key=value", help="for the launcher")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="stall-") as folder:
        run = (options.run or Path(folder) / "run").resolve()
        length = [f"train.steps={options.steps}", f"checkpoint.every={options.every}"]
        words = [*SETTINGS, f"data.root={folder}/digits", *length, *options.words]
        command = [sys.executable, "hpc/launch.py", "train", "--yes-cpu", "--ranks", str(options.ranks)]
        subprocess.run([*command, f"run={run}", *words], cwd=ROOT, check=True, stdout=sys.stderr)
        report(run, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])


def report(run: Path, records: list[dict[str, Any]]) -> None:
    """Print the table."""
    saves = [record["details"] for record in records if record.get("name") == "saved"]
    stalls = [save["stalled_s"] for save in saves]
    writes = [save["seconds"] for save in saves]
    plain, beside = step_times(records)
    newest = max((run / "checkpoints").glob("step-*"))
    size = sum(path.stat().st_size for path in newest.iterdir()) / 1e6
    share = statistics.median(stalls) / INTERVAL_S
    print("| saves | size, MB | loop stands still, s | share of 10 minutes | written behind it, s |")
    print("|---|---|---|---|---|")
    print(f"| {len(saves)} | {size:.0f} | {_spread(stalls)} | {share:.1e} | {_spread(writes)} |")
    print("\n| wall time from one step to the next, s | n | median (min to max) |")
    print("|---|---|---|")
    print(f"| nothing is saved | {len(plain)} | {_spread(plain)} |")
    print(f"| begins with a save, which is written meanwhile | {len(beside)} | {_spread(beside)} |")
    more = statistics.median(beside) - statistics.median(plain)
    print(f"\nA save makes the run {more:.2f} s longer, what the writing takes from the cores included: ", end="")
    print(f"{more / INTERVAL_S:.1e} of ten minutes.")


def step_times(records: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Seconds between the lines of consecutive steps: without a save between them, and with one.

    The first three steps of a run are left out: they warm up.
    """
    saved = {record["step"] for record in records if record.get("name") == "saved"}
    steps = [record for record in records if record["kind"] == "train"]
    plain, beside = [], []
    for before, after in itertools.pairwise(steps[2:]):
        (beside if before["step"] in saved else plain).append(after["time"] - before["time"])
    return plain, beside


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
