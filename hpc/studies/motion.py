"""Study "motion": does the model move a digit as the data does, over many samples of the same situation?

In: a run on Moving MNIST with one digit. For each initial state a digit is drawn along a trajectory that has not
bounced yet; the model continues it many times, for several digits on the same trajectory. Out, in RUN/studies/motion/:

    motion.png      histograms of the moves (dx, dy) at each step, true above predicted
    distance.png    total variation between them over time, and what two true sets of the same size give
    motion.csv      the same numbers, and how well the digit was recognised
    motion.npz      the histograms, the states

True futures are drawn by the generator from the state at the last given frame. Positions are measured in whole pixels,
as the generator draws: odevid/studies/motion.py.

Options: --count states (or --clips, their numbers), --samples futures of each state and digit, --digits of them,
eval.test_num_frames.

Source: E. Denton and R. Fergus, "Stochastic Video Generation with a Learned Prior" (ICML 2018), supplement, figures 3
and 4; there the speeds are distributed otherwise, in a table that was not published.

Legend: S states, D digits, N futures, T frames; 2 (row, column). Lengths in pixels.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hpc.config import ConfigError
from hpc.data import MOVING_MNIST, ensure_dataset, open_split
from hpc.given_runs import LoadedRun
from hpc.noise import step_generator
from hpc.predicting.sampling import check_finite
from hpc.studies.clips import write_caption
from hpc.studies.registry import NotForThisRun, StudyOptions
from odevid.metrics.interval import interval_per_frame
from odevid.pictures.curves import Curve, save_curves_png
from odevid.pictures.motion import MotionExample, save_motion
from odevid.studies.motion import Moves, count_moves, find_digit, total_variation
from shards.bouncing import Trajectory, bounce
from shards.hashing import mix
from shards.moving_mnist import MotionRules, MovingMnistClips, draw_motion, draw_speeds
from shards.sprites import draw_sprites

STATES, DIGITS, SAMPLES = 4, 10, 20
"""How many, where the command line does not say."""

_STRAIGHT = 2  # predicted frames before the first bounce, at least
_SEARCHED = 1 << 14  # places of the generator's stream in which states are looked for
_FLOOR_PAIRS = 10
_FRAMES_AT_A_TIME = 2048
_STATE_SEED, _FUTURE = 0x5747E5, 0x0F07


@dataclass(frozen=True)
class Setting:
    """What the run and the command line determine.

    Attributes:
        source: the digits that training has not seen, and the rules of the motion.
        num_given, num_frames: frames given, and frames in all.
        digits, samples: digits on each trajectory, and futures of each.
    """

    source: MovingMnistClips
    num_given: int
    num_frames: int
    digits: int
    samples: int
    seed: int

    @property
    def rules(self) -> MotionRules:
        return self.source.rules

    @property
    def futures(self) -> int:
        """Of one state, over all digits."""
        return self.digits * self.samples


@dataclass(frozen=True)
class State:
    """A trajectory that goes straight in the given frames and a few more, and then bounces.

    Attributes:
        number: among all such states of the generator's stream, from 0.
        given_T2: corners in the given frames.
        velocity_2: pixels per frame, rows and columns.
    """

    number: int
    given_T2: NDArray[np.int64]
    velocity_2: NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """One state: its moves, and how far the predicted ones are from the true ones, at each predicted step."""

    state: State
    true: Moves
    """Of all frames, the given ones included."""
    predicted: Moves
    bounced_T: NDArray[np.float64]
    """Share of true futures that bounce, at each step of `true`."""
    distance_T: NDArray[np.float64]
    floor_T: NDArray[np.float64]
    match_T: NDArray[np.float64]


def run_motion(loaded: LoadedRun, options: StudyOptions) -> Sequence[Path]:
    """Run the study.

    Raises:
        NotForThisRun: not Moving MNIST with one digit, or its dataset holds clips instead of digits.
        ConfigError: states that do not exist, or a model that predicts NaN.
    """
    setting = setting_of(loaded, options)
    wanted = options.clips or tuple(range(options.count or STATES))
    states = find_states(setting, max(wanted) + 1)
    results = [study_state(loaded, setting, states[number]) for number in wanted]
    files = {name: options.folder / name for name in ("motion.png", "distance.png", "motion.csv", "motion.npz")}
    examples = [
        MotionExample(_label(one.state), one.true.share_TYX, one.predicted.share_TYX, one.bounced_T) for one in results
    ]
    save_motion(files["motion.png"], examples, setting.num_given)
    _save_distance(files["distance.png"], results, setting)
    _write_csv(files["motion.csv"], results, setting)
    _write_npz(files["motion.npz"], results, setting)
    return [*files.values(), write_caption(loaded, options, _caption(results, setting))]


def setting_of(loaded: LoadedRun, options: StudyOptions) -> Setting:
    """
    Raises:
        NotForThisRun: as `run_motion`.
        ConfigError: there are not so many digits.
    """
    config = loaded.config
    needed = "the study follows one known digit: it needs a run on Moving MNIST with data.moving_mnist.digits=1"
    if config.data.name != MOVING_MNIST:
        raise NotForThisRun(f"data.name={config.data.name}; {needed}")
    if config.data.moving_mnist.digits != 1:
        raise NotForThisRun(f"data.moving_mnist.digits={config.data.moving_mnist.digits}; {needed}")
    root = ensure_dataset(config.data)
    num_given, num_frames = config.model.nt_cond, config.eval.test_num_frames
    if num_given < 2:
        raise NotForThisRun(f"model.nt_cond={num_given}: a single given frame does not show how the digit moves")
    source = open_split(config.data, "valid", num_frames, loaded.folder.allowed_pipes())
    if not isinstance(source, MovingMnistClips):
        raise NotForThisRun(
            f"{root} stores clips, and the study draws its own with the digits: give data.root= of a dataset that was "
            "built with --sequences 0 (the default of python -m shards build moving-mnist)"
        )
    if options.digits > len(source.bank):
        raise ConfigError(f"--digits {options.digits}: {root} has {len(source.bank)} that training has not seen")
    digits = options.digits or min(DIGITS, len(source.bank))
    return Setting(source, num_given, num_frames, digits, options.samples or SAMPLES, options.seed)


def find_states(setting: Setting, count: int) -> list[State]:
    """The first `count` such states of the generator's stream.

    Raises:
        ConfigError: there are not so many.
    """
    motion = draw_motion(_STATE_SEED, np.arange(_SEARCHED), setting.num_frames, replace(setting.rules, digits=1))
    bounced_TN = bounces(motion)
    given = setting.num_given
    straight = given - 1 + min(_STRAIGHT, setting.num_frames - given - 1)
    suited = np.flatnonzero(~bounced_TN[:straight].any(axis=0) & bounced_TN[straight:].any(axis=0))
    if len(suited) < count:
        raise ConfigError(
            f"state {count - 1}: only {len(suited)} were found whose digit bounces between frame {straight + 1} and "
            f"frame {setting.num_frames}; ask for fewer, or more frames with eval.test_num_frames=N"
        )
    corner_T2N, velocity_T2N = motion.corner_T2N, motion.velocity_T2N
    return [
        State(number, corner_T2N[:given, :, place], velocity_T2N[given - 1, :, place])
        for number, place in enumerate(suited[:count].tolist())
    ]


def bounces(motion: Trajectory) -> NDArray[np.bool_]:
    """Which points meet a wall from each frame to the next: (T - 1, N)."""
    position_T2N, velocity_T2N = motion.position_T2N, motion.velocity_T2N
    turned = velocity_T2N[1:] != velocity_T2N[:-1]
    shifted = np.abs(position_T2N[1:] - position_T2N[:-1] - velocity_T2N[:-1]) > 1e-6
    return np.asarray((turned | shifted).any(axis=1))


def true_futures(state: State, setting: Setting, draw: int) -> Trajectory:
    """As many true futures as are predicted, from the last given frame on; another `draw`, independent ones."""
    rules, number = setting.rules, setting.futures
    start_2N = np.repeat(state.given_T2[-1][:, None], number, axis=1)
    velocity_2N = np.repeat(state.velocity_2[:, None], number, axis=1)

    def redraw(points_n: NDArray[np.int64], bounces_n: NDArray[np.int64]) -> NDArray[np.int64]:
        return draw_speeds(mix(setting.seed, _FUTURE, state.number, draw, points_n, bounces_n), rules.max_speed)

    steps = setting.num_frames - setting.num_given + 1
    return bounce(start_2N, velocity_2N, steps, rules.limit, None if rules.deterministic else redraw)


def predicted_corners(
    loaded: LoadedRun, setting: Setting, state: State
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the model's digits are, NT2 from the last given frame on, and how well they match, NT without it."""
    bank = setting.source.bank
    digits = np.linspace(0, len(bank) - 1, setting.digits).round().astype(int)
    sprites_DHW = bank.images_NHW[digits]
    corner_DT2 = np.repeat(state.given_T2[None], setting.digits, axis=0)
    given_DTHW = draw_sprites(sprites_DHW[:, None], corner_DT2[:, :, None], setting.rules.frame_size)
    context_DTCHW = torch.from_numpy(given_DTHW)[:, :, None].to(loaded.device).float() / 255
    n_future = setting.num_frames - setting.num_given
    chunks = loaded.model.predict_chunks(
        context_DTCHW,
        n_future,
        setting.samples,
        chunk=max(1, _FRAMES_AT_A_TIME // (n_future * setting.digits)),
        generator=[step_generator(setting.seed, digit, f"motion/{state.number}") for digit in range(setting.digits)],
    )
    pictures = torch.from_numpy(sprites_DHW).to(loaded.device).float()
    corners, matches = [], []
    for frames_nDTCHW in chunks:
        check_finite(frames_nDTCHW, loaded)
        for digit, picture_HW in enumerate(pictures):
            found = find_digit(frames_nDTCHW[:, digit, :, 0].float(), picture_HW)
            corners.append(found.corner_NT2.cpu().numpy())
            matches.append(found.match_NT.double().cpu().numpy())
    after_NT2 = np.concatenate(corners)
    last_N12 = np.broadcast_to(state.given_T2[-1], (len(after_NT2), 1, 2))
    return np.concatenate((last_N12, after_NT2), axis=1), np.concatenate(matches)


def study_state(loaded: LoadedRun, setting: Setting, state: State) -> Result:
    """Predict, simulate, compare."""
    reach = setting.rules.max_speed
    corner_NT2, match_NT = predicted_corners(loaded, setting, state)
    predicted = count_moves(corner_NT2, reach)
    futures = [true_futures(state, setting, draw) for draw in range(1 + _FLOOR_PAIRS)]
    true, *others = (count_moves(future.corner_T2N.transpose(2, 0, 1), reach) for future in futures)
    before = count_moves(state.given_T2[None], reach)
    bounced_T = bounces(futures[0]).mean(axis=1)
    return Result(
        state,
        _one_after_the_other(before, true),
        predicted,
        np.concatenate((np.zeros(setting.num_given - 1), bounced_T)),
        total_variation(predicted, true),
        np.mean([total_variation(other, true) for other in others], axis=0),
        match_NT.mean(axis=0),
    )


def _one_after_the_other(first: Moves, second: Moves) -> Moves:
    """The steps of both."""
    names = (field.name for field in fields(Moves))
    return Moves(**{name: np.concatenate((getattr(first, name), getattr(second, name))) for name in names})


def _label(state: State) -> str:
    """A state for the eye, at the last given frame."""
    (row, column), (down, right) = state.given_T2[-1].tolist(), state.velocity_2.tolist()
    return f"state {state.number}: digit at ({column}, {row}), moving by dx = {right}, dy = {down} pixels a frame"


def _caption(results: Sequence[Result], setting: Setting) -> str:
    distance, floor = (np.mean([getattr(one, name) for one in results]) for name in ("distance_T", "floor_T"))
    beyond = np.mean([one.predicted.beyond_T for one in results])
    apart = [one.predicted.mean_T2 - one.true.mean_T2[setting.num_given - 1 :] for one in results]
    off = np.linalg.norm(np.stack(apart), axis=-1).mean()
    return (
        f"How a digit moves from frame to frame, true above predicted: {setting.samples} futures of each of "
        f"{setting.digits} digits on the same trajectory, for {len(results)} initial states. Total variation between "
        f"the two is {distance:.2f} on average, {floor:.2f} between two true sets of the same size; the mean moves "
        f"are {off:.1f} pixels apart, and {beyond:.1%} of the predicted moves are larger than "
        f"{setting.rules.max_speed} pixels."
    )


def _save_distance(path: Path, results: Sequence[Result], setting: Setting) -> None:
    """Mean over the states with its interval; for a single state only the line."""
    first = setting.num_given + 1
    curves = [
        Curve(name, first, interval_per_frame(np.stack([getattr(one, field) for one in results])))
        for name, field in (("model", "distance_T"), ("two true sets of the same size", "floor_T"))
    ]
    save_curves_png(path, curves, "total variation of the moves", f"mean of {len(results)} initial states")


def _write_csv(path: Path, results: Sequence[Result], setting: Setting) -> None:
    """One line per state and predicted frame."""
    given = setting.num_given
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, one in enumerate(results):
            after = {name: getattr(one.true, name)[given - 1 :] for name in ("mean_T2", "spread_T")}
            columns = {
                "total_variation": one.distance_T,
                "total_variation_of_two_true_sets": one.floor_T,
                "true_mean_dx": after["mean_T2"][:, 1],
                "true_mean_dy": after["mean_T2"][:, 0],
                "true_spread": after["spread_T"],
                "true_share_bouncing": one.bounced_T[given - 1 :],
                "predicted_mean_dx": one.predicted.mean_T2[:, 1],
                "predicted_mean_dy": one.predicted.mean_T2[:, 0],
                "predicted_spread": one.predicted.spread_T,
                "predicted_share_beyond": one.predicted.beyond_T,
                "predicted_mean_match": one.match_T,
            }
            if number == 0:
                writer.writerow(("state", "frame", "futures", *columns))
            for step, values in enumerate(zip(*columns.values(), strict=True)):
                numbers = (repr(float(value)) for value in values)
                writer.writerow((one.state.number, given + 1 + step, setting.futures, *numbers))


def _write_npz(path: Path, results: Sequence[Result], setting: Setting) -> None:
    """Histograms by state: true (S, T, dy, dx) of all moves, predicted of those after the given frames."""
    np.savez_compressed(
        path,
        true=np.stack([one.true.share_TYX for one in results]),
        predicted=np.stack([one.predicted.share_TYX for one in results]),
        predicted_beyond=np.stack([one.predicted.beyond_T for one in results]),
        bounced=np.stack([one.bounced_T for one in results]),
        states=np.array([one.state.number for one in results]),
        given_corners=np.stack([one.state.given_T2 for one in results]),
        velocities=np.stack([one.state.velocity_2 for one in results]),
        true_frames=np.arange(2, setting.num_frames + 1),
        predicted_frames=np.arange(setting.num_given + 1, setting.num_frames + 1),
    )
