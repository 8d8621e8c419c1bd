"""Seconds until a job trains, on a real SLURM of four virtual nodes: after `launch.py`, and after a requeue.

    python -m tests.bench.launch_latency [--repeat 3]

In:  SLURM's programs (apt-get install slurm-wlm munge). Out: each repeat with the load before it, and a markdown
     table of medians and ranges. One rank per node, size=test; the four nodes are this machine, so the imports of all
     ranks share its cores.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from shards.building.moving_mnist import build_moving_mnist
from tests.slurm.cluster import SlurmCluster
from tests.slurm.jobs import ClusterRun

NODES = 4
STAGES = (
    "`launch.py` returns",
    "`launch.py` to rank 0's first line of Python",
    "`launch.py` to the first optimiser step",
    "requeue to the end of the ranks (the state is saved)",
    "requeue to rank 0's first line of Python (5 s of it this cluster's wait)",
    "requeue to the next optimiser step",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with SlurmCluster() as cluster, tempfile.TemporaryDirectory(prefix="latency-") as folder:
        data = Path(folder) / "digits"
        build_moving_mnist(data, digits=1, deterministic=True)
        for number in range(options.repeat):
            load = os.getloadavg()[0]
            times = measure(ClusterRun(cluster, Path(folder) / f"run-{number}", data))
            for stage, seconds in zip(STAGES, times, strict=True):
                found[stage].append(seconds)
            print(f"load before {load:.1f}: {', '.join(f'{seconds:.1f}' for seconds in times)} s", flush=True)
            cluster.clear()
    print("\n| what | median s (range) |\n|---|---|")
    for stage, seconds in found.items():
        print(f"| {stage} | {statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f}) |")


def measure(run: ClusterRun) -> tuple[float, ...]:
    """Launch, train a little, requeue, train again; seconds of each of `STAGES`."""
    begun = time.time()
    run.launch("--time", "60", nodes=NODES)
    returned = time.time()
    run.wait_for_step(5)
    ranks = set(run.cluster.tasks(run.job).values())
    requeued = time.time()
    run.cluster.run("scontrol", "requeue", run.job)
    run.wait("the ranks to end", lambda: not ranks & set(run.cluster.tasks(run.job).values()))
    ended = time.time()
    run.wait_for_step(1, after_attempt=1)
    starts = [attempt.time for attempt in run.history().attempts]
    steps = [next(r["time"] for r in run.records("train") if r["attempt"] == attempt) for attempt in (1, 2)]
    return (
        returned - begun,
        starts[0] - begun,
        steps[0] - begun,
        ended - requeued,
        starts[1] - requeued,
        steps[1] - requeued,
    )


if __name__ == "__main__":
    main()
