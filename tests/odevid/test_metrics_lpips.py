"""LPIPS equals published values, the published code, and its formula in NumPy; its weight files are read with care."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from odevid.metrics.backbones import ARCHITECTURES, Backbone
from odevid.metrics.best_of import BestOf, Metric
from odevid.metrics.lpips import EPS, LPIPS, SCALE, SHIFT, lpips
from tests.conftest import shared_data
from tests.odevid.test_metrics import constant, waves

# The published code (richzhang/PerceptualSimilarity 082bb24, version 0.1, normalize=True) on `waves(0.4)` against
# `waves(0.0)`, float32: the two RGB frames, then the two frames of their first channel repeated to three.
PUBLISHED = {
    "alex": ([0.008272250182926655, 0.008266081102192402], [0.002250016899779439, 0.002374731469899416]),
    "squeeze": ([0.019952984526753426, 0.018852030858397484], [0.008659839630126953, 0.008681045845150948]),
}
TENSORS = {"alex": (10, 2_469_696), "squeeze": (50, 722_496), "vgg": (26, 14_714_688)}
"""Of torchvision's `features`: how many tensors, how many numbers."""


def write_weights(folder: Path, net: str) -> tuple[Path, Path]:
    """Random files under the standard names: a whole classifier of torchvision, and the heads."""
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    backbone = Backbone(net).state_dict()
    names = {"alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth", "vgg": "vgg16-397923af.pth"}
    channels = ARCHITECTURES[net].taps.values()
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=generator) for i, c in enumerate(channels)}
    paths = folder / names[net], folder / "lpips" / "v0.1" / f"{net}.pth"
    paths[1].parent.mkdir(parents=True, exist_ok=True)
    torch.save({**backbone, "classifier.1.weight": torch.zeros(2, 2)}, paths[0])
    torch.save(heads, paths[1])
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights")
    for net in ("alex", "squeeze"):
        write_weights(path, net)
    return path


@pytest.fixture(scope="module", params=["alex", "squeeze"])
def metric(request, folder) -> LPIPS:
    return LPIPS(request.param, folder)


@pytest.fixture(scope="module")
def alex(folder) -> LPIPS:
    return LPIPS("alex", folder)


def videos(*lead: int, seed: int = 0, channels: int = 3, size: tuple[int, int] = (32, 40)) -> Tensor:
    return torch.rand(*lead, channels, *size, generator=torch.Generator().manual_seed(seed))


def in_numpy(metric: LPIPS, folder: Path, x_3HW: Tensor, y_3HW: Tensor) -> float:
    """The formula as the paper writes it, in float64, from the network's activations."""
    heads = torch.load(folder / "lpips" / "v0.1" / f"{metric.net}.pth", weights_only=True)
    shift, scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))
    activations = [metric.backbone(((2 * image - 1 - shift) / scale)[None]) for image in (x_3HW, y_3HW)]
    total = 0.0
    for layer, pair in enumerate(zip(*activations, strict=True)):
        a, b = (f[0].numpy().astype(np.float64) for f in pair)
        a, b = (f / (np.linalg.norm(f, axis=0) + EPS) for f in (a, b))
        weights = heads[f"lin{layer}.model.1.weight"].numpy().ravel()
        total += np.einsum("c,chw->hw", weights, (a - b) ** 2).mean()
    return total


class TestPublishedValues:
    def test_black_against_white(self):
        metric = LPIPS("alex", shared_data("lpips"))
        assert metric(constant(0.0, 3), constant(1.0, 3)).tolist() == pytest.approx([0.8140] * 2, abs=5e-5)

    @pytest.mark.parametrize("net", PUBLISHED)
    def test_published_code_on_colour_and_on_grey_frames(self, net):
        metric = LPIPS(net, shared_data("lpips"))
        prediction, target = waves(0.4), waves(0.0)
        colour, grey = PUBLISHED[net]
        assert metric(prediction, target).tolist() == pytest.approx(colour, abs=2e-8)
        assert metric(prediction[:, :1], target[:, :1]).tolist() == pytest.approx(grey, abs=2e-8)

    def test_squeeze_on_the_example_of_torchmetrics_documentation(self):
        torch.manual_seed(123)
        first, second = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
        values = lpips(first, second, net="squeeze", weights=shared_data("lpips"))
        assert values.mean().item() == pytest.approx(0.1008, abs=5e-5)


class TestFormula:
    def test_in_numpy(self, metric, folder):
        x, y = videos(3, seed=1), videos(3, seed=2)
        expected = [in_numpy(metric, folder, *pair) for pair in zip(x, y, strict=True)]
        assert metric(x, y).tolist() == pytest.approx(expected, rel=2e-6)

    def test_of_equal_frames_is_zero(self, metric):
        assert metric(videos(2), videos(2)).tolist() == [0, 0]

    def test_is_symmetric(self, metric):
        x, y = videos(2, seed=1), videos(2, seed=2)
        torch.testing.assert_close(metric(x, y), metric(y, x), rtol=1e-6, atol=0)

    def test_grey_frames_are_repeated_to_three_channels(self, metric):
        x, y = videos(2, channels=1, seed=1), videos(2, channels=1, seed=2)
        torch.testing.assert_close(metric(x, y), metric(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)), rtol=0, atol=0)

    def test_has_no_gradient(self, alex):
        x = videos(2).requires_grad_()
        assert not alex(x, videos(2, seed=1)).requires_grad
        assert not alex.features(x).requires_grad
        assert not any(parameter.requires_grad for parameter in alex.parameters())

    def test_is_float32_under_autocast_and_for_half_precision(self, alex):
        x, y = videos(2, seed=1).half(), videos(2, seed=2).half()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = alex(x, y)
        assert values.dtype == torch.float32
        assert values.tolist() == pytest.approx(alex(x.float(), y.float()).tolist(), rel=1e-6)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu_is_that_on_the_cpu_wherever_the_frames_are(self, folder, alex):
        x, y = videos(2, 3, seed=1), videos(2, 3, seed=2)
        on_gpu = LPIPS("alex", folder).to("cuda")
        assert on_gpu(x.cuda(), y.cuda()).is_cuda
        for values in (on_gpu(x.cuda(), y.cuda()).cpu(), on_gpu(x, y)):
            torch.testing.assert_close(values, alex(x, y), rtol=1e-5, atol=0)


class TestVideosAndSamples:
    def test_every_frame_of_every_video_has_its_value(self, alex):
        x, y = videos(2, 3, seed=1), videos(2, 3, seed=2)
        values_BT = alex(x, y)
        assert values_BT.shape == (2, 3)
        assert values_BT[1, 2].item() == pytest.approx(alex(x[1, 2:], y[1, 2:]).item(), rel=1e-5)

    def test_samples_broadcast_against_one_target(self, alex):
        samples, target = videos(3, 2, 2, seed=1), videos(2, 2, seed=2)
        score = alex.against(target)
        each = torch.stack([alex(sample, target) for sample in samples])
        torch.testing.assert_close(score(samples), each, rtol=1e-5, atol=0)
        torch.testing.assert_close(alex.against(samples)(target), each, rtol=1e-5, atol=0)

    def test_features_of_the_target_serve_any_number_of_samples(self, metric):
        samples, target = videos(3, 2, 2, seed=1), videos(2, 2, seed=2)
        values_NBT = metric.distance(metric.features(samples), metric.features(target))
        torch.testing.assert_close(values_NBT, metric(samples, target), rtol=1e-5, atol=0)

    @pytest.mark.parametrize("images", [0, 1, 2, 5])
    def test_small_passes_give_equal_values_and_no_pass_is_larger(self, folder, images, alex):
        x, y = videos(3, 3, seed=1), videos(3, 3, seed=2)
        bounded = LPIPS("alex", folder, pixels_per_pass=images * 32 * 40)
        sizes = []
        bounded.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        torch.testing.assert_close(bounded(x, y), alex(x, y), rtol=1e-5, atol=0)
        assert max(sizes) == max(images, 1) and sum(sizes) == 2 * 9

    def test_best_of_samples_takes_the_smallest(self, alex):
        target = videos(2, 2)
        noise = torch.tensor([0.3, 0.0, 0.1]).reshape(3, 1, 1, 1, 1, 1)
        tracker = BestOf([Metric("lpips", "", alex.against, higher_is_better=False)], target)
        tracker.update((target + noise * videos(2, 2, seed=9)).clamp(0, 1))
        assert tracker.best["lpips"].samples_B.tolist() == [1, 1]
        assert tracker.worst["lpips"].samples_B.tolist() == [0, 0]

    @pytest.mark.parametrize(("net", "length"), [("alex", 31_872), ("squeeze", 118_976)])
    def test_length_of_a_frames_vector(self, folder, net, length):
        assert LPIPS(net, folder).features(videos(1, size=(64, 64))).shape == (1, length)


class TestBadFrames:
    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (videos(2) * 2 - 1, r"prediction has values in \[-0.99\d*, 0.99\d*\]; expected \[0, 1\]"),
            (videos(2) * 255, r"prediction has values in \[.*, 25\d.*\]; expected"),
            (torch.full((2, 3, 32, 40), torch.nan), "prediction holds 7680 NaN of 7680 values"),
            (videos(2, channels=2), r"prediction has frames TCHW \(2, 2, 32, 40\), target has \(2, 3, 32, 40\)"),
            (videos(2, size=(40, 32)), "these must be equal"),
            (videos(3), "these must be equal"),
        ],
    )
    def test_are_refused(self, alex, frames, message):
        with pytest.raises(ValueError, match=message):
            alex(frames, videos(2))

    def test_channels_that_are_no_colours(self, alex):
        with pytest.raises(ValueError, match=r"2 channels; LPIPS takes 3 \(RGB\) or 1 \(grey, repeated to 3\)"):
            alex.features(videos(2, channels=2))

    def test_what_is_no_tensor(self):
        with pytest.raises(TypeError, match=r"prediction is builtins.list; expected a tensor: write torch.as_tensor"):
            lpips([1], [2])

    def test_integers(self, alex):
        with pytest.raises(TypeError, match=r"write frames.float\(\) / 255"):
            alex.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))

    def test_rounding_beyond_the_range_is_no_error(self, alex):
        assert 0 <= alex(constant(1.0005), constant(1.0)).max().item() < 1e-4

    def test_features_of_other_frames_or_networks(self, alex):
        with pytest.raises(ValueError, match="of other frames or of another network"):
            alex.distance(alex.features(videos(2)), alex.features(videos(2, size=(64, 64))))

    def test_no_frames(self, alex):
        with pytest.raises(ValueError, match="it holds no pixel"):
            alex.features(videos(0))


class TestBackbones:
    @pytest.mark.parametrize("net", ARCHITECTURES)
    def test_tensors_are_those_of_torchvision(self, net):
        state = Backbone(net).state_dict()
        assert (len(state), sum(tensor.numel() for tensor in state.values())) == TENSORS[net]

    @pytest.mark.parametrize("net", ARCHITECTURES)
    def test_activations_have_the_channels_of_the_heads_down_to_the_smallest_image(self, net):
        backbone, smallest = Backbone(net), ARCHITECTURES[net].smallest
        with torch.no_grad():
            channels = [x.shape[1] for x in backbone(torch.rand(1, 3, smallest, smallest))]
            assert channels == list(ARCHITECTURES[net].taps.values())
            with pytest.raises(RuntimeError):
                backbone(torch.rand(1, 3, smallest - 1, smallest - 1))

    def test_frames_smaller_than_that_are_refused(self, alex):
        with pytest.raises(ValueError, match="30x64 pixels; LPIPS with AlexNet needs at least 31x31"):
            alex.features(videos(1, size=(30, 64)))

    def test_vgg_reads_published_heads(self, tmp_path):
        backbone, _ = write_weights(tmp_path, "vgg")
        metric = LPIPS("vgg", (backbone, shared_data("lpips", "lin_v0.1_vgg.pth")))
        assert metric.features(videos(1, size=(64, 64))).shape == (1, 499_712)
        assert 0 < metric(videos(1), videos(1, seed=1)).item() < 1


class TestWeights:
    def test_are_found_in_the_folder_of_the_environment(self, folder, alex, monkeypatch):
        monkeypatch.setenv("ODEVID_WEIGHTS", str(folder))
        x, y = videos(1, seed=1), videos(1, seed=2)
        torch.testing.assert_close(lpips(x, y), alex(x, y), rtol=0, atol=0)

    def test_missing_ones_are_named_with_place_and_address(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ODEVID_WEIGHTS", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        with pytest.raises(FileNotFoundError) as error:
            lpips(videos(1), videos(1), net="squeeze")
        assert str(error.value) == (
            f"LPIPS (squeeze) needs weights, which are never fetched by themselves and are not in {tmp_path} or "
            f"{tmp_path}/home/.cache/odevid/weights. Put there:\n"
            f"  {tmp_path}/squeezenet1_1-b8a52dc0.pth  "
            "(SqueezeNet 1.1, from https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth)\n"
            f"  {tmp_path}/lpips/v0.1/squeeze.pth  (LPIPS v0.1 heads, from "
            "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/squeeze.pth)\n"
            "or name another folder with weights= or $ODEVID_WEIGHTS"
        )

    def test_only_what_is_missing_is_asked_for(self, tmp_path):
        backbone, heads = write_weights(tmp_path, "alex")
        heads.unlink()
        with pytest.raises(FileNotFoundError, match=r"LPIPS v0\.1 heads") as error:
            LPIPS("alex", tmp_path)
        assert backbone.name not in str(error.value)

    def test_heads_that_do_not_say_their_version_are_not_taken(self, tmp_path):
        _, heads = write_weights(tmp_path, "alex")
        heads.rename(tmp_path / "alex.pth")
        with pytest.raises(FileNotFoundError):
            LPIPS("alex", tmp_path)

    def test_unknown_network(self):
        with pytest.raises(ValueError, match="no network 'resnet'; choose from alex, squeeze, vgg"):
            lpips(videos(1), videos(1), net="resnet")

    def test_of_another_network(self, folder):
        backbone, heads = folder / "squeezenet1_1-b8a52dc0.pth", folder / "lpips" / "v0.1" / "alex.pth"
        with pytest.raises(ValueError, match=r"b8a52dc0.pth is not AlexNet: 8 of 10 tensors are missing"):
            LPIPS("alex", (backbone, heads))
        with pytest.raises(ValueError, match=r"alex.pth is not the LPIPS heads of squeeze: 2 of 7 tensors are missing"):
            LPIPS("squeeze", (backbone, heads))

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda head: head[:, :3], r"has shape \(1, 3, 1, 1\), expected \(1, 64, 1, 1\)"),
            (lambda head: head * torch.inf, "is damaged: lin0.model.1.weight holds values that are not finite"),
            (lambda head: -head, "lin0.model.1.weight has negative weights"),
        ],
    )
    def test_of_wrong_shape_or_value(self, tmp_path, damage, message):
        paths = write_weights(tmp_path, "alex")
        heads = torch.load(paths[1], weights_only=True)
        torch.save({**heads, "lin0.model.1.weight": damage(heads["lin0.model.1.weight"])}, paths[1])
        with pytest.raises(ValueError, match=message):
            LPIPS("alex", paths)

    @pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04"])
    def test_that_are_no_weights(self, tmp_path, content):
        paths = write_weights(tmp_path, "alex")
        paths[0].write_bytes(content)
        with pytest.raises(ValueError, match=r"7be5be79\.pth is not a state dict of tensors"):
            LPIPS("alex", paths)

    def test_that_are_something_else_of_pytorch(self, tmp_path):
        paths = write_weights(tmp_path, "alex")
        torch.save([torch.zeros(1)], paths[0])
        with pytest.raises(ValueError, match="holds a list; expected a state dict"):
            LPIPS("alex", paths)

    def test_named_files_that_are_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no-such\.pth: no such file of weights"):
            LPIPS("alex", (tmp_path / "no-such.pth", tmp_path / "no-such.pth"))
