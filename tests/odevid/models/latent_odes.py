"""The two neural-ODE models at a few hundred weights, their noise, and an independent solve, for the tests beside."""

from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from odevid.config import EncODEConfig, RNNODEConfig
from odevid.models.enode import EncODE
from odevid.models.latent_ode import LatentODE
from odevid.models.rnnode import RNNODE
from tests.odevid.formula import weights


def filled(model: LatentODE, dtype: torch.dtype = torch.float64) -> Any:
    """The model with weights by formula, large enough that every part of it shows in its frames."""
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.to(dtype)


def enode(dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    sizes: dict[str, Any] = {"nf": 2, "nlatent": 3, "nh_field": 5, "frame_time": 0.5, "method": "rk4_38"}
    return filled(EncODE(EncODEConfig(**{**sizes, **changes})), dtype)


def rnnode(dtype: torch.dtype = torch.float64, **changes: Any) -> Any:
    sizes: dict[str, Any] = {
        "nf": 2, "nlatent": 3, "nh_field": 5, "nh_rnn": 4, "nt_cond": 4, "frame_time": 0.5, "method": "rk4_38",
    }  # fmt: skip
    return filled(RNNODE(RNNODEConfig(**{**sizes, **changes})), dtype)


BUILD: dict[str, Callable[..., Any]] = {"enode": enode, "rnnode": rnnode}


def noise(model: LatentODE, clips: int, frames: int, seed: int = 0) -> dict[str, Tensor]:
    """A step's noise in the model's precision."""
    drawn = model.draw_noise(clips, frames, torch.Generator().manual_seed(seed))
    precision = next(model.parameters()).dtype
    return {name: value.to(precision) if value.is_floating_point() else value for name, value in drawn.items()}


def seeds(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def solved(field: Callable[[Tensor, Tensor], Tensor], first_D: Tensor, tick: int, model: LatentODE) -> Tensor:
    """The state `tick` frames after (before, if negative) the first, by torchdiffeq's 3/8 rule on the model's steps."""
    if not tick:
        return first_D
    steps = torch.arange(abs(tick) * model.config.substeps + 1, dtype=torch.float64)
    grid = steps * (model.config.frame_time / model.config.substeps) * (1 if tick > 0 else -1)
    state: Tensor = torchdiffeq.odeint(field, first_D[None], grid, method="rk4")[-1, 0]
    return state
