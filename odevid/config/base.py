"""What every model's configuration answers, whatever the model; and how its numbers are checked.

In: the fields of a dataclass. Out: what training, evaluation and the command line ask of any model, or a ValueError.
"""

import math
from collections.abc import Sequence

FRAME_SIZE = 64
ARCHITECTURES = ("dcgan", "vgg")


class ModelConfig:
    """A model's configuration: a flat dataclass of numbers and words that derives from this.

    Attributes:
        name: of the model, a key of `odevid.config.MODELS`.
        nc: channels of a frame.
        nt_cond: frames given at evaluation.
    """

    name: str
    nc: int
    nt_cond: int

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Channels, height and width (pixels) of the frames that the model takes."""
        return self.nc, FRAME_SIZE, FRAME_SIZE

    @property
    def min_context(self) -> int:
        """Fewest given frames that the model predicts from."""
        raise NotImplementedError

    @property
    def min_clip(self) -> int:
        """Fewest frames of a training clip."""
        raise NotImplementedError

    @property
    def max_clip(self) -> int | None:
        """Most frames of a training clip that training would look at; None: all of any number."""
        return None

    @property
    def clip_needs(self) -> str:
        """Which setting asks for `min_clip` and `max_clip`, for messages."""
        raise NotImplementedError

    @property
    def own_substeps(self) -> int | None:
        """Solver steps per frame in training; None: the model has no fixed time step."""
        raise NotImplementedError

    @property
    def continuous(self) -> bool:
        """Whether frames between two frames of the data can be predicted."""
        raise NotImplementedError

    @property
    def content_options(self) -> str:
        """Why frames are decoded from the state alone, where they are: the settings that say so; for messages."""
        raise NotImplementedError

    @property
    def stochastic(self) -> bool:
        """Whether the samples of a clip differ."""
        return True

    # ------------------------------------------------------------------------------------------------ checks

    def _choose(self, field: str, known: Sequence[object]) -> None:
        value = getattr(self, field)
        if value not in known:
            raise ValueError(f"model.{field} is {value!r}; choose one of {', '.join(map(str, known))}")

    def _at_least(self, minimum: int, *fields: str) -> None:
        for field in fields:
            if not getattr(self, field) >= minimum:
                must = "must not be negative" if minimum == 0 else f"must be at least {minimum}"
                raise ValueError(f"model.{field} is {getattr(self, field)}; it {must}")

    def _positive(self, *fields: str) -> None:
        for field in fields:
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"model.{field} is {getattr(self, field)}; it must be positive and finite")
