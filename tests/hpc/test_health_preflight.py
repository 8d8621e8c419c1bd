"""Real ranks, each calling itself a node of its own, before an attempt: what cannot work ends it on all of them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from hpc.distributed import World
from hpc.health.findings import PreflightError
from hpc.health.preflight import preflight
from hpc.tracking import strict_json
from tests.hpc.ranks import on_ranks

RANKS = 4


@contextmanager
def _only(here: bool, target: str, replacement: Any) -> Iterator[None]:
    if not here:
        yield
        return
    with mock.patch(target, replacement):
        yield


def _outcome(world: World, folder: Path, data_root: str | None = None) -> Any:
    try:
        return preflight(world, folder, data_root)
    except PreflightError as error:
        return str(error)


def _no_device(*_: object) -> None:
    raise RuntimeError("CUDA error: unknown error")


class _LateClock:
    """Rank 0's view of a clock that is 90 s behind; a module's `time` in one place only."""

    perf_counter = staticmethod(time.perf_counter)

    @staticmethod
    def time() -> float:
        return time.time() - 90


def _preflights(world: World, tmp: Path) -> dict[str, Any]:
    os.environ["SLURMD_NODENAME"] = f"n{world.rank + 1}"
    outcomes: dict[str, Any] = {"sound": _outcome(world, tmp, str(tmp))}
    outcomes["again"] = _outcome(world, tmp)
    folder = tmp / "missing" if world.rank == 2 else tmp
    outcomes["cannot write"] = _outcome(world, folder)
    outcomes["no data"] = _outcome(world, tmp, str(folder))
    with _only(world.rank == 1, "hpc.health.probes.this_device", _no_device):
        outcomes["no device"] = _outcome(world, tmp)
    with _only(world.rank == 3, "hpc.health.probes.code_version", lambda: "0.1.0+other"):
        outcomes["other code"] = _outcome(world, tmp)
    with _only(world.rank == 1, "hpc.health.fabric.time", _LateClock()):
        outcomes["late clock"] = _outcome(world, tmp)
    with _only(world.rank == 0, "hpc.health.fabric.wrong_elements", lambda *_: 5):
        outcomes["wrong sums"] = _outcome(world, tmp)
    outcomes["left behind"] = sorted(path.name for path in tmp.iterdir())
    outcomes["deepspeed imported"] = "deepspeed" in sys.modules
    return outcomes


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(RANKS, _preflights, tmp_path_factory.mktemp("run"))


pytestmark = pytest.mark.multiprocess


def test_sound_ranks_pass_in_less_than_two_seconds(outcomes):
    for report in (outcomes[0]["sound"], outcomes[0]["again"]):
        assert [found.node for found in report.measurements] == ["n1", "n2", "n3", "n4"]
        assert all(found.errors == {} for found in report.measurements)
    assert min(outcomes[0][case].seconds for case in ("sound", "again")) < 2
    assert outcomes[0]["left behind"] == []


def test_clocks_of_one_machine_are_together_to_the_millisecond(outcomes):
    clocks = [found.clock for found in outcomes[0]["sound"].measurements]
    assert all(abs(clock.ahead_s) <= clock.uncertainty_s + 1e-4 and clock.uncertainty_s < 0.1 for clock in clocks)
    assert any(clock.ahead_s for clock in clocks[1:])


def test_the_journal_gets_plain_values(outcomes):
    entry = outcomes[0]["sound"].journal()
    assert strict_json.loads(strict_json.dumps(entry)) == entry
    assert entry["nodes"] == {"n1": 1, "n2": 1, "n3": 1, "n4": 1}
    assert entry["all_reduce_s"].keys() == {"1024", str(2**20)}
    assert entry["disk_free_gib"] > 0 and entry["memory_available_gib"] > 0 and entry["disk_write_s"] > 0


@pytest.mark.parametrize(
    ("case", "node", "words"),
    [
        ("cannot write", "n3", "rank 2: disk could not be used or measured: FileNotFoundError"),
        ("no data", "n3", "is not there, or may not be read"),
        ("no device", "n2", "CUDA error: unknown error"),
        ("other code", "n4", "has code 0.1.0+other; the others have code"),
    ],
)
def test_what_cannot_work_on_one_node_ends_it_on_all_and_says_whom_to_leave_out(outcomes, case, node, words):
    messages = [found[case] for found in outcomes]
    assert messages == [messages[0]] * RANKS
    assert f"error: {node}: " in messages[0] and words in messages[0]
    assert messages[0].endswith(f"--exclude {node}")


def test_wrong_sums_end_it_but_blame_nobody(outcomes):
    messages = [found["wrong sums"] for found in outcomes]
    assert messages == [messages[0]] * RANKS
    assert "wrong sums on 1 ranks" in messages[0] and "--exclude" not in messages[0]
    assert "doctor" in messages[0]


def test_a_clock_that_is_off_is_a_warning(outcomes):
    (warning,) = [found for found in outcomes[0]["late clock"].warnings if "clock" in found]
    assert warning == "warning: n2: its clock is 90 s behind the others': times will mislead"
    assert outcomes[0]["late clock"].journal()["clock_skew_s"] == pytest.approx(90, abs=1)


def test_nothing_heavy_is_imported_for_it(outcomes):
    assert not any(found["deepspeed imported"] for found in outcomes)


def _alone(world: World, folder: Path) -> Any:
    return preflight(world, folder, str(folder))


def test_a_single_rank_has_nobody_to_compare_with(tmp_path):
    (report,) = on_ranks(1, _alone, tmp_path)
    assert report.measurements[0].all_reduce_s == {} and report.measurements[0].disk is not None
    assert report.journal()["all_reduce_s"] == {}
