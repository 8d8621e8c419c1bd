"""The data of a run: where the dataset is, building it if we may, sources and loaders, and frames on the device.

In: `DataConfig`. Out: clip sources of its splits. Moving MNIST is small and free, so missing shards of it are built
under a lock; any other missing dataset is an error with the command that builds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpc.config import Config, ConfigError, DataConfig, EvalConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from shards.source import ClipSource

MOVING_MNIST = "moving-mnist"


def dataset_root(data: DataConfig) -> str:
    """Folder (or URL) of the dataset: data.root itself if it holds a manifest, else its subfolder for this dataset."""
    parent = data_parent(data)
    if is_remote(parent) or (Path(parent) / "manifest.json").is_file():
        return parent
    return str(Path(parent) / dataset_folder(data))


def data_parent(data: DataConfig) -> str:
    """data.root as it was given, or where datasets are by default; a path is made absolute."""
    parent = data.root or os.environ.get("ODEVID_DATA", "data")
    return parent if is_remote(parent) else str(Path(parent).expanduser().resolve())


def is_remote(root: str) -> bool:
    """Whether a dataset's root is an address or a command, not a folder."""
    return root.startswith(("http://", "https://", "file://", "pipe:"))


def dataset_folder(data: DataConfig) -> str:
    """Name of the dataset's folder; variants of Moving MNIST have their own."""
    if data.name != MOVING_MNIST:
        return data.name
    variant = data.moving_mnist
    motion = "deterministic" if variant.deterministic else "stochastic"
    bank = "mnist" if variant.mnist else "sklearn"
    stored = _stored_clips(data)
    clips = f"-{stored.sequences}x{stored.frames}" if stored else ""
    longer = f"-valid{stored.valid_frames}" if stored and variant.valid_frames else ""
    return f"{MOVING_MNIST}-{bank}-{variant.digits}digit-{motion}{clips}{longer}"


def build_command(data: DataConfig) -> str:
    """What a user types to build the dataset."""
    root = dataset_root(data)
    if data.name != MOVING_MNIST:
        return f"python -m shards build {data.name} --raw RAW_FOLDER --out {root}"
    variant = data.moving_mnist
    motion = "--deterministic" if variant.deterministic else "--stochastic"
    mnist = f" --mnist {variant.mnist}" if variant.mnist else ""
    stored = _stored_clips(data)
    clips = "".join(f" --{name.replace('_', '-')} {value}" for name, value in asdict(stored).items()) if stored else ""
    return f"python -m shards build {MOVING_MNIST} --out {root} --digits {variant.digits} {motion}{mnist}{clips}"


def ensure_dataset(data: DataConfig) -> str:
    """The dataset's root, after building it if it is Moving MNIST and missing.

    Raises:
        ConfigError: another dataset is missing (the message is the command that builds it), or another one is there.
    """
    root = dataset_root(data)
    if is_remote(root):
        return root
    if (Path(root) / "manifest.json").is_file():
        _check_generator(data, Path(root))
        return root
    if data.name != MOVING_MNIST:
        raise ConfigError(
            f"no dataset at {root} (expected manifest.json there). Build it with\n"
            f"    {build_command(data)}\nor set data.root"
        )
    with _locked(Path(root)):
        if not (Path(root) / "manifest.json").is_file():
            _build_moving_mnist(data, Path(root))
    return root


def refuse_unfit(config: Config) -> None:
    """
    Raises:
        ConfigError: the dataset lacks a split that training reads, its frames are not those that the model takes, or
            its stored clips have fewer than are wanted.
    """
    from shards.manifest import Manifest

    _refuse_short_moving_mnist(config)
    root = dataset_root(config.data)
    if is_remote(root):  # its manifest is fetched by the ranks; the model then says what it found
        return
    manifest = Manifest.load(root)
    for split, way_out in (("train", "build it with one"), ("valid", "set eval.every=0, or build it with one")):
        if split not in manifest.splits and (split == "train" or config.eval.every):
            raise ConfigError(f"{root} has no split {split!r} (it has: {', '.join(manifest.splits)}): {way_out}")
    spec = manifest.arrays.get("video")
    channels, height, width = config.model.frame_shape
    if spec is None or spec.axes != "TCHW":
        return
    if spec.shape[1] not in (None, channels):
        raise ConfigError(f"{root} has {spec.shape[1]} channels, model.nc={channels}: set model.nc={spec.shape[1]}")
    if any(found not in (None, wanted) for found, wanted in zip(spec.shape[2:], (height, width), strict=True)):
        raise ConfigError(
            f"{root} has frames of {spec.shape[2]} x {spec.shape[3]} pixels, model.name={config.model.name} takes "
            f"{height} x {width}: build it again with --size {height}"
        )


def open_split(data: DataConfig, split: str, num_frames: int, allow_pipe: list[str]) -> ClipSource:
    """The clips of a split as this run reads them."""
    from shards import open_source

    return open_source(
        dataset_root(data),
        split,
        num_frames,
        verify=data.verify,
        max_substitutions=data.max_substitutions,
        shard_url=data.shard_url or None,
        allow_pipe=allow_pipe,
        cache=Path(data.cache) if data.cache else None,
        cache_gb=data.cache_gb,
    )


def open_validation(data: DataConfig, settings: EvalConfig, allow_pipe: list[str]) -> ClipSource:
    """The clips of a validation: always the same ones. Of stored videos, windows at places drawn once by eval.seed."""
    from shards.dataset import DrawnClips, ShardClips

    source = open_split(replace(data, max_substitutions=0), "valid", settings.num_frames, allow_pipe)
    return DrawnClips(source, settings.clips, settings.seed) if isinstance(source, ShardClips) else source


def refuse_short_clips(data: DataConfig, source: ClipSource, split: str, option: str) -> None:
    """
    Raises:
        ConfigError: clips that have fewer frames than are wanted of them, which a run would meet by chance.
    """
    from shards.dataset import DrawnClips, ShardClips

    short = source.too_short() if isinstance(source, (ShardClips, DrawnClips)) else []
    if short:
        root, frames = dataset_root(data), option.rpartition("=")[2]
        raise ConfigError(
            f"{len(short)} clips of split {split!r} in {root} have fewer frames than {option} (first: "
            f"{', '.join(short[:3])}): lower {option}, or leave them out: python -m shards repack {root} --out NEW "
            f"--min-frames {frames}"
        )


def to_unit_range(arrays: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Arrays on the device; uint8 video becomes float32 in [0, 1] there, not on the host."""
    moved = {name: tensor.to(device, non_blocking=True) for name, tensor in arrays.items()}
    return {name: tensor.float() / 255 if tensor.dtype.itemsize == 1 else tensor for name, tensor in moved.items()}


@dataclass(frozen=True)
class _StoredClips:
    """Clips of Moving MNIST that are made once: how many for training, and the frames of each."""

    sequences: int
    frames: int
    valid_frames: int


def _stored_clips(data: DataConfig) -> _StoredClips | None:
    """None: clips are drawn without end."""
    variant = data.moving_mnist
    if variant.sequences == 0:
        return None
    frames = variant.frames or data.num_frames
    return _StoredClips(variant.sequences, frames, variant.valid_frames or 2 * frames)


def _refuse_short_moving_mnist(config: Config) -> None:
    stored = _stored_clips(config.data) if config.data.name == MOVING_MNIST else None
    if stored is None:
        return
    for option, wanted, name, found in (
        ("data.num_frames", config.data.num_frames, "frames", stored.frames),
        ("eval.num_frames", config.eval.num_frames if config.eval.every else 0, "valid_frames", stored.valid_frames),
    ):
        if wanted > found:
            raise ConfigError(
                f"{option}={wanted}, but the stored clips have {found} frames: lower it, or set "
                f"data.moving_mnist.{name}={wanted}"
            )


def _check_generator(data: DataConfig, root: Path) -> None:
    """Moving MNIST that was built with other rules than the config names would be trained on, or recorded, as it."""
    from shards.manifest import Manifest

    provenance = Manifest.load(root).provenance
    rules = provenance.get("generator")
    if rules is None:
        return
    if data.name != MOVING_MNIST:
        raise ConfigError(f"data.name={data.name}, but {root} holds Moving MNIST: set data.name or data.root")
    variant, built = data.moving_mnist, rules | provenance.get("settings", {})
    names = ["digits", "deterministic"]
    names += [name for name in ("sequences", "frames", "valid_frames") if getattr(variant, name)]  # 0: as it is there
    wanted = {name: getattr(variant, name) for name in names}
    found = {name: built.get(name) for name in names}
    if found != wanted:
        raise ConfigError(
            f"{root} was built with {found}, data.moving_mnist asks for {wanted}: set "
            f"{', '.join(f'data.moving_mnist.{name}=' for name in names if found[name] != wanted[name])} as it was "
            "built, or another data.root"
        )


def _build_moving_mnist(data: DataConfig, root: Path) -> None:
    from shards.building.moving_mnist import build_moving_mnist

    print(f"building Moving MNIST in {root}", file=sys.stderr, flush=True)
    variant, stored = data.moving_mnist, _stored_clips(data)
    build_moving_mnist(
        root,
        **(asdict(stored) if stored else {}),
        mnist=Path(variant.mnist) if variant.mnist else None,
        digits=variant.digits,
        deterministic=variant.deterministic,
        command=build_command(data),
    )


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / f".{root.name}.launch-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
