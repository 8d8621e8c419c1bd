"""One trained network wrapped by DeepSpeed, on GPUs (NCCL) and on a laptop (its CPU accelerator, gloo): one code path.

In: a module, its optimiser settings, the batch arithmetic. Out: forward under the run's precision, backward, an
all-reduced update, and the network's whole state free of world size and ZeRO stage (`state`, `load_state`).
The only module that imports deepspeed. Public functions marked *collective* must be called by every rank.
"""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hpc.batchnorm import average_running_statistics, pool_batchnorm
from hpc.config import ConfigError, OptimizerConfig
from hpc.distributed import World
from hpc.plan import BatchPlan

BUCKET_ELEMENTS = 20_000_000
"""DeepSpeed allocates its reduce buckets whole: its default would cost 2 GB for a 10 M parameter model."""

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Update:
    """What became of one optimiser step."""

    applied: bool
    """False: the gradient was not finite, the weights and running statistics are as before."""
    grad_norm: float
    """Global 2-norm of the gradient before clipping (nan or inf when not finite)."""


class Engine:
    """A network, its optimiser and its share of the process group."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: OptimizerConfig,
        plan: BatchPlan,
        world: World,
        *,
        precision: str = "fp32",
        zero_stage: int = 0,
    ) -> None:
        """Collective: DeepSpeed broadcasts rank 0's weights."""
        self.world = world
        self.plan = plan
        self.precision = precision
        self.zero_stage = zero_stage
        self.clip_norm = optimizer.clip_norm
        module.to(world.device)
        pool_batchnorm(module, plan.batchnorm_ranks)
        self.module = module
        self._engine = _initialize(
            module, _adam(module, optimizer, world), _deepspeed_config(optimizer, plan, zero_stage)
        )
        self._buffers = [b for b in module.buffers() if b.is_floating_point()]
        self._buffers_before = [b.clone() for b in self._buffers]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Forward of the network in training mode, in the run's precision."""
        with self.autocast():
            return self._engine(*args, **kwargs)

    def autocast(self) -> torch.autocast:
        """The context that direct calls of `module` need to run as the engine does."""
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of `loss` (a mean over this micro-batch's clips). Collective."""
        self._engine.backward(loss)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """The bare module with its parameters out of the graph, for use in another engine's loss.

        The only pattern that is right at every ZeRO stage: through the engine, or with parameters that require
        gradients, DeepSpeed reduces gradients that belong to nobody, silently at ZeRO 1.
        BatchNorm of the frozen network stays as it is, in training mode: its running statistics go on moving.
        """
        self.module.requires_grad_(False)
        try:
            with self.autocast():
                yield self.module
        finally:
            self.module.requires_grad_(True)

    def step(self) -> Update | None:
        """After the last micro-batch: apply the accumulated gradient unless it is not finite. Call after each backward.

        Collective; every rank gets the same answer: None while accumulating.
        """
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()
            return None
        update = self._step_replicated() if self.zero_stage == 0 else self._step_partitioned()
        if not update.applied:
            torch._foreach_copy_(self._buffers, self._buffers_before)
        elif self.plan.batchnorm_groups > 1 and self.world.size > 1:
            average_running_statistics(self.module)
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)
        return update

    def _step_replicated(self) -> Update:
        """ZeRO 0: all ranks hold the whole reduced gradient."""
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        applied = math.isfinite(norm)
        if not applied:
            for parameter in self.module.parameters():
                parameter.grad = None
        elif 0 < self.clip_norm < norm:
            torch._foreach_mul_(gradients, self.clip_norm / (norm + 1e-6))
        self._engine.step()
        return Update(applied, norm)

    def _step_partitioned(self) -> Update:
        """ZeRO 1 and 2: DeepSpeed reduces into partitions, and skips a non-finite gradient by itself."""
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return Update(not self._engine.optimizer.overflow, norm)

    def set_lr(self, lr: float) -> None:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    def state(self) -> dict[str, Any]:
        """Weights (fp32), buffers and optimiser moments by name, on the host, the same at any world size and stage.

        Collective at ZeRO 1 and 2. Copies: the network may go on training.
        """
        named = dict(self.module.named_parameters())
        return {
            "weights": {name: _host(p) for name, p in named.items()},
            "buffers": {name: _host(b) for name, b in self.module.named_buffers()},
            "optimizer": {name: moments for name, p in named.items() if (moments := self._moments(p))},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`, whatever world size and ZeRO stage wrote it.

        Raises:
            ConfigError: names or shapes that differ from this network's.
        """
        weights, buffers = state["weights"], state["buffers"]
        _check_names({**weights, **buffers}, self.module)
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(weights[name])
            for name, buffer in self.module.named_buffers():
                buffer.copy_(buffers[name])
        if self._buffers:
            torch._foreach_copy_(self._buffers_before, self._buffers)
        if self.zero_stage == 0:
            self._load_replicated(state["optimizer"])
        else:
            self._load_partitioned(weights, state["optimizer"])

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's moments of one parameter, whole; empty before the first step."""
        if self.zero_stage == 0:
            state = self._engine.optimizer.state.get(parameter, {})
            return {key: _host(state[key]) for key in (*MOMENTS, "step") if key in state}
        from deepspeed.utils import safe_get_full_optimizer_state

        flat_states = list(self._engine.optimizer.optimizer.state.values())
        if not flat_states or "step" not in flat_states[0]:
            return {}
        whole = {key: _host(safe_get_full_optimizer_state(parameter, key)) for key in MOMENTS}
        return {**whole, "step": _host(flat_states[0]["step"])}

    def _load_replicated(self, moments: dict[str, dict[str, Tensor]]) -> None:
        optimizer = self._engine.optimizer
        for name, parameter in self.module.named_parameters():
            if name not in moments:
                optimizer.state.pop(parameter, None)
                continue
            saved = moments[name]
            fused = optimizer.param_groups[0].get("fused") or False
            optimizer.state[parameter] = {
                "step": saved["step"].clone().to(parameter.device if fused else "cpu"),
                **{key: saved[key].to(parameter.device, copy=True) for key in MOMENTS},
            }

    def _load_partitioned(self, weights: dict[str, Tensor], moments: dict[str, dict[str, Tensor]]) -> None:
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        zero = self._engine.optimizer
        named = dict(self.module.named_parameters())
        for name, parameter in named.items():
            safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))
        if not moments:
            return
        step = next(iter(moments.values()))["step"]
        for flat in zero.single_partition_of_fp32_groups:
            device = flat.device if zero.optimizer.param_groups[0].get("fused") else "cpu"
            zero.optimizer.state[flat] = {
                "step": step.clone().to(device),
                **{key: torch.zeros_like(flat) for key in MOMENTS},
            }
        zero._lazy_init_hp_params_optimizer_state()
        for name, saved in moments.items():
            for key in MOMENTS:
                safe_set_full_optimizer_state(named[name], saved[key].to(named[name].device), key)


def _adam(module: nn.Module, optimizer: OptimizerConfig, world: World) -> torch.optim.Optimizer:
    return torch.optim.Adam(
        module.parameters(),
        lr=optimizer.lr,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        fused=True if world.device.type == "cuda" else None,
    )


def _deepspeed_config(optimizer: OptimizerConfig, plan: BatchPlan, zero_stage: int) -> dict[str, Any]:
    """DeepSpeed's settings. Built here and nowhere else: it accepts unknown keys in silence."""
    return {
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": optimizer.clip_norm if zero_stage else 0.0,  # at stage 0 we have the norm already
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": zero_stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "allgather_bucket_size": BUCKET_ELEMENTS,
        },
        "steps_per_print": None,
    }


def _initialize(module: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        import deepspeed
        import deepspeed.ops

        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        # Only inference uses this op, and on a CPU its first use compiles C++ for most of a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config, dist_init_required=False)
    return engine


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def _check_names(saved: dict[str, Tensor], module: nn.Module) -> None:
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    why = "it was written with another model.* configuration; resume with that one, or start anew: train.resume=never"
    if missing := sorted(own.keys() ^ saved.keys()):
        raise ConfigError(f"the checkpoint and the model differ in {len(missing)} tensors, first {missing[0]!r}: {why}")
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            found = f"{name}: the checkpoint has shape {tuple(saved[name].shape)}, the model {tuple(tensor.shape)}"
            raise ConfigError(f"{found}: {why}")
