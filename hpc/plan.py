"""Batch arithmetic: global batch = micro-batch x accumulation x ranks, and which clips share BatchNorm statistics.

In: the wanted numbers of a config and a world size. Out: `BatchPlan`, or an error that names the valid sizes.
The micro-batch changes before the accumulation does: accumulation would shrink the BatchNorm group, which changes the
results, so it wants an explicit yes (train.batchnorm_group=...). No torch import.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpc.config import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    global_batch: int
    """Clips per optimiser step."""
    micro_batch: int
    """Clips per rank and forward pass."""
    accumulation: int
    """Forward and backward passes per optimiser step."""
    world_size: int
    batchnorm_group: int
    """Clips whose BatchNorm statistics are pooled."""

    @property
    def batchnorm_ranks(self) -> int:
        """Consecutive ranks that pool their statistics."""
        return self.batchnorm_group // self.micro_batch

    @property
    def batchnorm_groups(self) -> int:
        """Groups within one optimiser step."""
        return self.global_batch // self.batchnorm_group

    def rows(self, rank: int, accumulation_step: int) -> slice:
        """Rows of the global batch that `rank` processes in one of the step's forward passes."""
        start = accumulation_step * self.micro_batch * self.world_size + rank * self.micro_batch
        return slice(start, start + self.micro_batch)

    def __str__(self) -> str:
        return (
            f"global batch {self.global_batch} = micro-batch {self.micro_batch} x accumulation {self.accumulation} "
            f"x ranks {self.world_size}; BatchNorm over {self.batchnorm_group} clips"
        )


def plan_batches(global_batch: int, world_size: int, micro_batch: int = 0, batchnorm_group: int = 0) -> BatchPlan:
    """Share `global_batch` out over `world_size` ranks.

    Args:
        micro_batch: the most clips a rank takes at once; 0: as many as avoid accumulation.
        batchnorm_group: clips that share BatchNorm statistics; 0: the whole global batch, as published.

    Raises:
        ConfigError: the numbers do not divide, or accumulation would shrink the BatchNorm group without a yes.
    """
    if global_batch % world_size:
        valid = [w for w in range(1, global_batch + 1) if global_batch % w == 0]
        raise ConfigError(
            f"train.global_batch={global_batch} cannot be shared equally by {world_size} ranks; "
            f"valid numbers of ranks: {', '.join(map(str, valid))}, or change train.global_batch"
        )
    per_rank = global_batch // world_size
    group = batchnorm_group or global_batch
    if global_batch % group:
        raise ConfigError(f"train.batchnorm_group={group} does not divide train.global_batch={global_batch}")
    micro = micro_batch or min(per_rank, group)
    if per_rank % micro:
        valid = [m for m in range(1, per_rank + 1) if per_rank % m == 0]
        raise ConfigError(
            f"train.micro_batch={micro} does not divide the {per_rank} clips of a rank "
            f"({global_batch} / {world_size} ranks); valid: {', '.join(map(str, valid))}"
        )
    together = micro * world_size
    if group > together:
        raise ConfigError(
            f"train.micro_batch={micro} on {world_size} ranks normalises {together} clips at once, but BatchNorm is to "
            f"pool {group}: that changes results. Raise train.micro_batch to {group // world_size}, use more ranks, "
            f"or say yes to smaller groups with train.batchnorm_group={together}"
        )
    if group % micro or together % group:
        raise ConfigError(
            f"train.batchnorm_group={group} must be a multiple of train.micro_batch={micro} and divide "
            f"the {together} clips of one pass over all ranks; train.batchnorm_group={together} is the whole pass"
        )
    return BatchPlan(global_batch, micro, per_rank // micro, world_size, group)
