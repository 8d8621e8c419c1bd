"""What this machine has, asked without importing torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def has_slurm() -> bool:
    return shutil.which("sbatch") is not None


def count_gpus() -> int:
    """GPUs this process may use: CUDA_VISIBLE_DEVICES if set, else what nvidia-smi lists."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
