"""An evaluation does no work twice and holds no more than a few samples, whatever N and T.

Work and memory are counted, not timed. Axes: N samples, B clips, T predicted frames, C channels, H, W.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hpc.evaluation.protocol
from hpc.distributed import World
from hpc.evaluation.evaluate import Evaluation, evaluate
from hpc.evaluation.protocol import FRAMES_AT_ONCE, Protocol
from hpc.evaluation.scorers import Scorers
from hpc.rendezvous import Ranks
from odevid.metrics.best_of import PSNR, SSIM, Metric
from odevid.models.srvp import SRVP
from shards.source import Fetched
from tests.odevid.formula import tiny, tiny_vgg

CLIPS, GIVEN, PREDICTED = 5, 3, 4
PROTOCOL = Protocol(CLIPS, GIVEN, GIVEN + PREDICTED, samples=4, batch=2, chunk=3, clips_of_split=CLIPS, pictures=2)
BATCHES = 3  # of 2, 2 and 1 clips
ALONE = World(Ranks(0, 0, 1, 1, "127.0.0.1", 0), torch.device("cpu"), None)


@dataclass
class Noise:
    """Clips of which no two frames are alike, uint8."""

    clips: int = CLIPS
    frames: int = GIVEN + PREDICTED
    channels: int = 1
    fingerprint: str = "noise"
    video_BTCHW: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        size = (self.clips, self.frames, self.channels, 64, 64)
        self.video_BTCHW = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

    def __len__(self) -> int:
        return self.clips

    def read(self, indices: Sequence[int]) -> Fetched:
        return Fetched({"video": self.video_BTCHW[list(indices)]}, [str(index) for index in indices])


def _evaluate(model: SRVP, source: Noise, protocol: Protocol, scorers: Scorers | None = None) -> Evaluation:
    return evaluate(model, source, protocol, ALONE, autocast=contextlib.nullcontext, scorers=scorers)  # type: ignore[arg-type]


def _model(**changes: Any) -> SRVP:
    torch.manual_seed(0)
    return SRVP(tiny(nf=2, **changes))


@dataclass
class Seen:
    """Frames that went into the encoder, and how many states came to the decoder."""

    encoded: list[Tensor] = field(default_factory=list)
    decoded: int = 0

    def watch(self, model: SRVP) -> None:
        model.encoder.register_forward_hook(lambda _module, inputs, _output: self.encoded.extend(inputs[0]))
        model.decoder.register_forward_hook(lambda _module, inputs, _output: self._count(inputs[0]))

    def _count(self, states_BTD: Tensor) -> None:
        self.decoded += states_BTD.shape[0] * states_BTD.shape[1]


def _bytes(frames: Sequence[Tensor]) -> list[bytes]:
    return sorted((frame * 255).round().to(torch.uint8).numpy().tobytes() for frame in frames)


# -- no work twice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "chunk"), [(1, 0), (4, 3), (20, 7)])
@pytest.mark.parametrize("architecture", ["dcgan", "vgg"])
def test_given_frames_are_encoded_once_and_never_decoded_whatever_n(architecture, samples, chunk):
    config = tiny(nf=2) if architecture == "dcgan" else tiny_vgg(nf=2)
    model, source, seen = SRVP(config), Noise(channels=config.nc), Seen()
    seen.watch(model)
    _evaluate(model, source, replace(PROTOCOL, samples=samples, chunk=chunk))
    given = torch.from_numpy(source.video_BTCHW[:, :GIVEN]).flatten(0, 1)
    assert _bytes(seen.encoded) == sorted(frame.numpy().tobytes() for frame in given)
    assert seen.decoded == CLIPS * samples * PREDICTED


@dataclass
class Counted:
    """Metrics and features that count what they are asked for."""

    targets: list[str] = field(default_factory=list)
    """The metric, each time it looks at a target."""
    scored: int = 0
    """Frames scored by PSNR, baselines included."""
    videos: int = 0
    """Of which features were computed."""

    def metric(self, metric: Metric) -> Metric:
        def against(target_BTCHW: Tensor) -> Callable[[Tensor], Tensor]:
            self.targets.append(metric.name)
            score = metric.against(target_BTCHW)

            def counting(frames_NBTCHW: Tensor) -> Tensor:
                if metric is PSNR:
                    self.scored += frames_NBTCHW[..., 0, 0, 0].numel()
                return score(frames_NBTCHW)

            return counting

        return replace(metric, against=against)

    def features(self, videos_BTCHW: Tensor) -> Tensor:
        self.videos += len(videos_BTCHW)
        return videos_BTCHW.mean(dim=(1, 2, 3)).double()


@pytest.mark.parametrize("samples", [2, 20])
def test_what_a_metric_needs_of_the_true_frames_is_computed_once_per_batch_whatever_n(samples):
    counted = Counted()
    scorers = Scorers((counted.metric(PSNR), counted.metric(SSIM)), counted.features)
    _evaluate(_model(), Noise(), replace(PROTOCOL, samples=samples, fvd_sets=2), scorers)
    assert sorted(counted.targets) == ["psnr"] * BATCHES + ["ssim"] * BATCHES
    baselines = 2  # last frame repeated, constant velocity
    assert counted.scored == CLIPS * (samples + baselines) * PREDICTED
    assert counted.videos == CLIPS * (1 + 2), "the true clip and two sets of samples, not every sample"


# -- memory is bounded -------------------------------------------------------------------------------------------------


@dataclass
class Handed:
    """Sizes of what a model hands over, sample by sample or more."""

    sizes: list[tuple[int, ...]] = field(default_factory=list)
    """(samples, clips, frames) of each."""

    def watch(self, model: SRVP, monkeypatch: pytest.MonkeyPatch) -> None:
        original = model.predict_chunks

        def predict_chunks(*arguments: Any, **options: Any) -> Iterator[Tensor]:
            for frames_NBTCHW in original(*arguments, **options):
                self.sizes.append(tuple(frames_NBTCHW.shape[:3]))
                yield frames_NBTCHW

        monkeypatch.setattr(model, "predict_chunks", predict_chunks)


@pytest.mark.parametrize(("samples", "predicted"), [(1, 4), (20, 4), (5, 23), (3, 24), (2, 60)])
def test_a_model_hands_over_few_frames_at_once_whatever_n_and_t(samples, predicted, monkeypatch):
    monkeypatch.setattr(hpc.evaluation.protocol, "FRAMES_AT_ONCE", 24)
    model, handed = _model(), Handed()
    handed.watch(model, monkeypatch)
    source = Noise(frames=GIVEN + predicted)
    _evaluate(model, source, replace(PROTOCOL, num_frames=GIVEN + predicted, samples=samples, batch=16, chunk=0))
    assert max(n * clips * frames for n, clips, frames in handed.sizes) <= max(24, predicted)
    assert sum(n * clips for n, clips, _ in handed.sizes) == CLIPS * samples
    assert {frames for _, _, frames in handed.sizes} == {predicted}


@pytest.mark.parametrize(("batch", "samples", "predicted"), product((1, 16, 4096), (1, 100, 10**6), (1, 28, 2048)))
def test_no_protocol_asks_for_more_frames_than_the_limit(batch, samples, predicted):
    protocol = replace(PROTOCOL, num_frames=GIVEN + predicted, samples=samples, batch=batch, chunk=0)
    for clips in {1, protocol.clips_at_once}:
        assert 1 <= protocol.samples_at_once(clips) * clips * predicted <= FRAMES_AT_ONCE


def peak_mib(samples: int, predicted: int) -> float:
    """Score two clips, 256 frames at a time, in this process; the most memory that it ever held."""
    hpc.evaluation.protocol.FRAMES_AT_ONCE = 256
    torch.set_num_threads(1)
    protocol = Protocol(2, GIVEN, GIVEN + predicted, samples=samples, batch=16, clips_of_split=2)
    _evaluate(_model(res_gain=0.1), Noise(2, GIVEN + predicted), protocol)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peak_of_a_process(samples: int, predicted: int) -> float:
    """Of a process that gives back what it frees at once, so that the peak is that of what it held."""
    words = f"from tests.hpc.test_evaluation_cost import peak_mib; print(peak_mib({samples}, {predicted}))"
    environ = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", words], env=environ, capture_output=True, text=True, timeout=500, check=True
    )
    return float(done.stdout)


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_samples_nor_with_frames():
    """400 samples of 2 x 60 frames are 750 MiB in fp32 and 190 MiB in bytes: what was kept of them would show."""
    few = _peak_of_a_process(20, 60)
    assert _peak_of_a_process(400, 60) < 1.05 * few
    assert _peak_of_a_process(20, 240) < 1.08 * few, "longer clips: the true frames are held in full, 8 MiB"
