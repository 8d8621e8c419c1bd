"""SRVP's validation split, draw for draw."""

from __future__ import annotations

import pytest

from shards.building.published import train_valid_split

# What SRVP's own data/base.py gives for a list of positions, run with numpy 2.4.
VALID = {
    20: [6],
    40: [28, 38],
    479: [
        *(20, 71, 87, 99, 102, 106, 121, 130, 149, 151, 188, 214),
        *(257, 270, 308, 330, 343, 348, 359, 372, 435, 458, 466, 478),
    ],
}


@pytest.mark.parametrize("num", VALID)
def test_validation_videos_are_those_of_the_published_code(num):
    train, valid = train_valid_split(num)
    assert valid == VALID[num]
    assert train == [position for position in range(num) if position not in VALID[num]]


@pytest.mark.parametrize(("num", "num_train"), [(2, 1), (3, 2), (100, 95), (479, 455), (43264, 41100)])
def test_the_number_of_training_videos_is_rounded_down(num, num_train):
    train, valid = train_valid_split(num)
    assert (len(train), len(valid)) == (num_train, num - num_train)
    assert sorted(train + valid) == list(range(num))
