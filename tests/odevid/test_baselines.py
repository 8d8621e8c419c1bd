"""Baselines do what they say on motions that are known exactly."""

from __future__ import annotations

import pytest
import torch

from odevid.baselines import (
    constant_velocity,
    extrapolate_centroid,
    repeat_last_frame,
    repeat_mean_frame,
    training_mean_frame,
)

N_FUTURE = 4


def flight(velocity: tuple[int, int], frames: int) -> torch.Tensor:
    """One textured 5x5 object that flies from (20, 20) without touching a wall: BTCHW, B = 1."""
    texture = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    video = torch.zeros(1, frames, 1, 64, 64)
    for t in range(frames):
        row, column = 20 + t * velocity[0], 20 + t * velocity[1]
        video[0, t, 0, row : row + 5, column : column + 5] = texture
    return video


def test_last_frame_is_repeated():
    video = torch.rand(2, 3, 1, 8, 8)
    future = repeat_last_frame(video, N_FUTURE)
    assert future.shape == (2, N_FUTURE, 1, 8, 8)
    assert all(torch.equal(future[:, t], video[:, -1]) for t in range(N_FUTURE))


@pytest.mark.parametrize("velocity", [(0, 0), (3, -2), (-2, 4)])
def test_free_flight_is_predicted_exactly(velocity):
    video = flight(velocity, 3 + N_FUTURE)
    torch.testing.assert_close(constant_velocity(video[:, :3], N_FUTURE), video[:, 3:], atol=1e-4, rtol=0)


def test_half_a_pixel_is_split_between_two():
    video = torch.zeros(1, 2, 1, 8, 8)
    video[0, 0, 0, 3, 3:5] = 0.5  # centroid column 3.5, then 4
    video[0, 1, 0, 3, 4] = 1
    torch.testing.assert_close(constant_velocity(video, 1)[0, 0, 0, 3], torch.tensor([0, 0, 0, 0, 0.5, 0.5, 0, 0]))


def test_what_leaves_the_picture_is_lost_and_nothing_is_reflected():
    future = constant_velocity(flight((4, 0), 10), 10)
    assert future[0, 0].sum() > 1
    assert future[0, -1].abs().max() == 0


def test_centroid_moves_on_at_constant_velocity():
    video = flight((3, -2), 2)
    start = extrapolate_centroid(video, N_FUTURE)
    steps = torch.arange(N_FUTURE)[:, None] * torch.tensor([3.0, -2.0])
    torch.testing.assert_close(start, start[:, :1] + steps, atol=1e-4, rtol=0)


def test_velocity_of_an_object_that_just_appeared_is_zero():
    video = flight((3, 3), 2)
    video[:, 0] = 0
    torch.testing.assert_close(constant_velocity(video, 2), repeat_last_frame(video, 2))


def test_one_conditioning_frame_has_no_velocity():
    with pytest.raises(ValueError, match="at least 2 conditioning frames"):
        constant_velocity(torch.rand(1, 1, 1, 8, 8), 1)


def test_mean_frame_is_over_all_videos_and_frames_of_unequal_batches():
    first = torch.rand(3, 4, 2, 8, 8)
    second = torch.rand(1, 4, 2, 8, 8)
    mean = training_mean_frame([first, second])
    torch.testing.assert_close(mean, torch.cat((first, second)).mean((0, 1)))
    assert torch.equal(repeat_mean_frame(first, 2, mean), mean.expand(3, 2, 2, 8, 8))


def test_mean_frame_of_bytes_is_in_unit_range():
    assert training_mean_frame([torch.full((1, 1, 1, 2, 2), 255, dtype=torch.uint8)]).tolist() == [[[1, 1], [1, 1]]]


def test_mean_frame_of_nothing_or_of_other_shape_is_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        training_mean_frame([])
    with pytest.raises(ValueError, match="mean frame has shape"):
        repeat_mean_frame(torch.rand(1, 2, 3, 8, 8), 2, torch.rand(1, 8, 8))
