"""A prediction as files: GIF, MP4, strip (PNG) and the frames themselves (npz).

prediction.npz, where one unit of time is one frame and 0 is the first given frame:

    given            uint8 (T, H, W, C)      frames the model was given, at times 0, 1, ...
    samples          uint8 (N, T, H, W, C)   sampled futures, at `times`
    truth            uint8 (T, H, W, C)      frames that truly follow, at `truth_times`; none where the video has ended
    times            float64 (T,)
    truth_times      float64 (T,)
    fps              frames per second: seconds are times / fps; NaN where the video does not say
    first            number of the first given frame in the video, as it was read (every frame, or at `fps`)
    seed, step, substeps, times_per_frame, run, source, reading      how it was made; substeps is 0 where the model
                                             has no fixed time step
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc.predicting.pictures import save_prediction_strip, side_by_side
from hpc.predicting.sampling import Prediction
from odevid.pictures.gif import save_gif, save_mp4

_FASTEST_GIF = 50.0  # pictures a second; players slow down above
_USUAL_RATE = 8.0  # of videos without a rate


def write_prediction(folder: Path, prediction: Prediction, about: dict[str, str | int]) -> dict[str, Path]:
    """Write all files into `folder`, over those of an earlier call; what it is -> file.

    Args:
        about: run, step, source and reading, for the npz.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {"GIF": "samples.gif", "MP4": "samples.mp4", "strip": "samples.png", "npz": "prediction.npz"}
    paths = {what: folder / name for what, name in files.items()}
    fps = prediction.opening.fps
    speed = (fps or _USUAL_RATE) * prediction.wish.per_frame
    pictures = side_by_side(prediction)
    save_gif(paths["GIF"], pictures, min(speed, _FASTEST_GIF))
    save_mp4(paths["MP4"], pictures, speed)
    save_prediction_strip(paths["strip"], prediction)
    np.savez_compressed(paths["npz"], allow_pickle=False, **_arrays(prediction, about))
    return paths


def _arrays(prediction: Prediction, about: dict[str, str | int]) -> dict[str, NDArray[Any]]:
    opening, wish = prediction.opening, prediction.wish
    num_given, num_true = len(opening.given_TCHW), len(opening.truth_TCHW)
    arrays: dict[str, NDArray[Any]] = {
        "given": np.moveaxis(opening.given_TCHW, -3, -1),
        "samples": np.moveaxis(prediction.samples_NTCHW, -3, -1),
        "truth": np.moveaxis(opening.truth_TCHW, -3, -1),
        "times": prediction.times_T,
        "truth_times": np.arange(num_given, num_given + num_true, dtype=np.float64),
    }
    numbers: dict[str, str | int | float] = {
        "fps": np.nan if opening.fps is None else opening.fps,
        "first": opening.first,
        "seed": wish.seed,
        "substeps": wish.substeps or 0,
        "times_per_frame": wish.per_frame,
        **about,
    }
    return arrays | {name: np.array(value) for name, value in numbers.items()}
