"""I3D has the published layers, gives a public port's logits on the same weights, and reads the files people have."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from odevid.metrics.i3d import I3D, Pool, Unit, pad_same, same_padding
from odevid.metrics.i3d_weights import from_state_dict, load_i3d
from tests.odevid import formula
from tests.odevid.i3d_names import as_hassony2, as_piergiaj

# Logits 0, 1, 200, 399 and the standard deviation of all 400: piergiaj/pytorch-i3d (05783d1) and
# hassony2/kinetics_i3d_pytorch (786fbae) agree on them, run in float64 with `formula_weights` on `clip()`.
PUBLISHED_LOGITS = [66.14017016131145, -80.83441138420542, 115.54178628094482, 3.9693863289019014]
PUBLISHED_STD = 98.05499294043939


def formula_weights() -> dict[str, Tensor]:
    shapes = {name: tuple(tensor.shape) for name, tensor in I3D().state_dict().items()}
    return {name: tensor if not tensor.ndim else tensor.float() for name, tensor in formula.weights(shapes).items()}


def clip() -> Tensor:
    """(1, 3, 9, 224, 224) in [-1, 1]."""
    return formula.scatter((1, 3, 9, 224, 224), key=5).float()


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return formula_weights()


class TestSamePadding:
    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "expected"),
        [
            (224, 7, 2, (2, 3)),  # 112 windows span 229
            (9, 7, 2, (3, 3)),  # 5 windows span 15
            (8, 7, 2, (2, 3)),  # 4 windows span 13
            (112, 3, 2, (0, 1)),  # 56 windows span 113
            (5, 3, 2, (1, 1)),  # 3 windows span 7
            (3, 2, 2, (0, 1)),  # 2 windows span 4
            (7, 3, 1, (1, 1)),
            (7, 1, 1, (0, 0)),
            (4, 1, 2, (0, 0)),  # windows leave the last pixel out
        ],
    )
    def test_is_what_the_windows_lack_with_the_odd_pixel_behind(self, size, kernel, stride, expected):
        assert same_padding(size, kernel, stride) == expected

    def test_puts_each_axis_where_it_belongs(self):
        padded = pad_same(torch.ones(1, 1, 3, 4, 5), (2, 3, 1), (2, 2, 1))
        assert padded.shape == (1, 1, 4, 5, 5)
        assert padded[0, 0, :, 0, 0].tolist() == [1, 1, 1, 0]
        assert padded[0, 0, 0, :, 0].tolist() == [1, 1, 1, 1, 0]

    def test_of_a_pool_on_a_ramp(self):
        ramp = torch.arange(1.0, 7.0).reshape(1, 1, 1, 1, 6)
        assert Pool((1, 1, 3), (1, 1, 2))(ramp).flatten().tolist() == [3, 5, 6]

    def test_of_a_convolution_on_a_ramp(self):
        """Windows of 3 at stride 2 over 1 ... 6 and one zero behind, each weight 1, BatchNorm at its start."""
        unit = Unit(1, 1, 3, stride=2).eval()
        nn.init.zeros_(unit.conv.weight)
        with torch.no_grad():
            unit.conv.weight[0, 0, 1, 1] = 1
            found = unit(torch.arange(1.0, 7.0).reshape(1, 1, 1, 1, 6))
        assert found.flatten().tolist() == pytest.approx([value / 1.001**0.5 for value in (6, 12, 11)])


class TestNetwork:
    def test_has_the_variables_of_the_published_graph(self):
        """TF-Hub's i3d-kinetics-400: 12 689 984 trained numbers, 57 BatchNorms with an offset and no scale (here 1)."""
        net = I3D()
        norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
        scales = sum(norm.weight.numel() for norm in norms)
        assert sum(parameter.numel() for parameter in net.parameters()) - scales == 12_689_984
        assert len(norms) == 57 and {norm.eps for norm in norms} == {1e-3}

    def test_has_the_published_shapes_and_logits_on_the_same_weights(self, weights):
        net, shapes = from_state_dict(as_piergiaj(weights)), {}
        for name, layer in net.trunk.named_children():
            layer.register_forward_hook(lambda _, __, result, name=name: shapes.update({name: tuple(result.shape[1:])}))
        logits = net(clip())
        assert shapes == {
            "conv3d_1a_7x7": (64, 5, 112, 112),
            "maxpool3d_2a_3x3": (64, 5, 56, 56),
            "conv3d_2b_1x1": (64, 5, 56, 56),
            "conv3d_2c_3x3": (192, 5, 56, 56),
            "maxpool3d_3a_3x3": (192, 5, 28, 28),
            "mixed_3b": (256, 5, 28, 28),
            "mixed_3c": (480, 5, 28, 28),
            "maxpool3d_4a_3x3": (480, 3, 14, 14),
            "mixed_4b": (512, 3, 14, 14),
            "mixed_4c": (512, 3, 14, 14),
            "mixed_4d": (512, 3, 14, 14),
            "mixed_4e": (528, 3, 14, 14),
            "mixed_4f": (832, 3, 14, 14),
            "maxpool3d_5a_2x2": (832, 2, 7, 7),
            "mixed_5b": (832, 2, 7, 7),
            "mixed_5c": (1024, 2, 7, 7),
        }
        assert logits.shape == (1, 400)
        tolerance = 1e-5 * PUBLISHED_STD
        assert logits[0, [0, 1, 200, 399]].tolist() == pytest.approx(PUBLISHED_LOGITS, abs=tolerance)
        assert logits.std().item() == pytest.approx(PUBLISHED_STD, rel=1e-5)

    def test_needs_nine_frames_of_224_pixels(self):
        net = I3D()
        with pytest.raises(ValueError, match="8 frames; I3D needs at least 9"):
            net(torch.zeros(1, 3, 8, 224, 224))
        with pytest.raises(ValueError, match=r"\(1, 3, 9, 64, 64\)"):
            net(torch.zeros(1, 3, 9, 64, 64))


class TestReaders:
    @pytest.mark.parametrize("rename", [as_piergiaj, as_hassony2])
    def test_put_every_tensor_of_each_layout_in_its_place(self, weights, rename):
        public = {f"module.{name}": tensor for name, tensor in rename(weights).items()}
        public["module.counter.num_batches_tracked"] = torch.tensor(3)
        net = from_state_dict(public)
        assert not net.training and not any(parameter.requires_grad for parameter in net.parameters())
        for name, tensor in net.state_dict().items():
            assert name.endswith("num_batches_tracked") or torch.equal(tensor, weights[name])

    @pytest.mark.parametrize("zipped", [True, False])
    def test_read_both_formats_of_torch_files(self, weights, tmp_path, zipped):
        path = tmp_path / "i3d_pretrained_400.pt"
        torch.save(as_piergiaj(weights), path, _use_new_zipfile_serialization=zipped)
        head = load_i3d(path).get_parameter("logits.weight")
        assert torch.equal(head, weights["logits.weight"])

    def test_find_the_file_in_the_weights_folder(self, weights, tmp_path, monkeypatch):
        torch.save(as_piergiaj(weights), tmp_path / "i3d_pretrained_400.pt")
        assert isinstance(load_i3d(tmp_path), I3D)
        monkeypatch.setenv("ODEVID_WEIGHTS", str(tmp_path))
        assert isinstance(load_i3d(), I3D)

    def test_say_which_file_to_put_where(self, tmp_path, monkeypatch):
        monkeypatch.setenv("ODEVID_WEIGHTS", str(tmp_path / "mine"))
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(FileNotFoundError) as caught:
            load_i3d()
        assert str(tmp_path / "mine" / "i3d_pretrained_400.pt") in str(caught.value)
        with pytest.raises(FileNotFoundError, match=r"nothing\.pt: no such file.*Put there i3d_pretrained_400.pt"):
            load_i3d(tmp_path / "nothing.pt")

    def test_name_the_file_of_a_folder_that_is_not_there_and_how_to_name_another(self, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            load_i3d(tmp_path / "nope")
        told = str(caught.value)
        assert f"  {tmp_path / 'nope' / 'i3d_pretrained_400.pt'}  (I3D of Kinetics-400" in told
        assert "name another folder with weights=" in told
        assert told.endswith("or the file itself, wherever it is, with weights=FILE")

    def test_refuse_other_networks_by_name(self, weights):
        public = as_piergiaj(weights)
        extra = public.pop("logits.conv3d.bias")
        with pytest.raises(ValueError, match=r"mine: .*1 missing \(logits.conv3d.bias\), 1 unknown \(extra\)"):
            from_state_dict({**public, "extra": extra}, "mine")

    @pytest.mark.parametrize(
        ("name", "shape"), [("Conv3d_1a_7x7.conv3d.weight", (64, 2, 7, 7, 7)), ("logits.conv3d.bias", (157,))]
    )
    def test_refuse_the_flow_stream_and_other_classes(self, weights, name, shape):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            from_state_dict({**as_piergiaj(weights), name: torch.zeros(shape)})

    @pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
    def test_refuse_what_is_no_state_dict(self, tmp_path, content):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other\.pt"):
            load_i3d(tmp_path / "other.pt")


class Scripted(nn.Module):
    """The interface of StyleGAN-V's scripted network around something small."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert not rescale and not resize and return_features
        return x.mean(dim=(2, 3, 4))


@pytest.fixture
def torchscript(tmp_path) -> Path:
    torch.jit.save(torch.jit.script(Scripted()), tmp_path / "i3d_torchscript.pt")
    return tmp_path / "i3d_torchscript.pt"


class TestTorchScript:
    def test_is_not_run_unless_allowed(self, torchscript):
        with pytest.raises(PermissionError, match="run_code=True"):
            load_i3d(torchscript)

    def test_is_not_found_by_itself(self, torchscript, monkeypatch):
        monkeypatch.setenv("HOME", str(torchscript.parent / "nobody"))
        with pytest.raises(FileNotFoundError):
            load_i3d(torchscript.parent, run_code=True)

    def test_gives_its_features_without_its_own_preprocessing(self, torchscript):
        net, videos = load_i3d(torchscript, run_code=True), torch.rand(2, 3, 4, 5, 5)
        torch.testing.assert_close(net(videos), videos.mean(dim=(2, 3, 4)))
