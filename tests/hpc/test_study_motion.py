"""Study "motion", end to end, with models whose moves are known.

Legend: N samples, B clips (digits), T frames, C channels, H rows, W columns; 2 (row, column).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hpc import config as configs
from hpc.config import ConfigError
from hpc.given_runs import LoadedRun
from hpc.run_folder import RunFolder
from hpc.studies.motion import SAMPLES, bounces, find_states, run_motion, setting_of, true_futures
from hpc.studies.registry import NotForThisRun, StudyOptions, find_study
from shards.bouncing import bounce
from shards.building.moving_mnist import build_moving_mnist

STATES = 2
GIVEN, FRAMES = 3, 16


class Mover(nn.Module):
    """A stand-in for a model: moves the last given picture along trajectories of the test, one array for each call."""

    def __init__(self, offsets: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.offsets = iter(offsets)
        self.contexts: list[Tensor] = []

    def predict_chunks(
        self, context: Tensor, times: int, n_samples: int, *, chunk: int, generator: object
    ) -> Iterator[Tensor]:
        self.contexts.append(context)
        offset_NBT2 = next(self.offsets).reshape(n_samples, len(context), times, 2)
        for first in range(0, n_samples, chunk):
            some = offset_NBT2[first : first + chunk].tolist()
            rolled = [
                torch.stack([context[clip, -1].roll(shift, (1, 2)) for shift in shifts])
                for sample in some
                for clip, shifts in enumerate(sample)
            ]
            yield torch.stack(rolled).unflatten(0, (len(some), len(context)))


@pytest.fixture(scope="module", params=["stochastic", "deterministic"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / request.param
    build_moving_mnist(root, digits=1, deterministic=request.param == "deterministic", test_set="none")
    return root


def loaded_of(data: Path, folder: Path, model: nn.Module, *overrides: str) -> LoadedRun:
    words = [f"data.root={data}", f"data.moving_mnist.deterministic={str('det' in data.name).lower()}"]
    words += [f"model.nt_cond={GIVEN}", f"eval.test_num_frames={FRAMES}", *overrides]
    config = configs.load("srvp_smmnist", "test", "", words)
    return LoadedRun(RunFolder(folder), config, model, 7, torch.device("cpu"))  # type: ignore[arg-type]


def options_of(folder: Path, **wanted: int) -> StudyOptions:
    (folder / "motion").mkdir(exist_ok=True)
    return StudyOptions(folder / "motion", **wanted)  # type: ignore[arg-type]


def rows_of(folder: Path) -> list[dict[str, float]]:
    with (folder / "motion" / "motion.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_command_knows_it() -> None:
    assert find_study("motion").load() is run_motion


def test_a_model_that_moves_as_the_data_is_as_near_as_two_true_sets(data: Path, tmp_path: Path) -> None:
    options = options_of(tmp_path, count=STATES)
    setting = setting_of(loaded_of(data, tmp_path, nn.Identity()), options)
    states = find_states(setting, STATES)
    futures = [true_futures(state, setting, draw=1000) for state in states]
    model = Mover([(one.corner_T2N[1:] - one.corner_T2N[:1]).transpose(2, 0, 1) for one in futures])
    files = run_motion(loaded_of(data, tmp_path, model), options)
    assert sorted(path.name for path in files) == [
        "caption.txt",
        "distance.png",
        "motion.csv",
        "motion.npz",
        "motion.png",
    ]
    rows = rows_of(tmp_path)
    assert [(row["state"], row["frame"]) for row in rows[:2]] == [(0, GIVEN + 1), (0, GIVEN + 2)]
    assert len(rows) == STATES * (FRAMES - GIVEN)
    assert {row["futures"] for row in rows} == {10 * SAMPLES}
    assert min(row["predicted_mean_match"] for row in rows) > 0.9999
    found, floor = (
        np.array([row[name] for row in rows]) for name in ("total_variation", "total_variation_of_two_true_sets")
    )
    if "det" in data.name:
        assert (found == 0).all()
        assert (floor == 0).all()
    else:
        assert np.abs(found - floor).max() < 0.12
        assert abs(found.mean() - floor.mean()) < 0.02
        assert floor.max() > 0.05


def test_a_model_that_stands_still_has_all_moves_at_zero(data: Path, tmp_path: Path) -> None:
    model = Mover([np.zeros((10 * 5, FRAMES - GIVEN, 2), np.int64)])
    run_motion(loaded_of(data, tmp_path, model), options_of(tmp_path, count=1, samples=5))
    with np.load(tmp_path / "motion" / "motion.npz") as stored:
        assert (stored["predicted"][0, :, 4, 4] == 1).all()
        true_STYX, corners, velocity = stored["true"], stored["given_corners"][0], stored["velocities"][0]
        assert (stored["predicted_frames"][0], stored["predicted_frames"][-1]) == (GIVEN + 1, FRAMES)
    down, right = velocity.tolist()
    for step in range(GIVEN + 1):  # the given ones, and two before the first bounce
        assert true_STYX[0, step, 4 + down, 4 + right] == 1
    context = model.contexts[0]
    for t, (row, column) in enumerate(corners.tolist()):
        outside = context[:, t, 0].clone()
        outside[:, row : row + 28, column : column + 28] = 0
        assert (outside == 0).all(), "a given frame does not show the digit where the state says"
    assert len({frame.numpy().tobytes() for frame in context[:, 0]}) == 10, "not ten different digits"


def test_takes_as_many_digits_as_are_asked_for(data: Path, tmp_path: Path) -> None:
    model = Mover([np.zeros((3 * 2, FRAMES - GIVEN, 2), np.int64)])
    run_motion(loaded_of(data, tmp_path, model), options_of(tmp_path, count=1, samples=2, digits=3))
    assert len({frame.numpy().tobytes() for frame in model.contexts[0][:, 0]}) == len(model.contexts[0]) == 3
    assert {row["futures"] for row in rows_of(tmp_path)} == {3 * 2}
    with pytest.raises(ConfigError, match=r"--digits 999999: .* that training has not seen"):
        setting_of(loaded_of(data, tmp_path, nn.Identity()), options_of(tmp_path, digits=999999))


def test_states_go_straight_while_given_and_bounce_later(data: Path, tmp_path: Path) -> None:
    setting = setting_of(loaded_of(data, tmp_path, nn.Identity()), options_of(tmp_path))
    for state in find_states(setting, 6):
        assert np.array_equal(np.diff(state.given_T2, axis=0), np.repeat(state.velocity_2[None], GIVEN - 1, axis=0))
        bounced = bounces(true_futures(state, setting, 0))
        assert not bounced[:2].any()
        first = bounced.argmax(axis=0)
        assert bounced.any()
        assert (first == first[0]).all(), "the first bounce is the same in all futures"


def test_bounces_are_seen_where_the_generator_makes_them() -> None:
    start, velocity = np.array([[34, 10], [10, 10]]), np.array([[3, 1], [0, 0]])
    motion = bounce(start, velocity, 5, 36, None)  # the first point meets the wall at once, the second never
    assert bounces(motion).T.tolist() == [[True, False, False, False], [False] * 4]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.moving_mnist.digits=2", "digits=2; the study follows one known digit: it needs a run on Moving MNIST"),
        ("data.name=kth", "data.name=kth; the study follows one known digit"),
    ],
)
def test_other_data_is_refused(data: Path, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(NotForThisRun, match=said):
        run_motion(loaded_of(data, tmp_path, nn.Identity(), override), options_of(tmp_path))


def test_stored_clips_and_too_few_states_are_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"state 99999: only \d+ were found"):
        run_motion(loaded_of(data, tmp_path, nn.Identity()), options_of(tmp_path, clips=(99999,)))
    stored = tmp_path / data.name
    build_moving_mnist(stored, digits=1, deterministic="det" in data.name, sequences=4, frames=FRAMES, test_set="none")
    with pytest.raises(NotForThisRun, match=r"stores clips.*--sequences 0"):
        run_motion(loaded_of(stored, tmp_path, nn.Identity()), options_of(tmp_path))
