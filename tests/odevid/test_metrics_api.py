"""`odevid.metrics.psnr/ssim/ssim_svg/lpips/fvd` are plain functions, whatever was imported before, and say what to type
when frames are not what they take."""

from __future__ import annotations

import doctest
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

import odevid.metrics
from odevid.metrics import fvd, lpips, psnr, ssim, ssim_svg
from tests.conftest import REPOSITORY, shared_data

NAMES = ("fvd", "lpips", "psnr", "ssim", "ssim_svg")
FRAMES = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(0))

IN_EVERY_ORDER = """
import importlib, itertools, sys, types
names = ("fvd", "lpips", "psnr", "ssim", "ssim_svg")
modules = ["odevid.metrics." + name for name in names]
for first in ["odevid.metrics", "odevid.metrics.best_of", "odevid.metrics.interval", *modules]:
    for order in ([first, "odevid.metrics", *modules], [first, *reversed(modules), "odevid.metrics"]):
        for loaded in [name for name in sys.modules if name.startswith("odevid")]:
            del sys.modules[loaded]
        for name in order:
            importlib.import_module(name)
        package = sys.modules["odevid.metrics"]
        for name in names:
            assert isinstance(getattr(package, name), types.FunctionType), (first, name)
            assert getattr(package, name) is getattr(sys.modules["odevid.metrics." + name], name)
heavy = {"hpc", "shards", "deepspeed", "wandb", "omegaconf", "matplotlib", "webdataset", "torchvision"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_are_functions_in_whatever_order_modules_are_imported_and_need_nothing_of_the_cluster():
    subprocess.run([sys.executable, "-c", IN_EVERY_ORDER], check=True, cwd=REPOSITORY)


def test_names_of_the_package_are_the_functions():
    for name, function in zip(NAMES, (fvd, lpips, psnr, ssim, ssim_svg), strict=True):
        assert getattr(odevid.metrics, name) is function
        assert isinstance(function, types.FunctionType)
    assert sorted(odevid.metrics.__all__) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("psnr", "Franceschi et al. 2020"),
        ("ssim", "Wang et al. 2004"),
        ("ssim_svg", "Denton and Fergus 2018"),
        ("fvd", "Unterthiner et al. 2018"),
        ("lpips", "`LPIPS`"),
    ],
)
def test_documentation_tells_axes_range_and_source(name, source):
    text = getattr(odevid.metrics, name).__doc__
    assert "[0, 1]" in text and "CHW" in text and source in text


@pytest.mark.parametrize("function", [psnr, ssim, ssim_svg], ids=lambda function: function.__name__)
def test_examples_in_the_documentation_hold(function):
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder().find(function, globs={"torch": torch}):
        runner.run(example)
    assert runner.tries > 0 and runner.failures == 0


@pytest.mark.parametrize("function", [psnr, ssim, ssim_svg], ids=lambda function: function.__name__)
class TestVideos:
    def test_have_one_value_per_video_and_frame(self, function):
        other = FRAMES.flip(0)
        values = function(FRAMES, other)
        assert values.shape == (2, 3)
        torch.testing.assert_close(values[1, 2], function(FRAMES[1, 2:], other[1, 2:])[0])

    @pytest.mark.parametrize(
        ("frames", "message"),
        [
            (FRAMES * 255, r"prediction has values in \[.*, 25\d(\.\d+)?\]; .*8 bits\? Write prediction / 255$"),
            (FRAMES * 2 - 1, r"prediction has values in \[-0\.9.*; .*\[-1, 1\]\? Write \(prediction \+ 1\) / 2$"),
            (FRAMES * 1000, r"prediction has values in \[.*, 99\d(\.\d+)?\]; expected \[0, 1\]$"),
            (FRAMES - 0.05, r"prediction has values in \[-0\.0\d+, 0\.9\d+\]; .*Write prediction\.clamp\(0, 1\)$"),
            (FRAMES * 4 - 2, r"prediction has values in \[-2, 1\.9\d*\]; expected \[0, 1\]$"),
            (FRAMES / 0, r"prediction has values in \[.*inf\]; expected \[0, 1\]$"),
            (FRAMES[:, :2], r"prediction has frames TCHW \(2, 1, 16, 16\), target has \(3, 1, 16, 16\)"),
            (
                FRAMES[[0, 1, 0]],
                r"prediction has shape \(3, 3, 1, 16, 16\), target has \(2, 3, 1, 16, 16\): .*broadcast",
            ),
            (FRAMES[0, 0], r"prediction has shape \(1, 16, 16\); expected axes ...TCHW"),
        ],
    )
    def test_that_are_no_frames_in_0_1_are_refused(self, function, frames, message):
        with pytest.raises(ValueError, match=message):
            function(frames, FRAMES)

    def test_with_nan_are_refused_on_either_side_naming_the_frame(self, function):
        broken = FRAMES.clone()
        broken[1, 2, 0, 3:5] = torch.nan
        with pytest.raises(ValueError, match=r"^prediction holds 32 NaN of 1536 values; .* prediction\[1, 2\]$"):
            function(broken, FRAMES)
        with pytest.raises(ValueError, match=r"^target holds 32 NaN of 1536 values; .* target\[1, 2\]$"):
            function(FRAMES, broken)

    def test_of_other_types_are_refused_with_what_to_type(self, function):
        with pytest.raises(TypeError, match=r"dtype torch\.uint8; .*write target\.float\(\) / 255"):
            function(FRAMES, (FRAMES * 255).byte())
        with pytest.raises(TypeError, match=r"prediction is numpy\.ndarray; .*write torch\.as_tensor\(prediction\)"):
            function(np.zeros((2, 3, 1, 16, 16)), FRAMES)

    def test_that_rounding_took_a_hair_out_of_range_are_taken(self, function):
        assert function((FRAMES + 2e-4).half(), FRAMES.half()).shape == (2, 3)
        assert function(FRAMES.clamp(max=1.0) * 1.0005, FRAMES).isfinite().all()

    def test_without_pixels_are_refused(self, function):
        with pytest.raises(ValueError, match=r"prediction has shape \(0, 3, 1, 16, 16\): it holds no pixel"):
            function(FRAMES[:0], FRAMES[:0])


def test_lpips_and_fvd_by_their_package_names_refuse_bad_videos():
    clips = torch.rand(2, 8, 3, 64, 64)
    with pytest.raises(ValueError, match=r"prediction has values in .*Write prediction / 255"):
        odevid.metrics.lpips(clips * 255, clips, weights=shared_data("lpips"))
    with pytest.raises(ValueError, match=r"prediction has shape .* target has .* do not broadcast"):
        odevid.metrics.lpips(clips[[0, 1, 0]], clips)
    with pytest.raises(ValueError, match="differ beyond B"):
        odevid.metrics.fvd(clips, clips[:, :7])
