"""Drawing digits onto frames."""

from __future__ import annotations

import numpy as np
import pytest

from shards.sprites import draw_sprites


def test_videos_equal_sums_in_floating_point_cut_at_255():
    random = np.random.RandomState(1)
    sprites = random.randint(0, 256, (3, 4, 5, 7)).astype(np.uint8)  # 3 videos of 4 pictures, 5 rows and 7 columns
    corners = np.stack([random.randint(0, 16, (3, 6, 4)), random.randint(0, 14, (3, 6, 4))], axis=-1)
    corners[0, 0], corners[0, 1] = 0, (15, 13)  # in the frame's first and last corner
    expected = np.zeros((3, 6, 20, 20), dtype=np.float32)
    for video, frame, sprite in np.ndindex(3, 6, 4):
        row, column = corners[video, frame, sprite]
        expected[video, frame, row : row + 5, column : column + 7] += sprites[video, sprite]
    found = draw_sprites(sprites, corners, 20)
    assert found.dtype == np.uint8
    assert expected.max() > 255
    np.testing.assert_array_equal(found, np.minimum(expected, 255).astype(np.uint8))


@pytest.mark.parametrize("corner", [(-1, 0), (0, 37)])
def test_a_picture_beyond_the_frame_is_an_error(corner):
    with pytest.raises(ValueError, match="36"):
        draw_sprites(np.ones((1, 1, 28, 28), np.uint8), np.array(corner).reshape(1, 1, 1, 2), 64)
