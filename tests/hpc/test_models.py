"""Every model of the registry keeps the house's promises: a model that is registered is tested here, by no other word.

Each one trains through DeepSpeed on two ranks at size=test, twice whole and once in two parts, and in bf16; its
exported form predicts in a process without DeepSpeed; the smallest batches, and shapes that it cannot take.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hpc import config as configs
from hpc.config import Config
from hpc.distributed import World
from hpc.run_folder import RunFolder
from hpc.stop import StopFlag
from odevid import build_model
from odevid.config import MODELS
from odevid.model import LatentModel, VideoModel, evaluating
from shards.building.moving_mnist import build_moving_mnist
from tests.hpc.ranks import on_ranks

pytestmark = pytest.mark.multiprocess
ROOT = Path(__file__).resolve().parents[2]
STEPS = 4
VARIANTS: dict[str, tuple[str, list[str]]] = {
    "rnnode irregular": (
        "rnnode",
        ["model.objective=predict", "data.num_frames=5", "model.nt_cond=3", "model.nt_obs=2", "model.nt_target=1"],
    ),
    "rnnode second order": (
        "rnnode",
        ["model.order=2", "model.augment=2", "model.ncontent=3", "model.content_in_field=true", "model.start=last"],
    ),
    "enode adjoint": (
        "enode",
        ["model.method=dopri5", "model.gradient=adjoint", "model.time_input=true", "eval.halve_step=false"],
    ),
}
"""Beside every model as it comes: further settings that are worth their seconds."""
CASES = {**{name: (name, []) for name in MODELS}, **VARIANTS}
ONE_FRAME = ["model.nt_cond=1", "data.num_frames=1", "model.objective=reconstruct", "train.global_batch=4"]
"""rnnode on clips of one frame: nothing moves, so the field and what the GRU remembers are told nothing."""


def experiment_of(model: str) -> str:
    """The first experiment of configs/ that trains `model`."""
    names = [name for name in configs.available("experiment") if configs.load(name).model.name == model]
    assert names, f"no experiment trains {model}: add one to configs/experiment"
    return names[0]


def config_of(case: str, root: Path, *overrides: str) -> Config:
    model, settings = CASES[case]
    return _config(model, root, *settings, *overrides)


def _config(model: str, root: Path, *settings: str) -> Config:
    few = [f"data.root={root}", f"train.steps={STEPS}", *settings]
    return configs.load(experiment_of(model), "test", overrides=few)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "digits"
    build_moving_mnist(root, digits=1, deterministic=True)
    return root


def _train(world: World, config: Config, folder: RunFolder) -> None:
    from hpc.task import watchdog_of
    from hpc.train import train

    folder.create()
    with watchdog_of(config, folder, world.ranks, 1) as watchdog:
        train(config, folder, world, StopFlag(folder.path, world.rank), 1, watchdog)


def _train_all(world: World, base: Path, root: Path) -> None:
    for case in CASES:
        config, where = config_of(case, root), base / case
        half = replace(config, train=replace(config.train, steps=STEPS // 2))
        _train(world, config, RunFolder(where / "whole"))
        _train(world, config, RunFolder(where / "again"))
        _train(world, half, RunFolder(where / "parts"))
        _train(world, config, RunFolder(where / "parts"))
        _train(world, config_of(case, root, "train.precision=bf16"), RunFolder(where / "bf16"))
    _train(world, _config("rnnode", root, *ONE_FRAME), RunFolder(base / "one frame"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Path:
    """A folder per case, with its runs."""
    base = tmp_path_factory.mktemp("runs")
    on_ranks(2, _train_all, base, digits, timeout_s=600)
    return base


def _weights(run: Path, steps: int = STEPS) -> dict[str, Tensor]:
    newest = max((run / "checkpoints").glob("step-*"))
    state: dict[str, Any] = torch.load(newest / "state.pt", weights_only=True)
    assert state["step"] == steps
    (engine,) = state["engines"].values()
    weights: dict[str, Tensor] = engine["weights"]
    return weights


@pytest.mark.parametrize("case", CASES)
def test_every_model_trains_on_two_ranks_and_the_same_run_ends_in_the_same_bits(runs, digits, case):
    whole = _weights(runs / case / "whole")
    torch.testing.assert_close(_weights(runs / case / "again"), whole, rtol=0, atol=0)
    torch.manual_seed(config_of(case, digits).seed)
    first = build_model(config_of(case, digits).model).state_dict()
    unmoved = [name for name, weight in whole.items() if torch.equal(weight, first[name].float())]
    assert unmoved == []


def test_clips_of_a_single_frame_train_all_that_one_frame_can(runs, digits):
    config = _config("rnnode", digits, *ONE_FRAME)
    torch.manual_seed(config.seed)
    first = build_model(config.model).state_dict()
    weights = _weights(runs / "one frame")
    assert all(weight.isfinite().all() for weight in weights.values())
    unmoved = {name for name, weight in weights.items() if torch.equal(weight, first[name].float())}
    assert unmoved == {name for name in first if name.startswith("field.") or name == "rnn.weight_hh_l0"}


def _train_compiled(world: World, base: Path, root: Path) -> list[int]:
    """Not compiled, then compiled; how many graphs torch had made after each."""
    from torch._dynamo.utils import counters

    made = []
    for compiled in ("false", "true"):
        config = _config("rnnode", root, "train.steps=2", f"model.compiled={compiled}")
        _train(world, config, RunFolder(base / compiled))
        made.append(int(counters["stats"]["unique_graphs"]))
    return made


@pytest.mark.slow
def test_a_compiled_solver_trains_to_the_same_weights_and_without_a_compiler_it_says_what_to_do(tmp_path, digits):
    if shutil.which("c++") is None and shutil.which("g++") is None:
        with pytest.raises(AssertionError, match=r"needs a C\+\+ compiler.*model\.compiled=false"):
            on_ranks(1, _train_compiled, tmp_path, digits, timeout_s=600)
        return
    ((before, after),) = on_ranks(1, _train_compiled, tmp_path, digits, timeout_s=600)
    assert before == 0 < after
    config = _config("rnnode", digits)
    torch.manual_seed(config.seed)
    first = build_model(config.model).state_dict()
    plain, graph = (_weights(tmp_path / compiled, steps=2) for compiled in ("false", "true"))
    for part in ("encoder.", "field.", "decoder."):
        names = [name for name in plain if name.startswith(part)]
        moved = sum(float((plain[name] - first[name]).square().sum()) for name in names) ** 0.5
        apart = sum(float((plain[name] - graph[name]).square().sum()) for name in names) ** 0.5
        assert apart < 1e-3 * moved, (part, apart, moved)


@pytest.mark.parametrize("case", CASES)
def test_every_model_resumes_bit_for_bit(runs, case):
    torch.testing.assert_close(_weights(runs / case / "parts"), _weights(runs / case / "whole"), rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_every_model_trains_in_bf16_near_where_fp32_goes(runs, digits, case):
    torch.manual_seed(config_of(case, digits).seed)
    first = build_model(config_of(case, digits).model).state_dict()
    moved, apart = 0.0, 0.0
    for name, weight in _weights(runs / case / "whole").items():
        half = _weights(runs / case / "bf16")[name]
        assert half.dtype == torch.float32
        assert half.isfinite().all()
        moved += float((weight - first[name]).square().sum())
        apart += float((half - weight).square().sum())
    assert 0 < apart < moved


def test_every_exported_model_predicts_in_a_process_without_deepspeed(runs):
    files = [str(runs / case / "whole" / "model.pt") for case in CASES]
    code = f"""
import sys
sys.modules["deepspeed"] = None
import torch, odevid
for path in {files!r}:
    model = odevid.load(path)
    context = torch.rand(2, model.config.nt_cond, *model.config.frame_shape)
    frames = model.predict(context, n_future=3, n_samples=2, generator=torch.Generator().manual_seed(1))
    assert frames.shape == (2, 2, 3, *model.config.frame_shape), (path, frames.shape)
    assert frames.isfinite().all() and 0 <= frames.min() and frames.max() <= 1, path
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def _model(case: str, digits: Path) -> VideoModel:
    torch.manual_seed(0)
    return build_model(config_of(case, digits).model)


def _clips(model: VideoModel, count: int, frames: int) -> Tensor:
    return torch.rand(count, frames, *model.config.frame_shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("case", CASES)
def test_every_model_takes_one_clip_of_the_fewest_frames_and_predicts_one_frame_from_the_fewest(digits, case):
    model = _model(case, digits)
    video = _clips(model, 1, model.config.min_clip)
    noise = model.draw_noise(1, model.config.min_clip, torch.Generator().manual_seed(3))
    terms = model.loss({"video": video}, noise)
    terms["loss"].backward()
    assert all(term.isfinite().all() and term.ndim == 0 for term in terms.values())
    frames = model.predict(_clips(model, 1, model.config.min_context), n_future=1)
    assert frames.shape == (1, 1, 1, *model.config.frame_shape)
    assert frames.isfinite().all()


@pytest.mark.parametrize("case", CASES)
def test_every_model_says_which_shapes_it_cannot_take(digits, case):
    model = _model(case, digits)
    channels, height, width = model.config.frame_shape
    frames = model.config.nt_cond
    for video, words in (
        (torch.rand(2, frames, channels + 1, height, width), str((2, frames, channels + 1, height, width))),
        (torch.rand(2, frames, channels, height // 2, width), str((2, frames, channels, height // 2, width))),
        (torch.rand(frames, channels, height, width), str((frames, channels, height, width))),
        (torch.ones(2, frames, channels, height, width, dtype=torch.uint8), "uint8"),
        (torch.rand(2, 0, channels, height, width), "at least"),
    ):
        for ask in (lambda clip: model.loss({"video": clip}, {}), lambda clip: model.predict(clip, n_future=1)):
            with pytest.raises(ValueError) as raised:
                ask(video)
            assert words in str(raised.value), str(raised.value)


@pytest.mark.parametrize("case", CASES)
def test_every_latent_model_predicts_what_its_parts_give(digits, case):
    model = _model(case, digits)
    assert isinstance(model, LatentModel)
    given = model.config.nt_cond
    context = _clips(model, 2, given)

    def seeded() -> torch.Generator:
        return torch.Generator().manual_seed(4)

    frames = model.predict(context, n_future=3, n_samples=2, generator=seeded())
    latent = model.infer(context, 2, n_future=3, generator=seeded())
    states = model.trajectory(latent, range(given, given + 3))
    with evaluating(model):
        torch.testing.assert_close(model.decode(states, latent.content), frames, rtol=0, atol=1e-6)
