"""Operators between frames and clips: torch's numbers and gradients, in the channels-last layout."""

import torch

from odevid.networks.clips import add_per_clip, pick_frames
from tests.odevid.formula import scatter


def _frames():
    return scatter((6, 3, 4, 4), 1).contiguous(memory_format=torch.channels_last).requires_grad_()


def test_adding_per_clip_adds_each_clip_to_its_own_frames():
    frames, clips = _frames(), scatter((2, 3, 4, 4), 2)
    added = add_per_clip(frames * 1, clips)
    torch.testing.assert_close(added, frames + clips.repeat_interleave(3, dim=0))


def test_adding_per_clip_has_the_right_gradients():
    clips = scatter((2, 3, 4, 4), 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda frames, added: add_per_clip(frames * 1, added), (_frames(), clips))


def test_picking_frames_is_indexing_and_has_the_right_gradients():
    index = torch.tensor([2, 3])
    torch.testing.assert_close(pick_frames(_frames(), index), _frames()[index])
    assert torch.autograd.gradcheck(lambda frames: pick_frames(frames, index), (_frames(),))


def test_gradients_of_picked_frames_stay_channels_last():
    frames = _frames()
    (gradient,) = torch.autograd.grad(pick_frames(frames, torch.tensor([0, 5])).sum(), frames)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
