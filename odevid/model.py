"""The interface that every video model offers to training, evaluation and notebooks.

A model whose clips have a state that moves and a content that stays (SRVP, latent ODEs, disentangled PDE models) can
also offer `LatentModel`, which takes a prediction apart: infer, move, decode. The papers' experiments rest on that.

Axes: N samples, B clips, T frames or times, C channels, H height, W width, D size of the state; n a chunk of the
samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from odevid.config import ModelConfig

Generators = torch.Generator | Sequence[torch.Generator] | None


class VideoModel(nn.Module, ABC):
    """A model that can be trained on clips and that predicts the frames that follow a clip."""

    config: ModelConfig

    @property
    def own_substeps(self) -> int | None:
        """Solver steps per frame in training, which `substeps` of a prediction refines; None: there is no time step."""
        return self.config.own_substeps

    @property
    def trouble(self) -> str | None:
        """Why the last `loss` may not be finite, in words, if the model knows; None: nothing to tell."""
        return self.ask_later()()

    def ask_later(self) -> Callable[[], str | None]:
        """What gives the `trouble` of the last `loss` also when others have followed.

        It costs next to nothing to make or to keep, and nothing waits for the device before it is called.
        """
        return _nothing

    @abstractmethod
    def draw_noise(self, num_clips: int, num_frames: int, generator: torch.Generator) -> dict[str, Tensor]:
        """All randomness of one training step, drawn on the CPU for the global batch.

        Axis 0 of every tensor is the clip, so the ranks of a distributed run take rows of one and the same draw.
        """

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars averaged over the clips of `batch`; "loss" is the one to minimise.

        A name that ends in "_max" is a maximum: over passes, steps and ranks it is not averaged.

        `batch["video"]` is float BTCHW in [0, 1]; `noise` are the same clips' rows of `draw_noise`, on the same device.
        """

    @abstractmethod
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
        """As `predict`, handing out `chunk` samples (nBTCHW) at a time; the numbers do not depend on `chunk`.

        Args:
            first_sample: so many samples are drawn and passed over first, so that several processes that were given
                the same generators share the samples out among themselves.
        """

    def forward(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, so that wrappers which only know how to call a module can train it."""
        return self.loss(batch, noise)

    def predict(
        self,
        context_BTCHW: Tensor,
        times: int | Sequence[float] | None = None,
        n_samples: int = 1,
        *,
        n_future: int | None = None,
        context_times: Sequence[float] | None = None,
        substeps: int | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """Sampled frames NBTCHW in [0, 1], for `n_samples` futures of each clip.

        Args:
            context_BTCHW: given frames, float in [0, 1]; frame i is at time i unless `context_times` says otherwise.
            times: the times to predict, in frames; a whole number n (or `n_future`) stands for the n times after the
                context. Fractional times must be multiples of 1 / substeps.
            substeps: solver steps per frame of the roll-out; the model's own when None.
            generator: source of the noise; one per clip makes a clip's samples independent of its batch mates.

        Raises:
            ValueError: shapes or times that the model cannot serve; the message says which and what would do.
        """
        chunks = self.predict_chunks(
            context_BTCHW,
            times,
            n_samples,
            n_future=n_future,
            context_times=context_times,
            substeps=substeps,
            generator=generator,
        )
        return torch.cat(list(chunks))


def _nothing() -> None:
    """The trouble of a model that has nothing to tell."""


@dataclass(frozen=True)
class Latent:
    """What a latent model makes of its context: how clips begin, what drives them from there, and what they show.

    Attributes:
        initial_NBD: the state at time 0, or where the model starts its solve (`drive` then says when).
        drive: what else moves the states, by names of the model's own, each with axes NB first (SRVP: the noise of
            every transition). Empty for deterministic dynamics.
        content: what all frames of a clip share, by names of the model's own, each with the clip B first: rows of one
            clip can serve another (`content_of`). Empty for a model without.
    """

    initial_NBD: Tensor
    drive: Mapping[str, Tensor]
    content: Mapping[str, Tensor]

    def content_of(self, clips: Sequence[int]) -> dict[str, Tensor]:
        """The content of the named clips, in their order, for `LatentModel.decode`."""
        return {name: tensor[list(clips)] for name, tensor in self.content.items()}


class LatentModel(VideoModel):
    """A video model that decodes each frame from a moving state and from a content that its clip keeps.

    `decode(trajectory(latent, times), latent.content)` with `latent = infer(context, n_samples, n_future=n)` are the
    frames of `predict` for the same times and generators, if n is the number of frames that those times roll out.
    All three run in eval mode and without gradients.
    """

    @property
    @abstractmethod
    def has_content(self) -> bool:
        """Whether `Latent.content` holds anything."""

    @abstractmethod
    def infer(
        self, context_BTCHW: Tensor, n_samples: int = 1, *, n_future: int, generator: Generators = None
    ) -> Latent:
        """What the context says, `n_samples` times, with the noise for `n_future` frames after it.

        Raises:
            ValueError: as for `predict`.
        """

    @abstractmethod
    def trajectory(
        self, latent: Latent, times: Sequence[float], *, substeps: int | None = None, free: bool = False
    ) -> Tensor:
        """States NBTD at `times` (in frames, 0 is the first of the context), in that order.

        Args:
            substeps: solver steps per frame of the roll-out; the model's own when None.
            free: the initial state alone decides: from time 0 on the model moves it as it moves a future. What was
                inferred of the later frames of the context (SRVP: their z) is left aside.

        Raises:
            ValueError: times off the solver's grid, or beyond the noise that `latent` holds.
        """

    @abstractmethod
    def decode(self, states_NBTD: Tensor, content: Mapping[str, Tensor]) -> Tensor:
        """Frames NBTCHW in [0, 1], each from a state and from its clip's content (axis B as in the states)."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """`module` in eval mode inside the block, in its former mode after it."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        yield
    finally:
        for child in training:
            child.training = True
