"""Interpolation: initial states on a straight line, the ends are the clips' own roll-outs, the noise is the same."""

import pytest
import torch

from odevid.studies.interpolation import interpolate
from tests.odevid.formula import tiny, video
from tests.odevid.studies.conftest import CONTEXT, build

TIMES, WEIGHTS = [0, 1, 3, 6], (0.0, 0.25, 0.5, 1.0)


@pytest.fixture(scope="module")
def found(vgg, context):
    return interpolate(vgg, context[:2], WEIGHTS, TIMES, seed=5)


@pytest.mark.parametrize(("place", "clip"), [(0, 0), (-1, 1)])
def test_the_ends_are_the_roll_outs_of_the_two_clips(vgg, context, found, place, clip):
    noise = [torch.Generator().manual_seed(5)]
    latent = vgg.infer(context[clip : clip + 1], n_future=3, generator=noise)
    states = vgg.trajectory(latent, TIMES, free=True)
    torch.testing.assert_close(found.states_WTD[place], states[0, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(found.frames_WTCHW[place], vgg.decode(states, latent.content)[0, 0], rtol=0, atol=1e-12)


def test_initial_states_lie_on_the_straight_line_between(found):
    first, last = found.states_WTD[0, 0], found.states_WTD[-1, 0]
    for weight, states_TD in zip(WEIGHTS, found.states_WTD, strict=True):
        torch.testing.assert_close(states_TD[0], first + weight * (last - first), rtol=0, atol=1e-12)
    assert not torch.allclose(first, last, atol=1e-3)


def test_two_equal_clips_give_equal_roll_outs_at_every_weight(vgg, context):
    same = interpolate(vgg, context[[1, 1]], WEIGHTS, TIMES).frames_WTCHW
    torch.testing.assert_close(same, same[:1].expand_as(same), rtol=0, atol=1e-12)


def test_it_needs_no_content_and_no_noise():
    model = build(tiny(content_variable=False, nz=0))
    found = interpolate(model, video(2, CONTEXT, 1), WEIGHTS, TIMES)
    assert found.frames_WTCHW.shape == (len(WEIGHTS), len(TIMES), 1, 64, 64)


def test_one_clip_or_three_are_refused(vgg, context):
    with pytest.raises(ValueError, match="expected TCHW of two clips"):
        interpolate(vgg, context, WEIGHTS, TIMES)
