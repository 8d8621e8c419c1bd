"""What the two neural-ODE models of Kanaa, Voleti et al. 2019 share: networks, solver, and prediction at any times.

In: a context, times. Out: frames. A subclass says how the first state comes from the context; from there the state
solves dz/dt = f(z), and every frame is decoded from the state at its time. Times need not be frames of the data: they
may lie between two frames, unevenly, or before the first (the field is then followed backwards). Solver time is
(time - origin) * frame_time, where the origin is the given frame whose state starts the solve.

Solves are fp32 under autocast. Prediction with adaptive steps solves each clip by itself, so that nothing depends on
its batch mates. Training with adaptive steps solves the clips of a pass together, in the steps that the worst of them
needs: there a clip's loss and gradient depend on its batch mates, hence on the number of ranks and passes, by about the
tolerance (model.rtol, model.atol). Fixed steps never do.

Axes: N samples, B clips, T frames or times, C channels, H height, W width, D size of the solved state (position,
velocity, augmented), L = nlatent the part of it that is decoded, K = ncontent, E normal numbers for a sample.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from odevid.config import LatentODEConfig
from odevid.model import Generators, Latent, LatentModel, evaluating
from odevid.models.clips import check_counts, check_video, decode_samples
from odevid.models.sampling import noise_source
from odevid.models.times import requested_times
from odevid.networks import build_decoder, build_encoder
from odevid.networks.decoder import Shared
from odevid.networks.field import LatentField
from odevid.networks.init import init_images
from odevid.ode import Solution, Solver


@dataclass(frozen=True)
class Encoded:
    """What a subclass made of the context: parameters of the first state, content BK (None without)."""

    first_BP: Tensor
    content_BK: Tensor | None = None


class LatentODE(LatentModel):
    """See the head of this file.

    Args:
        content: size K of the content that is decoded beside the state.
    """

    config: LatentODEConfig

    def __init__(self, config: LatentODEConfig, content: int = 0, condition: int = 0) -> None:
        super().__init__()
        self.config = config
        self.encoder = build_encoder(config.architecture, config.nc, config.nf, config.nlatent)
        self.decoder = build_decoder(
            config.architecture, config.nc, config.nf, content + config.nlatent, skips=False, split=True
        )
        self.field = LatentField(config, condition)
        self.solver = Solver(
            config.method,
            config.frame_time / config.substeps,
            config.gradient,
            config.rtol,
            config.atol,
            config.max_steps,
            config.compiled,
        )
        self._last: Solution | None = None
        self._learned: Solution | None = None
        init_images(self.encoder)
        init_images(self.decoder)

    # ------------------------------------------------------------------------------------------------ subclasses

    @property
    @abstractmethod
    def noise_size(self) -> int:
        """E, normal numbers for a sample; 0: all samples are the same."""

    @abstractmethod
    def _encode(self, context_BTCHW: Tensor, times: Sequence[float]) -> Encoded:
        """What the given frames, at `times`, say."""

    @abstractmethod
    def _first(self, encoded: Encoded, noise: Tensor) -> Tensor:
        """First states `[n B, L]`, or `[n B, 2 L]` with their velocities, of some samples of all clips."""

    @abstractmethod
    def _refuse_times(self, context_times: Sequence[float]) -> None:
        """
        Raises:
            ValueError: times of given frames that the encoder cannot take.
        """

    # ------------------------------------------------------------------------------------------------ training

    def ask_later(self) -> Callable[[], str | None]:
        """Why the solve of the last `loss` failed, if it did; in the backward pass, too, if that is over by then."""
        last = self._last
        return lambda: None if last is None else last.failure

    def _solve_for_loss(
        self, first_BL: Tensor, ticks: Sequence[int], condition_BC: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Decoded parts of the states, `[B, T, L]`, `ticks` frames after the origin, and what the solve has cost.

        nfe, nfe_max: evaluations of the field in the forward pass. nfe_backward: those in the backward pass of the loss
        before this one, whose own is yet to come (0 at first): none where the gradient goes directly through the steps,
        those recomputed for checkpoints, those of the adjoint's backward solve.
        """
        times = [tick * self.config.frame_time for tick in ticks]
        solution = self.solver(self.field, self._augmented(first_BL), times, condition_BC=condition_BC)
        self._last = replace(solution, states_BTD=solution.states_BTD.detach())
        cost = first_BL.new_full((), float(solution.evaluations))  # filled on the device: nothing waits for it
        backward = first_BL.new_full((), float(self._learned.evaluations_backward if self._learned else 0))
        if torch.is_grad_enabled():
            self._learned = self._last
        terms = {"nfe": cost, "nfe_max": cost, "nfe_backward": backward, "solver_failures": self._last.failed}
        return solution.states_BTD[..., : self.config.nlatent], terms

    def _augmented(self, first: Tensor) -> Tensor:
        """First states with their augmented dimensions, which begin at zero."""
        return torch.nn.functional.pad(first, (0, self.config.augment)) if self.config.augment else first

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
        """As `VideoModel.predict_chunks`, always in eval mode, at any finite times.

        Times inside the context give its reconstruction; those before it follow the field backwards. The future that a
        whole number asks for begins one frame after the last given one.
        """
        given = self._given_times(context_BTCHW, context_times)
        wanted = requested_times(times, n_future, given[-1], earliest=None)
        check_counts(n_samples, chunk, substeps)
        solver = self._solver(substeps)
        draw = noise_source(len(context_BTCHW), self.noise_size, generator, self.decoder_weight)
        with evaluating(self):
            encoded = self._encode(context_BTCHW, given)
            shared = self.decoder.share(encoded.content_BK, [])
        for _ in range(first_sample):
            draw(1)
        counts = [min(chunk or n_samples, n_samples - at) for at in range(0, n_samples, chunk or n_samples)]
        ahead = [time - self._origin(given) for time in wanted]
        self._refuse_far(ahead, solver)
        return (self._predict(encoded, shared, draw(count), ahead, solver) for count in counts)

    @torch.no_grad()
    def _predict(
        self, encoded: Encoded, shared: Shared, noise: Tensor, ahead: Sequence[float], solver: Solver
    ) -> Tensor:
        """Frames NBTCHW of some samples, `ahead` of the origin; the model's mode is its own after them."""
        count = len(noise) // len(encoded.first_BP)
        if not self.noise_size:  # one sample is all of them
            noise = noise[: len(encoded.first_BP)]
        with evaluating(self):
            latent = self._latent(encoded, noise, 0.0)
            states_NBTD = self._states(latent, ahead, solver)[..., : self.config.nlatent]
            frames_NBTCHW = decode_samples(self.decoder, states_NBTD, shared)
        return frames_NBTCHW if len(frames_NBTCHW) == count else frames_NBTCHW.repeat(count, 1, 1, 1, 1, 1)

    @property
    def has_content(self) -> bool:
        """Whether a content vector is decoded beside the state."""
        return False

    @torch.no_grad()
    def infer(
        self, context_BTCHW: Tensor, n_samples: int = 1, *, n_future: int, generator: Generators = None
    ) -> Latent:
        """As `LatentModel.infer`; nothing random drives the future, so `n_future` only has to be possible.

        drive: "origin" NB, the time (in frames) of the initial state; with model.content_in_field "condition" NBK.
        content: "content" BK, if there is one.
        """
        given = self._given_times(context_BTCHW, None)
        check_counts(n_samples, None, None)
        if n_future < 0:
            raise ValueError(f"n_future is {n_future}; it must not be negative")
        draw = noise_source(len(context_BTCHW), self.noise_size, generator, self.decoder_weight)
        with evaluating(self):
            return self._latent(self._encode(context_BTCHW, given), draw(n_samples), self._origin(given))

    @torch.no_grad()
    def trajectory(
        self, latent: Latent, times: Sequence[float], *, substeps: int | None = None, free: bool = False
    ) -> Tensor:
        """As `LatentModel.trajectory`, at any times; nothing but the initial state decides, so `free` changes nothing.

        Raises:
            ValueError: no times, or times that are not finite.
        """
        wanted = requested_times(times, None, 0.0, earliest=None)
        del free
        origin = float(latent.drive["origin"].flatten()[0])
        ahead, solver = [time - origin for time in wanted], self._solver(substeps)
        self._refuse_far(ahead, solver)
        with evaluating(self):
            return self._states(latent, ahead, solver)

    @torch.no_grad()
    def decode(self, states_NBTD: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """As `LatentModel.decode`; velocities and augmented dimensions are not decoded."""
        clips = {len(tensor) for tensor in content.values()} | {states_NBTD.shape[1]}
        if len(clips) > 1:
            raise ValueError(f"states NBTD {tuple(states_NBTD.shape)} and content are of {sorted(clips)} clips")
        with evaluating(self):
            shared = self.decoder.share(content.get("content"), [])
            return decode_samples(self.decoder, states_NBTD[..., : self.config.nlatent], shared)

    # ------------------------------------------------------------------------------------------------ parts

    @property
    def decoder_weight(self) -> Tensor:
        """A weight, for the device and the precision of what is drawn."""
        return next(self.decoder.parameters())

    def _origin(self, given: Sequence[float]) -> float:
        """The time whose state starts the solve."""
        return given[0] if self.config.start == "first" else given[-1]

    def _solver(self, substeps: int | None) -> Solver:
        """The solver of a prediction: no gradient, no compiling, `substeps` per frame."""
        solver = replace(self.solver, gradient="direct", compiled=False)
        if substeps is None:
            return solver
        if not solver.is_fixed:
            raise ValueError(
                f"substeps is {substeps}, but {self.config.method} chooses its own steps; leave substeps out, or take "
                "a smaller model.rtol"
            )
        return replace(solver, step=self.config.frame_time / substeps)

    def _latent(self, encoded: Encoded, noise: Tensor, origin: float) -> Latent:
        with torch.autocast(noise.device.type, enabled=False):
            first = self._first(encoded, noise)
        clips = len(encoded.first_BP)
        initial_NBD = self._augmented(first).unflatten(0, (-1, clips))
        drive = {"origin": initial_NBD.new_full(initial_NBD.shape[:2], origin)}
        content: dict[str, Tensor] = {}
        if encoded.content_BK is not None:
            content["content"] = encoded.content_BK
            if self.field_condition:
                drive["condition"] = encoded.content_BK.expand(len(initial_NBD), -1, -1)
        return Latent(initial_NBD, drive, content)

    @property
    def field_condition(self) -> bool:
        """Whether the field is told the content."""
        return False

    def _states(self, latent: Latent, ahead: Sequence[float], solver: Solver) -> Tensor:
        """States NBTD at times `ahead` of the origin, in frames."""
        condition = latent.drive.get("condition")
        solution = solver(
            self.field,
            latent.initial_NBD.flatten(0, 1),
            [time * self.config.frame_time for time in ahead],
            condition_BC=None if condition is None else condition.flatten(0, 1),
            one_by_one=True,
        )
        if solution.failure is not None:
            warnings.warn(f"a prediction is not a number: {solution.failure}", RuntimeWarning, stacklevel=2)
        return solution.states_BTD.unflatten(0, latent.initial_NBD.shape[:2])

    # ------------------------------------------------------------------------------------------------ checks

    def _refuse_far(self, ahead: Sequence[float], solver: Solver) -> None:
        far = next((time for time in ahead if solver.too_far(time * self.config.frame_time)), None)
        if far is not None:
            steps = abs(far) * (self.config.frame_time / solver.step)
            raise ValueError(
                f"a time {abs(far):g} frames from where the solve starts is {steps:.6g} steps of {solver.step:g} away, "
                f"but model.max_steps is {solver.max_steps}; ask for nearer times, fewer substeps, or raise "
                "model.max_steps"
            )

    def _refuse_precision(self, context: Tensor) -> None:
        weights = self.decoder_weight.dtype
        if torch.finfo(weights).bits < 32:
            raise ValueError(
                f"the weights are {weights}, but solves are fp32: keep them so (model.float()), and predict under "
                "torch.autocast to be faster"
            )
        if context.dtype != weights and not torch.is_autocast_enabled(context.device.type):
            raise ValueError(
                f"the context is {context.dtype} and the weights are {weights}; give context.to({weights}), or "
                "predict under torch.autocast"
            )

    def _given_times(self, context_BTCHW: Tensor, context_times: Sequence[float] | None) -> list[float]:
        """Times of the given frames, checked with them."""
        check_video(
            context_BTCHW,
            self.config,
            at_least=self.config.min_context,
            what="a context",
            why="a trajectory starts from a frame",
        )
        self._refuse_precision(context_BTCHW)
        frames = context_BTCHW.shape[1]
        if context_times is None:
            return [float(time) for time in range(frames)]
        given = [float(time) for time in context_times]
        rising = all(math.isfinite(time) for time in given) and given == sorted(set(given))
        if len(given) != frames or not rising:
            raise ValueError(
                f"context_times is {given} for {frames} context frames; give one time per frame, in frames, rising"
            )
        self._refuse_times(given)
        return given
