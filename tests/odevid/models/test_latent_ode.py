"""What both neural-ODE models promise: prediction at any times, augmented and second order, failures in words."""

import copy
import pickle

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from odevid.config import EncODEConfig, RNNODEConfig
from odevid.model import Latent, LatentModel
from odevid.models.rnnode import RNNODE
from odevid.registry import build_model
from tests.odevid.formula import scatter, video
from tests.odevid.models.latent_odes import BUILD, noise, rnnode, seeds

CLIPS, CONTEXT = 2, 4
BOTH = pytest.mark.parametrize("name", ["enode", "rnnode"])
RICH = {"order": 2, "augment": 1, "time_input": True}


@pytest.fixture(scope="module")
def context():
    return video(CLIPS, CONTEXT, 1)


# ---------------------------------------------------------------------------------------------------- as a module


@pytest.mark.parametrize("config", [EncODEConfig(), RNNODEConfig()])
def test_published_sizes_and_a_model_without_memory_of_its_own_for_counting(config):
    with torch.device("meta"):
        model = build_model(config)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert {name: count[name] for name in ("encoder", "decoder", "field")} == {
        "encoder": 3_279_744, "decoder": 3_279_744, "field": 98_880,
    }  # fmt: skip
    assert {p.device.type for p in model.parameters()} == {"meta"}


@BOTH
def test_a_model_can_be_copied_and_pickled_after_a_loss_and_its_state_is_weights_and_statistics(name):
    model = BUILD[name]()
    clips, drawn = video(2, 4, 1), noise(model, 2, 4)
    before = set(model.state_dict())
    model.loss({"video": clips}, drawn)["loss"].backward()
    owned = {*dict(model.named_parameters()), *dict(model.named_buffers())}
    assert set(model.state_dict()) == before == owned
    expected = model.eval().loss({"video": clips}, drawn)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other.loss({"video": clips}, drawn)["loss"], expected["loss"])
        assert not {p.data_ptr() for p in other.parameters()} & {p.data_ptr() for p in model.parameters()}


@BOTH
def test_nothing_of_a_step_is_kept_that_holds_its_graph(name):
    model = BUILD[name]()
    model.loss({"video": video(2, 4, 1)}, noise(model, 2, 4))
    kept = [value for value in vars(model._last).values() if isinstance(value, torch.Tensor)]
    assert kept and all(tensor.grad_fn is None and tensor.numel() < 100 for tensor in kept)


class _HostWaits(TorchDispatchMode):
    """Counts what a GPU would make the host wait for: numbers read back, tensors made from python numbers."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "lift_fresh", "nonzero", "is_nonzero", "equal"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@BOTH
@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_step_with_fixed_steps_never_makes_the_host_wait(name, gradient):
    own = {"ncontent": 2, "content_in_field": True, "nt_obs": 2, "nt_target": 2} if name == "rnnode" else {}
    model = BUILD[name](gradient=gradient, **RICH, **own)
    clips, drawn = video(2, 4, 1), noise(model, 2, 4)
    with _HostWaits() as waits:
        model.loss({"video": clips}, drawn)["loss"].backward()
    assert waits.found == []
    with _HostWaits() as waits:
        assert model.trouble is None
    assert waits.found  # which only waits when asked


@BOTH
@pytest.mark.parametrize("changes", [{}, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_every_weight_learns(name, changes, gradient):
    own = {"ncontent": 2, "content_in_field": True} if name == "rnnode" and changes else {}
    model = BUILD[name](gradient=gradient, **changes, **own)
    model.loss({"video": video(2, 4, 1)}, noise(model, 2, 4))["loss"].backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@BOTH
def test_ranks_that_slice_the_global_batch_average_to_its_loss(name):
    own = {"objective": "both", "nt_obs": 2, "nt_target": 2} if name == "rnnode" else {}
    model = BUILD[name](**own).eval()
    clips, drawn = video(3, 5, 1), noise(model, 3, 5)
    with torch.no_grad():
        whole = model({"video": clips}, drawn)
        parts = [
            model({"video": clips[row : row + 1]}, {key: value[row : row + 1] for key, value in drawn.items()})
            for row in range(3)
        ]
    for term, value in whole.items():
        assert sum(part[term] for part in parts).item() / 3 == pytest.approx(value.item(), rel=1e-11)


@BOTH
def test_the_same_noise_gives_the_same_bits_and_every_term_is_a_scalar(name):
    model, runs = BUILD[name](torch.float32), []
    clips, drawn = video(2, 4, 1).float(), noise(model, 2, 4)
    for _ in range(2):
        model.zero_grad()
        terms = model.loss({"video": clips}, drawn)
        terms["loss"].backward()
        runs.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))
    own = {"enode": {"pixel", "latent"}, "rnnode": {"nll", "kl"}}[name]
    assert set(terms) == {"loss", "nfe", "nfe_max", "nfe_backward", "solver_failures", *own}
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    assert (terms["nfe"].item(), terms["nfe_max"].item(), terms["solver_failures"].item()) == (12, 12, 0)  # 3 x 4


@BOTH
@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"gradient": "direct"}, 0), ({"gradient": "checkpoint"}, 12), ({"gradient": "adjoint"}, 12)],
)
def test_what_a_backward_pass_has_cost_is_told_with_the_next_loss_and_nothing_else_counts(name, changes, expected):
    model = BUILD[name](**changes)
    clips, drawn = video(2, 4, 1), noise(model, 2, 4)
    terms = [model.loss({"video": clips}, drawn)]
    terms[0]["loss"].backward()
    with torch.no_grad():
        terms.append(model.loss({"video": clips}, drawn))  # a validation, which has no backward pass
    terms.append(model.loss({"video": clips}, drawn))
    assert [term["nfe_backward"].item() for term in terms] == [0, expected, expected]
    assert [term["nfe"].item() for term in terms] == [12, 12, 12]


# -------------------------------------------------------------------------------------------------- the dynamics


@BOTH
def test_augmented_dimensions_begin_at_zero_move_and_are_not_decoded(name, context):
    model = BUILD[name](augment=2)
    latent = model.infer(context, 2, n_future=1, generator=seeds(2))
    assert latent.initial_NBD.shape == (2, CLIPS, 5)
    assert not latent.initial_NBD[..., 3:].any() and latent.initial_NBD[..., :3].all()
    states = model.trajectory(latent, [1, 2])
    assert states[..., 3:].abs().min() > 1e-6
    other = states.clone()
    other[..., 3:] += 1
    assert torch.equal(model.decode(states, {}), model.decode(other, {}))


@BOTH
def test_of_second_order_the_position_moves_by_the_velocity_and_alone_is_decoded(name, context):
    model, step = BUILD[name](order=2, method="rk4", substeps=50), 0.02
    latent = model.infer(context, n_future=1, generator=seeds(2))
    before, here, after = model.trajectory(latent, [1 - step, 1, 1 + step]).unbind(2)
    moved = (after - before)[..., :3] / (2 * step * model.config.frame_time)
    torch.testing.assert_close(moved, here[..., 3:], rtol=1e-3, atol=1e-4)
    assert here[..., 3:].abs().min() > 1e-3
    other = here.unsqueeze(2).clone()
    other[..., 3:] += 1
    assert torch.equal(model.decode(here.unsqueeze(2), {}), model.decode(other, {}))


@BOTH
def test_the_field_with_time_counts_it_from_the_start_in_the_units_of_frame_time(name, context):
    model, seen = BUILD[name](time_input=True, method="euler"), []
    model.field.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.predict(context, [3], context_times=[5, 6, 7, 8], generator=seeds(2))
    assert seen == [0.0, -0.5]  # two frames of 0.5 back from frame 5


# ------------------------------------------------------------------------------------------------- predictions


@BOTH
@pytest.mark.parametrize(
    "changes",
    [{}, RICH, {"start": "last"}, {"method": "dopri5"}, {"ncontent": 2, "content_in_field": True}],
    ids=["plain", "rich", "last", "dopri5", "content"],
)
def test_the_parts_put_together_are_the_prediction_at_any_times(name, changes, context):
    if name == "enode" and "ncontent" in changes:
        changes = {"architecture": "vgg", "nf": 1}
    model, times = BUILD[name](**changes), [4.3, -1.5, 0, 6, 3, 2 / 3, 4.3]
    assert isinstance(model, LatentModel)
    latent = model.infer(context, 2, n_future=3, generator=seeds(2))
    frames = model.decode(model.trajectory(latent, times), latent.content)
    assert frames.shape == (2, CLIPS, 7, 1, 64, 64)
    torch.testing.assert_close(frames, model.predict(context, times, 2, generator=seeds(2)), rtol=0, atol=1e-12)
    assert model.has_content == bool(latent.content)


@BOTH
@pytest.mark.parametrize("method", ["rk4", "euler"])
def test_a_frame_does_not_depend_on_which_others_are_asked_for(name, method, context):
    model, times = BUILD[name](method=method), [5.7, -0.4, 2, 4.1, 0]
    together = model.predict(context, times, generator=seeds(2))
    for at, time in enumerate(times):
        alone = model.predict(context, [time], generator=seeds(2))
        torch.testing.assert_close(together[:, :, at : at + 1], alone, rtol=0, atol=1e-12)
    assert len({frame.sum().item() for frame in together[0, 0]}) == len(times)


@BOTH
def test_with_adaptive_steps_another_request_changes_a_frame_by_less_than_the_tolerance(name, context):
    model = BUILD[name](method="dopri5", rtol=1e-6, atol=1e-8)
    together = model.predict(context, [5.7, -0.4, 2, 4.1, 0], generator=seeds(2))
    alone = model.predict(context, [4.1], generator=seeds(2))
    torch.testing.assert_close(together[:, :, 3:4], alone, rtol=0, atol=1e-6)


@BOTH
def test_the_future_begins_one_frame_after_the_last_given_one(name, context):
    model = BUILD[name](start="last")
    expected = model.predict(context, [4, 5], 1, generator=seeds(2))
    assert torch.equal(model.predict(context, 2, generator=seeds(2)), expected)
    assert torch.equal(model.predict(context, n_future=2, generator=seeds(2)), expected)
    shifted = model.predict(context, 2, context_times=[10, 11, 12, 13], generator=seeds(2))
    torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-12)


@BOTH
def test_following_the_field_back_and_forth_returns_to_the_start(name, context):
    model = BUILD[name](method="rk4", substeps=20)
    latent = model.infer(context, n_future=1, generator=seeds(2))
    past = model.trajectory(latent, [-2])[:, :, 0]
    assert not torch.allclose(past, latent.initial_NBD, atol=1e-2)
    there = Latent(past, latent.drive, latent.content)
    torch.testing.assert_close(model.trajectory(there, [2])[:, :, 0], latent.initial_NBD, rtol=0, atol=1e-5)


@BOTH
def test_more_steps_refine_the_way_and_adaptive_methods_refuse_them(name, context):
    model, exact = BUILD[name](method="euler"), BUILD[name](method="dopri5", rtol=1e-6, atol=1e-11)
    latent = exact.infer(context, n_future=3, generator=seeds(2))
    truth = exact.trajectory(latent, [1, 3])
    errors = [(model.trajectory(latent, [1, 3], substeps=n) - truth).abs().max().item() for n in (1, 4, 16)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0
    assert model.own_substeps == 1 and exact.own_substeps is None
    with pytest.raises(ValueError, match=r"substeps is 2, but dopri5 chooses its own steps.*model.rtol"):
        exact.predict(context, 1, substeps=2)
    with pytest.raises(ValueError, match="substeps is 2, but dopri5"):
        exact.trajectory(latent, [1], substeps=2)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_way_does_not_depend_on_batch_mates_to_the_last_bit(method):
    model = rnnode(torch.float32, method=method)
    first = 3 * scatter((2, 5, 3), 7).float()
    first[:, 4] *= 100  # a mate that needs many small steps
    latent = Latent(first, {"origin": torch.zeros(2, 5)}, {})
    together = model.trajectory(latent, [0.5, 2, 7])
    for clip in (0, 3):
        alone = Latent(first[:, clip : clip + 1], {"origin": torch.zeros(2, 1)}, {})
        found = model.trajectory(alone, [0.5, 2, 7])
        if method == "dopri5":
            assert torch.equal(found, together[:, clip : clip + 1])
        torch.testing.assert_close(found, together[:, clip : clip + 1], rtol=0, atol=1e-6)


@BOTH
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunks_hold_the_same_numbers(name, chunk, context):
    model = BUILD[name]()
    whole = model.predict(context, 3, n_samples=5, generator=seeds(2))
    pieces = list(model.predict_chunks(context, 3, n_samples=5, chunk=chunk, generator=seeds(2)))
    assert [len(piece) for piece in pieces] == {1: [1] * 5, 2: [2, 2, 1], 5: [5]}[chunk]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-12)
    rest = model.predict_chunks(context, 3, n_samples=2, first_sample=3, generator=seeds(2))
    torch.testing.assert_close(next(rest), whole[3:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("told", [{}, {"ncontent": 2, "content_in_field": True}], ids=["plain", "content"])
def test_a_generator_per_clip_makes_a_clip_independent_of_its_batch_mates_and_samples_differ(told, context):
    model = rnnode(**told)
    together = model.predict(context, 3, n_samples=2, generator=seeds(2))
    alone = model.predict(context[1:], 3, n_samples=2, generator=seeds(2)[1:])
    torch.testing.assert_close(together[:, 1:], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    repeated = [model.predict(context, 2, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*repeated)


@BOTH
def test_prediction_uses_fixed_statistics_and_leaves_the_mode_alone(name, context):
    model = BUILD[name]()
    expected = model.eval().predict(context, 2, generator=seeds(2))
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    frames = next(model.predict_chunks(context, 2, generator=seeds(2)))
    latent = model.infer(context, n_future=1, generator=seeds(2))
    model.decode(model.trajectory(latent, [1]), latent.content)
    assert all(module.training for module in model.modules())
    assert not frames.requires_grad and not latent.initial_NBD.requires_grad and torch.is_grad_enabled()
    assert torch.equal(frames, expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@BOTH
@pytest.mark.parametrize("changes", [{}, RICH], ids=["plain", "rich"])
def test_under_bf16_autocast_the_solve_stays_fp32(name, changes, context):
    model, clips = BUILD[name](torch.float32, **changes), context.float()
    drawn, seen = noise(model, 2, 4), []
    exact = model.loss({"video": clips}, drawn)["loss"].item(), model.predict(clips, 2, generator=seeds(2))
    model.field.net[-1].register_forward_hook(lambda *call: seen.append(call[2].dtype))
    if hasattr(model, "velocity"):
        model.velocity.register_forward_hook(lambda *call: seen.append(call[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        terms = model.loss({"video": clips}, drawn)
        frames = model.predict(clips, 2, generator=seeds(2))
    assert set(seen) == {torch.float32}
    assert {value.dtype for value in terms.values()} == {torch.float32} == {frames.dtype}
    assert terms["loss"].item() == pytest.approx(exact[0], rel=2e-2)
    assert (frames - exact[1]).abs().mean() < 0.02
    terms["loss"].backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


# ---------------------------------------------------------------------------------------------------- failures

BROKEN = [
    ({"method": "rk4"}, "left the finite numbers"),
    ({"method": "rk4", "gradient": "checkpoint"}, "left the finite numbers"),
    ({"method": "rk4_38", "gradient": "adjoint"}, "left the finite numbers"),
    ({"method": "dopri5"}, "dopri5 .*lower the learning rate"),
    ({"method": "dopri5", "gradient": "adjoint"}, "dopri5 .*lower the learning rate"),
]


@BOTH
@pytest.mark.parametrize(("changes", "told"), BROKEN)
def test_a_field_that_blows_up_gives_a_loss_that_is_no_number_and_says_why(name, changes, told):
    model = BUILD[name](torch.float32, activation="elu", **changes)
    clips, drawn = video(2, 4, 1).float(), noise(model, 2, 4)
    model.loss({"video": clips}, drawn)
    assert model.trouble is None
    sound = {key: value.clone() for key, value in model.state_dict().items()}  # BatchNorm's statistics will be NaN
    with torch.no_grad():
        for parameter in model.field.parameters():
            parameter *= 1e20
    terms = model.loss({"video": clips}, drawn)
    terms["loss"].backward()
    assert not terms["loss"].isfinite()
    assert terms["solver_failures"].item() == 1
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(model.trouble)
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    model.load_state_dict(sound)
    assert model.eval().loss({"video": clips}, drawn)["loss"].isfinite() and model.trouble is None


@BOTH
def test_the_trouble_of_a_pass_can_be_asked_for_after_others(name):
    model = BUILD[name](torch.float32)
    clips, drawn = video(2, 4, 1).float(), noise(model, 2, 4)
    asks = [model.ask_later()]
    for batch in (clips, clips * torch.nan, clips):
        model.eval().loss({"video": batch}, drawn)["loss"].backward()
        asks.append(model.ask_later())
    assert [ask() is None for ask in asks] == [True, True, False, True]
    assert model.trouble is None


@BOTH
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_too_many_steps_are_a_failure_in_words_with_a_gradient_for_every_weight(name, gradient):
    own = {"ncontent": 2, "content_in_field": True} if name == "rnnode" else {"order": 2}
    model = BUILD[name](torch.float32, method="dopri5", max_steps=1, gradient=gradient, **own)
    terms = model.loss({"video": video(2, 4, 1).float()}, noise(model, 2, 4))
    terms["loss"].backward()
    assert terms["loss"].isnan() and model.trouble.startswith("dopri5 gave up after max_steps = 1 steps: ")
    assert [key for key, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isnan().any() for p in model.field.parameters())


def test_a_backward_solve_that_gives_up_is_told_after_the_backward_pass():
    most = 0
    while True:  # as many steps as the forward solve takes, which the backward one needs and more
        most += 1
        model = rnnode(method="dopri5", gradient="adjoint", max_steps=most)
        terms = model.loss({"video": video(2, 4, 1)}, noise(model, 2, 4))
        if model.trouble is None:
            break
    terms["loss"].backward()
    assert terms["loss"].isfinite()
    assert model.trouble.startswith(f"backwards in time, for the gradient, dopri5 gave up after max_steps = {most}")
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@BOTH
@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_prediction_of_such_a_field_warns_and_is_no_number(name, method, context):
    model = BUILD[name](torch.float32, activation="elu", method=method).eval()
    with torch.no_grad():
        for parameter in model.field.parameters():
            parameter *= 1e20
    with pytest.warns(RuntimeWarning, match="a prediction is not a number: "):
        frames = model.predict(context.float(), [1, 2, 5], generator=seeds(2))
    assert frames.isnan().all()


@BOTH
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": (2, 0, 1, 64, 64)}, "a context of shape .* has 0 frames; this model needs at least 1"),
        ({"context": (2, 4, 3, 64, 64)}, r"must be float \(clips, frames, 1, 64, 64\)"),
        ({"n_samples": 0}, "n_samples is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"substeps": 0}, "substeps is 0"),
        ({"times": [float("inf")]}, "time inf cannot be predicted; times are in frames, any finite number"),
        ({"times": []}, "times is empty"),
        ({"times": None}, "give either times or n_future"),
        ({"context_times": [0, 1, 2]}, r"context_times is \[0.0, 1.0, 2.0\] for 4 context frames"),
        ({"context_times": [0, 1, 1, 2]}, "give one time per frame, in frames, rising"),
        ({"context_times": [0, 1, float("nan"), 2]}, "give one time per frame, in frames, rising"),
        ({"generator": [torch.Generator()]}, "got 1 generators for 2 clips"),
    ],
)
def test_what_cannot_be_predicted_is_refused_at_once(name, changes, message):
    request = {"times": 2, **changes}
    given = torch.rand(*request.pop("context", (2, 4, 1, 64, 64)), dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        BUILD[name]().predict_chunks(given, request.pop("times"), **request)


@BOTH
def test_times_that_take_more_steps_than_allowed_are_refused_at_once(name, context):
    model = BUILD[name](max_steps=100)
    told = "a time 101 frames from where the solve starts is 101 steps of 0.5 away, but model.max_steps is 100; ask"
    with pytest.raises(ValueError, match=told):
        model.predict_chunks(context, [1, 101])
    with pytest.raises(ValueError, match=r"a time 51 frames .* is 102 steps of 0.25 away.*fewer substeps"):
        model.predict_chunks(context, [-51], substeps=2)
    latent = model.infer(context, n_future=2, generator=seeds(2))
    with pytest.raises(ValueError, match=r"a time 1e\+09 frames"):
        model.trajectory(latent, [1e9])
    assert model.trajectory(latent, [100, -100]).isfinite().all()


@BOTH
def test_weights_and_contexts_of_the_wrong_precision_are_refused_with_what_to_do(name, context):
    model = BUILD[name](torch.float32)
    with pytest.raises(ValueError, match=r"context is torch.float64 .* weights are torch.float32; give context.to"):
        model.predict(context.double(), 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.predict(context.bfloat16(), 2).isfinite().all()
    for precision in (torch.float16, torch.bfloat16):
        half = BUILD[name](precision)
        with pytest.raises(ValueError, match=f"weights are {precision}, but solves are fp32.*torch.autocast"):
            half.predict(context.to(precision), 2)
        with pytest.raises(ValueError, match=f"weights are {precision}"):
            half.infer(context.to(precision), n_future=1)


@BOTH
def test_what_cannot_be_taken_apart_is_refused(name, context):
    model = BUILD[name]()
    latent = model.infer(context, n_future=2, generator=seeds(2))
    with pytest.raises(ValueError, match="times is empty"):
        model.trajectory(latent, [])
    with pytest.raises(ValueError, match="n_future is -1"):
        model.infer(context, n_future=-1)
    with pytest.raises(ValueError, match=r"of \[1, 2\] clips"):
        model.decode(model.trajectory(latent, [3])[:, :1], {"content": torch.zeros(2, 2)})


@BOTH
@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.rand(2, 4, 3, 64, 64), r"must be float \(clips, frames, 1, 64, 64\) in \[0, 1\]"),
        (torch.rand(2, 4, 1, 32, 32), r"\(2, 4, 1, 32, 32\)"),
        (torch.zeros(2, 4, 1, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(4, 1, 64, 64), r"\(4, 1, 64, 64\)"),
    ],
)
def test_a_video_of_the_wrong_shape_is_named(name, clips, message):
    model = BUILD[name]()
    with pytest.raises(ValueError, match=message):
        model.loss({"video": clips}, noise(model, 2, 4))


def test_noise_for_another_batch_is_refused():
    model = rnnode(nt_obs=2)
    with pytest.raises(ValueError, match="slice the clips alone"):
        model.loss({"video": video(2, 4, 1)}, noise(model, 3, 4))


def test_the_posterior_of_a_context_of_another_length_than_in_training_is_served():
    model = rnnode().eval()
    assert isinstance(model, RNNODE)
    for frames in (1, 2, 7):
        assert model.predict(video(1, frames, 1), 1).isfinite().all()
