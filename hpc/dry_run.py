"""`--dry-run`: one page that shows everything a launch would do, and starts nothing."""

from __future__ import annotations

import math

from hpc import config as configs
from hpc.config import Config
from hpc.data import build_command, dataset_root, is_remote
from hpc.jobs.forecast import schedule
from hpc.plan import plan_batches
from hpc.run_folder import RunFolder

CHECKPOINT_BYTES = 12
"""fp32 weight and two moments per parameter, on the disk."""


def describe(config: Config, folder: RunFolder, where: str, world_size: int, steps_per_s: float = 0.0) -> str:
    """The page; `steps_per_s` is an assumed speed where none was measured."""
    plan = plan_batches(config.train.global_batch, world_size, config.train.micro_batch, config.train.batchnorm_group)
    sections = {
        "resolved configuration": configs.to_yaml(config).rstrip(),
        "run folder": str(folder.path),
        "where": f"{where}, {world_size} ranks",
        "batches": str(plan),
        "data": _data(config),
        "model": _model(config, world_size),
        "evaluation": _evaluation(config),
    }
    if where == "slurm":
        sections["schedule in the queue"] = schedule(config, folder, world_size, steps_per_s)
        sections["sbatch script"] = _sbatch(config, folder, world_size)
    return "\n\n".join(f"# {title}\n{text}" for title, text in sections.items())


def _data(config: Config) -> str:
    from shards.manifest import MANIFEST_FILE, Manifest

    root = dataset_root(config.data)
    if is_remote(root):
        return f"{root}: checked when the run starts"
    from pathlib import Path

    if not (Path(root) / MANIFEST_FILE).is_file():
        return f"{root}: not built yet; {build_command(config.data)}"
    manifest = Manifest.load(Path(root))
    counts = ", ".join(f"{split} {info.samples} samples" for split, info in manifest.splits.items())
    return f"{root}: {manifest.name}, {counts}, fingerprint {manifest.fingerprint[:12]}"


def _evaluation(config: Config) -> str:
    """How many frames are predicted to know how good the model is."""
    settings, given = config.eval, config.model.nt_cond
    lines = []
    if settings.every:
        per_clip = settings.samples * (settings.num_frames - given)
        validations = config.train.steps // settings.every
        trained = settings.every * config.train.global_batch * config.data.num_frames
        lines.append(
            f"every {settings.every} steps {settings.clips} validation clips x {settings.samples} samples: "
            f"{settings.clips * per_clip:,} predicted frames, {validations} times; "
            f"{trained:,} frames are trained on in between"
        )
    clips = settings.test_clips or "all"
    lines.append(
        f"evaluate: {clips} test clips x {settings.test_samples} samples x {settings.test_num_frames - given} frames, "
        f"{', '.join(settings.metrics) or 'psnr, ssim, and lpips and fvd where their weights are found'}"
    )
    return "\n".join(lines)


def training_bytes(parameters: int, zero_stage: int, world_size: int) -> float:
    """Weights, gradients and Adam moments of one rank, fp32: 4 + 4 + 8 bytes per parameter at ZeRO 0.

    ZeRO 1 shares the moments out over the ranks, with an fp32 copy of the weights; ZeRO 2 the gradients too.
    """
    if zero_stage == 0:
        return 16 * parameters
    whole, shared = (8, 12) if zero_stage == 1 else (4, 16)
    return parameters * (whole + shared / world_size)


def _model(config: Config, world_size: int) -> str:
    import torch

    from odevid import build_model

    with torch.device("meta"):
        model = build_model(config.model)
    parameters = sum(p.numel() for p in model.parameters())
    held = training_bytes(parameters, config.train.zero_stage, world_size)
    frame = math.prod(config.model.frame_shape)
    batch = config.train.global_batch * config.data.num_frames * frame
    return (
        f"{config.model.name}: {parameters:,} parameters\n"
        f"weights, gradients and Adam moments {held / 2**20:.0f} MiB per rank "
        f"(ZeRO {config.train.zero_stage}); activations come on top\n"
        f"uint8 frames {batch / 2**20:.1f} MiB per step over all ranks\n"
        f"checkpoint about {parameters * CHECKPOINT_BYTES / 2**20:.0f} MiB, "
        f"{config.checkpoint.keep_last + config.checkpoint.keep_best} kept"
        + (
            f", and one every {config.checkpoint.milestone_every} steps for good"
            if config.checkpoint.milestone_every
            else ""
        )
    )


def _sbatch(config: Config, folder: RunFolder, world_size: int) -> str:
    from hpc.jobs.submit import sbatch_text

    return sbatch_text(folder, config, world_size).rstrip()
