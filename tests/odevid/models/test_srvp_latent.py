"""A prediction taken apart: infer, move, decode give the frames of `predict`, and content goes from clip to clip."""

import pytest
import torch

from odevid.model import LatentModel
from odevid.models.srvp import SRVP
from tests.odevid.formula import tiny, tiny_vgg, video, weights

CLIPS, CONTEXT = 3, 4


def _build(config):
    model = SRVP(config).double()
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model


def _seeds(count=CLIPS):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize(
    "config",
    [tiny(), tiny_vgg(), tiny(nz=0), tiny(content_variable=False), tiny(dynamics="gru", l2_res=0.0)],
    ids=["dcgan", "vgg_with_skips", "without_z", "without_w", "gru"],
)
def test_the_parts_put_together_are_the_prediction(config):
    model, context, times = _build(config), video(CLIPS, CONTEXT, config.nc), [0, 2, 4, 6, 5]
    assert isinstance(model, LatentModel)
    latent = model.infer(context, 2, n_future=3, generator=_seeds())
    frames = model.decode(model.trajectory(latent, times), latent.content)
    torch.testing.assert_close(frames, model.predict(context, times, 2, generator=_seeds()), rtol=0, atol=1e-12)
    assert model.has_content == bool(latent.content)


def test_fractional_times_and_another_time_step_are_those_of_predict():
    model, context, times = _build(tiny_vgg()), video(CLIPS, CONTEXT, 3), [2.5, 3, 10 / 3, 4, 5]
    latent = model.infer(context, n_future=2, generator=_seeds())
    states = model.trajectory(latent, times, substeps=3)
    expected = model.predict(context, times, substeps=3, generator=_seeds())
    torch.testing.assert_close(model.decode(states, latent.content), expected, rtol=0, atol=1e-12)


def test_a_free_trajectory_starts_at_y_0_and_owes_nothing_to_the_later_frames_of_the_context():
    config = tiny(nt_inf=2, nt_cond=2)
    model, context = _build(config), video(CLIPS, CONTEXT, 1)
    changed = context.clone()
    changed[:, 2:] = 0.5  # y_0 is inferred from the first two frames
    one, other = (model.infer(clips, n_future=2, generator=_seeds()) for clips in (context, changed))
    times = [0, 1, 2, 5]
    torch.testing.assert_close(
        model.trajectory(one, times, free=True), model.trajectory(other, times, free=True), rtol=0, atol=1e-12
    )
    assert not torch.allclose(model.trajectory(one, times), model.trajectory(other, times), atol=1e-6)
    torch.testing.assert_close(model.trajectory(one, [0], free=True)[:, :, 0], one.initial_NBD, rtol=0, atol=0)


def test_the_models_own_time_step_is_that_of_its_training():
    configs = (tiny(), tiny_vgg(), tiny(dynamics="mlp", l2_res=0.0))
    assert [SRVP(config).own_substeps for config in configs] == [1, 2, None]


def test_a_free_trajectory_is_stepped_by_hand():
    model = _build(tiny_vgg()).eval()
    latent = model.infer(video(1, CONTEXT, 3), n_future=1, generator=_seeds(1))
    state, states = latent.initial_NBD[0], []
    for eps in latent.drive["eps"][0].unbind(1):
        mean, raw = model.p_z(state).chunk(2, dim=-1)
        z = mean + (torch.nn.functional.softplus(raw) + 1e-8) * eps
        for _ in range(2):
            state = state + model.dynamics.module(torch.cat([state, z], dim=-1)) / 2
        states.append(state)
    found = model.trajectory(latent, [1, 2, 3, 4], free=True)
    torch.testing.assert_close(found[0], torch.stack(states, dim=1), rtol=0, atol=1e-12)


def test_content_goes_with_its_clip_and_the_state_with_its_own():
    model, context = _build(tiny_vgg()), video(CLIPS, CONTEXT, 3)
    latent = model.infer(context, n_future=2, generator=_seeds())
    states = model.trajectory(latent, [4, 5])
    swapped = model.decode(states, latent.content_of([1, 1, 0]))
    alone = model.infer(context[1:2], n_future=2, generator=_seeds()[1:2])
    assert set(alone.content) == {"w", "skip_0", "skip_1", "skip_2", "skip_3"}
    torch.testing.assert_close(model.decode(states[:, :1], alone.content), swapped[:, :1], rtol=0, atol=1e-12)
    torch.testing.assert_close(swapped[:, 1], model.decode(states, latent.content)[:, 1], rtol=0, atol=1e-12)


def test_taking_apart_leaves_the_mode_alone_and_keeps_no_gradients():
    model = _build(tiny()).train()
    latent = model.infer(video(2, 3, 1), n_future=1, generator=_seeds(2))
    frames = model.decode(model.trajectory(latent, [3]), latent.content)
    assert all(module.training for module in model.modules())
    assert not frames.requires_grad and not latent.initial_NBD.requires_grad


def test_what_cannot_be_done_is_refused():
    model = _build(tiny())
    latent = model.infer(video(2, 3, 1), n_future=2, generator=_seeds(2))
    with pytest.raises(ValueError, match=r"time 5 is 3 frames .* holds noise for 2: infer it with a larger n_future"):
        model.trajectory(latent, [3, 5])
    with pytest.raises(ValueError, match="substeps is 0"):
        model.trajectory(latent, [3], substeps=0)
    with pytest.raises(ValueError, match="n_future is -1"):
        model.infer(video(2, 3, 1), n_future=-1)
    with pytest.raises(ValueError, match=r"of \[1, 2\] clips"):
        model.decode(model.trajectory(latent, [3])[:, :1], latent.content)
