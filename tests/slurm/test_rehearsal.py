"""The rehearsal of a long run: a whole schedule through ten interruptions on four, two, three and four nodes.

What a run of weeks promises is looked at on its end: one loss curve, one learning rate, one W&B run, each sample once.
Under eight minutes on two cores. For the picture, keep the folders and draw them:

    pytest tests/slurm/test_rehearsal.py --basetemp FOLDER
    python -m tests.bench.loss_curves FOLDER/rehearsal0/run FOLDER/rehearsal0/in-peace
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import signal
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from hpc.tracking.__main__ import main
from hpc.tracking.journal import read_records, surviving
from hpc.tracking.wandb_mirror import kept_id
from shards import open_source
from shards.building.moving_mnist import build_moving_mnist
from shards.order import Order
from tests.hpc.test_tracking_wandb import comparable, expected, history
from tests.slurm.rehearsal import (
    CLIPS,
    EPOCHS,
    EVERY,
    GLOBAL_BATCH,
    SIGNAL_DELAY_S,
    STEPS,
    InPeace,
    Rehearsal,
    curve,
    kill_rank,
    learning_rate,
)

pytestmark = [pytest.mark.slurm, pytest.mark.multiprocess, pytest.mark.slow, pytest.mark.timeout(1800)]
ANNOUNCED = ("time limit", "preempted (USR2)", "preempted (TERM)", "scontrol requeue", "scancel", "STOP file")


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory) -> Iterator[tuple[Rehearsal, Rehearsal]]:
    """The disturbed run and the one in peace, both at the end of the schedule."""
    folder = tmp_path_factory.mktemp("rehearsal")
    data, witness = folder / "clips", folder / "witness"
    witness.mkdir()
    build_moving_mnist(data, digits=1, deterministic=True, sequences=CLIPS, frames=6, test_set="none")
    run = Rehearsal(cluster, folder / "run", data, witness)
    run.launch("--partition", "low", "--time", "60", f"cluster.signal_delay_s={SIGNAL_DELAY_S}", "log.wandb=offline")
    run.wait_for_step(1)
    peace = InPeace(Rehearsal(cluster, folder / "in-peace", data, witness))
    settings = cluster.settings
    try:
        _disturb(run)
        run.wait_for_state("COMPLETED")
        peace.finish()
        yield run, peace.run
    finally:
        peace.end()
        cluster.clear()
        cluster.configure(settings)


def _disturb(run: Rehearsal) -> None:
    cluster = run.cluster
    only_by_term = dataclasses.replace(cluster.settings, preempt_send_user_signal=False, grace_s=12)
    run.interrupt("time limit", 30, lambda: run.run_out_of_time(SIGNAL_DELAY_S))
    run.interrupt("SIGKILL of a rank", 70, lambda: kill_rank(run, 2, signal.SIGKILL))
    run.cancel(110, nodes=2)
    run.lose_node("node lost", 150, 1, cluster.kill_slurmd)
    announcing = cluster.settings
    cluster.configure(only_by_term)
    run.interrupt("preempted (TERM)", 190, run.preempt)
    cluster.configure(announcing)
    run.cancel(230, nodes=3)
    run.interrupt("scontrol requeue", 270, lambda: cluster.run("scontrol", "requeue", run.job))
    run.interrupt("preempted (USR2)", 300, run.preempt)
    run.stop(330, nodes=4)
    run.lose_node("node set DOWN", 360, 3, cluster.set_down)


@pytest.fixture
def run(runs) -> Rehearsal:
    return runs[0]


@pytest.fixture
def in_peace(runs) -> Rehearsal:
    return runs[1]


def test_the_schedule_comes_to_its_end_through_all_interruptions_and_node_counts(run):
    assert run.last_step() == STEPS
    assert (run.folder / "model.pt").exists()
    attempts = run.history().attempts
    assert [size for size, _ in itertools.groupby(attempt.world_size for attempt in attempts)] == [4, 2, 3, 4]
    assert len(run.recoveries) == len(attempts) - 1 == 10
    assert attempts[-1].cause == "finished"


def test_announced_stops_recompute_nothing_and_the_others_one_checkpoint_interval_at_most(run):
    for recovery in run.recoveries:
        assert 0 <= recovery.steps_recomputed <= (0 if recovery.fault in ANNOUNCED else EVERY), recovery


def test_its_loss_curve_lies_on_that_of_the_run_in_peace(run, in_peace):
    assert curve(run, "loss") == pytest.approx(curve(in_peace, "loss"), rel=5e-3)
    for term in ("kl_y", "kl_z", "res"):  # another batch or noise moves them by a tenth or more
        assert curve(run, term) == pytest.approx(curve(in_peace, term), rel=2e-2), term


def test_until_the_number_of_nodes_changes_not_a_bit_differs(run, in_peace):
    sizes = {attempt.number: attempt.world_size for attempt in run.history().attempts}
    steps = [step for step, attempt in sorted(run.surviving_attempts().items()) if sizes[attempt] == 4 and step < 200]
    assert steps[-1] >= 110, "three attempts"
    for name in ("loss", "nll", "kl_y", "kl_z", "res", "grad_norm/model"):
        assert curve(run, name)[: steps[-1]] == curve(in_peace, name)[: steps[-1]], name


def test_every_step_has_the_learning_rate_of_the_schedule(run):
    assert curve(run, "lr") == pytest.approx([learning_rate(step) for step in range(1, STEPS + 1)], rel=1e-12)
    assert curve(run, "lr")[-1] == 0


def test_every_sample_is_consumed_exactly_once_by_the_steps_that_count(run, in_peace):
    """Told by the ranks themselves, of the clips that each optimiser step was made with."""
    found = run.consumed()
    for step in range(1, STEPS + 1):
        positions = [position for position, _ in found[step]]
        assert positions == list(range((step - 1) * GLOBAL_BATCH, step * GLOBAL_BATCH)), step
    assert found == in_peace.consumed()
    assert curve(run, "samples_consumed") == [step * GLOBAL_BATCH for step in range(1, STEPS + 1)]


def test_every_clip_is_seen_once_in_each_epoch_in_the_order_of_the_stream(run):
    source = open_source(str(run.data), "train", 4)
    clips = [key for _, consumed in sorted(run.consumed().items()) for _, key in consumed]
    for epoch in range(EPOCHS):
        assert set(Counter(clips[epoch * CLIPS : (epoch + 1) * CLIPS]).values()) == {1}
        assert len(set(clips[epoch * CLIPS : (epoch + 1) * CLIPS])) == CLIPS
    order = Order(1, source.fingerprint, CLIPS).index(np.arange(STEPS * GLOBAL_BATCH))
    assert clips == [source.table.key(clip) for clip in order.tolist()]


def test_its_rebuilt_wandb_run_is_one_curve_from_step_0_to_the_end(run, capsys):
    lineage = surviving(read_records(run.folder))
    assert main(["sync", str(run.folder), "--mode", "offline"]) == 0
    (rebuilt_id,) = re.findall(r"W&B run (\w+) \(offline\)", capsys.readouterr().out)
    rebuilt = history(run.folder, rebuilt_id)
    assert [comparable(item) for item in rebuilt] == expected(lineage)
    assert [item["train/loss"] for item in rebuilt if "train/loss" in item] == curve(run, "loss")


def test_its_live_wandb_run_has_one_id_and_lacks_nothing_but_the_last_seconds_of_an_attempt(run):
    """Where SLURM's SIGTERM or a kill has ended W&B's service before it had written all."""
    live = history(run.folder, kept_id(run.folder))
    for attempt in range(1, run.history().attempts[-1].number + 1):
        journal = expected(record for record in read_records(run.folder) if record.attempt == attempt)
        rows = [comparable(item) for item in live if item["attempt"] == attempt]
        assert rows == journal[: len(rows)], attempt
    assert [live[0]["step"], live[-1]["step"]] == [0, STEPS]
