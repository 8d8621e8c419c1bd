"""The moves of a known digit: where it is found, and how moves are counted and compared.

Legend: N samples, T frames, H rows, W columns; 2 (row, column).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from odevid.pictures.motion import MotionExample, save_motion
from odevid.studies.motion import Moves, count_moves, find_digit, total_variation
from shards.digits import load_digit_banks, sklearn_banks
from shards.moving_mnist import MotionRules, generate_clips
from tests.conftest import shared_data


def clips_of(bank, deterministic: bool, count: int = 24, frames: int = 20):
    """Clips (float, BTHW), the corners at which the generator drew, and each clip's digit."""
    from shards.moving_mnist import draw_digits

    rules = MotionRules(digits=1, deterministic=deterministic)
    clips = generate_clips(bank, rules, frames, np.arange(count), 3)
    digits = bank.images_NHW[draw_digits(3, np.arange(count), 1, len(bank))[:, 0]]
    video = torch.from_numpy(clips.video_BTHW).float() / 255
    return video, torch.from_numpy(clips.latents_BTD4[:, :, 0, :2]), torch.from_numpy(digits).float()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_on_true_frames_every_corner_is_the_generators(deterministic: bool, real: bool) -> None:
    bank = load_digit_banks(shared_data("mnist"))["test"] if real else sklearn_banks()["test"]
    video_BTHW, corners_BT2, digits_BHW = clips_of(bank, deterministic)
    for video_THW, corners_T2, digit_HW in zip(video_BTHW, corners_BT2, digits_BHW, strict=True):
        found = find_digit(video_THW[None], digit_HW)
        assert torch.equal(found.corner_NT2[0], corners_T2)
        assert torch.allclose(found.match_NT, torch.ones(()), atol=1e-5)


def test_blur_dimness_and_noise_move_no_corner_by_more_than_a_pixel() -> None:
    video_BTHW, corners_BT2, digits_BHW = clips_of(sklearn_banks()["test"], False)
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    kernel = (kernel[:, None] * kernel / 256)[None, None]
    noise = torch.Generator().manual_seed(0)
    off = []
    for video_THW, corners_T2, digit_HW in zip(video_BTHW, corners_BT2, digits_BHW, strict=True):
        blurred = video_THW[:, None]
        for _ in range(3):
            blurred = torch.nn.functional.conv2d(blurred, kernel, padding=2)
        seen = 0.4 * blurred + 0.03 * torch.rand(blurred.shape, generator=noise)
        found = find_digit(seen.transpose(0, 1), digit_HW)
        off.append((found.corner_NT2[0] - corners_T2).abs().max())
        assert (found.match_NT > 0.5).all()
        assert (found.match_NT < 0.99).all()
    assert max(off) <= 1


def test_it_is_the_place_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    frame_HW, digit_hw = torch.rand(20, 24, generator=generator), torch.rand(7, 5, generator=generator)
    errors = torch.empty(14, 20)
    for row in range(14):
        for column in range(20):
            laid = torch.zeros(20, 24)
            laid[row : row + 7, column : column + 5] = digit_hw
            errors[row, column] = (frame_HW - laid).square().sum()
    wanted = divmod(int(errors.argmin()), 20)
    assert tuple(find_digit(frame_HW[None, None], digit_hw).corner_NT2[0, 0].tolist()) == wanted


def test_moves_are_counted_by_step_and_those_beyond_apart() -> None:
    corners_NT2 = np.array([[[0, 0], [1, 2], [1, 2]], [[5, 5], [6, 7], [9, 7]], [[9, 9], [8, 9], [8, 8]]])
    moves = count_moves(corners_NT2, 2)
    wanted = np.zeros((2, 5, 5))
    wanted[0, 2 + 1, 2 + 2] = 2 / 3  # dy 1, dx 2
    wanted[0, 2 - 1, 2] = 1 / 3
    wanted[1, 2, 2] = wanted[1, 2, 1] = 1 / 3
    assert np.allclose(moves.share_TYX, wanted)
    assert np.allclose(moves.beyond_T, [0, 1 / 3])
    assert moves.reach == 2
    assert np.allclose(moves.mean_T2, [[1 / 3, 4 / 3], [1, -1 / 3]])
    assert np.allclose(moves.spread_T**2, [(8 + 8 + 32) / 9 / 3, (10 + 37 + 13) / 9 / 3])


def test_total_variation_of_distributions_known_by_hand() -> None:
    def of(*shares: float) -> Moves:
        share = np.zeros((1, 3, 3))
        share.flat[: len(shares) - 1] = shares[:-1]
        return Moves(share, np.array([shares[-1]]), np.zeros((1, 2)), np.zeros(1))

    assert total_variation(of(0.5, 0.5, 0), of(0.5, 0.5, 0)).tolist() == [0]
    assert total_variation(of(1, 0, 0), of(0, 1, 0)).tolist() == [1]
    assert total_variation(of(0.5, 0.5, 0), of(0.25, 0.25, 0.5)).tolist() == [0.5]
    with pytest.raises(ValueError, match="expected the same"):
        total_variation(of(1, 0), Moves(np.zeros((2, 3, 3)), np.zeros(2), np.zeros((2, 2)), np.zeros(2)))


def test_what_has_no_digit_or_no_move_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to look for"):
        find_digit(torch.zeros(1, 1, 8, 8), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="a smaller digit"):
        find_digit(torch.zeros(1, 1, 8, 8), torch.ones(9, 4))
    with pytest.raises(ValueError, match="have no move"):
        count_moves(np.zeros((3, 1, 2), np.int64), 4)
    with pytest.raises(ValueError, match="expected integers"):
        count_moves(np.zeros((3, 2, 2)), 4)


def test_the_picture_has_a_panel_for_every_shown_step(tmp_path: Path) -> None:
    steps = 6
    one = np.zeros((steps, 5, 5))
    one[:, 4, 0] = 1
    example = MotionExample("start", one, one[2:], np.linspace(0, 1, steps))
    save_motion(tmp_path / "few.png", [example], num_given=3)
    save_motion(tmp_path / "two.png", [example, example], num_given=3)
    with Image.open(tmp_path / "few.png") as few, Image.open(tmp_path / "two.png") as two:
        assert two.height > few.height + 60
        pixels = np.array(few.convert("RGB")).astype(int)
    red, slate, green = (214, 48, 49), (84, 96, 112), (26, 147, 67)
    for colour in (red, slate, green):
        assert (np.abs(pixels - colour).sum(axis=-1) < 12).sum() > 100
    with pytest.raises(ValueError, match="4 predicted steps"):
        save_motion(tmp_path / "no.png", [MotionExample("", one, one[1:], np.zeros(steps))], num_given=3)
    with pytest.raises(ValueError, match="no example"):
        save_motion(tmp_path / "no.png", [], num_given=3)
