"""What the published loaders of several datasets share: which training videos become the validation set.

In: how many training videos there are, and whether some shall validate. Out: positions in their list, or the videos.
Source: SRVP's ``data/base.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

import numpy as np

Valid = Literal["published", "none"]
Video = TypeVar("Video")


def add_valid_argument(parser: argparse.ArgumentParser) -> None:
    """The option ``--valid`` of a builder."""
    valid_help = "SRVP's 5 %% of the training videos (default), or none: all of them train"
    parser.add_argument("--valid", choices=get_args(Valid), default="published", help=valid_help)


def train_and_valid(videos: Sequence[Video], valid: Valid) -> tuple[list[Video], list[Video]]:
    """The training and the validation videos; a single video trains, though by the published rule it would validate."""
    if valid == "none" or len(videos) < 2:
        return list(videos), []
    train_places, valid_places = train_valid_split(len(videos))
    return [videos[i] for i in train_places], [videos[i] for i in valid_places]


def train_valid_split(num: int) -> tuple[list[int], list[int]]:
    """SRVP's split of ``num`` training videos: numpy's legacy shuffle with seed 42, the first 95 % train.

    The code does this to every dataset; the paper mentions it only for KTH and Human3.6M. The number of training
    videos is int(0.95 num), so a single video would go to validation.

    Returns:
        Positions of the training and of the validation videos, each in rising order, as the loader keeps its list.
    """
    positions = list(range(num))
    np.random.RandomState(42).shuffle(positions)
    num_train = int(0.95 * num)
    return sorted(positions[:num_train]), sorted(positions[num_train:])
