"""The scores of an evaluation in the run's W&B run: summary values, two tables, and the pictures.

    Scores, curves.npz --`findings_of`--> Findings --> python -m hpc.tracking.wandb_mirror SPEC evaluation --> W&B

In:  a run folder and what `evaluate` wrote. Out: summary entries of the W&B run whose id the run folder keeps, and no
row of its history: W&B's own step is the journal's line number, and an evaluation has no line there.

The names are those of the validations: test/psnr (best of N), test/psnr_ci95, test/psnr_single, test/psnr_repeat_last,
test/fvd; at another time step test-substeps-4/psnr; of another split split-train/psnr. As during training, W&B is
another process: whatever it does, the evaluation is not held up for long, and a failure is a warning.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hpc import config as configs
from hpc.config import Config
from hpc.evaluation.scores import CURVES, Scores, scalar_name
from hpc.evaluation.time_steps import is_at_a_step
from hpc.run_folder import SPLIT, RunFolder
from hpc.tracking import strict_json
from hpc.tracking.mirror import command_and_environ, spec_of
from hpc.tracking.wandb_mirror import ERROR, EVALUATION, Findings

UNREADABLE = (OSError, ValueError, KeyError, zipfile.BadZipFile)
"""What reading scores.json (a ConfigError is a ValueError) and curves.npz may raise."""
PICTURE_NAMES = {"GIF": "samples", "MP4": "samples_mp4", "strip": "samples_strip"}
TIMEOUT_S = 120.0
"""For all that W&B does: starting, uploading, ending."""


def mirror_evaluation(folder: RunFolder, config: Config, scores: Scores, where: Path) -> None:
    """Put an evaluation into the run's W&B run, as log.wandb says; every failure is a warning on stderr.

    Args:
        where: folder of the scores and their pictures: RUN/evaluation, RUN/evaluation/substeps-N, or
            RUN/evaluation/split-NAME, or substeps-N in that.
    """
    if config.log.wandb == "disabled":
        return
    try:
        findings = findings_of(scores, where)
        trouble = _send(folder.path, config, findings)
    except UNREADABLE as error:
        trouble = f"{type(error).__name__}: {error}"
    if trouble:
        print(
            f"WARNING: the evaluation is not in W&B: {trouble}. {where} has everything; afterwards: "
            f"python -m hpc.tracking sync {folder.path}",
            file=sys.stderr,
            flush=True,
        )


def findings_of(scores: Scores, where: Path) -> Findings:
    """What W&B gets of an evaluation.

    Raises:
        UNREADABLE: curves.npz is missing or damaged.
    """
    split = scores.protocol.get("split", "test")
    section = split if split == "test" else f"{SPLIT}{split}"
    section += f"-{where.name}" if is_at_a_step(where) else ""
    values = {f"{section}/{name}": value for name, value in _values(scores).items()}
    tables = {f"{section}/scores": _score_table(scores), f"{section}/videos": _video_table(where / CURVES)}
    pictures = {
        f"{section}/{PICTURE_NAMES.get(what, what.replace(' ', '_'))}": str(where / file)
        for what, file in scores.files.items()
        if file.endswith((".gif", ".mp4", ".png"))
    }
    return Findings(values=values, tables=tables, pictures=pictures)


def _values(scores: Scores) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in scores.table:
        name = scalar_name(line.method, line.metric)
        found[name] = line.mean
        if line.method == "best":
            found |= {f"{name}_ci95": line.half_width, f"{name}_ci95_frames": line.half_width_of_frames}
    if scores.fvd:
        found |= {"fvd": scores.fvd.mean, "fvd_ci95": scores.fvd.half_width}
    found["step"] = scores.about.get("step")
    found |= {name: scores.protocol.get(name) for name in ("num_clips", "num_frames", "substeps")}
    found["num_samples"] = scores.protocol.get("samples")
    found["s_per_video_and_sample"] = scores.cost.s_per_video_and_sample
    found |= {f"not_computed/{metric}": why for metric, why in scores.absent.items()}
    return {name: value for name, value in found.items() if value is not None}


def _score_table(scores: Scores) -> dict[str, Any]:
    """The whole table of scores, with both intervals."""
    columns = ["method", "metric", "unit", "mean", "ci95", "ci95_frames", "videos", "samples"]
    data: list[list[Any]] = [
        [
            line.method,
            line.metric,
            line.unit,
            _finite(line.mean),
            _finite(line.half_width),
            _finite(line.half_width_of_frames),
            line.videos,
            line.samples,
        ]
        for line in scores.table
    ]
    if fvd := scores.fvd:
        data.append(["single", "fvd", "", _finite(fvd.mean), _finite(fvd.half_width), None, fvd.videos, len(fvd.sets)])
    return {"columns": columns, "data": data}


def _video_table(path: Path) -> dict[str, Any]:
    """One line per test video: each method's mean over frames of each metric, and which sample was best."""
    with np.load(path, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in kept.files}
    keys = [str(key) for key in arrays.pop("keys")]
    columns: list[str] = ["video"]
    series: list[list[Any]] = [keys]
    for name, array in arrays.items():
        method, _, metric = name.partition("/")
        if array.shape[:1] != (len(keys),):
            continue
        if method == "best_sample":
            columns.append(f"{metric}: best sample")
            series.append([int(number) for number in array])
        else:
            columns.append(f"{metric}: {method}")
            with np.errstate(invalid="ignore"):
                means = array.reshape(len(keys), -1).mean(axis=1, dtype=np.float64)
            series.append([_finite(float(mean)) for mean in means])
    return {"columns": columns, "data": [list(line) for line in zip(*series, strict=True)]}


def _finite(value: float | None) -> float | None:
    """W&B's tables are JSON: a number that is none stays empty."""
    return value if value is not None and np.isfinite(value) else None


def _send(run_dir: Path, config: Config, findings: Findings) -> str:
    """Hand it to the mirror process; what went wrong, or nothing. OSError: it does not start."""
    command, environ = command_and_environ(spec_of(run_dir, config.log), EVALUATION)
    told = strict_json.dumps({"config": configs.to_dict(config), "findings": findings}) + "\n"
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(told.encode(), timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"it did not finish within {TIMEOUT_S:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    lines = output.decode(errors="replace").splitlines()
    errors = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    for line in lines:
        if not line.startswith(ERROR):
            print(line, flush=True)
    return errors[0] if errors else f"it ended with code {process.returncode}" if process.returncode else ""
