"""Everything that asks for a stop raises one flag, on which the ranks agree; nothing is done inside a handler."""

from __future__ import annotations

import os
import signal

import pytest

from hpc.stop import StopCause, StopFlag


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (signal.SIGUSR2, StopCause.PREEMPT),
        (signal.SIGTERM, StopCause.TERMINATE),
        (signal.SIGINT, StopCause.INTERRUPT),
    ],
)
def test_a_signal_raises_the_flag_with_its_cause(tmp_path, number, cause):
    with StopFlag(tmp_path).installed() as stop:
        assert stop.agree(lambda code: code) is None
        os.kill(os.getpid(), number)
        assert stop.agree(lambda code: code) is cause


def test_a_stop_file_and_the_wall_clock_raise_it_too(tmp_path):
    stop = StopFlag(tmp_path, budget_s=1e-9)
    assert StopFlag.decode(stop.local_code()) is StopCause.WALLTIME
    (tmp_path / "STOP").touch()
    assert StopFlag.decode(StopFlag(tmp_path).local_code()) is StopCause.STOP_FILE


def test_every_rank_hears_the_cause_that_one_of_them_saw(tmp_path):
    with StopFlag(tmp_path).installed() as quiet:
        assert quiet.agree(lambda code: max(code, int(StopCause.PREEMPT))) is StopCause.PREEMPT


def test_being_cancelled_wins_over_being_preempted(tmp_path):
    with StopFlag(tmp_path).installed() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        cause = stop.agree(lambda code: code)
    assert cause is StopCause.TERMINATE
    assert not cause.requeue
    assert cause.wait_under_slurm


def test_only_slurms_own_warnings_ask_for_a_requeue():
    assert {cause for cause in StopCause if cause.requeue} == {StopCause.PREEMPT, StopCause.WALLTIME}


def test_former_handlers_are_kept_for_the_requeue_and_put_back(tmp_path):
    def submitits(number, frame):
        raise AssertionError("called")

    before = signal.signal(signal.SIGUSR2, submitits)
    try:
        with StopFlag(tmp_path).installed() as stop:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert stop.former_handler(signal.SIGUSR2) is submitits
        assert signal.getsignal(signal.SIGUSR2) is submitits
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_second_sigterm_does_not_end_the_save_but_a_second_ctrl_c_ends_the_run(tmp_path):
    with StopFlag(tmp_path).installed():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    with StopFlag(tmp_path).installed():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
