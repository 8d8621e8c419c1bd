"""What a model says comes after a video's first frames.

In: a run's model, `Opening`, a `Wish`. Out: `Prediction`, 8-bit frames and their times. The same seed draws the same
noise for every video: a prediction depends neither on the file's name nor on the other videos of the call.

Legend: N samples, T frames, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hpc.config import ConfigError
from hpc.given_runs import LoadedRun
from hpc.noise import step_generator
from hpc.predicting.reading import Opening
from odevid.config import ModelConfig

_FRAMES_AT_A_TIME = 2048


@dataclass(frozen=True)
class Wish:
    """What is to be predicted.

    Attributes:
        n_future: frames after the given ones.
        samples: futures that are drawn.
        per_frame: predicted times in the time of one frame; 1 for the video's own rate.
        substeps: solver steps per frame, a multiple of `per_frame`; None: the model has no fixed time step.
        seed: of the noise.
    """

    n_future: int
    samples: int
    per_frame: int
    substeps: int | None
    seed: int


@dataclass(frozen=True)
class Prediction:
    """Sampled futures.

    Attributes:
        opening: what the model was given, and what truly follows.
        samples_NTCHW: uint8.
        times_T: when the predicted frames are, in frames: 0 is the first given one.
        wish: what was asked for.
    """

    opening: Opening
    samples_NTCHW: NDArray[np.uint8]
    times_T: NDArray[np.float64]
    wish: Wish


def check_steps(per_frame: int, substeps: int | None, model: ModelConfig) -> int | None:
    """Solver steps per frame for so many predicted times per frame; None where the model has no fixed time step.

    Args:
        substeps: what the user asked for; None for the fewest that contain those of training.
        model: of the run.

    Raises:
        ConfigError: the times are not on the steps, or the model has none.
    """
    of_training = model.own_substeps
    if of_training is None:
        _check_without_steps(per_frame, substeps, model)
        return None
    if substeps is None:
        return math.lcm(per_frame, of_training)
    if substeps % per_frame:
        raise ConfigError(
            f"--substeps {substeps} has no step at every 1/{per_frame} frame: expected a multiple of "
            f"--times-per-frame {per_frame}, such as --substeps {math.lcm(per_frame, of_training)}"
        )
    return substeps


def _check_without_steps(per_frame: int, substeps: int | None, model: ModelConfig) -> None:
    if model.continuous and substeps is not None:
        raise ConfigError(
            f"--substeps {substeps}: the solver of this run's model ({model.name}, see model.method) chooses its own "
            "steps and reaches any time: leave --substeps out, or use a run whose model.method has fixed steps"
        )
    if not model.continuous and (per_frame > 1 or (substeps or 1) > 1):
        raise ConfigError(
            f"this run's model ({model.name}) goes from one frame to the next and has no time step: leave "
            "--times-per-frame and --substeps out; a higher frame rate needs a run whose model is "
            "continuous in time"
        )


def predict_video(loaded: LoadedRun, opening: Opening, wish: Wish) -> Prediction:
    """Sample `wish.samples` futures; memory beyond the result is that of a chunk of samples.

    Raises:
        ConfigError: the model predicts NaN.
    """
    num_given = len(opening.given_TCHW)
    ticks = range(1, wish.n_future * wish.per_frame + 1)
    times = [num_given - 1 + tick / wish.per_frame for tick in ticks]
    context = torch.from_numpy(opening.given_TCHW)[None].to(loaded.device).float() / 255
    chunks = loaded.model.predict_chunks(
        context,
        times,
        wish.samples,
        chunk=max(1, _FRAMES_AT_A_TIME // len(times)),
        substeps=wish.substeps,
        generator=step_generator(wish.seed, 0, "predict"),
    )
    samples = []
    for frames_nBTCHW in chunks:
        check_finite(frames_nBTCHW, loaded)
        pixels = (frames_nBTCHW[:, 0].float().clamp(0, 1) * 255).round()
        samples.append(pixels.to("cpu", torch.uint8).numpy())
    return Prediction(opening, np.concatenate(samples), np.array(times), wish)


def check_finite(frames: torch.Tensor, loaded: LoadedRun) -> None:
    """
    Raises:
        ConfigError: a predicted frame holds NaN or infinite values.
    """
    if not torch.isfinite(frames).all():
        raise ConfigError(
            f"the model of {loaded.folder.path} predicts NaN at step {loaded.step}: its training diverged; an earlier "
            "checkpoint may do (eval.checkpoint=best)"
        )
