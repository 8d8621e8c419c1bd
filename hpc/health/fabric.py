"""What the ranks find out about each other: clocks, and whether and how fast their all-reduce works.

In:  `World`, and a buffer on the device that was made before (what can fail on one rank alone must not fail here).
Out: plain numbers. Everything here is collective: all ranks call it with the same arguments.

All-reduce runs where gradients will: in the default group (NCCL or gloo) on the ranks' devices. Its summands are small
whole numbers, so that the right sum is known and exact in float32 for thousands of ranks.
"""

from __future__ import annotations

import datetime
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from hpc.distributed import World
from hpc.health.findings import Pair
from hpc.health.probes import GIB, KIB, MIB, Clock, synchronize

TRIPS = 8
PERIOD = 7
PAIR_TIMEOUT = datetime.timedelta(minutes=2)


def first_ranks(nodes: Sequence[str]) -> dict[str, list[int]]:
    """The ranks of each node, given every rank's node; nodes in the order of their first rank."""
    ranks: dict[str, list[int]] = {}
    for rank, node in enumerate(nodes):
        ranks.setdefault(node, []).append(rank)
    return ranks


def clock(world: World, asking: Sequence[int]) -> Clock | None:
    """How far this rank's clock is ahead of rank 0's; None for ranks that do not ask. Collective.

    Rank 0 answers each question with its time. Its answer was given somewhere between question and answer, so our time
    at the middle of the fastest round trip is off by half of that trip at most: microseconds to milliseconds, whatever
    a slow trip before it (waiting for one's turn) took. No time server takes part.
    """
    box = torch.zeros(1, dtype=torch.float64)
    if world.rank == 0:
        for rank in asking:
            for _ in range(TRIPS if rank else 0):
                dist.recv(box, rank, group=world.control)
                box[0] = time.time()
                dist.send(box, rank, group=world.control)
        return Clock(0.0, 0.0)
    if world.rank not in asking:
        return None
    trips = []
    for _ in range(TRIPS):
        asked, start = time.time(), time.perf_counter()
        dist.send(box, 0, group=world.control)
        dist.recv(box, 0, group=world.control)
        trip = time.perf_counter() - start
        trips.append((trip, asked + trip / 2 - float(box[0])))
    fastest, ahead = min(trips)
    return Clock(ahead, fastest / 2)


def new_buffer(device: torch.device, num_bytes: int) -> torch.Tensor:
    """What all-reduce will work on. Raises what the device raises when it cannot."""
    return torch.zeros(num_bytes // 4, dtype=torch.float32, device=device)


def all_reduce_s(buffer: torch.Tensor, sizes: Mapping[int, int]) -> dict[str, float]:
    """Median time of an all-reduce of the whole group for each size (bytes: number of repetitions)."""
    return {
        str(size): statistics.median(_all_reduce_times(buffer[: size // 4], repeats)) for size, repeats in sizes.items()
    }


def _all_reduce_times(buffer: torch.Tensor, repeats: int, group: Any = None) -> list[float]:
    """Each repetition's time, after one that is not counted."""
    buffer.zero_()
    times = []
    for _ in range(repeats + 1):
        synchronize(buffer.device)
        start = time.perf_counter()
        dist.all_reduce(buffer, group=group)
        synchronize(buffer.device)
        times.append(time.perf_counter() - start)
    return times[1:]


def wrong_sums(buffer: torch.Tensor, place: int, members: int, group: Any = None) -> int:
    """Elements of an all-reduce over the whole buffer that are not what they must be.

    Args:
        place: of this rank among the `members` of the group.
    """
    pattern = torch.arange(len(buffer), device=buffer.device) % PERIOD
    buffer.copy_(pattern + place)
    dist.all_reduce(buffer, group=group)
    return wrong_elements(buffer, pattern * members + members * (members - 1) // 2)


def wrong_elements(found: torch.Tensor, right: torch.Tensor) -> int:
    """How many differ."""
    return int((found != right).sum())


def node_pairs(nodes: Sequence[str]) -> list[tuple[str, str]]:
    """Node 0 with each other one; then each of the others with the next, in case node 0 itself is the bad one."""
    return [(nodes[0], other) for other in nodes[1:]] + list(itertools.pairwise(nodes[1:]))


def measure_pairs(
    world: World, ranks: Mapping[str, list[int]], buffer: torch.Tensor, repeats: int, say: Callable[[str], None]
) -> list[Pair]:
    """All-reduce of the whole buffer between all ranks of two nodes, one pair after the other. Collective.

    A pair that fails is a finding; the others do not wait for it longer than PAIR_TIMEOUT. (NCCL's own watchdog may end
    the process of a pair that hangs: then `say` has named it.)
    """
    wanted = node_pairs(list(ranks))
    mine: list[tuple[float | None, int, str] | None] = []
    for one, other in wanted:
        say(f"all-reduce between {one} and {other}")
        members = sorted(ranks[one] + ranks[other])
        group = dist.new_group(members, timeout=PAIR_TIMEOUT)
        in_it = world.rank in members
        mine.append(_measure_pair(group, members.index(world.rank), members, buffer, repeats) if in_it else None)
        world.barrier()
    found = []
    for pair, parts in zip(wanted, zip(*world.gather(mine), strict=True), strict=True):
        seen = [part for part in parts if part is not None]
        errors = [error for _, _, error in seen if error]
        seconds = None if errors else max(part[0] for part in seen if part[0] is not None)
        found.append(Pair(pair, seconds, sum(wrong for _, wrong, _ in seen), next(iter(errors), "")))
    return found


def _measure_pair(
    group: Any, place: int, members: Sequence[int], buffer: torch.Tensor, repeats: int
) -> tuple[float | None, int, str]:
    """(time, wrong sums, error): the fastest time, since a passing disturbance is not the node's fault."""
    try:
        wrong = wrong_sums(buffer, place, len(members), group)
        seconds = min(_all_reduce_times(buffer, repeats, group))
        dist.destroy_process_group(group)
    except RuntimeError as error:
        return None, 0, str(error)
    return seconds, wrong, ""


def bandwidths(num_bytes: int, seconds: float, members: int) -> tuple[float, float]:
    """Bytes per second of an all-reduce: of the algorithm, and of the bus.

    The second, 2 (n - 1) / n times the first, is what each rank's link must carry, so that it can be compared with the
    link's own number whatever the size n of the group.
    """
    algorithm = num_bytes / seconds
    return algorithm, algorithm * 2 * (members - 1) / members


def size_text(num_bytes: float) -> str:
    """`1 KiB`, `16 MiB`, `1.5 GiB`."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} B"
