"""Resizing gives TensorFlow 1's values, derived by hand from its rule: pixel i lies at i * given / wanted."""

from __future__ import annotations

import pytest
import torch

from odevid.metrics.tf1_resize import resize_bilinear_tf1


def test_of_2x2_to_4x4():
    """Positions 0, 1/2, 1, 3/2: the last pixel is repeated, nothing is centred."""
    frames = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    expected = [[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]]
    assert resize_bilinear_tf1(frames, 4, 4).tolist() == expected


def test_of_3x3_to_2x2_does_not_antialias():
    """Positions 0 and 3/2."""
    frames = torch.arange(9.0).reshape(3, 3)
    assert resize_bilinear_tf1(frames, 2, 2).tolist() == [[0, 1.5], [4.5, 6]]


def test_of_64_to_224_pixels_has_steps_of_two_sevenths_and_a_flat_end():
    columns = torch.arange(64.0).expand(64, 64)
    resized = resize_bilinear_tf1(columns, 224, 224)
    expected = (torch.arange(224.0) * 2 / 7).clamp(max=63)
    torch.testing.assert_close(resized, expected.expand(224, 224))
    assert resized[0, -4:].tolist() == pytest.approx([63 - 1 / 7, 63, 63, 63], abs=1e-5)
    torch.testing.assert_close(resize_bilinear_tf1(columns.T, 224, 224), expected.expand(224, 224).T)


def test_of_an_impulse_gives_the_weights_of_its_neighbours():
    """Pixel 1 of 64 has weight 1 - |2 i / 7 - 1| at i = 1 ... 6."""
    row = torch.zeros(1, 64)
    row[0, 1] = 1
    weights = resize_bilinear_tf1(row, 1, 224)[0]
    assert weights[:8].tolist() == pytest.approx([0, 2 / 7, 4 / 7, 6 / 7, 6 / 7, 4 / 7, 2 / 7, 0], abs=1e-6)
    assert not weights[8:].any()


def test_keeps_leading_axes_dtype_and_frames_that_have_the_size():
    frames = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    assert torch.equal(resize_bilinear_tf1(frames, 5, 7), frames)
    assert resize_bilinear_tf1(frames, 10, 3).shape == (2, 3, 10, 3)
    torch.testing.assert_close(resize_bilinear_tf1(frames, 10, 3)[1, 2], resize_bilinear_tf1(frames[1, 2], 10, 3))


def test_refuses_integers_and_empty_sizes():
    with pytest.raises(TypeError, match="uint8"):
        resize_bilinear_tf1(torch.zeros(4, 4, dtype=torch.uint8), 8, 8)
    with pytest.raises(ValueError, match="0x8"):
        resize_bilinear_tf1(torch.zeros(4, 4), 0, 8)
