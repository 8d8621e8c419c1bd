"""SRVP on real MNIST digits at a reduced width, within a stated CPU budget, against two trivial predictors.

    python -m tests.bench.real_mnist --mnist FOLDER_WITH_IDX_GZ --out RUN_FOLDER [--digits 2 --stochastic]

Trains through `hpc/launch.py` on one CPU rank of one thread for the given minutes, evaluates 256 test videos (frames 6
to 15 from 5 given ones), and prints mean PSNR with its 95 % interval for one sample, best of 10, the last frame
repeated, and the mean frame of the training digits' videos.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from hpc.evaluation.scores import REPEAT, read_scores
from odevid.baselines import repeat_mean_frame, training_mean_frame
from odevid.metrics.interval import interval_over_videos
from odevid.metrics.psnr import psnr
from shards import open_source

ROOT = Path(__file__).resolve().parents[2]
GIVEN, FRAMES, VIDEOS = 5, 15, 256
NETWORK = ["model.nf=16", "model.nhx=64", "model.nh_inf=128", "model.nh_res=256", "model.ny=20", "model.nz=8"]
SCHEDULE = [
    "model.nt_inf=3",
    "model.nt_cond=5",
    f"data.num_frames={FRAMES}",
    "data.workers=0",
    "optimizer.lr=1e-3",
    "model.res_gain=1.0",
]


def main() -> None:
    options = _parse()
    run = options.out.resolve()
    started = time.monotonic()
    _launch("train", run, *_overrides(options))
    trained = time.monotonic()
    _launch("evaluate", run)
    print(
        f"trained {(trained - started) / 60:.1f} minutes on one thread; evaluated in {time.monotonic() - trained:.0f} s"
    )
    repeated = read_scores(run / "evaluation").score(REPEAT, "psnr")
    assert repeated is not None
    mean = _mean_frame_psnr(run)
    print(f"mean frame of the training videos: {mean} dB (PSNR), last frame repeated {repeated.mean:.2f} dB")


def _overrides(options: argparse.Namespace) -> list[str]:
    return [
        "experiment=srvp_mmnist",
        "size=demo",
        f"data.root={options.data.resolve()}",
        f"data.moving_mnist.mnist={options.mnist.resolve()}",
        f"data.moving_mnist.digits={options.digits}",
        f"data.moving_mnist.deterministic={not options.stochastic}",
        *NETWORK,
        *SCHEDULE,
        f"train.steps={options.steps}",
        f"optimizer.constant_steps={options.steps * 3 // 5}",
        f"train.max_minutes={options.minutes}",
        f"eval.test_clips={VIDEOS}",
        f"eval.test_num_frames={FRAMES}",
        f"eval.num_frames={FRAMES}",
        "eval.every=1000",
        f"eval.centroid={options.digits == 1}",
        "log.wandb=disabled",
        "train.threads=1",
        "log.every=50",
    ]


def _launch(verb: str, run: Path, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / "hpc" / "launch.py"), verb, "--ranks", "1", f"run={run}", *arguments]
    subprocess.run(command, check=True)


def _mean_frame_psnr(run: Path) -> object:
    """PSNR of the training set's mean frame as prediction of the same test frames."""
    from hpc import config as configs

    data = configs.load_file(run / "config.yaml").data
    training = open_source(data.root, "train", FRAMES).read(range(2000)).arrays["video"]
    mean_CHW = training_mean_frame([torch.from_numpy(training)])
    clips = open_source(data.root, "test", FRAMES).read(range(VIDEOS)).arrays["video"]
    video = torch.from_numpy(clips).float() / 255
    predicted = repeat_mean_frame(video[:, :GIVEN], FRAMES - GIVEN, mean_CHW)
    return interval_over_videos(psnr(predicted, video[:, GIVEN:]).mean(dim=1))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with the four idx.gz files")
    parser.add_argument("--out", type=Path, required=True, help="run folder")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the shards are built")
    parser.add_argument("--digits", type=int, default=1)
    parser.add_argument("--stochastic", action="store_true")
    parser.add_argument("--minutes", type=float, default=85.0)
    parser.add_argument("--steps", type=int, default=12_000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
