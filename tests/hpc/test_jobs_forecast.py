"""The rest of a schedule, from what was measured: speed, start-up, saves, waiting, and what kills have cost."""

from __future__ import annotations

import pytest

from hpc.config import ConfigError
from hpc.jobs.attempts import read_history
from hpc.jobs.forecast import (
    attempt_costs,
    eta,
    job_plan,
    measure,
    overhead_s,
    plan_of,
    queue_wait_s,
    schedule,
    waits,
    wanted_s,
)
from hpc.jobs.progress import read_progress
from hpc.run_folder import RunFolder
from tests.hpc.lives import HOUR, Life

START = 1_000_000_000.0


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path / "bair" / "first", START)


def known(life):
    return read_history(life.folder.path), read_progress(life.folder.path)


def test_the_published_schedule_in_jobs_of_a_day():
    plan = job_plan(1_500_000, 9.8, 1440, 120, 40, 6, 4, 8, "measured in RUN, attempts 3-7")
    assert str(plan) == (
        "1,500,000 steps at 9.8 steps/s (measured in RUN, attempts 3-7) = 1d 18h of training;\n"
        "jobs of 24h (minus 180 s warning, 40 s start-up, 6 s save): 2 jobs, 171 node-hours, 1,368 GPU-hours"
    )
    assert plan.total_s(3 * HOUR) == pytest.approx(1_500_000 / 9.8 + 2 * (46 + 3 * HOUR))
    assert "GPU" not in str(job_plan(1000, 1, 60, 120, 40, 6, 4, 0))


def test_no_job_is_asked_to_train_longer_than_its_limit_allows():
    for steps in (1, 35_940, 35_941, 10_000_000):
        plan = job_plan(steps, 10, 65, 120, 60, 66, 1, 1)
        assert plan.per_job_s == 3594
        assert (plan.jobs - 1) * plan.per_job_s < plan.training_s <= plan.jobs * plan.per_job_s


def test_jobs_too_short_to_train_in_and_speeds_that_are_none_are_errors():
    with pytest.raises(ConfigError, match=r"jobs of 3m leave no time to train.*--time"):
        job_plan(1000, 10, 3, 120, 40, 6, 1, 1)
    for speed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="--steps-per-s"):
            job_plan(1000, speed, 1440, 120, 40, 6, 1, 1)


def test_speed_is_that_of_the_surviving_steps_on_the_newest_number_of_ranks(life):
    life.submit("7")
    life.begin(HOUR, 0, ranks=32)
    life.train(5000)
    life.speed = 5.0
    life.begin(HOUR, 4000, ranks=16)
    life.train(6000)
    found = measure(read_progress(life.folder.path), read_history(life.folder.path))
    assert found is not None and found.steps_per_s == pytest.approx(5.0)
    nowhere = life.folder.path / "nowhere"
    assert measure(read_progress(nowhere), read_history(nowhere)) is None
    text = schedule(life.config, life.folder, 32)
    assert "at 10 steps/s (measured in" in text and "attempt 1)" in text


def test_start_up_and_waiting_are_those_of_the_attempts(life):
    life.submit("7")
    life.begin(HOUR, 0, overhead=30)
    life.train(1000)
    life.end("walltime")
    life.begin(3 * HOUR, 1000, overhead=40)
    life.train(2000)  # killed here: its last sign is its last line
    life.begin(5 * HOUR, 1000, overhead=50)
    history, progress = known(life)
    assert overhead_s(history) == 40
    assert waits(history, progress) == {
        1: HOUR,
        2: 3 * HOUR,
        3: pytest.approx(5 * HOUR),
    }
    assert queue_wait_s(history, progress) == 3 * HOUR
    assert waits(history)[3] is None  # without the journal nobody knows when the second was killed


def test_a_job_submitted_while_another_one_trains_waits_only_from_its_end_on(life):
    life.submit("7")
    life.begin(0, 0)
    life.submit("8")
    life.train(36_000)
    life.end("stop-file")
    life.begin(600, 36_000)
    history, progress = known(life)
    assert waits(history, progress)[2] == 600


def test_a_clock_that_went_back_makes_no_negative_time(life):
    life.submit("7")
    life.begin(-HOUR, 0)
    life.clock -= 2 * HOUR
    life.train(1000)
    life.begin(-HOUR, 1000, overhead=-5)
    history, progress = known(life)
    assert all(wait is not None and wait >= 0 for wait in waits(history, progress).values())
    assert overhead_s(history) == 40
    assert wanted_s(history, progress, START - 9 * HOUR) >= 0


def test_local_ranks_wait_in_no_queue_and_pauses_between_them_do_not_count(life):
    for _ in range(2):
        life.submit("local")
        life.begin(0, 0, overhead=0)
        life.train(1000)
        life.end("interrupt")
        life.clock += 100 * HOUR
    history, progress = known(life)
    assert queue_wait_s(history, progress) is None
    assert wanted_s(history, progress, None) == pytest.approx(200)


def test_time_in_which_nobody_had_asked_for_a_job_does_not_count(life):
    life.submit("7")
    life.begin(HOUR, 0, overhead=0)
    life.train(36_000)
    life.end("stop-file")
    life.clock += 1000 * HOUR
    life.submit("8")
    life.begin(2 * HOUR, 36_000, overhead=0)
    life.train(72_000)
    history, progress = known(life)
    assert wanted_s(history, progress, None) == pytest.approx(5 * HOUR)
    assert wanted_s(history, progress, life.clock + HOUR) == pytest.approx(6 * HOUR)


def test_the_end_is_forecast_from_what_attempts_really_brought_and_cost(life):
    """Each attempt waits 1 h, trains 2 h, and loses half of that to a kill."""
    life.submit("7")
    for number in range(6):
        life.begin(HOUR, 36_000 * number, overhead=0)
        life.train(36_000 * number + 72_000)
    life.begin(HOUR, 36_000 * 6, overhead=0)
    history, progress = known(life)
    plan = plan_of(life.config, 1000, 10.0, 32, progress, history)
    per_job, lost = attempt_costs(history, progress, plan, life.clock)
    assert per_job == pytest.approx(HOUR, rel=0.01)
    assert lost == pytest.approx(2 * HOUR, rel=0.01)
    assert eta(100 * HOUR, per_job, lost) == pytest.approx(300 * HOUR, rel=0.02)


def test_before_enough_attempts_are_over_the_time_limit_and_the_wait_so_far_tell(life):
    life.submit("7")
    life.begin(3 * HOUR, 0)
    life.train(1000)
    history, progress = known(life)
    plan = plan_of(life.config, 1_499_000, 10.0, 32, progress, history)
    per_job, lost = attempt_costs(history, progress, plan, life.clock)
    assert (per_job, lost) == (plan.per_job_s, 3 * HOUR + 40 + plan.save_s)


def test_a_running_job_that_will_reach_the_end_has_nothing_more_to_wait_for():
    assert eta(1000, per_job_s=2000, lost_per_attempt_s=500, left_s=1500) == 1000
    assert eta(1000, per_job_s=2000, lost_per_attempt_s=500, left_s=0) == 1500
    assert eta(5000, per_job_s=2000, lost_per_attempt_s=500, left_s=800) == 5000 + 3 * 500
    assert eta(1000, per_job_s=2000, lost_per_attempt_s=500, left_s=-50) == 1500


def test_a_dry_run_of_a_run_plans_what_is_left_with_its_own_queue(life):
    life.submit("7")
    life.begin(3 * HOUR, 0)
    life.train(300_000)
    life.save()
    lines = schedule(life.config, life.folder, 32).splitlines()
    assert lines[0] == "300,000 of 1,500,000 steps are done and saved"
    assert lines[1].startswith("1,200,000 steps at 10 steps/s (measured in ")
    assert "(minus 180 s warning, 40 s start-up, 6 s save): 2 jobs, 134 node-hours, 1,072 GPU-hours" in lines[2]
    assert lines[3] == "with the queue of this run (median wait 3h 00m): about 1d 15h"
    assert len(lines) == 4


def test_a_new_run_is_planned_with_what_runs_like_it_have_shown(life):
    life.submit("7")
    life.begin(HOUR, 0)
    life.train(5000)
    new = RunFolder(life.folder.path.parent / "second")
    text = schedule(life.config, new, 32)
    assert f"1,500,000 steps at 10 steps/s (measured in {life.folder.path}, attempt 1)" in text
    assert "(save assumed" in text
    assert "not known" in schedule(life.config, new, 16)
    life.config.train.global_batch *= 2
    assert "not known" in schedule(life.config, new, 32)


def test_without_any_speed_it_says_what_to_type(tmp_path, life):
    text = schedule(life.config, RunFolder(tmp_path / "elsewhere" / "new"), 32)
    assert "--steps-per-s 10" in text and "run=DIR" in text
    text = schedule(life.config, RunFolder(tmp_path / "elsewhere" / "new"), 32, steps_per_s=12.5)
    assert "at 12.5 steps/s (assumed)" in text and "start-up and save assumed" in text


def test_a_warning_too_short_for_a_save_is_told(life):
    life.submit("7")
    life.begin(HOUR, 0)
    life.train(5000)
    life.save(seconds=200)
    assert "WARNING: a save takes 200 s" in schedule(life.config, life.folder, 32)


def test_jobs_too_short_to_train_in_do_not_hide_the_rest_of_a_dry_run(tmp_path, life):
    life.config.cluster.time_min = 3
    text = schedule(life.config, life.folder, 32, steps_per_s=10)
    assert text.startswith("WARNING: jobs of 3m leave no time to train")


def test_a_finished_schedule_needs_no_job(tmp_path):
    life = Life(tmp_path / "run", START, steps=1000)
    life.submit("7")
    life.begin(HOUR, 0)
    life.train(1000)
    life.save()
    assert "nothing is left to train" in schedule(life.config, life.folder, 32)
