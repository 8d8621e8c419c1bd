"""Prediction: the same futures however they are asked for, and clear words where there is none."""

import pytest
import torch

from odevid.models.srvp import SRVP
from tests.odevid.formula import tiny, tiny_vgg, video, weights

CLIPS, CONTEXT = 3, 4


def _build(config, dtype=torch.float64):
    model = SRVP(config).to(dtype)
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model


def _seeds(count=CLIPS):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.fixture(scope="module")
def model():
    return _build(tiny_vgg())


@pytest.fixture(scope="module")
def context():
    return video(CLIPS, CONTEXT, 3)


@pytest.mark.parametrize(
    "config",
    [
        tiny(),
        tiny(nz=0),
        tiny(content_variable=False),
        tiny(dynamics="mlp", l2_res=0.0),
        tiny(dynamics="gru", l2_res=0.0),
    ],
    ids=["residual", "without_z", "without_w", "mlp", "gru"],
)
def test_every_variant_predicts_different_samples_in_range(config):
    frames = _build(config, torch.float32).predict(video(2, 3, 1).float(), n_future=4, n_samples=3, generator=_seeds(2))
    assert frames.shape == (3, 2, 4, 1, 64, 64)
    assert frames.dtype == torch.float32
    assert 0 <= frames.min() < frames.max() <= 1
    assert not torch.allclose(frames[0], frames[1], atol=1e-4)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_hold_the_same_numbers(model, context, chunk):
    whole = model.predict(context, 3, n_samples=5, generator=_seeds())
    pieces = list(model.predict_chunks(context, 3, n_samples=5, chunk=chunk, generator=_seeds()))
    assert [len(piece) for piece in pieces] == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[chunk]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-12)


def test_a_generator_per_clip_makes_a_clip_independent_of_its_batch_mates(model, context):
    together = model.predict(context, 3, n_samples=2, generator=_seeds())
    alone = model.predict(context[1:2], 3, n_samples=2, generator=_seeds()[1:2])
    torch.testing.assert_close(together[:, 1:2], alone, rtol=0, atol=1e-12)


def test_the_first_samples_do_not_depend_on_how_many_follow(model, context):
    few = model.predict(context, 3, n_samples=2, generator=_seeds())
    many = model.predict(context, 3, n_samples=4, generator=_seeds())
    torch.testing.assert_close(few, many[:2], rtol=0, atol=1e-12)


def test_one_generator_serves_the_whole_batch_and_is_repeatable(model, context):
    first = model.predict(context, 2, generator=torch.Generator().manual_seed(5))
    second = model.predict(context, 2, generator=torch.Generator().manual_seed(5))
    assert torch.equal(first, second)


def test_intermediate_frames_are_between_the_whole_ones_and_change_none(model, context):
    whole = model.predict(context, [4, 5], generator=_seeds())
    fine = model.predict(context, [3.5, 4, 4.5, 5], generator=_seeds())
    torch.testing.assert_close(fine[:, :, 1::2], whole, rtol=0, atol=1e-12)
    assert not torch.allclose(fine[:, :, 2], whole[:, :, 0], atol=1e-6)


def test_another_time_step_acts_on_the_roll_out_but_not_on_the_context(model, context):
    times = [2.5, 3, 4, 5]
    coarse, fine = (model.predict(context, times, substeps=steps, generator=_seeds()) for steps in (2, 3))
    torch.testing.assert_close(coarse[:, :, :2], fine[:, :, :2], rtol=0, atol=1e-12)
    assert not torch.allclose(coarse[:, :, 2:], fine[:, :, 2:], atol=1e-6)


def test_times_come_in_the_order_asked_for(model, context):
    forth = model.predict(context, [0, 4, 6], generator=_seeds())
    back = model.predict(context, [6, 4, 0], generator=_seeds())
    torch.testing.assert_close(back.flip(2), forth, rtol=0, atol=1e-12)


def test_the_context_is_encoded_once_and_frames_are_decoded_in_bounded_groups(model, context, monkeypatch):
    monkeypatch.setattr("odevid.models.clips.MAX_DECODED", 2 * CLIPS)
    seen: dict[str, list[int]] = {"encoder": [], "decoder": []}
    hooks = [
        model.encoder.register_forward_pre_hook(lambda _, inputs: seen["encoder"].append(len(inputs[0]))),
        model.decoder.register_forward_pre_hook(lambda _, inputs: seen["decoder"].append(inputs[0].shape[:2].numel())),
    ]
    frames = model.predict(context, 3, n_samples=5, generator=_seeds())
    for hook in hooks:
        hook.remove()
    assert seen == {"encoder": [CLIPS * CONTEXT], "decoder": [6] * 7 + [3]}
    monkeypatch.undo()
    torch.testing.assert_close(frames, model.predict(context, 3, n_samples=5, generator=_seeds()), rtol=0, atol=1e-12)


def test_under_bf16_autocast_frames_are_fp32_and_close():
    model, frames = _build(tiny_vgg(), torch.float32), video(2, 3, 3).float()
    exact = model.predict(frames, 2, generator=_seeds(2))
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.predict(frames, 2, generator=_seeds(2))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.02


def test_prediction_uses_fixed_statistics_and_leaves_the_mode_alone(model, context):
    expected = model.eval().predict(context, 2, generator=_seeds())
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chunks = model.predict_chunks(context, 2, generator=_seeds())
    frames = next(chunks)
    assert all(module.training for module in model.modules())
    assert not frames.requires_grad
    assert torch.is_grad_enabled()
    assert torch.equal(frames, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_y_0_sees_the_first_frames_and_skips_and_w_the_last():
    frames = video(1, 6, 3)
    changed = frames.clone()
    changed[:, 2:4] = 0.5  # neither among the first two, nor among the last two
    without_z = _build(tiny_vgg(nz=0))
    same = [without_z.predict(clip, [0], generator=_seeds(1)) for clip in (frames, changed)]
    torch.testing.assert_close(same[0], same[1], rtol=0, atol=1e-12)
    for place in (0, 1, 4, 5):
        changed = frames.clone()
        changed[:, place] = 0.5
        assert not torch.allclose(without_z.predict(changed, [0], generator=_seeds(1)), same[0], atol=1e-6)


def test_a_single_context_frame_and_clip_are_enough_for_k_of_one():
    model = _build(tiny(nt_inf=1))
    assert model.predict(video(1, 1, 1), 2).shape == (1, 1, 2, 1, 64, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": (2, 1, 3, 64, 64)}, "a context of shape .* has 1 frames; this model needs at least 2"),
        ({"context": (2, 4, 3, 48, 48)}, r"must be float \(clips, frames, 3, 64, 64\)"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"substeps": 0}, "substeps is 0"),
        ({"times": [4.25]}, "ask for a multiple of 1/2, or pass another substeps"),
        ({"times": None}, "give either times or n_future"),
        ({"context_times": [0, 1, 2, 4]}, "SRVP needs one frame per unit of time"),
        ({"generator": [torch.Generator()]}, "got 1 generators for 2 clips"),
    ],
)
def test_what_cannot_be_predicted_is_refused_at_once(model, changes, message):
    request = {"times": 2, **changes}
    context = torch.rand(*request.pop("context", (2, 4, 3, 64, 64)), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        model.predict_chunks(context, request.pop("times"), **request)


def test_dynamics_without_a_time_step_refuse_substeps():
    with pytest.raises(ValueError, match="mlp dynamics have no time step; use 1"):
        _build(tiny(dynamics="mlp", l2_res=0.0)).predict(video(1, 3, 1), 2, substeps=2)
