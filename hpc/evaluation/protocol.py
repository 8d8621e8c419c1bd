"""What an evaluation scores and how, and which part of it is whose.

In: the configuration, the clips of a split, a rank. Out: a `Protocol`, and the `Share` of that rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpc.config import Config, ConfigError
from shards.source import ClipSource

FRAMES_AT_ONCE = 2048
"""Predicted frames that a rank holds at a time unless eval.chunk says otherwise: 100 MB of 64x64 RGB."""


@dataclass(frozen=True)
class Protocol:
    """What is scored and how; everything a number needs to be compared with another."""

    num_clips: int
    num_context: int
    num_frames: int
    """Frames of a clip, the given ones included."""
    samples: int
    batch: int
    """Clips of a pass at most. It changes no score, nor does `chunk`."""
    chunk: int = 0
    """Samples of them at once; 0: as many as make FRAMES_AT_ONCE."""
    clips_of_split: int = 0
    seed: int = 1
    centroid: bool = False
    pictures: int = 0
    random_samples: int = 0
    substeps: int | None = None
    """Solver steps per predicted frame; None: the model's own."""
    fvd_sets: int = 0
    """Sets of samples that FVD is computed of."""
    split: str = "test"
    given: bool = False
    """Whether the first sample's reconstruction of the given frames is scored."""
    halved: int | None = None
    """Solver steps per predicted frame, twice the usual, at which the first sample is predicted again; None: it is
    not."""

    @property
    def n_future(self) -> int:
        return self.num_frames - self.num_context

    @property
    def clips_at_once(self) -> int:
        return max(1, min(self.batch, FRAMES_AT_ONCE // self.n_future))

    def at(self, substeps: int | None) -> Protocol:
        """The same at another time step of the solver; None: the model's own."""
        if substeps is None:
            return self
        return replace(self, substeps=substeps, halved=2 * substeps if self.halved else None)

    def samples_at_once(self, clips: int) -> int:
        return self.chunk or max(1, FRAMES_AT_ONCE // (clips * self.n_future))


@dataclass(frozen=True)
class Share:
    """Batches of clips, and the samples of each, that one rank scores."""

    batches: list[list[int]]
    first_sample: int
    num_samples: int

    @property
    def work(self) -> int:
        """Clips times samples."""
        return sum(map(len, self.batches)) * self.num_samples


def share_of(protocol: Protocol, clips: Sequence[int], rank: int, world_size: int) -> Share:
    """What `rank` scores of `clips`: over all ranks each sample of each clip exactly once.

    Clips are shared out first. Where they are too few to keep all ranks busy, ranks share the samples of one clip.
    """
    parts = _sample_groups(len(clips), protocol.samples, world_size)
    columns = world_size // parts
    mine = list(clips[rank % columns :: columns])
    size = protocol.clips_at_once
    first, end = (protocol.samples * (rank // columns + ahead) // parts for ahead in (0, 1))
    return Share([mine[start : start + size] for start in range(0, len(mine), size)], first, end - first)


def _sample_groups(clips: int, samples: int, world_size: int) -> int:
    """In how many groups the samples of a clip are cut: those that leave the busiest rank least to do.

    Each group sees the given frames of its clips for itself, which costs about one sample more.
    """
    divisors = [count for count in range(1, world_size + 1) if world_size % count == 0 and count <= samples]
    return min(divisors, key=lambda count: (-(-clips * count // world_size) * (-(-samples // count) + 1), count))


def protocol_of(
    config: Config, source: ClipSource, option: str, num_clips: int, num_frames: int, samples: int, split: str
) -> Protocol:
    """The protocol of a validation or a test; `num_clips` 0 means the whole split, `option` is its name for messages.

    Raises:
        ConfigError: more clips are asked for than the split has.
    """
    if num_clips > len(source):
        raise ConfigError(f"{option}={num_clips}, but the split has {len(source)} clips; set {option}={len(source)}")
    settings = config.eval
    return Protocol(
        num_clips=num_clips or len(source),
        num_context=config.model.nt_cond,
        num_frames=num_frames,
        samples=samples,
        batch=settings.batch,
        chunk=settings.chunk,
        clips_of_split=len(source),
        seed=settings.seed,
        centroid=settings.centroid,
        pictures=settings.pictures,
        random_samples=settings.random_samples,
        split=split,
        given=settings.given,
        halved=2 * config.model.own_substeps if settings.halve_step else None,
    )
