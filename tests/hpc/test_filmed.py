"""From raw files to pictures of predictions, by the commands that a user types: build, verify, inspect, train.

Axis letters: T frames, H height, W width, C channels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.conftest import shared_data
from tests.shards.building.tfrecords import bair_features, example, write_tfrecord

pytestmark = pytest.mark.multiprocess
ROOT = Path(__file__).resolve().parents[2]


def command(*words: str) -> str:
    """Run a Python command in the repository; its output, or the test fails with it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    process = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def build(name: str, raw: Path, out: Path, *options: str) -> None:
    command("-m", "shards", "build", name, "--raw", str(raw), "--out", str(out), *options)
    assert "every bit is as it was written" in command("-m", "shards", "verify", str(out))
    assert "card:" in command("-m", "shards", "inspect", str(out))
    with Image.open(out / "card" / "mosaic.gif") as mosaic:
        assert mosaic.n_frames > 1


def train(experiment: str, data: Path, run: Path, steps: int, *options: str) -> list[float]:
    """Train and evaluate; the losses of the journal."""
    words = [f"experiment={experiment}", "size=small", f"data.root={data}", f"run={run}", f"train.steps={steps}"]
    settings = [f"eval.every={steps // 2}", "eval.clips=4", "eval.samples=2", "log.wandb=disabled", *options]
    command("hpc/launch.py", "--ranks", "1", *words, *settings)
    command("hpc/launch.py", "evaluate", str(run), "--ranks", "1", "eval.test_samples=2")
    for picture in [*(run / "pictures").iterdir(), run / "evaluation" / "samples.gif"]:
        with Image.open(picture) as gif:
            assert gif.n_frames > 1
    assert len(list((run / "pictures").iterdir())) == 2
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["scalars"]["loss"] for record in records if record["kind"] == "train"]


def write_moving_square(path: Path, number: int, num_frames: int = 30) -> None:
    """A true mpeg4 file: a bright square that moves sideways."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for t in range(num_frames):
            frame_HWC = np.full((64, 96, 3), 40, np.uint8)
            frame_HWC[20:40, (5 * t + 9 * number) % 76 :][:, :20] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("experiment", "narrow"),
    [
        ("srvp_videos", ["model.nhx=8", "model.nh_inf=8", "model.nh_res=8"]),
        pytest.param(
            "rnnode_videos", ["model.nlatent=8", "model.nh_rnn=8", "model.nh_field=8"], marks=pytest.mark.slow
        ),
    ],
)
def test_a_folder_of_videos_becomes_pictures_of_predictions_in_three_commands(
    tmp_path: Path, experiment: str, narrow: list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    for number in range(6):
        write_moving_square(tmp_path / "mine" / f"clip {number}.avi", number)
    build("videos", tmp_path / "mine", tmp_path / "data", "--size", "64", "--fps", "10", "--split", "0.6")
    few = ["model.nf=4", *narrow, "train.global_batch=4", "log.every=1"]
    losses = train(experiment, tmp_path / "data", tmp_path / "run", 4, *few)
    assert len(losses) == 4
    assert all(np.isfinite(losses))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_real_kth_clips_train_for_a_few_hundred_steps(tmp_path: Path) -> None:
    build("kth", shared_data("kth"), tmp_path / "kth")
    for experiment in ("srvp_kth", "rnnode_kth"):
        losses = train(experiment, tmp_path / "kth", tmp_path / experiment, 300)
        assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_real_bair_sequences_train_for_a_few_hundred_steps(tmp_path: Path) -> None:
    with np.load(shared_data("bair", "bair_test_8x30x64x64_palette.npz")) as stored:
        videos_THWC = [stored[name] for name in stored.files]
    zeros = np.zeros((30, 4)), np.zeros((30, 3))
    records = [example(bair_features(video_THWC, *zeros)) for video_THWC in videos_THWC]
    raw = tmp_path / "raw" / "softmotion30_44k"
    write_tfrecord(raw / "train" / "traj_0_to_5.tfrecords", records[:6])
    write_tfrecord(raw / "test" / "traj_6_to_7.tfrecords", records[6:])
    build("bair", tmp_path / "raw", tmp_path / "bair")
    losses = train("srvp_bair", tmp_path / "bair", tmp_path / "run", 300)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
