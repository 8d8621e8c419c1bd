"""What models do with the frames of clips, whatever they make of them: check, lay out, decode a few at a time.

Axes: N samples, B clips, T frames, C channels, H height, W width, D size of a state; M = B T.
"""

import torch
from torch import Tensor

from odevid.config import ModelConfig
from odevid.networks.decoder import Decoder, Shared
from odevid.objectives import full_precision

MAX_DECODED = 256  # frames that a prediction decodes in one call, to bound its memory


def check_video(video_BTCHW: Tensor, config: ModelConfig, *, at_least: int, what: str, why: str) -> None:
    """
    Raises:
        ValueError: it is not float BTCHW with the frames of `config`, or has fewer than `at_least` of them.
    """
    expected = config.frame_shape
    if video_BTCHW.ndim != 5 or tuple(video_BTCHW.shape[2:]) != expected or not video_BTCHW.is_floating_point():
        raise ValueError(
            f"{what} must be float (clips, frames, {', '.join(map(str, expected))}) in [0, 1]; got "
            f"{video_BTCHW.dtype} of shape {tuple(video_BTCHW.shape)}"
        )
    if video_BTCHW.shape[1] < at_least:
        raise ValueError(
            f"{what} of shape {tuple(video_BTCHW.shape)} has {video_BTCHW.shape[1]} frames; this model needs at "
            f"least {at_least} ({why})"
        )


def check_counts(n_samples: int, chunk: int | None, substeps: int | None) -> None:
    """
    Raises:
        ValueError: one of them is given and less than 1.
    """
    for name, value in (("n_samples", n_samples), ("chunk", chunk), ("substeps", substeps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def check_noise(noise: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], video_BTCHW: Tensor) -> None:
    """
    Raises:
        ValueError: the shapes of a step's noise are not those that the video wants.
    """
    if noise != expected:
        raise ValueError(
            f"for a video of shape {tuple(video_BTCHW.shape)} the noise must be {expected}; got {noise}; draw it "
            f"with draw_noise(num_clips, num_frames) and slice the clips alone"
        )


def frames_of(video_BTCHW: Tensor) -> Tensor:
    """Frames MCHW whose channels are next to each other in memory: convolutions are fastest so, on CPUs and GPUs."""
    frames = video_BTCHW.flatten(0, 1)
    return torch.empty_like(frames, memory_format=torch.channels_last).copy_(frames)


def decode_samples(decoder: Decoder, states_NBTD: Tensor, shared: Shared) -> Tensor:
    """Frames NBTCHW, decoded in groups of at most MAX_DECODED frames (at least one per clip)."""
    num_samples, num_clips, num_times, _ = states_NBTD.shape
    states_BTD = states_NBTD.transpose(0, 1).flatten(1, 2)
    groups = states_BTD.split(max(1, MAX_DECODED // num_clips), dim=1)
    frames = torch.cat([full_precision(decoder(group, shared)) for group in groups], dim=1)
    return frames.unflatten(1, (num_samples, num_times)).transpose(0, 1).contiguous()
