"""Content swap: each motion keeps its states, each content its w and skips; with its own it is the plain prediction."""

import pytest
import torch

from odevid.studies.swap import swap_content
from tests.odevid.formula import video
from tests.odevid.studies.conftest import CLIPS, CONTEXT, seeds

TIMES = [0, 1, 4, 5, 6]


@pytest.fixture(scope="module")
def swapped(vgg, context):
    return swap_content(vgg, context, TIMES, generator=seeds())


def test_a_clip_with_its_own_content_is_the_plain_prediction(vgg, context, swapped):
    plain_BTCHW = vgg.predict(context, TIMES, generator=seeds())[0]
    for clip in range(CLIPS):
        torch.testing.assert_close(swapped[clip, clip], plain_BTCHW[clip], rtol=0, atol=1e-12)


def test_every_other_pair_differs_from_both_its_clips(swapped):
    assert swapped.shape == (CLIPS, CLIPS, len(TIMES), 3, 64, 64)
    for motion in range(CLIPS):
        for content in set(range(CLIPS)) - {motion}:
            assert not torch.allclose(swapped[motion, content], swapped[motion, motion], atol=1e-6)
            assert not torch.allclose(swapped[motion, content], swapped[content, content], atol=1e-6)


def test_a_column_is_decoded_with_the_w_and_the_skips_of_its_clip_alone(vgg, context, swapped):
    alone = vgg.infer(context[2:], n_future=3, generator=seeds(1))
    states_1MTD = vgg.trajectory(vgg.infer(context, n_future=3, generator=seeds()), TIMES)
    shared = vgg.decoder.share(alone.content["w"], [alone.content[f"skip_{depth}"] for depth in range(4)])
    with torch.no_grad():
        expected = vgg.decoder(states_1MTD[0, :1], shared)[0]
    torch.testing.assert_close(swapped[0, 2], expected, rtol=0, atol=1e-12)


def test_a_model_without_content_is_refused(bare):
    with pytest.raises(ValueError, match="no content to exchange"):
        swap_content(bare, video(2, CONTEXT, 1), TIMES)
