"""Terms of variational objectives for diagonal Gaussians: log-likelihood and divergences.

In: tensors of means and standard deviations, or frames. Out: sums per clip, in nats. Give it fp32 or better.

Axes: B clips; `...` any further axes, all summed. D the latent's size; raw parameters hold 2 D numbers on their last
axis, the means first, then the standard deviations before a softplus.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_STD = 1e-8  # floor added to a standard deviation, as in the published SRVP code


def full_precision(tensor: Tensor) -> Tensor:
    """`tensor` in fp32 if it is in half precision, else as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def split_gaussian(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, std) of raw parameters `[..., 2 D]`: std = softplus(second half) + 1e-8."""
    mean, raw_std = raw.chunk(2, dim=-1)
    return mean, F.softplus(raw_std) + MIN_STD


def sample_gaussian(raw: Tensor, noise: Tensor) -> Tensor:
    """Reparametrised sample mean + std * noise `[..., D]` of raw parameters `[..., 2 D]`."""
    mean, std = split_gaussian(raw)
    return torch.addcmul(mean, std, noise)


def gaussian_nll(data: Tensor, mean: Tensor, std: float) -> Tensor:
    """-log N(data; mean, std^2) summed over everything: a scalar, constants included."""
    constant = data.numel() * (math.log(std) + 0.5 * math.log(2 * math.pi))
    return F.mse_loss(mean, data, reduction="sum") / (2 * std**2) + constant


def kl_to_standard(raw: Tensor) -> Tensor:
    """KL(N(mean, std^2) || N(0, 1)) of raw parameters `[..., 2 D]`, elementwise `[..., D]`."""
    mean, std = split_gaussian(raw)
    return 0.5 * (std.square() + mean.square() - 1) - std.log()


def kl_between(raw_q: Tensor, raw_p: Tensor) -> Tensor:
    """KL(q || p) of two diagonal Gaussians given by raw parameters `[..., 2 D]`, elementwise `[..., D]`."""
    mean_q, std_q = split_gaussian(raw_q)
    mean_p, std_p = split_gaussian(raw_p)
    ratio = (std_q / std_p).square()
    return 0.5 * (ratio + ((mean_q - mean_p) / std_p).square() - 1 - ratio.log())
