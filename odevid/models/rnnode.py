"""Model (b) of Kanaa, Voleti et al. 2019 (arXiv 2109.03292, sections 5.2 and 5.3): RNN encoder, ODE, decoder.

In: clips in [0, 1]. Out: the terms of its evidence bound, and sampled futures. A recurrent network reads the codes of
the conditioning frames and gives q(z_0); from there the state solves an ODE, and frames are decoded (equation 2):

    z_0 ~ q(z_0 | frames) = N(mu, sigma^2),  dz/dt = f(z),  frame t ~ N(dec(z_t), obs_scale^2),
    loss = -sum_t log p(frame t | z_t) + beta KL(q(z_0) || N(0, I)).

The paper trains to *reconstruct* its ten conditioning frames and looks at the next ten; `objective` also trains to
predict, or both. The GRU reads backwards in time (Chen et al. 2018), so that the frame whose state starts the solve
comes last; with start="last", forwards. The paper writes the negative bound, says "maximise", and puts the divergence
inside the sum over time: here it is minimised, and the divergence counts once per clip.

Beyond the paper: with `nt_obs` a clip shows only some conditioning frames, at times that the GRU is told, and frames at
any times can condition a prediction; `ncontent` splits off a content vector that does not move (from the mean of the
codes, which no order of the frames changes); `nt_target` decodes only some frames of a training clip, an unbiased
estimate of the sum over all.

Axes: B clips, T frames, O observed frames, G frames of the likelihood, C channels, H height, W width, L = nlatent size
of a code and of z, P = 2 L (4 L of second order) raw parameters of q, K = ncontent; M = B T.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from odevid.config import RNNODEConfig
from odevid.models.clips import check_noise, check_video, frames_of
from odevid.models.latent_ode import Encoded, LatentODE
from odevid.models.times import TOLERANCE
from odevid.objectives import full_precision, gaussian_nll, kl_to_standard, sample_gaussian


class RNNODE(LatentODE):
    """See the head of this file; of second order, q is of position and velocity."""

    config: RNNODEConfig

    def __init__(self, config: RNNODEConfig) -> None:
        super().__init__(config, config.ncontent, config.ncontent if config.content_in_field else 0)
        self.rnn = nn.GRU(config.nlatent + int(config.irregular), config.nh_rnn, batch_first=True)
        self.q_z = nn.Linear(config.nh_rnn, 2 * self.noise_size)
        if config.ncontent:
            self.content = nn.Linear(config.nlatent, config.ncontent)

    @property
    def noise_size(self) -> int:
        return self.config.order * self.config.nlatent

    @property
    def has_content(self) -> bool:
        return self.config.ncontent > 0

    @property
    def field_condition(self) -> bool:
        return self.config.content_in_field

    # ------------------------------------------------------------------------------------------------ training

    def draw_noise(self, num_clips: int, num_frames: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of one step for `num_clips` clips of `num_frames` frames, clip on axis 0, on the CPU.

        eps_z `[B, order L]`; with nt_obs observed BO, with nt_target target BG: numbers of frames, rising.
        """
        config, candidates = self.config, self._candidates(num_frames)
        noise = {"eps_z": torch.randn(num_clips, self.noise_size, generator=generator)}
        if config.irregular:
            free = range(1, config.nt_cond) if config.start == "first" else range(config.nt_cond - 1)
            others = _choose(num_clips, free, config.nt_obs - 1, generator)
            origin = torch.full((num_clips, 1), 0 if config.start == "first" else config.nt_cond - 1)
            noise["observed"] = torch.cat([others, origin], dim=1).sort(dim=1).values
        if self._draws_targets(num_frames):
            noise["target"] = _choose(num_clips, candidates, config.nt_target, generator)
        return noise

    def _candidates(self, num_frames: int) -> range:
        """Frames that the likelihood is of."""
        first = self.config.nt_cond if self.config.objective == "predict" else 0
        return range(first, self.config.nt_cond if self.config.objective == "reconstruct" else num_frames)

    def _draws_targets(self, num_frames: int) -> bool:
        return 0 < self.config.nt_target < len(self._candidates(num_frames))

    def _noise_shapes(self, num_clips: int, num_frames: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"eps_z": (num_clips, self.noise_size)}
        if self.config.irregular:
            shapes["observed"] = (num_clips, self.config.nt_obs)
        if self._draws_targets(num_frames):
            shapes["target"] = (num_clips, self.config.nt_target)
        return shapes

    def loss(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """loss = nll + beta kl, in nats: means over clips of sums over frames and pixels; and the solve's cost.

        nfe counts the forward pass alone; nfe_backward the backward pass of the step before (see `_solve_for_loss`).

        Raises:
            ValueError: the video is not BTCHW with the config's channels and 64x64 pixels, or has too few or too many
                frames, or fewer than model.nt_target to decode, or the noise is of another number of clips or frames.
        """
        config, video_BTCHW = self.config, batch["video"]
        self._check(video_BTCHW, noise)
        num_clips, num_frames = video_BTCHW.shape[:2]
        encoded = self._observe(video_BTCHW, noise)
        candidates = self._candidates(num_frames)
        origin = 0 if config.start == "first" else config.nt_cond - 1
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            first = sample_gaussian(encoded.first_BP, noise["eps_z"])
            condition = encoded.content_BK if self.field_condition else None
            states_BTL, cost = self._solve_for_loss(first, [frame - origin for frame in candidates], condition)
        targets_BGCHW = video_BTCHW[:, candidates.start : candidates.stop]
        if "target" in noise:
            chosen_BG = noise["target"] - candidates.start
            states_BTL, targets_BGCHW = _pick(states_BTL, chosen_BG), _pick(targets_BGCHW, chosen_BG)
        decoded_BGCHW = self.decoder(states_BTL, self.decoder.share(encoded.content_BK, []))
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            nll = gaussian_nll(frames_of(targets_BGCHW), full_precision(decoded_BGCHW.flatten(0, 1)), config.obs_scale)
            nll = nll * (len(candidates) / targets_BGCHW.shape[1]) / num_clips
            kl = kl_to_standard(encoded.first_BP).sum() / num_clips
        return {"loss": nll + config.beta * kl, "nll": nll, "kl": kl, **cost}

    def _observe(self, video_BTCHW: Tensor, noise: Mapping[str, Tensor]) -> Encoded:
        """What the conditioning frames of training clips say, or those of them that `noise` names."""
        given_BOCHW = video_BTCHW[:, : self.config.nt_cond]
        if not self.config.irregular:
            return self._infer(given_BOCHW, None)
        observed_BO = noise["observed"]
        return self._infer(_pick(given_BOCHW, observed_BO), observed_BO)

    # ------------------------------------------------------------------------------------------------ inference

    def _encode(self, context_BTCHW: Tensor, times: Sequence[float]) -> Encoded:
        if not self.config.irregular:
            return self._infer(context_BTCHW, None)
        times_T = torch.tensor(times, dtype=torch.float64, device=context_BTCHW.device)
        return self._infer(context_BTCHW, times_T.expand(len(context_BTCHW), -1))

    def _infer(self, frames_BOCHW: Tensor, times_BO: Tensor | None) -> Encoded:
        """Raw parameters of q(z_0) and the content, from frames at `times_BO` (None: evenly spaced, and not told)."""
        codes_BOL = full_precision(self.encoder(frames_of(frames_BOCHW))[0]).unflatten(0, frames_BOCHW.shape[:2])
        with torch.autocast(codes_BOL.device.type, enabled=False):
            seen = codes_BOL
            if times_BO is not None:
                seen = torch.cat([codes_BOL, self._gaps(times_BO).to(codes_BOL).unsqueeze(2)], dim=2)
            if self.config.start == "first":
                seen = seen.flip(1)
            _, hidden_1BH = self.rnn(seen)
            content_BK = self.content(codes_BOL.mean(dim=1)) if self.config.ncontent else None
            return Encoded(self.q_z(hidden_1BH[0]), content_BK)

    def _gaps(self, times_BO: Tensor) -> Tensor:
        """Time (in frames) from each frame to the one that the GRU has read before it; 0 for the first."""
        gaps_BO = torch.zeros_like(times_BO)
        steps_BO = times_BO.diff(dim=1)
        if self.config.start == "first":
            gaps_BO[:, :-1] = steps_BO
        else:
            gaps_BO[:, 1:] = steps_BO
        return gaps_BO

    def _first(self, encoded: Encoded, noise: Tensor) -> Tensor:
        raw = encoded.first_BP
        return sample_gaussian(raw.repeat(len(noise) // len(raw), 1), noise)

    def _refuse_times(self, context_times: Sequence[float]) -> None:
        steps = [later - earlier for earlier, later in pairwise(context_times)]
        if not self.config.irregular and any(abs(step - 1) > TOLERANCE for step in steps):
            raise ValueError(
                f"context_times is {list(context_times)}, but this model was trained on frames one apart and is not "
                "told times; give such frames, or train with model.nt_obs (frames at random times)"
            )

    def _check(self, video_BTCHW: Tensor, noise: Mapping[str, Tensor]) -> None:
        config = self.config
        check_video(video_BTCHW, config, at_least=config.min_clip, what="a training clip", why=config.clip_needs)
        if config.max_clip is not None and video_BTCHW.shape[1] > config.max_clip:
            raise ValueError(
                f"a training clip of shape {tuple(video_BTCHW.shape)} has {video_BTCHW.shape[1]} frames, of which "
                f"training would look at {config.max_clip} ({config.clip_needs}); give so many"
            )
        candidates = len(self._candidates(video_BTCHW.shape[1]))
        if config.nt_target > candidates:
            raise ValueError(
                f"model.nt_target is {config.nt_target}, but model.objective={config.objective} decodes {candidates} "
                f"frames of clips of {video_BTCHW.shape[1]} (model.nt_cond={config.nt_cond}); give longer clips, "
                f"nt_target <= {candidates}, or 0 for all of them"
            )
        found = {name: tuple(tensor.shape) for name, tensor in noise.items()}
        check_noise(found, self._noise_shapes(*video_BTCHW.shape[:2]), video_BTCHW)
        shown = config.nt_obs or config.nt_cond
        alone = any(type(layer) is nn.BatchNorm2d and layer.training for layer in self.encoder.modules())
        if alone and len(video_BTCHW) * shown == 1:
            raise ValueError(
                f"one clip that shows one frame (model.nt_cond={config.nt_cond}, model.nt_obs={config.nt_obs}) leaves "
                "BatchNorm nothing to average over; give several clips at once, or show several frames of each"
            )


def _choose(num_clips: int, among: range, count: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers of `among` for each clip, rising."""
    order = torch.rand(num_clips, len(among), generator=generator).argsort(dim=1)
    return order[:, :count].sort(dim=1).values + among.start


def _pick(tensor_BT: Tensor, index_BO: Tensor) -> Tensor:
    """Entries of axis 1 that each clip names."""
    clips_B1 = torch.arange(len(tensor_BT), device=tensor_BT.device).unsqueeze(1)
    return tensor_BT[clips_B1, index_BO]
