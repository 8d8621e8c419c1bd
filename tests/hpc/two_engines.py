"""A test-only recipe with two DeepSpeed engines: what the video GANs will need of the loop.

Alternating updates (discriminator, then generator through the frozen discriminator), each engine with its own
optimiser, and unequal batch shapes: the discriminator sees real and generated clips at once, the generator half.
`plain_torch` is the same training without DeepSpeed, ranks or micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hpc.config import Config, OptimizerConfig
from hpc.distributed import World
from hpc.engine import Engine
from hpc.noise import step_generator, take_rows
from hpc.plan import BatchPlan
from hpc.recipes import MicroBatch, StepResult
from odevid.config import SRVPConfig

LATENT = 6
OPTIMIZER_G, OPTIMIZER_D = OptimizerConfig(lr=2e-3, beta1=0.5), OptimizerConfig(lr=1e-3, beta1=0.5)


class Generator(nn.Module):
    """Latents (clips, LATENT) to videos (clips, frames, 1, 64, 64)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.config = SRVPConfig()
        self.frames = frames
        self.coarse = nn.Linear(LATENT, frames * 16)
        self.norm = nn.BatchNorm2d(frames)
        self.up = nn.ConvTranspose2d(frames, frames, 16, 16)

    def forward(self, z: Tensor) -> Tensor:
        coarse = torch.tanh(self.norm(self.coarse(z).view(-1, self.frames, 4, 4)))
        return torch.sigmoid(self.up(coarse))[:, :, None]


class Discriminator(nn.Module):
    def __init__(self, frames: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(frames, 4, 8, 8), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(256, 1))

    def forward(self, video_BTCHW: Tensor) -> Tensor:
        return self.net(video_BTCHW[:, :, 0])[:, 0]


def build(seed: int, frames: int) -> tuple[Generator, Discriminator]:
    torch.manual_seed(seed)
    return Generator(frames), Discriminator(frames)


def discriminator_loss(discriminator: Any, real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss; real and generated clips in one forward pass."""
    real_score, fake_score = discriminator(torch.cat([real, fake])).chunk(2)
    return torch.relu(1 - real_score).mean() + torch.relu(1 + fake_score).mean()


def draw(seed: int, step: int, clips: int) -> Tensor:
    return torch.randn(clips, LATENT, generator=step_generator(seed, step))


class AlternatingRecipe:
    """One discriminator update, then one generator update, per optimiser step."""

    def __init__(self, config: Config, plan: BatchPlan, world: World) -> None:
        self.seed, self.global_batch, self.device = config.seed, plan.global_batch, world.device
        generator, discriminator = build(config.seed, config.data.num_frames)
        stage = config.train.zero_stage
        self.engines = {
            "generator": Engine(generator, OPTIMIZER_G, plan, world, zero_stage=stage),
            "discriminator": Engine(discriminator, OPTIMIZER_D, plan, world, zero_stage=stage),
        }

    @property
    def predictor(self) -> nn.Module:
        return self.engines["generator"].module

    def step(self, micro_batches: Iterable[MicroBatch], step: int) -> StepResult:
        generator, discriminator = self.engines["generator"], self.engines["discriminator"]
        (batch,) = micro_batches
        z = take_rows({"z": draw(self.seed, step, self.global_batch)}, batch.rows, self.device)["z"]
        loss_d = discriminator_loss(discriminator, batch.arrays["video"], generator(z).detach())
        discriminator.backward(loss_d)
        update_d = discriminator.step()
        with discriminator.frozen() as critic:
            loss_g = -critic(generator(z)).mean()
        generator.backward(loss_g)
        update_g = generator.step()
        assert update_d is not None and update_g is not None
        terms = {"loss": loss_g.detach(), "discriminator": loss_d.detach()}
        return StepResult(terms, {"generator": update_g, "discriminator": update_d})

    def set_lr(self, factor: float) -> None:
        self.engines["generator"].set_lr(OPTIMIZER_G.lr * factor)
        self.engines["discriminator"].set_lr(OPTIMIZER_D.lr * factor)


def plain_torch(seed: int, videos: list[Tensor]) -> dict[str, dict[str, Tensor]]:
    """The same steps on whole global batches (float BTCHW), plain torch, one process."""
    generator, discriminator = build(seed, videos[0].shape[1])
    adam = {
        network: torch.optim.Adam(network.parameters(), lr=o.lr, betas=(o.beta1, o.beta2))
        for network, o in ((generator, OPTIMIZER_G), (discriminator, OPTIMIZER_D))
    }
    for step, video in enumerate(videos):
        z = draw(seed, step, len(video))
        adam[discriminator].zero_grad()
        discriminator_loss(discriminator, video, generator(z).detach()).backward()
        adam[discriminator].step()
        adam[generator].zero_grad()
        (-discriminator(generator(z)).mean()).backward()
        adam[generator].step()
    return {"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}
