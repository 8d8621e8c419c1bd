"""Model (a) of Kanaa, Voleti et al. 2019 (arXiv 2109.03292, section 5.1): encoder, ODE, decoder; deterministic.

In: clips in [0, 1]. Out: the terms of its loss, and the one future that it sees. A single frame is encoded; its code is
the first state of an ODE, and every frame is decoded from the state at its time (equation 1):

    z_0 = q(x_0),  dz/dt = f(z),  loss = sum_t ||x_t - dec(z_t)||^2 + ||q(x_t) - z_t||^2.

All frames are encoded in training, for the second term alone. One frame shows neither direction nor speed, so the model
can only remember its training clips: the paper reports that it fits them and fails on others. The paper's equations
start at the last given frame, its experiments at the first: `start` chooses. It says neither whether the terms are sums
or means (here sums over time, pixels and dimensions, averaged over clips) nor whether codes are constants in the second
term (`stop_gradient`).

Axes: B clips, T frames, C channels, H height, W width, L size of a code; M = B T.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from odevid.config import EncODEConfig
from odevid.models.clips import check_noise, check_video, frames_of
from odevid.models.latent_ode import Encoded, LatentODE
from odevid.objectives import full_precision


class EncODE(LatentODE):
    """See the head of this file. With dynamics of second order the first velocity is linear in the code."""

    config: EncODEConfig

    def __init__(self, config: EncODEConfig) -> None:
        super().__init__(config)
        if config.order == 2:
            self.velocity = nn.Linear(config.nlatent, config.nlatent)

    @property
    def noise_size(self) -> int:
        return 0

    def draw_noise(self, num_clips: int, num_frames: int, generator: torch.Generator) -> dict[str, Tensor]:
        """None: nothing is random."""
        del num_clips, num_frames, generator
        return {}

    def loss(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """loss = pixel + latent_weight latent, means over clips of sums over everything else; and the solve's cost.

        nfe counts the forward pass alone; nfe_backward the backward pass of the step before (see `_solve_for_loss`).

        Raises:
            ValueError: the video is not BTCHW with the config's channels and 64x64 pixels, or is too short.
        """
        video_BTCHW, config = batch["video"], self.config
        check_video(video_BTCHW, config, at_least=config.min_clip, what="a training clip", why=config.clip_needs)
        check_noise({name: tuple(tensor.shape) for name, tensor in noise.items()}, {}, video_BTCHW)
        frames_MCHW = frames_of(video_BTCHW)
        codes_BTL = full_precision(self.encoder(frames_MCHW)[0]).unflatten(0, video_BTCHW.shape[:2])
        origin = 0 if config.start == "first" else config.nt_cond - 1
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            first = self._with_velocity(codes_BTL[:, origin])
            states_BTL, cost = self._solve_for_loss(first, [tick - origin for tick in range(video_BTCHW.shape[1])])
        decoded_BTCHW = self.decoder(states_BTL, self.decoder.share(None, []))
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            targets_BTL = codes_BTL.detach() if config.stop_gradient else codes_BTL
            clips = len(video_BTCHW)
            pixel = (full_precision(decoded_BTCHW.flatten(0, 1)) - frames_MCHW).square().sum() / clips
            latent = (targets_BTL - states_BTL).square().sum() / clips
        return {"loss": pixel + config.latent_weight * latent, "pixel": pixel, "latent": latent, **cost}

    def _encode(self, context_BTCHW: Tensor, times: Sequence[float]) -> Encoded:
        """The code of the one frame that the trajectory starts from; other given frames are not looked at."""
        del times
        frame_BCHW = context_BTCHW[:, 0 if self.config.start == "first" else -1]
        return Encoded(full_precision(self.encoder(frames_of(frame_BCHW.unsqueeze(1)))[0]))

    def _first(self, encoded: Encoded, noise: Tensor) -> Tensor:
        return self._with_velocity(encoded.first_BP.repeat(len(noise) // len(encoded.first_BP), 1))

    def _with_velocity(self, code_BL: Tensor) -> Tensor:
        return torch.cat([code_BL, self.velocity(code_BL)], dim=1) if self.config.order == 2 else code_BL

    def _refuse_times(self, context_times: Sequence[float]) -> None:
        """Any will do: one frame is looked at, and times count from it."""
        del context_times
