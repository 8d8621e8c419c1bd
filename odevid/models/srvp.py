"""SRVP, the stochastic latent residual video predictor (Franceschi et al., ICML 2020, arXiv 2002.09219).

In: clips in [0, 1]. Out: the terms of its evidence bound, and sampled futures. A clip has a content vector w, a state
y_t that moves by Euler steps of a learned field f(y, z), and a noise z_t per frame:

    y_0 ~ q(y_0 | first k frames),  z_t ~ q(z_t | frames 0..t) or p(z_t | y_{t-1}),
    y_t = y_{t-1} + f(y_{t-1}, z_t) (in S sub-steps),  frame t ~ N(decoder(w, y_t, skips), obs_scale^2).

Only f is sequential in training: posterior, samples, prior and divergences are computed for all times at once, encoder
and decoder see all frames at once. On purpose as the released code, where the paper differs or is silent: w has
`nh_inf` dimensions; every term is summed over time and pixels and averaged over clips; the residual penalty is the
un-squared norm of each sub-step; in training w and the skips come from random frames, in evaluation from the last ones.

Latents and all sums are fp32 under autocast. Module names are those of the released checkpoints (`load_published`).

Axes: B clips, T frames (or T-1 transitions), k = nt_inf frames, C channels, H height, W width, D = ny, Z = nz,
X = nhx size of a frame's code, E = nh_inf; N samples; M = B T.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from odevid.config import SRVPConfig
from odevid.dynamics import Dynamics, build_dynamics, unroll
from odevid.model import Generators, Latent, LatentModel, evaluating
from odevid.models.clips import check_counts, check_noise, check_video, decode_samples, frames_of
from odevid.models.sampling import noise_source
from odevid.models.times import Ticks, check_context_times, parse_times
from odevid.networks import MLP, Shared, build_decoder, build_encoder
from odevid.networks.clips import pick_frames
from odevid.networks.init import init_images
from odevid.objectives import full_precision, gaussian_nll, kl_between, kl_to_standard, sample_gaussian

PairSource = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Encoded:
    """What the networks see of a clip: codes BTX, content vector BE (None without w), skips BCHW deepest first."""

    codes_BTX: Tensor
    content_BE: Tensor | None
    skips: list[Tensor]

    def content(self) -> dict[str, Tensor]:
        """w and the skips by name, as `Latent` keeps them."""
        skips = {f"skip_{depth}": skip for depth, skip in enumerate(self.skips)}
        return skips if self.content_BE is None else {"w": self.content_BE, **skips}


class SRVP(LatentModel):
    """See the head of this file; `config` gives every size, and the variants without w, without z, MLP and GRU."""

    config: SRVPConfig

    def __init__(self, config: SRVPConfig) -> None:
        super().__init__()
        self.config = config
        size_w = config.nh_inf if config.content_variable else 0
        self.encoder = build_encoder(config.architecture, config.nc, config.nf, config.nhx)
        self.decoder = build_decoder(
            config.architecture,
            config.nc,
            config.nf,
            size_w + config.ny,
            skips=config.skip_connections,
            split=config.split_decoder,
        )
        if config.content_variable:
            self.w_proj = nn.Sequential(nn.Linear(config.nhx, config.nh_inf), nn.ReLU(inplace=True))
            self.w_inf = nn.Sequential(nn.Linear(config.nh_inf, config.nh_inf), nn.Tanh())
        self.q_y = MLP(config.nt_inf * config.nhx, config.nh_inf, 2 * config.ny, config.nlayers_inf)
        if config.nz:
            self.inf_z = nn.LSTM(config.nhx, config.nh_inf, batch_first=True)
            self.q_z = nn.Linear(config.nh_inf, 2 * config.nz)
            self.p_z = MLP(config.ny, config.nh_res, 2 * config.nz, config.nlayers_res)
        self.dynamics: Dynamics = build_dynamics(
            config.dynamics, config.ny, config.nz, config.nh_res, config.nlayers_res, config.res_gain
        )
        init_images(self.encoder)
        init_images(self.decoder)

    # ------------------------------------------------------------------------------------------------ training

    def draw_noise(self, num_clips: int, num_frames: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of one step for `num_clips` clips of `num_frames` frames, clip on axis 0, on the CPU.

        eps_y0 BD; eps_z `[B, T-1, Z]`; skip_frame B (with skips): the frame that gives a clip's skips; content_frames
        `[B, k]` (with w): k of the T frames, without replacement.
        """
        shapes = self._noise_shapes(num_clips, num_frames)
        noise = {name: torch.randn(shapes[name], generator=generator) for name in ("eps_y0", "eps_z")}
        if self.config.skip_connections:
            noise["skip_frame"] = torch.randint(num_frames, shapes["skip_frame"], generator=generator)
        if self.config.content_variable:
            order = torch.rand(num_clips, num_frames, generator=generator).argsort(dim=1)
            noise["content_frames"] = order[:, : self.config.nt_inf].contiguous()
        return noise

    def _noise_shapes(self, num_clips: int, num_frames: int) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor of a step's noise."""
        config = self.config
        shapes: dict[str, tuple[int, ...]] = {
            "eps_y0": (num_clips, config.ny),
            "eps_z": (num_clips, num_frames - 1, config.nz),
        }
        if config.skip_connections:
            shapes["skip_frame"] = (num_clips,)
        if config.content_variable:
            shapes["content_frames"] = (num_clips, config.nt_inf)
        return shapes

    def loss(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Terms of the bound, each the mean over clips of a sum over everything else, in nats.

        loss = nll + beta_y kl_y + beta_z kl_z + l2_res res, with res the sum over sub-steps of ||f / S||_2 (of the
        change per frame under MLP and GRU dynamics, whose weight is 0). In eval mode w and skips come from the last
        frames, as in prediction, not from those that `noise` names.

        Raises:
            ValueError: the video is not BTCHW with the config's channels and 64x64 pixels, or is too short, or the
                noise was drawn for another number of clips or frames.
        """
        config, video_BTCHW = self.config, batch["video"]
        self._check_video(video_BTCHW, at_least=config.min_clip, what="a training clip")
        self._check_noise(noise, video_BTCHW)
        frames_MCHW = frames_of(video_BTCHW)
        encoded = self._encode(frames_MCHW, video_BTCHW.shape[1], noise)
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            q_y = self._infer_y(encoded.codes_BTX)
            q_z = self._infer_z(encoded.codes_BTX)
            y_0 = sample_gaussian(q_y, noise["eps_y0"])
            z_BTZ = noise["eps_z"] if q_z is None else sample_gaussian(q_z, noise["eps_z"])
            fine_BTD, residuals_BTD = unroll(self.dynamics, y_0, z_BTZ, config.n_euler_steps)
            y_BTD = fine_BTD[:, :: config.n_euler_steps]
        decoded_BTCHW = self.decoder(y_BTD, self.decoder.share(encoded.content_BE, encoded.skips))
        with torch.autocast(video_BTCHW.device.type, enabled=False):
            sums = {
                "nll": gaussian_nll(frames_MCHW, full_precision(decoded_BTCHW.flatten(0, 1)), config.obs_scale),
                "kl_y": kl_to_standard(q_y).sum(),
                "kl_z": y_0.new_zeros(()) if q_z is None else kl_between(q_z, self.p_z(y_BTD[:, :-1])).sum(),
                "res": torch.linalg.vector_norm(residuals_BTD, dim=-1).sum(),
            }
        terms = {name: value / video_BTCHW.shape[0] for name, value in sums.items()}
        weights = {"nll": 1.0, "kl_y": config.beta_y, "kl_z": config.beta_z, "res": config.l2_res}
        total = sum((weight * terms[name] for name, weight in weights.items() if weight), y_0.new_zeros(()))
        return {"loss": total, **terms}

    # ------------------------------------------------------------------------------------------------ inference

    def _encode(self, frames_MCHW: Tensor, num_frames: int, noise: Mapping[str, Tensor]) -> Encoded:
        """Codes of all frames, and per clip w and the skips: from the frames named by `noise` in training mode."""
        codes_MX, outputs = self.encoder(frames_MCHW)
        codes_BTX = full_precision(codes_MX).unflatten(0, (-1, num_frames))
        clips_B = torch.arange(codes_BTX.shape[0], device=codes_BTX.device)
        skips, content_BE = [], None
        if self.config.skip_connections:
            frame_B = noise["skip_frame"] if self.training else num_frames - 1
            skips = [pick_frames(output, clips_B * num_frames + frame_B) for output in outputs]
        if self.config.content_variable:
            if self.training:
                chosen_BkX = codes_BTX[clips_B.unsqueeze(1), noise["content_frames"]]
            else:
                chosen_BkX = codes_BTX[:, -self.config.nt_inf :]
            with torch.autocast(codes_BTX.device.type, enabled=False):
                content_BE = self.w_inf(self.w_proj(chosen_BkX).sum(1))
        return Encoded(codes_BTX, content_BE, skips)

    def _infer_y(self, codes_BTX: Tensor) -> Tensor:
        """Raw parameters `[B, 2 D]` of q(y_0), from the first k frames in their order."""
        return self.q_y(codes_BTX[:, : self.config.nt_inf].flatten(1))

    def _infer_z(self, codes_BTX: Tensor) -> Tensor | None:
        """Raw parameters `[B, T-1, 2 Z]` of q(z_t), t = 1..T-1, each from frames 0..t; None without z."""
        if not self.config.nz:
            return None
        return self.q_z(self.inf_z(codes_BTX)[0][:, 1:])

    # ------------------------------------------------------------------------------------------------ prediction

    @torch.no_grad()
    def predict_chunks(
        self,
        context_BTCHW: Tensor,
        times: int | Sequence[float] | None = None,
        n_samples: int = 1,
        *,
        chunk: int | None = None,
        n_future: int | None = None,
        context_times: Sequence[float] | None = None,
        substeps: int | None = None,
        generator: Generators = None,
        first_sample: int = 0,
    ) -> Iterator[Tensor]:
        """As `VideoModel.predict_chunks`, always in eval mode: fixed BatchNorm statistics, w and skips of last frames.

        The context is encoded once; y_0 and its z are sampled from q anew for every sample. Times inside the context
        give its reconstruction, on the solver steps of training; `substeps` acts on the roll-out alone.
        """
        config = self.config
        steps = config.n_euler_steps if substeps is None else substeps
        self._check_request(context_BTCHW, n_samples, chunk, steps)
        check_context_times(context_times, context_BTCHW.shape[1])
        ticks = parse_times(
            times,
            n_future,
            num_context=context_BTCHW.shape[1],
            context_substeps=config.n_euler_steps,
            substeps=steps,
        )
        draw = self._sample_noise(context_BTCHW, ticks.future, generator)
        with evaluating(self):
            encoded = self._encode(frames_of(context_BTCHW), context_BTCHW.shape[1], {})
            shared = self.decoder.share(encoded.content_BE, encoded.skips)
        for _ in range(first_sample):
            draw(1)
        return self._chunks(encoded, shared, ticks, draw, n_samples, chunk or n_samples)

    @torch.no_grad()
    def _chunks(
        self, encoded: Encoded, shared: Shared, ticks: Ticks, draw: PairSource, n_samples: int, chunk: int
    ) -> Iterator[Tensor]:
        """Frames nBTCHW of `chunk` samples at a time; the model's mode is its own between two of them."""
        for first in range(0, n_samples, chunk):
            with evaluating(self):
                latent = self._latent(encoded, draw(min(chunk, n_samples - first)))
                frames_nBTCHW = decode_samples(self.decoder, self._states(latent, ticks), shared)
            yield frames_nBTCHW

    @property
    def has_content(self) -> bool:
        """True with w or with skips."""
        return self.config.content_variable or self.config.skip_connections

    @torch.no_grad()
    def infer(
        self, context_BTCHW: Tensor, n_samples: int = 1, *, n_future: int, generator: Generators = None
    ) -> Latent:
        """As `LatentModel.infer`.

        drive: "z" `[N, B, T-1, Z]` of the context's transitions, from q; "eps" `[N, B, T-1 + n_future, Z]`, the noise
        from which z is sampled, by the prior where the state is rolled out. content: "w" BE, "skip_0" (deepest) ...
        """
        self._check_request(context_BTCHW, n_samples, None, self.config.n_euler_steps)
        if n_future < 0:
            raise ValueError(f"n_future is {n_future}; it must not be negative")
        draw = self._sample_noise(context_BTCHW, n_future, generator)
        with evaluating(self):
            encoded = self._encode(frames_of(context_BTCHW), context_BTCHW.shape[1], {})
            return self._latent(encoded, draw(n_samples))

    @torch.no_grad()
    def trajectory(
        self, latent: Latent, times: Sequence[float], *, substeps: int | None = None, free: bool = False
    ) -> Tensor:
        """As `LatentModel.trajectory`; `substeps` acts on the roll-out alone, which begins at time 0 if `free`."""
        steps = self.config.n_euler_steps if substeps is None else substeps
        self._check_substeps(steps)
        given = 0 if free else latent.drive["z"].shape[2]
        ticks = parse_times(
            times, None, num_context=given + 1, context_substeps=self.config.n_euler_steps, substeps=steps
        )
        held = latent.drive["eps"].shape[2] - given
        if ticks.future > held:
            raise ValueError(
                f"time {max(times)} is {ticks.future} frames after the roll-out's begin, but this latent holds noise "
                f"for {held}: infer it with a larger n_future"
            )
        with evaluating(self):
            return self._states(latent, ticks, free)

    @torch.no_grad()
    def decode(self, states_NBTD: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """As `LatentModel.decode`; `content` as `infer` names it."""
        skips = [tensor for name, tensor in sorted(content.items()) if name != "w"]
        clips = {len(tensor) for tensor in content.values()} | {states_NBTD.shape[1]}
        if len(clips) > 1:
            raise ValueError(f"states NBTD {tuple(states_NBTD.shape)} and content are of {sorted(clips)} clips")
        with evaluating(self):
            return decode_samples(self.decoder, states_NBTD, self.decoder.share(content.get("w"), skips))

    def _sample_noise(self, context_BTCHW: Tensor, future: int, generator: Generators) -> PairSource:
        """A source of (eps_y0 `[n B, D]`, eps_z `[n B, T-1 + future, Z]`) for the next n samples of every clip."""
        num_clips, num_context = context_BTCHW.shape[:2]
        ny, shape_z = self.config.ny, (num_context - 1 + future, self.config.nz)
        source = noise_source(num_clips, ny + math.prod(shape_z), generator, self.q_y.first.weight)

        def draw(count: int) -> tuple[Tensor, Tensor]:
            eps = source(count)
            return eps[:, :ny], eps[:, ny:].unflatten(1, shape_z)

        return draw

    def _latent(self, encoded: Encoded, noise: tuple[Tensor, Tensor]) -> Latent:
        """y_0 and the context's z, sampled from q by the `noise` of some samples of all clips (see `_sample_noise`)."""
        eps_y0, eps_z = noise
        codes_BTX = encoded.codes_BTX
        count, transitions = eps_y0.shape[0] // codes_BTX.shape[0], codes_BTX.shape[1] - 1
        with torch.autocast(codes_BTX.device.type, enabled=False):
            y_0 = sample_gaussian(self._infer_y(codes_BTX).repeat(count, 1), eps_y0)
            q_z, z = self._infer_z(codes_BTX), eps_z[:, :transitions]
            if q_z is not None and transitions:
                z = sample_gaussian(q_z.repeat(count, 1, 1), z)
        drive = {"z": z.unflatten(0, (count, -1)), "eps": eps_z.unflatten(0, (count, -1))}
        return Latent(y_0.unflatten(0, (count, -1)), drive, encoded.content())

    def _states(self, latent: Latent, ticks: Ticks, free: bool = False) -> Tensor:
        """States NBTD at the wanted times: of the context (left out if `free`) and of the roll-out from its end on."""
        y_0, z, eps = (part.flatten(0, 1) for part in (latent.initial_NBD, latent.drive["z"], latent.drive["eps"]))
        past_BTD, given = y_0.unsqueeze(1), 0 if free else z.shape[1]
        with torch.autocast(y_0.device.type, enabled=False):
            if given:
                past_BTD, _ = unroll(self.dynamics, y_0, z, self.config.n_euler_steps)
            eps = eps[:, given : given + ticks.future]
            future_BTD = self._roll_out(past_BTD[:, -1], eps, ticks.substeps)
        columns = [(past_BTD if inside else future_BTD)[:, tick] for inside, tick in ticks.wanted]
        return torch.stack(columns, dim=1).unflatten(0, latent.initial_NBD.shape[:2])

    def _roll_out(self, first_BD: Tensor, eps_BTZ: Tensor, substeps: int) -> Tensor:
        """States from `first_BD` on, z from the prior: `[B, T * substeps + 1, D]`."""
        pieces = [first_BD.unsqueeze(1)]
        for eps_BZ in eps_BTZ.unbind(1):
            state_BD = pieces[-1][:, -1]
            z_BZ = sample_gaussian(self.p_z(state_BD), eps_BZ) if self.config.nz else eps_BZ
            pieces.append(unroll(self.dynamics, state_BD, z_BZ.unsqueeze(1), substeps)[0][:, 1:])
        return torch.cat(pieces, dim=1)

    # ------------------------------------------------------------------------------------------------ checks

    def _check_video(self, video_BTCHW: Tensor, at_least: int, what: str) -> None:
        check_video(video_BTCHW, self.config, at_least=at_least, what=what, why=self.config.clip_needs)

    def _check_noise(self, noise: Mapping[str, Tensor], video_BTCHW: Tensor) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in noise.items()}
        check_noise(found, self._noise_shapes(*video_BTCHW.shape[:2]), video_BTCHW)

    def _check_request(self, context_BTCHW: Tensor, n_samples: int, chunk: int | None, substeps: int) -> None:
        self._check_video(context_BTCHW, at_least=self.config.min_context, what="a context")
        check_counts(n_samples, chunk, substeps)
        self._check_substeps(substeps)

    def _check_substeps(self, substeps: int) -> None:
        check_counts(1, None, substeps)
        if substeps != 1 and not self.dynamics.has_substeps:
            raise ValueError(f"substeps is {substeps}, but {self.config.dynamics} dynamics have no time step; use 1")


def load_published(source: str | Path | Mapping[str, Tensor], config: SRVPConfig) -> SRVP:
    """SRVP with the weights of a released checkpoint, in eval mode.

    Args:
        source: a released `.pt` file (a state dict; read without unpickling objects), or the state dict itself.
        config: what the checkpoint was trained with, see `odevid.config.published_srvp`.

    Raises:
        ValueError: names or shapes do not fit `config`; the message lists the first of them.
    """
    weights = source if isinstance(source, Mapping) else torch.load(source, map_location="cpu", weights_only=True)
    model = SRVP(config)
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or [name for name in own if own[name].shape != weights[name].shape]
    if wrong:
        raise ValueError(
            f"the checkpoint does not fit this config: {len(wrong)} of {len(own)} tensors differ in name or shape, "
            f"first {', '.join(wrong[:3])}; check architecture, skip_connections, nc, ny, nz and nt_inf"
        )
    model.load_state_dict(dict(weights))
    return model.eval()
