"""The published test set, pinned to the output of the published script.

The digests were taken from the arrays that SRVP's own ``make_test_set.py`` wrote (seed 42), run on the original MNIST
files with numpy 2.4: ``latents`` as little-endian int64 and ``sequences``, video after video.
"""

from __future__ import annotations

import hashlib
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from shards.digits import DigitBank, mnist_banks
from shards.mmnist_test_set import published_motions, published_videos

SHARED = Path(os.environ.get("ODEVID_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="needs the real MNIST files (shared data)")

LATENTS = {
    (2, 25, False): "40d0966993b3fb0d7132ba23b6abaf8b73749ee7199a70c0bf49cda1ed8695fe",
    (1, 25, False): "20a87323bef7666f7a3cb7f571096b3888c9924cefc51b4977f1e5b437b6eef0",
    (2, 100, True): "e9463f8c4930d90891173d2f7de23b596fc2249367acf6f999b6368f512811f9",
    (1, 100, True): "e5b9672328702c8ba0b9f52a22520d0392e8797466cb7d7ff0ae4b8c6722ef35",
}
FIRST_50_VIDEOS = {
    (2, 25, False): "90c3da635da77ec595d797ab4fd9cd4abc3b1ea2a6bc7370d48df711489151ea",
    (1, 25, False): "289aa3830d2c00b5bc9af6a1dddfe3fa0bf701f1d54cfca31f5804aad29e1753",
    (2, 100, True): "9a512a6d3ec2ff171f35f4a578b4eb7e5087cb792071d9e9461eb43489e9398d",
    (1, 100, True): "c390556ba1744d3299b9bdaf316ca8ccaf7f39821ffb00447ea0055bc32c8249",
}
ALL_VIDEOS = {
    (2, 25, False): "6d9c8c1f209d03b8595e5867961a3ae60cab3904d43a35384d1365a22e8a78d7",
    (1, 25, False): "2c48a307a4c7c85e24420c63e420373b19e81e8c84f32088fe44850853c6d32e",
    (2, 100, True): "90d66e739dac8a5d73251978250b1e97061910b346f2ae038e92af341f70cf0c",
    (1, 100, True): "c777c9356f9b9afec6be200b2c632aba5cef8ee57d3839300c9428a97c764b4f",
}
LABELS = "7e387e07d121771f53e67d5d38994eca7c4f1692cf4124f8edd55ea088e81daf"

games = pytest.mark.parametrize("game", LATENTS, ids=lambda game: f"{game[0]}x{game[1]}-{'det' if game[2] else 'sto'}")


@games
def test_motion_is_that_of_the_published_script(game):
    digits, num_frames, deterministic = game
    digest, count = hashlib.sha256(), 0
    for motion in published_motions(10_000, num_frames, digits, 36, 4, deterministic):
        digest.update(motion.latents_TD4.astype("<i8").tobytes())
        count += 1
    assert count == 10_000 // digits
    assert digest.hexdigest() == LATENTS[game]


def test_first_and_last_states_of_the_published_stochastic_set():
    motions = list(published_motions(10_000, 25, 2, 36, 4, False))
    assert motions[0].latents_TD4[0].tolist() == [[13, 6, -1, -3], [14, 25, -4, 3]]
    assert motions[0].latents_TD4[-1].tolist() == [[22, 27, -1, 2], [0, 36, 1, -4]]
    assert motions[-1].latents_TD4[-1].tolist() == [[32, 1, 0, 0], [27, 32, 4, 3]]


def test_each_digit_is_used_once():
    used = np.concatenate([motion.digits_D for motion in published_motions(301, 2, 2, 36, 4, True)])
    assert used.size == np.unique(used).size == 300


@needs_mnist
@games
def test_first_videos_are_those_of_the_published_script(game):
    digits, num_frames, deterministic = game
    videos = published_videos(mnist_banks(SHARED / "mnist")["test"], num_frames, digits, deterministic=deterministic)
    digest = hashlib.sha256()
    for video in islice(videos, 50):
        digest.update(video.video_THW.tobytes())
    assert digest.hexdigest() == FIRST_50_VIDEOS[game]


@needs_mnist
@pytest.mark.slow
@games
def test_all_videos_are_those_of_the_published_script(game):
    digits, num_frames, deterministic = game
    videos = published_videos(mnist_banks(SHARED / "mnist")["test"], num_frames, digits, deterministic=deterministic)
    pixels, labels = hashlib.sha256(), hashlib.sha256()
    for video in videos:
        pixels.update(video.video_THW.tobytes())
        labels.update(video.labels_D.tobytes())
    assert (pixels.hexdigest(), labels.hexdigest()) == (ALL_VIDEOS[game], LABELS)


def test_a_smaller_bank_gives_a_smaller_set_of_the_same_construction():
    images = np.arange(7 * 784).reshape(7, 28, 28) % 251 + 1
    bank = DigitBank(images.astype(np.uint8), np.arange(7, dtype=np.uint8), "sklearn-digits")
    videos = list(published_videos(bank, 5, 2, deterministic=False))
    assert len(videos) == 3
    order = np.random.RandomState(42).permutation(7)
    assert [label for video in videos for label in video.labels_D] == order[:6].tolist()
    row, column = videos[1].latents_TD4[4, 0, :2]
    shown = videos[1].video_THW[4, row : row + 28, column : column + 28]
    assert (shown >= images[order[2]]).all()
