"""Model (a), encoder-ODE-decoder: equation 1 of the paper, and what its options change."""

import pytest
import torch

from tests.odevid.formula import video
from tests.odevid.models.latent_odes import enode, noise, seeds, solved


def _equation_1(model, clip):
    """One clip, one frame, one time after the other; in eval mode, so that no frame knows another."""
    config = model.config
    origin = 0 if config.start == "first" else config.nt_cond - 1
    codes = [model.encoder(frame[None])[0][0] for frame in clip]
    first = codes[origin]
    if config.order == 2:
        first = torch.cat([first, model.velocity(first)])
    first = torch.cat([first, first.new_zeros(config.augment)])
    pixel = latent = 0.0
    for number, frame in enumerate(clip):
        z = solved(model.field, first, number - origin, model)[: config.nlatent]
        shown = model.decoder(z.view(1, 1, -1), model.decoder.share(None, []))[0, 0]
        pixel = pixel + ((frame - shown) ** 2).sum()
        latent = latent + ((codes[number] - z) ** 2).sum()
    return {"loss": pixel + config.latent_weight * latent, "pixel": pixel, "latent": latent}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"start": "last", "nt_cond": 3, "latent_weight": 0.3},
        {"substeps": 2, "time_input": True, "latent_weight": 0.0},
        {"order": 2, "augment": 2, "stop_gradient": True, "architecture": "vgg", "nf": 1, "nc": 2},
    ],
    ids=["paper", "last", "substeps", "second_order"],
)
def test_the_loss_is_equation_1_written_out(changes):
    model, clips = enode(**changes).eval(), video(2, 4, changes.get("nc", 1))
    with torch.no_grad():
        observed = model.loss({"video": clips}, {})
        one, two = (_equation_1(model, clip) for clip in clips)
    for name in ("loss", "pixel", "latent"):
        assert observed[name].item() == pytest.approx((one[name] + two[name]).item() / 2, rel=1e-11)


def test_the_start_decides_which_frame_the_trajectory_leaves_from():
    clips = video(1, 4, 1)
    for changes, place in (({"start": "first"}, 0), ({"start": "last"}, 2)):
        model = enode(nt_cond=3, **changes).eval()
        states = []
        model.decoder.register_forward_pre_hook(lambda _, inputs, states=states: states.append(inputs[0]))
        model.loss({"video": clips}, {})
        code = model.encoder(clips[0, place][None])[0][0]
        torch.testing.assert_close(states[0][0, place], code, rtol=0, atol=1e-12)


def test_constant_codes_change_gradients_and_no_value():
    clips, terms, grads = video(2, 4, 1), [], []
    for stop in (False, True):
        model = enode(stop_gradient=stop).eval()
        found = model.loss({"video": clips}, {})
        found["latent"].backward()
        terms.append({name: value.item() for name, value in found.items()})
        grads.append(model.encoder.conv[0][0].weight.grad.clone())
        # the code of a frame that nothing starts from is only a target
        asked = clips.clone().requires_grad_()
        model.loss({"video": asked}, {})["latent"].backward()
        assert (asked.grad[:, 1:].abs().sum() == 0) == stop
        assert asked.grad[:, 0].abs().sum() > 0
    assert terms[0] == terms[1]
    assert not torch.allclose(*grads, rtol=1e-3)


def test_nothing_is_random():
    model = enode().eval()
    assert model.draw_noise(5, 4, torch.Generator()) == {}
    with pytest.raises(ValueError, match=r"the noise must be \{\}"):
        model.loss({"video": video(1, 4, 1)}, {"eps": torch.zeros(1, 3)})
    frames = model.predict(video(2, 1, 1), 3, n_samples=3, generator=seeds(2))
    assert torch.equal(frames[0], frames[1]) and torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("start", ["first", "last"])
def test_a_prediction_looks_at_the_one_frame_that_it_starts_from(start):
    model, context = enode(start=start, nt_cond=3).eval(), video(2, 3, 1)
    expected = model.predict(context, 2)
    for place in range(3):
        changed = context.clone()
        changed[:, place] = 0.5
        same = torch.allclose(model.predict(changed, 2), expected, rtol=0, atol=1e-12)
        assert same == (place != (0 if start == "first" else 2))


def test_any_times_of_the_given_frames_will_do_and_times_count_from_the_one_that_counts():
    model, context = enode(start="last", nt_cond=3).eval(), video(2, 3, 1)
    expected = model.predict(context, [1.5, 3])
    shifted = model.predict(context, [8.5, 10], context_times=[0.25, 3, 9])
    torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-12)


def test_one_clip_of_two_frames_trains_and_shorter_ones_are_refused():
    model = enode(torch.float32)
    terms = model.loss({"video": video(1, 2, 1).float()}, {})
    assert all(torch.isfinite(value) for value in terms.values())
    with pytest.raises(ValueError, match=r"has 1 frames; this model needs at least 2 \(model.nt_cond=1"):
        model.loss({"video": video(1, 1, 1).float()}, {})
    with pytest.raises(ValueError, match=r"has 2 frames; this model needs at least 3 \(model.nt_cond=3"):
        enode(torch.float32, nt_cond=3).loss({"video": video(1, 2, 1).float()}, noise(model, 1, 2))
