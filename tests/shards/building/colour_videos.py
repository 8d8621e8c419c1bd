"""Small video files without loss whose frames say their own number, and what tests do with builders' plans."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from shards.building.plan import BadSource, Notice
from shards.building.video import Probe, count_frames, probe
from shards.writer import Sample


def numbered(count: int, height: int = 24, width: int = 32) -> list[np.ndarray]:
    """``count`` HWC frames of one colour each: (n, 255 - n, 7)."""
    return [np.broadcast_to(np.array([n, 255 - n, 7], np.uint8), (height, width, 3)) for n in range(count)]


def numbers_of(video_TCHW: np.ndarray) -> list[int]:
    """The numbers that frames of :func:`numbered` show; fails if a frame is not of that colour all over."""
    assert (video_TCHW[:, 0] == 255 - video_TCHW[:, 1].astype(int)).all() and (video_TCHW[:, 2] == 7).all()
    assert (video_TCHW == video_TCHW[:, :, :1, :1]).all()
    return video_TCHW[:, 0, 0, 0].tolist()


def write_video(path: Path, frames_HWC: Sequence[np.ndarray], rate: int | Fraction = 25) -> Path:
    """Write a file whose decoded RGB frames are the given ones: uncompressed .avi, or .mp4 of lossless H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pix_fmt = ("rawvideo", "bgr24") if path.suffix == ".avi" else ("libx264rgb", "rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames_HWC[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264rgb":
            stream.options = {"crf": "0", "preset": "ultrafast"}
        for frame_HWC in frames_HWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")))
        container.mux(stream.encode())
    return path


def options(builder, raw: Path, *words: object, bad: str | None = None) -> argparse.Namespace:
    """A builder's parsed options and those of the engine that it may read."""
    parser = argparse.ArgumentParser()
    builder.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    args.raw, args.bad = raw, bad or builder.DEFAULT_BAD
    return args


class Survey:
    """The engine's survey, in this process.

    Args:
        decodes: whether a plan may have files decoded for their lengths.
    """

    def __init__(self, decodes: bool) -> None:
        self._decodes = decodes

    def __call__(self, files: Sequence[Path]) -> dict[Path, int | BadSource]:
        assert self._decodes, f"lengths of {files} are not needed here"
        return {file: self._of(count_frames, file) for file in files}

    def probes(self, files: Sequence[Path]) -> dict[Path, Probe | BadSource]:
        return {file: self._of(probe, file) for file in files}

    @staticmethod
    def _of(look, file):
        try:
            return look(file)
        except BadSource as error:
            return error


survey, no_survey = Survey(decodes=True), Survey(decodes=False)


def split_up(made: Iterable[Sample | Notice]) -> tuple[list[Sample], list[Notice]]:
    """Samples and notices that a builder made of an item."""
    everything = list(made)
    notices = [one for one in everything if isinstance(one, Notice)]
    return [one for one in everything if isinstance(one, Sample)], notices
