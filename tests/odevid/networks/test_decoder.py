"""Frame decoders: the arithmetic that is done once per clip changes no number and no gradient."""

import pytest
import torch
import torch.nn.functional as F

from odevid.networks import build_decoder
from odevid.networks.decoder import doubling_kernel
from tests.odevid.formula import scatter, weights

CLIPS, FRAMES, STATE, CONTENT = 2, 3, 4, 5
SKIP_SIZES = {"dcgan": (4, 8, 16, 32), "vgg": (8, 16, 32, 64)}


def _skips(architecture, nf=2):
    shapes = [
        (CLIPS, 2**depth * nf, size, size) for depth, size in zip((3, 2, 1, 0), SKIP_SIZES[architecture], strict=True)
    ]
    return [scatter(shape, key).requires_grad_() for key, shape in enumerate(shapes)]


def _run(architecture, *, split, with_skips, with_content):
    size = STATE + CONTENT * with_content
    decoder = build_decoder(architecture, nc=3, nf=2, size=size, skips=with_skips, split=split).double()
    decoder.load_state_dict(weights({name: tuple(value.shape) for name, value in decoder.state_dict().items()}))
    states = scatter((CLIPS, FRAMES, STATE), 10).requires_grad_()
    content = scatter((CLIPS, CONTENT), 11).requires_grad_() if with_content else None
    skips = _skips(architecture) if with_skips else []
    frames = decoder(states, decoder.share(content, skips))
    inputs = [states, *skips, *([content] if with_content else []), *decoder.parameters()]
    (frames * scatter(tuple(frames.shape), 12)).sum().backward()
    return frames.detach(), [value.grad for value in inputs]


@pytest.mark.parametrize("architecture", ["dcgan", "vgg"])
@pytest.mark.parametrize("with_skips", [True, False])
@pytest.mark.parametrize("with_content", [True, False])
def test_splitting_clip_from_frame_changes_neither_frames_nor_gradients(architecture, with_skips, with_content):
    options = {"with_skips": with_skips, "with_content": with_content}
    frames, gradients = _run(architecture, split=True, **options)
    expected, expected_gradients = _run(architecture, split=False, **options)
    assert frames.shape == (CLIPS, FRAMES, 3, 64, 64)
    torch.testing.assert_close(frames, expected, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_doubling_kernel_is_nearest_neighbour_doubling_then_a_3x3_convolution():
    images, kernel = scatter((2, 3, 5, 4), 1), scatter((6, 3, 3, 3), 2)
    expected = F.conv2d(F.interpolate(images, scale_factor=2.0, mode="nearest"), kernel, padding=1)
    observed = F.conv_transpose2d(images, doubling_kernel(kernel), stride=2, padding=1)
    torch.testing.assert_close(observed, expected, rtol=1e-12, atol=1e-12)


def test_as_many_skips_as_stages_are_wanted():
    decoder = build_decoder("vgg", nc=1, nf=2, size=STATE, skips=True, split=True).double()
    with pytest.raises(ValueError, match="zip"):
        decoder.share(None, _skips("vgg")[:2])
