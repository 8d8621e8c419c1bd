"""The noise of a prediction's samples: the same numbers however samples are grouped, and whoever a clip's mates are.

In: a generator, or one per clip. Out: a source that is asked for the next few samples of all clips.

Axes: n samples of B clips, E normal numbers for a sample.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from odevid.model import Generators

NoiseSource = Callable[[int], Tensor]


def noise_source(num_clips: int, size: int, generator: Generators, like: Tensor) -> NoiseSource:
    """`draw(n)` gives `[n B, E]` in dtype and device of `like`: sample by sample and, for each, clip by clip.

    Raises:
        ValueError: generators for another number of clips.
    """
    if isinstance(generator, Sequence):
        if len(generator) != num_clips:
            raise ValueError(f"got {len(generator)} generators for {num_clips} clips; give one, or one per clip")
        sources: list[torch.Generator | None] = list(generator)
    else:
        sources = [generator] * num_clips

    def draw(count: int) -> Tensor:
        drawn = [
            torch.randn(size, generator=source, device=source.device if source else "cpu")
            for _ in range(count)
            for source in sources
        ]
        return torch.stack(drawn).to(like)

    return draw
