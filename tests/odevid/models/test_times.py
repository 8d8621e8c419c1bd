"""Requested times on the solver's grid."""

import pytest

from odevid.models.times import check_context_times, parse_times, requested_times


def _parse(times=None, n_future=None, num_context=5, context_substeps=2, substeps=3):
    return parse_times(times, n_future, num_context=num_context, context_substeps=context_substeps, substeps=substeps)


def test_a_number_of_frames_means_the_times_after_the_context():
    assert _parse(3) == _parse([5, 6, 7]) == _parse(n_future=3)
    assert _parse(3).wanted == [(False, 3), (False, 6), (False, 9)]
    assert _parse(3).future == 3


def test_fractions_are_counted_in_whole_solver_steps():
    ticks = _parse([4 + 1 / 3, 4 + 2 / 3, 5, 6 + 1 / 3])
    assert ticks.wanted == [(False, 1), (False, 2), (False, 3), (False, 7)]
    assert ticks.future == 3


def test_times_of_the_context_are_on_the_grid_of_training():
    assert _parse([0, 0.5, 4, 3.5]).wanted == [(True, 0), (True, 1), (True, 8), (True, 7)]
    assert _parse([0]).future == 0


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "give either times or n_future"),
        ({"times": 2, "n_future": 2}, "give either times or n_future"),
        ({"times": 0}, "asked for 0 future frames"),
        ({"times": []}, "times is empty"),
        ({"times": 1.5}, "times is the single number 1.5"),
        ({"times": [-1]}, "time -1.0 cannot be predicted"),
        ({"times": [float("inf")]}, "time inf cannot be predicted"),
        ({"times": [5.5]}, "multiple of 1/3, or pass another substeps"),
        ({"times": [1 / 3]}, "between the context's solver steps of 1/2 frame; ask for a multiple of 1/2"),
    ],
)
def test_a_time_that_cannot_be_served_is_refused_with_what_would_do(request_, message):
    with pytest.raises(ValueError, match=message):
        _parse(**request_)


def test_the_times_of_a_model_without_a_grid_are_any_numbers_and_whole_frames_follow_the_last_one():
    assert requested_times(2, None, 3.5) == requested_times(None, 2, 3.5) == [4.5, 5.5]
    assert requested_times([0.1, 3.7, 2], None, 3.5) == [0.1, 3.7, 2.0]


def test_times_before_the_first_frame_are_for_models_that_go_back():
    assert requested_times([-2.5, 0], None, 3, earliest=None) == [-2.5, 0.0]
    with pytest.raises(ValueError, match=r"time -2.5 cannot be predicted; .* from 0 \(first context frame\) on"):
        requested_times([0, -2.5], None, 3)
    assert requested_times([-1], None, 3, earliest=-1) == [-1.0]
    with pytest.raises(ValueError, match=r"time -1.5 cannot be predicted; .* from -1 \(first"):
        requested_times([-1.5], None, 3, earliest=-1)
    with pytest.raises(ValueError, match="time nan cannot be predicted; times are in frames, any finite number"):
        requested_times([float("nan")], None, 3, earliest=None)


def test_irregular_context_times_are_refused():
    check_context_times(None, 3)
    check_context_times([0, 1.0, 2], 3)
    with pytest.raises(ValueError, match=r"one frame per unit of time: leave it out or give 0, 1, \.\.\., 2"):
        check_context_times([0, 1, 3], 3)
