"""Real ranks, each calling itself a node of its own: the doctor names the bad one and never waits for ever."""

from __future__ import annotations

import datetime
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist

from hpc.config import Config
from hpc.distributed import World
from hpc.health import doctor, fabric
from hpc.health.doctor import doctor_rank
from hpc.health.probes import KIB, MIB
from tests.hpc.ranks import on_ranks

RANKS = 3
pytestmark = pytest.mark.multiprocess


def _sluggish() -> Any:
    """An all-reduce that takes its time on a link to this rank."""
    right = dist.all_reduce

    def all_reduce(tensor: Any, *arguments: Any, **options: Any) -> Any:
        time.sleep(0.1)
        return right(tensor, *arguments, **options)

    return all_reduce


def _unreachable(*_: object) -> None:
    raise RuntimeError("link is down")


def _examinations(world: World, tmp: Path) -> dict[str, int]:
    os.environ["SLURMD_NODENAME"] = f"n{world.rank + 1}"
    folders = {name: tmp / name for name in ("one node", "sound", "slow", "unreachable", "missing", "no device")}
    for name, folder in folders.items():
        if name != "missing":
            folder.mkdir(exist_ok=True)
    doctor.WRITE_BYTES, doctor.SIZES = MIB, {KIB: 3, MIB: 3}  # quick
    doctor.PAIR_BYTES, doctor.PAIR_REPEATS = MIB, 5
    config = Config()
    codes = {"sound": doctor_rank(world, folders["sound"], config)}
    bad = world.rank == 1
    with mock.patch("hpc.health.fabric.dist.all_reduce", _sluggish() if bad else dist.all_reduce):
        codes["slow"] = doctor_rank(world, folders["slow"], config)
    fabric.PAIR_TIMEOUT = datetime.timedelta(seconds=1)
    with mock.patch("hpc.health.fabric._all_reduce_times", _unreachable if bad else fabric._all_reduce_times):
        codes["unreachable"] = doctor_rank(world, folders["unreachable"], config)
    codes["missing"] = doctor_rank(world, folders["missing"], config)
    with mock.patch("hpc.health.fabric.new_buffer", _unreachable if bad else fabric.new_buffer):
        codes["no device"] = doctor_rank(world, folders["no device"], config)
    os.environ["SLURMD_NODENAME"] = "n1"
    codes["one node"] = doctor_rank(world, folders["one node"], config)
    return codes


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, int]], Path]:
    tmp = tmp_path_factory.mktemp("doctor")
    return on_ranks(RANKS, _examinations, tmp), tmp


def _read(examined: Any, case: str) -> tuple[dict[str, Any], str]:
    folder = examined[1] / case
    return json.loads((folder / "doctor.json").read_text()), (folder / "doctor.txt").read_text()


def test_every_rank_comes_to_the_same_exit_code(examined):
    codes, _ = examined
    assert codes == [codes[0]] * RANKS


def test_what_was_measured_is_written_for_people_and_for_programs(examined):
    found, text = _read(examined, "sound")
    assert [rank["node"] for rank in found["measurements"]] == ["n1", "n2", "n3"]
    assert [pair["nodes"] for pair in found["pairs"]] == [["n1", "n2"], ["n1", "n3"], ["n2", "n3"]]
    assert all(pair["seconds"] > 0 and pair["wrong_sums"] == 0 for pair in found["pairs"])
    assert found["all_reduce_s"].keys() == {"1024", str(2**20)}
    assert all(rank["wrong_sums"] == 0 and rank["compute_s"] > 0 for rank in found["measurements"])
    for words in ("n1 ", "n3 ", "1 KiB", "1 MiB", "bus GiB/s", "versions: python ", "nodes to --exclude: "):
        assert words in text
    assert {path.name for path in (examined[1] / "sound").iterdir()} == {"doctor.json", "doctor.txt"}


def test_one_sound_node_passes(examined):
    found, text = _read(examined, "one node")
    assert examined[0][0]["one node"] == 0 and found["exclude"] == [] and found["pairs"] == []
    assert text.endswith("nodes to --exclude: none\n")


def test_a_node_behind_a_slow_link_is_to_be_excluded(examined):
    found, text = _read(examined, "slow")
    assert found["exclude"] == ["n2"] and examined[0][0]["slow"] == 1
    assert "nodes to --exclude: n2\n  n2: all-reduce with its best partner takes" in text


def test_a_node_whose_link_is_down_is_named_and_the_others_do_not_wait_for_it(examined):
    found, text = _read(examined, "unreachable")
    assert found["exclude"] == ["n2"] and examined[0][0]["unreachable"] == 1
    assert [pair["seconds"] is None for pair in found["pairs"]] == [True, False, True]
    assert found["all_reduce_s"] == {}
    assert "n2: all-reduce with every other node fails" in text


def test_a_rank_without_a_working_device_keeps_nobody_waiting_in_an_all_reduce(examined):
    found, _ = _read(examined, "no device")
    assert found["exclude"] == ["n2"] and found["pairs"] == [] and examined[0][0]["no device"] == 1


def test_a_folder_that_cannot_be_written_is_said_not_raised(examined):
    assert examined[0][0]["missing"] == 1 and not (examined[1] / "missing").exists()


def test_bus_bandwidth_is_what_one_link_carries():
    assert fabric.bandwidths(100, 2.0, 4) == (50.0, 75.0)


def test_node_0_is_not_the_only_partner():
    pairs = fabric.node_pairs(["a", "b", "c", "d"])
    assert pairs == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("c", "d")]
    assert fabric.node_pairs(["a"]) == []
