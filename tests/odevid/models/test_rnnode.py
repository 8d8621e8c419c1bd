"""Model (b), RNN-encoder-ODE-decoder: its bound, which frames it sees and which it explains, its randomness."""

from itertools import combinations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.odevid.formula import video
from tests.odevid.models.latent_odes import noise, rnnode, seeds, solved

FRAMES = 6

VARIANTS = {
    "paper": {},
    "last": {"start": "last", "obs_scale": 0.4, "beta": 3.0},
    "predict": {"objective": "predict", "substeps": 2, "ncontent": 2},
    "both": {"objective": "both", "ncontent": 2, "content_in_field": True, "time_input": True},
    "irregular": {"objective": "both", "nt_obs": 2, "nt_target": 3},
    "irregular_last": {"objective": "predict", "nt_obs": 3, "nt_target": 1, "start": "last"},
    "second_order": {"order": 2, "augment": 1, "ncontent": 2, "content_in_field": True},
}


def _frames(changes):
    return FRAMES if changes.get("objective") in ("predict", "both") else 4


def _posterior(model, clip, shown):
    """q(z_0) and the content: the GRU as cells, one frame after the other, the frame of the start last."""
    config = model.config
    cell = torch.nn.GRUCell(model.rnn.input_size, config.nh_rnn).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.rnn.state_dict().items()})
    hidden, before, codes = torch.zeros(1, config.nh_rnn, dtype=torch.float64), None, []
    for frame in reversed(shown) if config.start == "first" else shown:
        code = model.encoder(clip[frame][None])[0]
        gap = torch.full((1, 1), 0.0 if before is None else abs(frame - before), dtype=torch.float64)
        hidden = cell(torch.cat([code, gap], dim=1) if config.nt_obs else code, hidden)
        before = frame
        codes.append(code)
    mean, spread = model.q_z(hidden)[0].chunk(2)
    content = model.content(sum(codes) / len(codes)) if config.ncontent else None
    return Normal(mean, torch.nn.functional.softplus(spread) + 1e-8), content


def _equation_2(model, clip, drawn):
    config = model.config
    shown = drawn["observed"].tolist() if config.nt_obs else list(range(config.nt_cond))
    q, content = _posterior(model, clip, shown)
    first = torch.cat([q.loc + q.scale * drawn["eps_z"], torch.zeros(config.augment, dtype=torch.float64)])
    told = content if config.content_in_field else torch.zeros(1, 0, dtype=torch.float64)
    explained = {
        "reconstruct": range(config.nt_cond), "predict": range(config.nt_cond, FRAMES), "both": range(FRAMES),
    }[config.objective]  # fmt: skip
    decoded = drawn["target"].tolist() if "target" in drawn else list(explained)
    origin, log_p = 0 if config.start == "first" else config.nt_cond - 1, 0.0
    for frame in decoded:
        z = solved(lambda t, y: model.field(t, torch.cat([y, told], dim=1)), first, frame - origin, model)
        shared = model.decoder.share(content, [])
        shown_HW = model.decoder(z[: config.nlatent].view(1, 1, -1), shared)[0, 0]
        log_p = log_p + Normal(shown_HW, config.obs_scale).log_prob(clip[frame]).sum()
    nll, kl = -log_p * len(explained) / len(decoded), kl_divergence(q, Normal(0.0, 1.0)).sum()
    return {"loss": nll + config.beta * kl, "nll": nll, "kl": kl}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_loss_is_the_bound_written_out_with_the_divergence_once(variant):
    changes = VARIANTS[variant]
    model, clips = rnnode(**changes).eval(), video(2, _frames(changes), 1)
    drawn = noise(model, *clips.shape[:2])
    with torch.no_grad():
        observed = model.loss({"video": clips}, drawn)
        one, two = (_equation_2(model, clips[b], {k: v[b] for k, v in drawn.items()}) for b in (0, 1))
    for name in ("loss", "nll", "kl"):
        assert observed[name].item() == pytest.approx((one[name] + two[name]).item() / 2, rel=1e-10)
    assert observed["kl"] > 0.1


@pytest.mark.parametrize("variant", ["predict", "both", "irregular", "irregular_last"])
def test_the_encoder_sees_the_conditioning_frames_that_are_shown_and_no_other(variant):
    model, clips = rnnode(**VARIANTS[variant]), video(2, FRAMES, 1).requires_grad_()
    drawn = noise(model, 2, FRAMES, seed=3)
    model.train().loss({"video": clips}, drawn)["kl"].backward()  # BatchNorm at work: that does not leak either
    seen = clips.grad.abs().sum(dim=(2, 3, 4)) > 0
    shown = drawn.get("observed", torch.arange(4).expand(2, -1))
    assert torch.equal(seen, torch.zeros(2, FRAMES, dtype=torch.bool).scatter(1, shown, True))


def test_to_reconstruct_longer_clips_are_refused_and_to_predict_shorter_ones():
    model = rnnode()
    with pytest.raises(ValueError, match=r"has 5 frames, of which training would look at 4 \(model.objective=recon"):
        model.loss({"video": video(1, 5, 1)}, noise(model, 1, 5))
    with pytest.raises(ValueError, match=r"has 3 frames; this model needs at least 4 \(model.objective=recon"):
        model.loss({"video": video(1, 3, 1)}, noise(model, 1, 3))
    for objective in ("predict", "both"):
        model = rnnode(objective=objective)
        with pytest.raises(ValueError, match=f"needs at least 5 .model.objective={objective} with model.nt_cond=4"):
            model.loss({"video": video(1, 4, 1)}, noise(model, 1, 4))


@pytest.mark.parametrize("start", ["first", "last"])
def test_the_gru_reads_the_frame_of_the_start_last(start):
    model, context, read = rnnode(start=start).eval(), video(2, 4, 1), []
    model.rnn.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model.infer(context, n_future=1)
    codes = model.encoder(context.flatten(0, 1))[0].unflatten(0, (2, 4))
    torch.testing.assert_close(read[0], codes.flip(1) if start == "first" else codes, rtol=0, atol=1e-12)


def test_a_random_choice_of_targets_estimates_the_whole_sum_without_bias():
    clips = video(2, FRAMES, 1)
    whole = rnnode(objective="both").eval()
    drawn = noise(whole, 2, FRAMES)
    some = rnnode(objective="both", nt_target=2).eval()
    with torch.no_grad():
        exact = whole.loss({"video": clips}, drawn)["nll"]
        every = [
            some.loss({"video": clips}, {**drawn, "target": torch.tensor([pair, pair])})["nll"]
            for pair in combinations(range(FRAMES), 2)
        ]
    assert (sum(every) / len(every)).item() == pytest.approx(exact.item(), rel=1e-12)
    assert not torch.allclose(every[0], exact, rtol=1e-6)


def test_noise_is_a_function_of_the_generator_and_has_clips_on_its_first_axis():
    model = rnnode(objective="predict", nt_obs=2, nt_target=2, order=2)
    drawn, again = noise(model, 200, 8, seed=1), noise(model, 200, 8, seed=1)
    other = noise(model, 200, 8, seed=2)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == {
        "eps_z": (200, 6), "observed": (200, 2), "target": (200, 2),
    }  # fmt: skip
    assert all(torch.equal(drawn[name], again[name]) and not torch.equal(drawn[name], other[name]) for name in drawn)
    assert drawn["eps_z"].std().item() == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("start", ["first", "last"])
def test_frames_are_drawn_evenly_without_repeats_and_the_start_is_always_shown(start):
    model = rnnode(objective="predict", nt_obs=3, nt_target=2, nt_cond=5, start=start)
    drawn = noise(model, 600, 9)
    for name, free, count in (
        ("observed", {*range(5)} - {0 if start == "first" else 4}, 2),
        ("target", range(5, 9), 2),
    ):
        rows = drawn[name].tolist()
        assert all(row == sorted(set(row)) for row in rows)
        often = torch.bincount(drawn[name].flatten(), minlength=9)
        for frame in free:  # a share of count / len(free) of the clips, within 4 standard deviations
            share = count / len(free)
            assert often[frame].item() / 600 == pytest.approx(share, abs=4 * (share * (1 - share) / 600) ** 0.5)
        assert set(often.nonzero().flatten().tolist()) <= {*free, 0 if start == "first" else 4}
    assert (drawn["observed"] == (0 if start == "first" else 4)).any(dim=1).all()


@pytest.mark.parametrize(("objective", "candidates"), [("reconstruct", 4), ("predict", 2), ("both", 6)])
def test_as_many_targets_as_there_are_frames_are_all_of_them_and_more_are_refused(objective, candidates):
    frames = 4 if objective == "reconstruct" else FRAMES
    clips, every = video(2, frames, 1), rnnode(objective=objective).eval()
    some = rnnode(objective=objective, nt_target=candidates).eval()
    drawn = noise(some, 2, frames)
    assert set(drawn) == {"eps_z"}
    assert torch.equal(some.loss({"video": clips}, drawn)["nll"], every.loss({"video": clips}, drawn)["nll"])
    if objective != "reconstruct":  # whose settings say so already
        more = rnnode(objective=objective, nt_target=candidates + 1)
        with pytest.raises(ValueError, match=f"nt_target is {candidates + 1}, but .* decodes {candidates} frames"):
            more.loss({"video": clips}, noise(more, 2, frames))


def test_every_frame_shown_is_what_a_model_of_any_times_makes_of_a_prediction():
    model, context = rnnode(nt_obs=2).eval(), video(2, 4, 1)
    without = model.predict(context, 2, generator=seeds(2))
    told = model.predict(context, 2, context_times=[0, 1, 2, 3], generator=seeds(2))
    assert torch.equal(told, without)
    shifted = model.predict(context, 2, context_times=[7.5, 8.5, 9.5, 10.5], generator=seeds(2))
    torch.testing.assert_close(shifted, without, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", ["first", "last"])
def test_the_gaps_between_the_given_frames_are_told(start):
    model, context, read = rnnode(nt_obs=2, start=start).eval(), video(2, 4, 1), []
    model.rnn.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    uneven = model.predict(context, [12], context_times=[0.1, 1, 4, 4.25], generator=seeds(2))
    gaps = [0, 0.25, 3, 0.9] if start == "first" else [0, 0.9, 3, 0.25]
    torch.testing.assert_close(read[0][:, :, -1], torch.tensor([gaps] * 2, dtype=torch.float64), rtol=0, atol=1e-12)
    even = model.predict(context, [12], context_times=[0.1, 1.1, 2.1, 3.1], generator=seeds(2))
    assert not torch.allclose(uneven, even, atol=1e-6)


def test_a_model_of_even_frames_refuses_uneven_times_and_takes_shifted_ones():
    model, context = rnnode().eval(), video(2, 4, 1)
    with pytest.raises(ValueError, match=r"context_times is \[0.0, 1.0, 2.0, 4.0\].*train with model.nt_obs"):
        model.predict(context, 2, context_times=[0, 1, 2, 4])
    with pytest.raises(ValueError, match="frames one apart"):
        model.predict(context, 2, context_times=[0, 2, 4, 6])
    shifted = model.predict(context, [4.3], context_times=[0.3, 1.3, 2.3, 3.3], generator=seeds(2))  # 1.3 - 0.3 != 1.0
    torch.testing.assert_close(shifted, model.predict(context, [4], generator=seeds(2)), rtol=0, atol=1e-9)


def test_content_does_not_know_the_order_of_the_frames_but_the_state_does():
    model, context = rnnode(ncontent=2).eval(), video(2, 4, 1)
    forth, back = (model.infer(clips, n_future=1, generator=seeds(2)) for clips in (context, context.flip(1)))
    torch.testing.assert_close(forth.content["content"], back.content["content"], rtol=0, atol=1e-12)
    assert not torch.allclose(forth.initial_NBD, back.initial_NBD, atol=1e-6)


def test_content_goes_with_its_clip_and_the_state_with_its_own():
    model, context = rnnode(ncontent=2, content_in_field=True).eval(), video(3, 4, 1)
    assert model.has_content and not rnnode().has_content
    latent = model.infer(context, n_future=2, generator=seeds(3))
    states = model.trajectory(latent, [4, 5])
    own, swapped = (model.decode(states, content) for content in (latent.content, latent.content_of([1, 1, 0])))
    torch.testing.assert_close(swapped[:, 1], own[:, 1], rtol=0, atol=1e-12)
    assert not torch.allclose(swapped[:, 0], own[:, 0], atol=1e-4)
    shared = model.decoder.share(latent.content["content"][1:2], [])
    torch.testing.assert_close(swapped[0, :1], model.decoder(states[0, :1, :, :3], shared), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "mode",
    [
        ("direct", "rk4_38"),
        ("checkpoint", "rk4_38"),
        ("adjoint", "rk4_38"),
        ("direct", "dopri5"),
        ("adjoint", "dopri5"),
    ],
    ids="-".join,
)
def test_the_content_learns_through_the_field_in_every_gradient_mode(mode):
    gradient, method = mode
    told = {"ncontent": 2, "content_in_field": True}
    model = rnnode(**told, gradient=gradient, method=method, rtol=1e-6, atol=1e-11).eval()
    reference = rnnode(**told, substeps=20).eval()
    grads = []
    for each in (model, reference):
        # the decoder is not told the content here, so that the field is the only way to it
        share = each.decoder.share
        each.decoder.share = lambda content, skips, share=share: share(torch.zeros_like(content), skips)
        each.loss({"video": video(2, 4, 1)}, noise(each, 2, 4))["nll"].backward()
        grads.append(each.content.weight.grad)
    assert grads[1].abs().max() > 1e-3
    torch.testing.assert_close(*grads, rtol=2e-2, atol=1e-2 * grads[1].abs().max().item())


@pytest.mark.parametrize(
    "changes", [{"nt_cond": 1, "objective": "predict"}, {"nt_obs": 1}, {"nt_cond": 1}], ids=["one", "shown", "start"]
)
def test_a_single_frame_of_a_single_clip_is_refused_where_batchnorm_learns_and_nowhere_else(changes):
    model, frames = rnnode(torch.float32, **changes), 2 if changes.get("objective") else changes.get("nt_cond", 4)
    clips = video(2, frames, 1).float()
    assert torch.isfinite(model.loss({"video": clips}, noise(model, 2, frames))["loss"])
    with pytest.raises(ValueError, match=r"one clip that shows one frame .* leaves BatchNorm nothing to average over"):
        model.loss({"video": clips[:1]}, noise(model, 1, frames))
    assert torch.isfinite(model.eval().loss({"video": clips[:1]}, noise(model, 1, frames))["loss"])
    assert model.train().predict(clips[:1, :1], 2).shape == (1, 1, 2, 1, 64, 64)
