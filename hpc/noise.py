"""The randomness of a training step, a function of (seed, step, position in the global batch) and of nothing else.

Every rank draws the global batch's noise from one host generator and keeps its rows: no two clips share noise, and no
result depends on rank, worker or world size. The tensors are small (latent variables, frame choices), so drawing them
all everywhere costs less than agreeing would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def step_generator(seed: int, step: int, stream: str = "noise") -> torch.Generator:
    """Host generator of optimiser step `step`; different streams are independent."""
    digest = hashlib.sha256(f"{stream}/{seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def take_rows(noise: Mapping[str, Tensor], rows: slice, device: torch.device) -> dict[str, Tensor]:
    """The clips `rows` of the global batch's noise, on the device."""
    return {name: tensor[rows].to(device, non_blocking=True) for name, tensor in noise.items()}
