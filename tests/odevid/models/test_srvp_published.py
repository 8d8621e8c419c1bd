"""SRVP against the released code (edouardelasalles/srvp at 05661fa).

The constants were printed by that code, run in float64 with the weights, clips and noise of `tests.odevid.formula`.
"""

import hashlib

import pytest
import torch

from odevid.config import published_srvp
from odevid.models.srvp import SRVP, load_published
from tests.odevid.formula import noise, scatter, tiny, tiny_vgg, video, weights

CLIPS, FRAMES = 3, 6
PARAMETERS = {  # encoder, decoder, w_proj + w_inf, q_y, inf_z, q_z, p_z, dynamics, total
    "smmnist": (3_804_160, 5_016_448, 98_816, 240_168, 395_264, 10_280, 556_584, 556_564, 10_678_284),
    "mmnist": (3_804_160, 5_016_448, 98_816, 240_168, 395_264, 10_280, 556_584, 556_564, 10_678_284),
    "kth": (8_685_632, 13_276_992, 98_816, 190_052, 395_264, 25_700, 602_724, 602_674, 23_877_854),
    "human": (8_686_784, 13_278_144, 98_816, 190_052, 395_264, 25_700, 602_724, 602_674, 23_880_158),
    "bair": (8_686_784, 13_278_144, 98_816, 157_284, 395_264, 25_700, 602_724, 602_674, 23_847_390),
}
NAMES_AND_SHAPES = {  # tensors, sha256 of "name shape" lines in the order of the names
    "smmnist": (82, "5c9df2f963c0737612262a55c8345120c5c4b92b921c0d6d0307147555e0340a"),
    "mmnist": (82, "5c9df2f963c0737612262a55c8345120c5c4b92b921c0d6d0307147555e0340a"),
    "kth": (159, "359e5864a3dbf0b99550cd9c6ca05e07c4fce006dd6adff0357731e9f5db9555"),
    "human": (159, "c339bcb98974941079e48b2f4435af139f683a79808db456fab1a82fb6f2b19d"),
    "bair": (159, "4deea081cf4337eae2f872080855b1038ab9018c0ef69e5a35f080a41d16e24d"),
}
CONFIGS = {"dcgan": tiny(), "vgg": tiny_vgg()}
LOSSES = {
    ("dcgan", "eval"): {
        "loss": 27485.351192273,
        "nll": 23665.073100466,
        "kl_y": 4.259152691,
        "kl_z": 1905.635299033,
        "res": 4.748341049,
    },
    ("dcgan", "train"): {
        "loss": 25432.302025462,
        "nll": 24060.003623313,
        "kl_y": 2.305958662,
        "kl_z": 682.849879701,
        "res": 4.292684085,
    },
    ("vgg", "eval"): {
        "loss": 54718.056717283,
        "nll": 54697.023592874,
        "kl_y": 1.664200784,
        "kl_z": 7.872015804,
        "res": 3.624892017,
    },
    ("vgg", "train"): {
        "loss": 51181.90849057,
        "nll": 51150.239748063,
        "kl_y": 0.885750236,
        "kl_z": 12.96980458,
        "res": 4.843383111,
    },
}
GRADIENT_NORMS = {
    "dcgan": {
        "encoder.conv.0.0.weight": 17476.272349616916,
        "decoder.conv.0.0.weight": 159.66309498453842,
        "w_proj.0.weight": 15.49184233093919,
        "q_y.module.0.0.weight": 11668.458593379299,
        "inf_z.weight_hh_l0": 251.3622483910144,
        "p_z.module.3.1.weight": 18027.51499236631,
        "dynamics.module.0.0.weight": 5624.95744943082,
    },
    "vgg": {
        "encoder.conv.0.0.0.weight": 632.9962661395505,
        "decoder.conv.0.0.0.weight": 431.83905250072206,
        "w_proj.0.weight": 31.918550952489095,
        "q_y.module.0.0.weight": 15.78897811917765,
        "inf_z.weight_hh_l0": 3.1823902919825624,
        "p_z.module.3.1.weight": 60.377265654602155,
        "dynamics.module.0.0.weight": 60.14802081728635,
    },
}


@pytest.mark.parametrize("dataset", PARAMETERS)
def test_parameters_are_counted_as_published(dataset):
    with torch.device("meta"):
        model = SRVP(published_srvp(dataset))
    parts = [("encoder",), ("decoder",), ("w_proj", "w_inf"), ("q_y",), ("inf_z",), ("q_z",), ("p_z",), ("dynamics",)]
    counts = [sum(p.numel() for name in part for p in getattr(model, name).parameters()) for part in parts]
    assert (*counts, sum(counts)) == PARAMETERS[dataset]
    assert sum(p.numel() for p in model.parameters()) == sum(counts)


def test_parameters_of_dcgan_with_skips_on_kth_are_counted_as_published():
    config = published_srvp("kth")
    config.architecture = "dcgan"
    with torch.device("meta"):
        model = SRVP(config)
    assert sum(p.numel() for p in model.parameters()) == 13_735_134


@pytest.mark.parametrize("dataset", NAMES_AND_SHAPES)
def test_tensors_are_named_and_shaped_as_in_released_checkpoints(dataset):
    with torch.device("meta"):
        state = SRVP(published_srvp(dataset)).state_dict()
    lines = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(state.items()))
    assert (len(state), hashlib.sha256(lines.encode()).hexdigest()) == NAMES_AND_SHAPES[dataset]


def _checkpoint(config):
    return weights({name: tuple(value.shape) for name, value in SRVP(config).state_dict().items()})


def _model(architecture, dtype, **changes):
    config = CONFIGS[architecture]
    config = type(config)(**{**vars(config), **changes})
    model = load_published(_checkpoint(config), config).to(dtype)
    model.load_state_dict(_checkpoint(config))  # once more, for weights that float32 would have rounded
    return model


def _loss(model, dtype):
    drawn = {
        name: x.to(dtype) if x.is_floating_point() else x for name, x in noise(model.config, CLIPS, FRAMES).items()
    }
    return model.loss({"video": video(CLIPS, FRAMES, model.config.nc).to(dtype)}, drawn)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=["fp32", "fp64"])
@pytest.mark.parametrize("split", [True, False], ids=["split", "concatenated"])
@pytest.mark.parametrize(("architecture", "mode"), LOSSES)
def test_every_term_of_the_loss_is_that_of_the_released_code(architecture, mode, split, dtype, tolerance):
    model = _model(architecture, dtype, split_decoder=split).train(mode == "train")
    with torch.no_grad():
        terms = _loss(model, dtype)
    assert {name: value.item() for name, value in terms.items()} == pytest.approx(
        LOSSES[architecture, mode], rel=tolerance
    )


@pytest.mark.parametrize("architecture", CONFIGS)
def test_gradients_are_those_of_the_released_code(architecture):
    model = _model(architecture, torch.float64).train()
    _loss(model, torch.float64)["loss"].backward()
    norms = {name: model.get_parameter(name).grad.norm().item() for name in GRADIENT_NORMS[architecture]}
    assert norms == pytest.approx(GRADIENT_NORMS[architecture], rel=1e-8)


def _predict(model, times, substeps, dtype, monkeypatch):
    """Prediction of one sample after k + 1 frames, with the noise of the run that gave the constants."""
    config, transitions = model.config, model.config.nt_inf + 2
    eps = scatter((CLIPS, config.ny + config.nz * transitions), 2000).to(dtype)
    drawn = (eps[:, : config.ny], eps[:, config.ny :].unflatten(1, (transitions, config.nz)))
    monkeypatch.setattr(model, "_sample_noise", lambda *_: lambda _count: drawn)
    context = video(CLIPS, config.nt_inf + 1, config.nc).to(dtype)
    return model.predict(context, times, substeps=substeps)[0].double()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"])
def test_predictions_of_dcgan_are_those_of_the_released_code(dtype, tolerance, monkeypatch):
    model = _model("dcgan", dtype)
    frames = _predict(model, [3, 4, 4.5, 5], 2, dtype, monkeypatch)
    expected = [
        [0.6086548006849551, 0.6025931575579933, 0.5991548366741105],
        [0.5371936100923503, 0.5507126290362934, 0.5505640558727091],
        [0.542575294872884, 0.5634860948293342, 0.573583124895691],
        [0.4981140589536403, 0.4855461649601727, 0.48050854602522725],
    ]
    _assert_pixels(frames, expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"])
def test_predictions_of_vgg_with_skips_at_half_the_time_step_are_those_of_the_released_code(
    dtype, tolerance, monkeypatch
):
    frames = _predict(_model("vgg", dtype), [2, 3, 3.25, 4], 4, dtype, monkeypatch)
    expected = [
        [0.8633318699754833, 0.5413678074950643, 0.7225652440197949],
        [0.9210161544403317, 0.7668350159457794, 0.3718426222210028],
        [0.9199358804923008, 0.7699328614808751, 0.3745267702744746],
        [0.5910853015428623, 0.787765333238763, 0.8238708213435818],
    ]
    _assert_pixels(frames, expected, tolerance)


def _assert_pixels(frames_BTCHW, expected, tolerance):
    """One pixel of the reconstruction, one of two predicted times, another of the last; a row holds all clips."""
    places = [(0, 0, 10, 20), (1, 0, 31, 33), (2, 0, 31, 33), (3, -1, 5, 50)]
    observed = [frames_BTCHW[:, time, channel, row, column].tolist() for time, channel, row, column in places]
    torch.testing.assert_close(torch.tensor(observed), torch.tensor(expected), rtol=0, atol=max(tolerance, 1e-7))


def test_codes_are_those_of_the_released_code():
    codes, _ = _model("dcgan", torch.float64).encoder(video(CLIPS, 4, 1)[:1, -1])
    expected = [-0.9559942047099064, -0.5680285255051736, 0.3237212976388768, -0.8352905009166819]
    assert codes[0, :4].tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before_torch_1.6"])
def test_a_released_checkpoint_is_read_from_its_file(tmp_path, zipped):
    config, path = tiny(), tmp_path / "model.pt"
    torch.save(_checkpoint(config), path, _use_new_zipfile_serialization=zipped)
    model = load_published(path, config)
    assert not model.training
    assert model.q_z.weight[0, 0].item() == pytest.approx(_checkpoint(config)["q_z.weight"][0, 0].item(), rel=1e-6)


def test_a_checkpoint_of_another_config_is_refused_by_tensor():
    with pytest.raises(ValueError, match=r"tensors differ in name or shape, first .*; check architecture"):
        load_published(_checkpoint(tiny()), tiny_vgg())
    with pytest.raises(ValueError, match=r"first decoder\.first_upconv\.0\.weight"):
        load_published(_checkpoint(tiny()), tiny(ny=7))
