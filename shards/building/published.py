"""What the published loaders of several datasets share: which training videos become the validation set.

In: how many training videos there are. Out: positions in their list. Source: SRVP's ``data/base.py``.
"""

from __future__ import annotations

import numpy as np


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
