"""Frechet video distance: how far the distribution of generated videos is from that of real ones, over I3D's logits.

In: real and generated videos BTCHW, uint8 or float in [0, 1], whole or chunk by chunk. Out: one distance per set of
generated videos, and an interval over several sets. Any other feature function takes I3D's place.

Checked without the published weights: the network, whose logits are those of two published ports on made-up weights,
the resizing, the distance. Unchecked until somebody has the weights: the published distances of black videos from white
ones, 64x64. These are 151.39 for 8 videos of 30 frames with TF-Hub's network, 151.26 with StyleGAN-V's TorchScript port
of it (README of JunyaoHu/common_metrics_on_video_quality, which allows 1 between versions of PyTorch), and "around 131"
for 16 videos of 15 frames (example.py of google-research/frechet_video_distance). The test is
`test_of_zeros_against_ones_is_the_published_value` in tests/odevid/test_metrics_fvd.py; it runs with `pytest -m slow`
and i3d_pretrained_400.pt in $ODEVID_WEIGHTS, and is skipped elsewhere.

Legend: B videos, T frames, C channels, H rows, W columns, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from odevid.metrics.frames import check_unit_range
from odevid.metrics.frechet import Moments, distance_between
from odevid.metrics.i3d import MIN_FRAMES, SIDE
from odevid.metrics.i3d_weights import load_i3d
from odevid.metrics.interval import Interval, interval_over_videos
from odevid.metrics.tf1_resize import resize_bilinear_tf1

BATCH = 16  # videos
Features = Callable[[Tensor], Tensor]
"""videos_BTCHW -> features_BD, one batch at a time. A `fingerprint` (str), if it has one, is part of what a cache is
kept under."""
Videos = Tensor | Iterable[Tensor]
"""Videos BTCHW, or any number of such chunks, which are taken one by one."""


def _check_videos(videos_BTCHW: Tensor, name: str = "videos") -> None:
    if not isinstance(videos_BTCHW, Tensor):
        kind = f"{type(videos_BTCHW).__module__}.{type(videos_BTCHW).__qualname__}"
        raise TypeError(f"{name} is {kind}; expected a tensor: write torch.as_tensor({name})")
    if videos_BTCHW.ndim != 5 or videos_BTCHW.shape[2] not in (1, 3) or videos_BTCHW.numel() == 0:
        raise ValueError(
            f"{name} has shape {tuple(videos_BTCHW.shape)}; expected BTCHW with 1 or 3 channels, not empty"
        )
    if videos_BTCHW.dtype == torch.uint8:
        return
    if not torch.is_floating_point(videos_BTCHW):
        raise TypeError(f"{name} has dtype {videos_BTCHW.dtype}; expected uint8, or floats in [0, 1]")
    check_unit_range(name, videos_BTCHW)


def _check_length(videos_BTCHW: Tensor) -> None:
    if videos_BTCHW.shape[1] < MIN_FRAMES:
        raise ValueError(
            f"videos have {videos_BTCHW.shape[1]} frames; FVD needs at least {MIN_FRAMES}, the given ones included"
        )


def preprocess(videos_BTCHW: Tensor, *, eight_bit: bool = True) -> Tensor:
    """Videos as I3D takes them: (B, 3, T, 224, 224) float32 in [-1, 1].

    Unterthiner et al. 2018, published code: TensorFlow 1's bilinear resizing to 224x224, aspect ratio not kept, then
    2 x / 255 - 1. Grey is repeated to three channels. SRVP's evaluation cuts both sides to 8 bits first (truncation,
    not rounding), which `eight_bit` does for floats; it changes nothing in frames that come from 8 bits.

    Raises TypeError or ValueError for other dtypes or axes, values outside [0, 1], NaN.
    """
    _check_videos(videos_BTCHW)
    if videos_BTCHW.dtype == torch.uint8:
        levels_BTCHW = videos_BTCHW.float()
    else:
        levels_BTCHW = videos_BTCHW.float().clamp(0, 1) * 255
        levels_BTCHW = levels_BTCHW.floor() if eight_bit else levels_BTCHW
    resized_BTCHW = resize_bilinear_tf1(levels_BTCHW, SIDE, SIDE)
    return (2 * resized_BTCHW / 255 - 1).expand(-1, -1, 3, -1, -1).transpose(1, 2).contiguous()


class I3DFeatures:
    """Feature function of FVD: `preprocess`, then I3D's 400 logits, in full float32 (no TF32, no autocast)."""

    def __init__(self, net: nn.Module, device: str | torch.device = "cpu", *, eight_bit: bool = True) -> None:
        """A network from `load_i3d`, moved to `device`, where videos are preprocessed too."""
        self._device = torch.device(device)
        self._net = net.to(self._device).eval()
        self._eight_bit = eight_bit
        digest = hashlib.sha256()
        for name, tensor in net.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().data)
        self.fingerprint = f"i3d-{digest.hexdigest()[:16]}-{'uint8' if eight_bit else 'float'}"

    @torch.no_grad()
    def __call__(self, videos_BTCHW: Tensor) -> Tensor:
        """Logits BD of uint8 or [0, 1] videos. Raises as `preprocess`, and ValueError for fewer than 9 frames."""
        if videos_BTCHW.ndim == 5:
            _check_length(videos_BTCHW)
        precise = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        with precise, torch.autocast(self._device.type, enabled=False):
            logits_BD: Tensor = self._net(preprocess(videos_BTCHW.to(self._device), eight_bit=self._eight_bit))
        return logits_BD


class FrechetVideoDistance:
    """Frechet distances of sets of videos to one set of real ones, whose features are computed once.

    Videos are taken in batches; what is kept is one mean and one D x D scatter, whatever their number. Over several
    ranks, each takes `moments` of its own videos; their sum is what one rank would have found, to rounding.
    """

    def __init__(self, features: Features, batch: int = BATCH) -> None:
        """A feature function (`I3DFeatures` for FVD) and the number of videos that it is given at a time."""
        if batch < 1:
            raise ValueError(f"batch is {batch}; expected at least 1")
        self._features, self._batch = features, batch
        self._real: Moments | None = None

    @torch.no_grad()
    def moments(self, videos: Videos) -> Moments:
        """Moments of the features of all these videos. Raises ValueError for none, or as the feature function does."""
        total: Moments | None = None
        for chunk_BTCHW in [videos] if isinstance(videos, Tensor) else videos:
            for videos_BTCHW in chunk_BTCHW.split(self._batch):
                found = Moments.of(self._features(videos_BTCHW))
                total = found if total is None else total + found
        if total is None:
            raise ValueError("there are no videos")
        return total

    def set_real(self, real: Videos | Moments, cache: str | Path | None = None, fingerprint: str = "") -> None:
        """Compute the statistics of the real videos, or read them from the folder `cache`.

        Args:
            real: videos, or their moments. An iterable is not touched where the cache has the answer.
            cache: folder, made if missing.
            fingerprint: names the real videos: data, clips, length. The file is kept under it and the fingerprint of
                the feature function: other weights have another file.

        Raises:
            ValueError: a cache without a fingerprint, a damaged file in it, or as `moments` does.
        """
        if cache is not None and self.load_real(cache, fingerprint):
            return
        self._real = real if isinstance(real, Moments) else self.moments(real)
        if cache is not None:
            path = self._cache_file(cache, fingerprint)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._real.save(path)

    def load_real(self, cache: str | Path, fingerprint: str) -> bool:
        """Take the statistics of the real videos from the folder `cache`, if it has them. Raises as `set_real`."""
        path = self._cache_file(cache, fingerprint)
        if path.is_file():
            self._real = Moments.load(path)
        return path.is_file()

    @property
    def real(self) -> Moments | None:
        """Statistics of the real videos, once they are known."""
        return self._real

    def _cache_file(self, cache: str | Path, fingerprint: str) -> Path:
        if not fingerprint:
            raise ValueError("a cache of real videos' statistics needs a fingerprint that names these videos")
        key = f"{fingerprint}\n{getattr(self._features, 'fingerprint', '')}"
        return Path(cache) / f"frechet-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def __call__(self, generated: Videos | Moments) -> float:
        """Distance of one set of generated videos to the real ones.

        Warns where N is at most D (see `distance_between`). Raises RuntimeError before `set_real`, and ValueError for
        fewer than two videos.
        """
        if self._real is None:
            raise RuntimeError("no real videos to compare with: call set_real first")
        return distance_between(self._real, generated if isinstance(generated, Moments) else self.moments(generated))

    def interval(self, sets: Sequence[Videos | Moments]) -> Interval:
        """Mean and 95 % interval over several sets of generated videos (SRVP's tables: five)."""
        return interval_over_videos([self(generated) for generated in sets])


def _with_conditioning(name: str, videos_BTCHW: Tensor, conditioning_BTCHW: Tensor) -> Tensor:
    if conditioning_BTCHW.dtype != videos_BTCHW.dtype:
        raise TypeError(
            f"conditioning has dtype {conditioning_BTCHW.dtype}, {name} {videos_BTCHW.dtype}: make them equal"
        )
    if conditioning_BTCHW.shape[::2] != videos_BTCHW.shape[::2] or conditioning_BTCHW.shape[3] != videos_BTCHW.shape[3]:
        raise ValueError(
            f"conditioning {tuple(conditioning_BTCHW.shape)} does not fit {name} {tuple(videos_BTCHW.shape)}: "
            "all axes of BTCHW but T must be equal"
        )
    return torch.cat((conditioning_BTCHW, videos_BTCHW), dim=1)


def fvd(
    real: Tensor,
    generated: Tensor,
    *,
    conditioning: Tensor | None = None,
    weights: str | Path | None = None,
    batch: int = BATCH,
    device: str | torch.device = "cpu",
    run_code: bool = False,
) -> float:
    """FVD as SRVP reports it (Unterthiner et al. 2018; Franceschi et al. 2020, published evaluation).

    Full-length videos, the true conditioning frames before both the real and the generated future, cut to 8 bits
    (`preprocess`). The published evaluation fills its last batch of 16 up; that changes no feature, and is left out.

        >>> from odevid.metrics import fvd
        >>> fvd(true_future_BTCHW, predicted_BTCHW, conditioning=given_BTCHW, device="cuda")

    Args:
        real, generated: BTCHW, uint8 or float in [0, 1], equal T, C, H, W; at least 9 frames with the conditioning.
        conditioning: BTCHW, the frames that are put before both, if these do not hold them yet.
        weights: file of I3D's weights, or the folder of `i3d_pretrained_400.pt`; default $ODEVID_WEIGHTS or
            ~/.cache/odevid/weights.
        batch: videos that go through the network at a time.
        device: where the network runs.
        run_code: allows a TorchScript file, which runs the code in it (`load_i3d`).

    Returns:
        The distance. With no more than 400 videos a warning says that the covariances are singular.

    Raises:
        FileNotFoundError: no weights; it says which file belongs where.
        TypeError, ValueError: other dtypes, shapes or values; too few frames; fewer than two videos.
    """
    _check_videos(real, "real")
    _check_videos(generated, "generated")
    if conditioning is not None:
        _check_videos(conditioning, "conditioning")
        real = _with_conditioning("real", real, conditioning)
        generated = _with_conditioning("generated", generated, conditioning)
    if real.shape[1:] != generated.shape[1:]:
        raise ValueError(f"real videos {tuple(real.shape)} and generated {tuple(generated.shape)} differ beyond B")
    _check_length(real)  # generated ones are as long
    if min(len(real), len(generated)) < 2:
        raise ValueError(f"FVD needs at least 2 videos a side, here are {len(real)} and {len(generated)}")
    distance = FrechetVideoDistance(I3DFeatures(load_i3d(weights, run_code=run_code), device), batch)
    distance.set_real(real)
    return distance(generated)
