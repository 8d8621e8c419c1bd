"""Moving between frames and clips inside a network, at the least traffic of memory.

In: features of all frames of some clips, the frames of a clip one after the other. Out: features of one frame per clip;
or the frames' features with something of their clip added. What torch's own operators would do, but: the sum is written
over the frames' features, and gradients keep the channels-last layout, without which the operators that follow are
several times slower.

Axes: B clips, T frames, M = B T, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _AddPerClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames_MCHW: Tensor, clips_BCHW: Tensor) -> Tensor:
        ctx.num_clips = clips_BCHW.shape[0]
        ctx.mark_dirty(frames_MCHW)
        frames_MCHW.unflatten(0, (ctx.num_clips, -1)).add_(clips_BCHW.unsqueeze(1))
        return frames_MCHW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MCHW: Tensor) -> tuple[Tensor, Tensor]:
        return grad_MCHW, grad_MCHW.unflatten(0, (ctx.num_clips, -1)).sum(1)


class _PickFrames(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames_MCHW: Tensor, index_B: Tensor) -> Tensor:
        ctx.save_for_backward(index_B)
        ctx.shape = frames_MCHW.shape
        return frames_MCHW.index_select(0, index_B).contiguous(memory_format=torch.channels_last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCHW: Tensor) -> tuple[Tensor, None]:
        (index_B,) = ctx.saved_tensors
        grad_MCHW = torch.empty(
            ctx.shape, dtype=grad_BCHW.dtype, device=grad_BCHW.device, memory_format=torch.channels_last
        )
        return grad_MCHW.zero_().index_copy_(0, index_B, grad_BCHW), None


def add_per_clip(frames_MCHW: Tensor, clips_BCHW: Tensor) -> Tensor:
    """Add to every frame the features of its clip; `frames_MCHW` is overwritten and returned."""
    added: Tensor = _AddPerClip.apply(frames_MCHW, clips_BCHW)
    return added


def pick_frames(frames_MCHW: Tensor, index_B: Tensor) -> Tensor:
    """Features BCHW of the frames at `index_B` of axis 0; no frame may be picked twice."""
    picked: Tensor = _PickFrames.apply(frames_MCHW, index_B)
    return picked
