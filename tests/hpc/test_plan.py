"""Batch arithmetic never changes what is computed without saying so."""

from __future__ import annotations

import pytest

from hpc.config import ConfigError
from hpc.plan import plan_batches


def test_the_global_batch_is_shared_out_without_accumulation_by_default():
    plan = plan_batches(128, 4)
    assert (plan.micro_batch, plan.accumulation, plan.batchnorm_group) == (32, 1, 128)
    assert (plan.batchnorm_ranks, plan.batchnorm_groups) == (4, 1)


def test_every_row_of_the_global_batch_is_processed_exactly_once():
    plan = plan_batches(24, 2, micro_batch=3, batchnorm_group=6)
    rows = [row for a in range(plan.accumulation) for rank in range(2) for row in range(24)[plan.rows(rank, a)]]
    assert rows == list(range(24))


def test_accumulation_that_would_shrink_the_batchnorm_group_wants_an_explicit_yes():
    with pytest.raises(ConfigError, match=r"train\.batchnorm_group=32"):
        plan_batches(128, 4, micro_batch=8)
    plan = plan_batches(128, 4, micro_batch=8, batchnorm_group=32)
    assert (plan.accumulation, plan.batchnorm_ranks, plan.batchnorm_groups) == (4, 4, 4)


def test_a_smaller_group_shrinks_the_micro_batch_to_fit():
    plan = plan_batches(128, 2, batchnorm_group=16)
    assert (plan.micro_batch, plan.accumulation, plan.batchnorm_ranks) == (16, 4, 1)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((128, 3), "valid numbers of ranks: 1, 2, 4"),
        ((128, 2, 7), "valid: 1, 2, 4"),
        ((128, 2, 0, 5), "does not divide"),
    ],
)
def test_impossible_sizes_are_errors_that_name_the_possible_ones(arguments, names):
    with pytest.raises(ConfigError, match=names):
        plan_batches(*arguments)
