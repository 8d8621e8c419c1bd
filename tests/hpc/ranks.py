"""Run a function on several gloo ranks of this machine and collect what each returns."""

from __future__ import annotations

import io
import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

import torch

from hpc.rendezvous import Ranks, free_port

TIMEOUT_S = 240


def on_ranks(world_size: int, work: Callable[..., Any], *arguments: Any, timeout_s: float = TIMEOUT_S) -> list[Any]:
    """`work(world, *arguments)` on every rank; results in rank order. `work` must be importable (module level)."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    port = free_port()
    processes = [
        context.Process(target=_rank_main, args=(rank, world_size, port, queue, work, arguments))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        results = dict(_unpack(queue.get(timeout=timeout_s)) for _ in processes)
    finally:
        for process in processes:
            process.join(10)
            process.kill()
    return [results[rank] for rank in range(world_size)]


def _rank_main(rank: int, world_size: int, port: int, queue: Any, work: Callable[..., Any], arguments: Any) -> None:
    from hpc.distributed import joined

    try:
        with joined(Ranks(rank, rank, world_size, world_size, "127.0.0.1", port), threads=1, force_cpu=True) as world:
            result = work(world, *arguments)
        packed = io.BytesIO()  # a tensor sent as it is would live in this process, which ends
        torch.save(result, packed)
        queue.put((rank, packed.getvalue(), None))
    except BaseException:
        queue.put((rank, b"", traceback.format_exc()))
        raise


def _unpack(message: tuple[int, bytes, str | None]) -> tuple[int, Any]:
    rank, packed, error = message
    if error is not None:
        raise AssertionError(f"rank {rank} failed:\n{error}")
    return rank, torch.load(io.BytesIO(packed), weights_only=False)
