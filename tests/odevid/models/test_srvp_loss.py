"""SRVP's training objective: its definition, its randomness, its limits."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from odevid.models.srvp import SRVP
from tests.odevid.formula import tiny, tiny_vgg, video

VARIANTS = {
    "dcgan": tiny(),
    "dcgan_skips": tiny(skip_connections=True, nc=3, n_euler_steps=3),
    "vgg_skips": tiny_vgg(),
    "vgg": tiny(architecture="vgg"),
    "without_z": tiny(nz=0),
    "without_w": tiny(content_variable=False),
    "mlp": tiny(dynamics="mlp", l2_res=0.0),
    "gru": tiny(dynamics="gru", l2_res=0.0),
}


def _build(config, dtype=torch.float32):
    torch.manual_seed(3)
    return SRVP(config).to(dtype)


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _normal(raw):
    mean, spread = raw.chunk(2, dim=-1)
    return Normal(mean, torch.nn.functional.softplus(spread) + 1e-8)


def _loss_frame_by_frame(model, clip, noise):
    """The bound as the paper writes it: one clip, one transition, one sub-step at a time, torch.distributions."""
    config, steps = model.config, model.config.n_euler_steps
    codes, outputs = model.encoder(clip)
    w = model.w_inf(sum(model.w_proj(code) for code in codes[-config.nt_inf :]))
    skips = [output[-1:] for output in outputs] if config.skip_connections else []
    q_y = _normal(model.q_y(codes[: config.nt_inf].flatten()))
    y = q_y.loc + q_y.scale * noise["eps_y0"]
    kl_y, states = kl_divergence(q_y, Normal(0.0, 1.0)).sum(), [y]
    kl_z = res = torch.zeros_like(kl_y)
    for frame in range(1, len(clip)):
        hidden = model.inf_z(codes[: frame + 1].unsqueeze(0))[0][0, -1]
        q_z, p_z = _normal(model.q_z(hidden)), _normal(model.p_z(y))
        kl_z = kl_z + kl_divergence(q_z, p_z).sum()
        z = q_z.loc + q_z.scale * noise["eps_z"][frame - 1]
        for _ in range(steps):
            residual = model.dynamics(torch.cat([y, z])) / steps
            res, y = res + residual.square().sum().sqrt(), y + residual
        states.append(y)
    frames = [model.decoder(y.view(1, 1, -1), model.decoder.share(w[None], skips))[0, 0] for y in states]
    nll = -sum(Normal(frame, config.obs_scale).log_prob(truth).sum() for frame, truth in zip(frames, clip, strict=True))
    return {
        "loss": nll + config.beta_y * kl_y + config.beta_z * kl_z + config.l2_res * res,
        "nll": nll, "kl_y": kl_y, "kl_z": kl_z, "res": res,
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["dcgan", "dcgan_skips", "vgg_skips"])
def test_all_times_at_once_equal_one_frame_at_a_time(variant):
    model = _build(VARIANTS[variant], torch.float64).eval()
    clips, drawn = video(2, 5, model.config.nc), model.draw_noise(2, 5, _generator())
    drawn = {name: value.double() if value.is_floating_point() else value for name, value in drawn.items()}
    with torch.no_grad():
        observed = model.loss({"video": clips}, drawn)
        one = [_loss_frame_by_frame(model, clips[b], {name: value[b] for name, value in drawn.items()}) for b in (0, 1)]
    for name, value in observed.items():
        assert value.item() == pytest.approx((one[0][name] + one[1][name]).item() / 2, rel=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_of_every_variant_learns(variant):
    model = _build(VARIANTS[variant])
    terms = model({"video": video(2, 4, model.config.nc).float()}, model.draw_noise(2, 4, _generator()))
    terms["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())


def test_without_z_there_is_no_divergence_over_z():
    model = _build(VARIANTS["without_z"])
    terms = model.loss({"video": video(2, 4, 1).float()}, model.draw_noise(2, 4, _generator()))
    assert terms["kl_z"].item() == 0


def test_the_loss_weighs_its_terms_by_the_config():
    config = tiny(beta_y=0.5, beta_z=3.0, l2_res=7.0)
    model = _build(config)
    terms = {
        name: value.item()
        for name, value in model.loss({"video": video(2, 4, 1).float()}, model.draw_noise(2, 4, _generator())).items()
    }
    expected = terms["nll"] + 0.5 * terms["kl_y"] + 3 * terms["kl_z"] + 7 * terms["res"]
    assert terms["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("variant", ["dcgan", "vgg_skips"])
def test_ranks_that_slice_the_global_batch_average_to_its_loss(variant):
    model = _build(VARIANTS[variant], torch.float64).eval()
    clips, drawn = video(4, 4, model.config.nc), model.draw_noise(4, 4, _generator())
    with torch.no_grad():
        whole = model.loss({"video": clips}, drawn)
        parts = [
            model.loss({"video": clips[rows]}, {name: value[rows] for name, value in drawn.items()})
            for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4))
        ]
    for name, value in whole.items():
        assert sum(part[name] for part in parts).item() / 4 == pytest.approx(value.item(), rel=1e-11)


def test_the_same_noise_gives_the_same_bits():
    model = _build(VARIANTS["vgg_skips"])
    clips = video(2, 4, 3).float()
    runs = []
    for _ in range(2):
        model.zero_grad()
        model.loss({"video": clips}, model.draw_noise(2, 4, _generator()))["loss"].backward()
        runs.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


def test_noise_is_a_function_of_the_generator_and_has_clips_on_its_first_axis():
    model = _build(VARIANTS["vgg_skips"])
    noise, again = model.draw_noise(50, 7, _generator(1)), model.draw_noise(50, 7, _generator(1))
    assert {name: tuple(value.shape) for name, value in noise.items()} == {
        "eps_y0": (50, 6), "eps_z": (50, 6, 5), "skip_frame": (50,), "content_frames": (50, 2),
    }  # fmt: skip
    assert all(torch.equal(noise[name], again[name]) for name in noise)
    assert noise["eps_z"].std().item() == pytest.approx(1.0, abs=0.06)
    assert set(noise["skip_frame"].tolist()) == set(range(7))
    assert set(noise["content_frames"].flatten().tolist()) == set(range(7))
    assert all(len(set(row)) == len(row) for row in noise["content_frames"].tolist())


def test_in_training_w_and_skips_come_from_the_frames_that_the_noise_names():
    model = _build(tiny_vgg(), torch.float64)
    clips, drawn = video(2, 5, 3), model.draw_noise(2, 5, _generator())
    drawn["skip_frame"], drawn["content_frames"] = torch.tensor([4, 4]), torch.tensor([[4, 3], [3, 4]])
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.eval()
    with torch.no_grad():
        named = model.loss({"video": clips}, drawn)["loss"]
        last = model.eval().loss({"video": clips}, drawn)["loss"]
    assert named.item() == pytest.approx(last.item(), rel=1e-12)


def test_one_clip_trains_and_one_frame_does_not():
    model = _build(VARIANTS["dcgan"])
    assert torch.isfinite(model.loss({"video": video(1, 3, 1).float()}, model.draw_noise(1, 3, _generator()))["loss"])
    shortest = _build(tiny(nt_inf=1))
    assert torch.isfinite(
        shortest.loss({"video": video(1, 2, 1).float()}, shortest.draw_noise(1, 2, _generator()))["loss"]
    )
    with pytest.raises(ValueError, match=r"has 1 frames; this model needs at least 2"):
        shortest.loss({"video": video(1, 1, 1).float()}, shortest.draw_noise(1, 1, _generator()))


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (
            torch.rand(2, 4, 3, 64, 64),
            r"must be float \(clips, frames, 1, 64, 64\) in \[0, 1\]; got .*\(2, 4, 3, 64, 64\)",
        ),
        (torch.rand(2, 4, 1, 32, 32), r"\(2, 4, 1, 32, 32\)"),
        (torch.zeros(2, 4, 1, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(4, 1, 64, 64), r"\(4, 1, 64, 64\)"),
        (torch.rand(2, 2, 1, 64, 64), "has 2 frames; this model needs at least 3"),
    ],
)
def test_a_video_of_the_wrong_shape_is_named(clips, message):
    model = _build(VARIANTS["dcgan"])
    with pytest.raises(ValueError, match=message):
        model.loss({"video": clips}, model.draw_noise(2, 4, _generator()))


def test_noise_for_another_batch_is_refused():
    model = _build(VARIANTS["dcgan"])
    with pytest.raises(ValueError, match="slice the clips alone"):
        model.loss({"video": video(2, 4, 1).float()}, model.draw_noise(3, 4, _generator()))


def test_under_bf16_autocast_latents_and_sums_stay_fp32():
    model = _build(VARIANTS["vgg_skips"])
    clips, drawn = video(2, 4, 3).float(), model.draw_noise(2, 4, _generator())
    exact = model.loss({"video": clips}, drawn)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.loss({"video": clips}, drawn)
    assert {value.dtype for value in terms.values()} == {torch.float32}
    assert terms["loss"].item() == pytest.approx(exact["loss"].item(), rel=1e-2)
    terms["loss"].backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
