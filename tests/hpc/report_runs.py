"""Run folders made by hand for the tests of the report: config, journal, attempts, scores, pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

from hpc import config as configs
from hpc.evaluation.scores import Cost, CurveScores, FvdScores, Score, Scores
from hpc.jobs.attempts import Attempt, Submission, note_end, note_start, note_submission, note_training
from hpc.run_folder import RunFolder
from hpc.tracking.journal import Journal

HOUR = 3600.0
BEGAN = 1.7e9
"""When the first attempt starts; the second does three hours later."""


def new_run(path: Path, experiment: str = "srvp_kth", size: str = "", *overrides: str) -> RunFolder:
    """A folder with a configuration and nothing else."""
    folder = RunFolder(path)
    folder.create()
    configs.save(configs.load(experiment, size, overrides=list(overrides)), folder.config)
    return folder


def train_line(journal: Journal, step: int, **scalars: float) -> None:
    journal.append("train", step, {"scalars": {"loss": 1000.0 / step, "lr": 1e-3, "frames_per_s": 50.0, **scalars}})


def add_training(folder: RunFolder) -> None:
    """Killed after 30 steps, continued at 20 on two ranks, finished at 40; a NaN and an infinity on the way."""
    about = {"code": "0.1.0+abc1234", "plan": "global batch 4"}
    first = Journal(folder.path, 1)
    first.append("start", 0, {"about": about, "config": {}})
    versions = {"torch": "2.13.0", "deepspeed": "0.19", "python": "3.11"}
    first.append("event", 0, {"name": "preflight", "details": {"devices": ["NVIDIA H200"], "versions": versions}})
    for step in range(1, 31):
        train_line(first, step, loss=-7.0 if step > 20 else 1000.0 / step)
    second = Journal(folder.path, 2)
    second.resume(20)
    second.append("start", 20, {"about": about, "config": {}})
    for step in range(21, 41):
        train_line(second, step, nll=math.nan if step == 25 else math.inf if step == 26 else 3.0)
    second.append("eval", 40, {"scalars": {"psnr": 21.5, "ssim": 0.75, "psnr_repeat_last": 18.0}})
    first.close()
    second.close()
    journal = folder.path / "metrics.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        line["time"] = BEGAN + 3 * HOUR * (line["attempt"] - 1) + 10 * line["step"]
    journal.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))


def add_attempts(folder: RunFolder) -> None:
    """Two hours on one rank, ended by a save, then half an hour on four."""
    began = BEGAN
    note_submission(folder.path, Submission(began, "train", "77", 2, 4, "", str(folder.code / "abc")))
    note_start(folder.path, Attempt(1, "train", began, "77", 0, ["n1"], 1, None))
    note_training(folder.path, 1, 0)
    note_end(folder.path, 1, 20, "preempt")
    note_start(folder.path, Attempt(2, "train", began + 3 * HOUR, "77", 1, ["n1", "n2"], 4, 20))
    note_training(folder.path, 2, 20)
    note_end(folder.path, 2, 40, "finished")
    lines = (folder.path / "attempts.jsonl").read_text()
    for number, then in ((1, began + 2 * HOUR), (2, began + 3.5 * HOUR)):
        lines = _at(lines, number, "ended_time", then)
        lines = _at(lines, number, "training_time", then - HOUR / 4)
    (folder.path / "attempts.jsonl").write_text(lines)


def _at(lines: str, number: int, name: str, then: float) -> str:
    """Put a time of our own into the event of an attempt."""
    kept = []
    for line in lines.splitlines():
        if f'"number": {number},' in line and f'"{name}": ' in line:
            head, _, rest = line.partition(f'"{name}": ')
            line = f'{head}"{name}": {then}, {rest.partition(", ")[2]}'
        kept.append(line)
    return "\n".join(kept) + "\n"


def scores_of(samples: int = 100, substeps: int | None = None, psnr: float = 27.125, **changed: object) -> Scores:
    """As of KTH: PSNR and SSIM of the model and a baseline, FVD of too few videos, LPIPS absent."""
    table = [
        Score("best", "psnr", "dB", psnr, 0.25, 0.75, 8, samples),
        Score("best", "ssim", "", 0.8125, 0.0125, 0.03125, 8, samples),
        Score("single", "psnr", "dB", 25.5, 0.5, 1.0, 8, samples),
        Score("repeat_last", "psnr", "dB", math.inf, math.nan, None, 8, 1),
        Score("single", "centroid", "px", 3.5, None, None, 8, samples),
    ]
    curves = [
        CurveScores("best", "psnr", 11, [28.0, 27.0, 26.0], [0.5, 0.5, 0.75]),
        CurveScores("single", "psnr", 11, [27.0, 25.0, 24.0], [0.5, 0.5, 0.75]),
        CurveScores("repeat_last", "psnr", 11, [26.0, 22.0, 20.0], [0.5, 0.5, 0.75]),
        CurveScores("best", "ssim", 11, [0.9, 0.8, 0.7], [0.01, 0.01, 0.01]),
    ]
    kept = {
        "about": {"step": 40, "date": "2026-11-21", "code": "0.1.0+abc1234"},
        "protocol": {
            "num_clips": 8,
            "clips_of_split": 1000,
            "num_context": 10,
            "num_frames": 40,
            "samples": samples,
            "substeps": substeps,
        },
        "table": table,
        "curves": curves,
        "cost": Cost(rank_s=80.0, cpu_s=70.0, ranks=2, device="NVIDIA H200", scored=8 * samples),
        "fvd": FvdScores(412.5, 6.5, [410.0, 415.0], 8, 400),
        "absent": {"lpips": "no weights in /w: put alex.pth there"},
        "files": {"GIF": "samples.gif", "strip": "samples.png", "psnr curve": "psnr.png", "MP4": "samples.mp4"},
        **changed,
    }
    return Scores(**kept)  # type: ignore[arg-type]


def add_evaluation(folder: RunFolder, scores: Scores | None = None, name: str = "") -> Path:
    where = folder.evaluation / name
    where.mkdir(parents=True, exist_ok=True)
    frames = [Image.fromarray(np.full((24, 36), shade, np.uint8)) for shade in (0, 255)]
    frames[0].save(where / "samples.gif", save_all=True, append_images=frames[1:], duration=100, loop=0)
    frames[0].save(where / "samples.png")
    (scores or scores_of()).save(where, {"keys": np.array(["a"])})
    return where
