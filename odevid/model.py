"""The interface that every video model offers to training, evaluation and notebooks.

Axes: N samples, B clips, T frames, C channels, H height, W width; n a chunk of the samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from odevid.config import SRVPConfig

Generators = torch.Generator | Sequence[torch.Generator] | None


class VideoModel(nn.Module, ABC):
    """A model that can be trained on clips and that predicts the frames that follow a clip."""

    config: SRVPConfig

    @abstractmethod
    def draw_noise(self, num_clips: int, num_frames: int, generator: torch.Generator) -> dict[str, Tensor]:
        """All randomness of one training step, drawn on the CPU for the global batch.

        Axis 0 of every tensor is the clip, so the ranks of a distributed run take rows of one and the same draw.
        """

    @abstractmethod
    def loss(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named scalars averaged over the clips of `batch`; "loss" is the one to minimise.

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
