"""BatchNorm whose statistics are pooled over a group of clips that may span several ranks.

torch's SyncBatchNorm refuses CPU tensors; this one is a differentiable all-gather of per-rank moments, the same code
on gloo and NCCL. The pooled result equals plain BatchNorm on the concatenated batch to rounding.

Shapes: x_NCHW with N = clips * frames of this rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def pool_batchnorm(module: nn.Module, ranks_per_group: int) -> None:
    """Make every BatchNorm2d of `module` pool its statistics over `ranks_per_group` consecutive ranks (in place).

    Collective: every rank calls it with the same number, which must divide the world size.
    """
    if ranks_per_group == 1:
        return
    group = _consecutive_ranks(ranks_per_group)
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = PooledBatchNorm2d
            setattr(layer, "group", group)  # noqa: B010 - the class was changed in the line above


def average_running_statistics(module: nn.Module) -> None:
    """Replace running means and variances by their mean over all ranks, so that they are equal on every rank.

    Needed after each step when there are several BatchNorm groups. Collective.
    """
    buffers = [b for name, b in module.named_buffers() if name.endswith(("running_mean", "running_var"))]
    if not buffers:
        return
    flat = torch.cat([b.flatten() for b in buffers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for buffer, values in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(values.view_as(buffer))


class PooledBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d over the union of the group's batches (training); plain BatchNorm2d in eval mode."""

    group: dist.ProcessGroup | None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x_NCHW)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        y_NCHW, mean_C, var_C, count = _PooledNormalise.apply(x_NCHW, self.weight, self.bias, self.eps, self.group)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            unbiased_C = var_C * (count / (count - 1).clamp_min(1))
            self.running_mean.lerp_(mean_C, self.momentum)
            self.running_var.lerp_(unbiased_C, self.momentum)
        return y_NCHW


class _PooledNormalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: Any) -> tuple[Tensor, ...]:
        mean, var, count = _pooled_moments(x, group)
        y = torch.nn.functional.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.group = eps, group
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, var, count = ctx.saved_tensors
        _, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, var, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([dweight, dbias]).to(var.dtype)
        dist.all_reduce(sums, group=ctx.group)
        # dx = a (dy - mean(dy) - xhat mean(dy xhat)) with a = weight / std: the terms in xhat are a normalisation of x
        a = weight * (var + ctx.eps).rsqrt()
        slope, offset = -a * sums / count
        dx = torch.nn.functional.batch_norm(x, mean, var, slope, offset, training=False, eps=ctx.eps)
        dx.addcmul_(dy, a.to(x.dtype).view(1, -1, 1, 1))
        return dx, dweight, dbias, None, None


def _pooled_moments(x_NCHW: Tensor, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and (biased) variance per channel over the group's batches, and the number of values behind them."""
    precise = x_NCHW if x_NCHW.dtype == torch.float64 else x_NCHW.float()
    mean, var = torch.ops.aten.batch_norm_update_stats(precise, None, None, 0.0)  # four times as fast as var_mean here
    count = x_NCHW.numel() / x_NCHW.shape[1]
    mine = torch.cat([mean, var, mean.new_tensor([count])])
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, mine, group=group)
    stacked = torch.stack(parts)
    counts = stacked[:, -1:]
    means, variances = stacked[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    pooled = (means * counts).sum(0) / total
    pooled_var = ((variances + (means - pooled).square()) * counts).sum(0) / total
    return pooled, pooled_var, total


def _consecutive_ranks(size: int) -> dist.ProcessGroup | None:
    world = dist.get_world_size()
    assert world % size == 0, (world, size)
    if size == world:
        return dist.group.WORLD
    mine, _ = dist.new_subgroups(group_size=size)
    return mine
