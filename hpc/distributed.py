"""The process group of a run and its control plane: device, collectives on small host values, an orderly end.

In: `Ranks` from the rendezvous. Out: `World`, which the rest of `hpc` asks for rank, device and agreements. Gradients
go through DeepSpeed on the device; flags, paths and records go through a gloo group on the host, which never waits
for the GPU.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from hpc.meeting import answering, ask_port, interface_of, misleading_name
from hpc.rendezvous import Ranks

T = TypeVar("T")
TIMEOUT = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class World:
    ranks: Ranks
    device: torch.device
    control: Any
    """Process group (gloo) of host-side agreements."""

    @property
    def rank(self) -> int:
        return self.ranks.rank

    @property
    def size(self) -> int:
        return self.ranks.world_size

    def all_max(self, values: Sequence[int]) -> list[int]:
        """Element by element the largest of the ranks' values. Collective."""
        if self.size == 1:
            return list(values)
        flags = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self.control)
        return [int(flag) for flag in flags.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's picklable value, in rank order, on every rank. Collective."""
        if self.size == 1:
            return [value]
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value, group=self.control)
        return parts

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank. Collective."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def on_rank_0(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 alone; every rank returns its (picklable) result, or raises its error. Collective."""
        outcome: tuple[T | None, Exception | None] = (None, None)
        if self.rank == 0:
            try:
                outcome = (work(), None)
            except Exception as error:  # noqa: BLE001 - it is raised again, on every rank
                outcome = (None, error)
        result, failure = self.broadcast(outcome)
        if failure is not None:
            raise failure
        return result

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)


@contextlib.contextmanager
def joined(ranks: Ranks, threads: int = 0, force_cpu: bool = False) -> Iterator[World]:
    """Join the process group as `ranks` says, for the duration of the block.

    Args:
        threads: CPU threads of this rank; 0 shares the machine's cores out over its ranks.
        force_cpu: stay on the CPU although there is a GPU.
    """
    use_gpu = torch.cuda.is_available() and not force_cpu
    torch.set_num_threads(threads or max(1, len(os.sched_getaffinity(0)) // ranks.local_world_size))
    device = torch.device("cpu")
    if use_gpu:
        device = torch.device("cuda", ranks.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"
    with _store(ranks) as (ranks, store):
        ranks.export()
        backend = "nccl" if use_gpu else "gloo"
        dist.init_process_group(backend, store=store, timeout=TIMEOUT, rank=ranks.rank, world_size=ranks.world_size)
        control = dist.new_group(backend="gloo", timeout=TIMEOUT) if use_gpu else dist.group.WORLD
    try:
        yield World(ranks, device, control)
    finally:
        gc.collect()  # engines hold process groups in cycles; one that outlives its end aborts the interpreter
        dist.destroy_process_group()


@contextlib.contextmanager
def _store(ranks: Ranks) -> Iterator[tuple[Ranks, dist.TCPStore]]:
    """The key-value store at which the ranks find each other, and `ranks` with its port."""

    def at(port: int) -> dist.TCPStore:
        return dist.TCPStore(
            ranks.master_addr, port, ranks.world_size, ranks.rank == 0, timeout=TIMEOUT, wait_for_workers=False
        )

    if ranks.master_port:
        yield ranks, at(ranks.master_port)
    elif ranks.rank == 0:
        store = at(0)
        with answering(ranks.identity, store.port) as reception:
            if ranks.world_size > ranks.local_world_size:
                _choose_interface(reception.own_address(TIMEOUT.total_seconds()))
            yield replace(ranks, master_port=store.port), store
    else:
        port, address = ask_port(ranks.master_addr, ranks.identity, TIMEOUT.total_seconds())
        if ranks.world_size > ranks.local_world_size:
            _choose_interface(address)
        yield replace(ranks, master_port=port), at(port)


def _choose_interface(address: str | None) -> None:
    """gloo listens where the node's own name points to; where that is loopback, the other nodes would not find it."""
    if address is not None and misleading_name(address) and (name := interface_of(address)) is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this rank: allocated on its GPU, or resident on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
