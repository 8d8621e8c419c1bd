"""Bad steps are counted against a budget, and the message names the clips."""

from __future__ import annotations

import math

import pytest

from hpc.guard import WARMUP_STEPS, WINDOW, BudgetExceeded, Guard


def _settled(budget: int) -> Guard:
    guard = Guard(max_bad_steps=budget, spike_factor=10.0)
    for step in range(2 * WARMUP_STEPS):
        assert guard.inspect(1.0 + 0.1 * math.sin(step)) is None
    return guard


def test_a_non_finite_gradient_is_bad_and_does_not_spoil_the_running_mean():
    guard = _settled(1)
    assert "non-finite" in str(guard.inspect(math.nan))
    assert guard.inspect(1.0) is None
    assert guard.bad_steps == 1


def test_updates_that_were_not_applied_are_counted_and_spikes_are_not_among_them():
    guard = _settled(5)
    assert guard.loss_of_updates is None
    assert "spiked" in str(guard.inspect(1e12))
    assert guard.loss_of_updates is None
    guard.inspect(math.nan)
    resumed = Guard(5, 10.0)
    resumed.load_state(guard.state())
    resumed.inspect(math.inf)
    assert resumed.loss_of_updates == "2 of 203 updates were not applied: the gradient was not finite"


def test_a_spike_is_noticed_and_a_slow_drift_is_not():
    guard = _settled(5)
    assert "spiked" in str(guard.inspect(5.0))
    drifting = _settled(5)
    assert all(drifting.inspect(1 + 0.001 * step) is None for step in range(1000))


def test_a_huge_spike_does_not_hide_the_next_one():
    guard = _settled(5)
    assert "spiked" in str(guard.inspect(1e12))
    assert guard.inspect(1.0) is None
    assert "spiked" in str(guard.inspect(50.0))


def test_over_the_budget_the_run_stops_with_the_clips_at_hand():
    guard = _settled(1)
    for _ in range(2):
        reason = guard.inspect(math.inf)
    assert reason is not None
    with pytest.raises(BudgetExceeded, match=r"step 7: non-finite.*clip-3"):
        guard.check_budget(7, reason, ["clip-3"])


def test_what_the_models_tell_of_the_bad_step_is_in_the_message():
    guard = _settled(0)
    reason = str(guard.inspect(math.nan))
    with pytest.raises(BudgetExceeded, match=r"\(rk4 left the finite numbers; too many steps\); that is"):
        guard.check_budget(7, reason, [], ["rk4 left the finite numbers", "too many steps"])


def test_bad_steps_of_long_ago_are_forgiven():
    guard = _settled(1)
    for _ in range(3):
        assert guard.inspect(math.inf) is not None
        guard.check_budget(1, "non-finite", [])
        for _ in range(WINDOW):
            guard.inspect(1.0)
    assert guard.bad_steps == 3


def test_its_state_survives_a_resume():
    guard = _settled(1)
    guard.inspect(math.inf)
    resumed = Guard(1, 10.0)
    resumed.load_state(guard.state())
    assert resumed.state() == guard.state()
    assert resumed.inspect(5.0) == guard.inspect(5.0)
