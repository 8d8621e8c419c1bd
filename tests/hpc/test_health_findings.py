"""Decisions on invented measurements: eight nodes of eight GPUs each, of which some are not like the rest."""

from __future__ import annotations

import itertools

from hpc.health.findings import Pair, to_exclude, usual_versions, verdicts
from hpc.health.probes import GIB, MIB, Clock, Device, Disk, Measurement, Memory

NODES = [f"n{number}" for number in range(1, 9)]
VERSIONS = {
    "python": "3.11.7",
    "torch": "2.8.0",
    "deepspeed": "0.17",
    "code": "0.1.0+abc",
    "driver": "550",
    "nccl": "2.27",
}


def _rank(node: int, local: int, gpus: int = 8) -> Measurement:
    return Measurement(
        rank=8 * node + local,
        node=NODES[node],
        device=Device("cuda", "NVIDIA H100", f"GPU-{node}-{local % gpus}", gpus, 79 * GIB, 80 * GIB),
        memory=Memory(900 * GIB, 1000 * GIB),
        versions=dict(VERSIONS),
        disk=None if local else Disk(5000 * GIB, 10**7, 64 * MIB, 0.1 + 0.01 * node),
        clock=None if local else Clock(0.001 * node, 0.0001),
        compute_s=0.022 + 0.0001 * local,
        all_reduce_s={"1024": 3e-5},
    )


def _fleet() -> list[Measurement]:
    return [_rank(node, local) for node in range(8) for local in range(8)]


def _pairs(bad: str = "", factor: float = 3.0) -> list[Pair]:
    others = [("n1", node) for node in NODES[1:]] + list(itertools.pairwise(NODES[1:]))
    return [Pair(pair, (factor if bad in pair else 1.0) * (0.010 + 0.001 * len(pair[1]))) for pair in others]


def test_a_sound_fleet_has_no_findings():
    assert verdicts(_fleet(), _pairs()) == []


def test_each_bad_node_is_named_with_its_own_reason_and_no_other_node_is():
    fleet = _fleet()
    fleet[8 * 5].clock = Clock(90.0, 0.0001)
    fleet[8 * 3 : 8 * 4] = [_rank(3, local, gpus=7) for local in range(8)]
    for found in fleet[8 * 6 : 8 * 7]:
        found.versions["torch"] = "2.7.1"
    findings = verdicts(fleet, _pairs(bad="n2"))
    said = {(finding.node, finding.severity): finding.text for finding in findings}
    assert {finding.node for finding in findings} == {"n2", "n4", "n6", "n7"}
    assert to_exclude(findings) == ["n2", "n4", "n7"]
    assert "all-reduce with its best partner takes 3.0 times" in said["n2", "slow"]
    assert any("shows 7 GPUs; the others show 8" in f.text for f in findings if f.node == "n4")
    assert any("ranks 24, 31 share one GPU" in f.text for f in findings if f.node == "n4")
    assert "90 s ahead of the others'" in said["n6", "warning"]
    assert said["n7", "error"] == "has torch 2.7.1; the others have torch 2.8.0"


def test_one_message_for_a_node_however_many_ranks_it_has():
    fleet = _fleet()
    for found in fleet[8:16]:
        found.versions["driver"] = "535"
    assert [str(f) for f in verdicts(fleet)] == ["warning: n2: has driver 535; the others have driver 550"]


def test_node_0_is_found_when_it_is_the_slow_one():
    assert to_exclude(verdicts(_fleet(), _pairs(bad="n1"))) == ["n1"]


def test_slow_is_relative_a_fleet_that_is_slow_all_over_is_as_it_is():
    fleet = _fleet()
    for found in fleet:
        found.compute_s = 100 * (found.compute_s or 0)
        if found.disk:
            found.disk = Disk(found.disk.free_bytes, found.disk.free_files, MIB, 20.0)
    assert verdicts(fleet, [Pair(pair.nodes, 50.0) for pair in _pairs()]) == []


def test_one_slow_gpu_is_named_by_its_rank():
    fleet = _fleet()
    fleet[29].compute_s = 0.1
    (finding,) = verdicts(fleet)
    assert (finding.node, finding.severity) == ("n4", "slow")
    assert "rank 29" in finding.text and "4.5 times" in finding.text


def test_the_odd_clock_is_named_even_if_it_is_rank_0s():
    fleet = _fleet()
    for found in fleet[8:]:
        if found.clock:
            found.clock = Clock(found.clock.ahead_s - 90, 0.0001)
    (finding,) = verdicts(fleet)
    assert finding.node == "n1" and "90 s ahead" in finding.text and not finding.severe


def test_clocks_as_far_apart_as_cannot_be_told_are_no_finding():
    fleet = _fleet()
    fleet[8].clock = Clock(8.0, 4.0)
    assert verdicts(fleet) == []


def test_a_failed_probe_of_what_is_needed_excludes_the_node_another_one_does_not():
    fleet = _fleet()
    fleet[8].errors = {"disk": "TimeoutError: no answer in 60 s"}
    fleet[8].disk = None
    fleet[16].errors = {"memory": "KeyError: 'MemAvailable'"}
    findings = verdicts(fleet)
    assert to_exclude(findings) == ["n2"]
    assert [(f.node, f.severity) for f in findings] == [("n2", "error"), ("n3", "warning")]


def test_what_fails_on_all_nodes_is_no_nodes_fault():
    fleet = _fleet()
    for found in fleet[::8]:
        found.errors = {"disk": "FileNotFoundError: /runs"}
    (finding,) = verdicts(fleet)
    assert str(finding).startswith("error: all nodes, as rank 0: disk could not") and finding.node == ""


def test_data_that_is_nowhere_is_a_warning_where_others_have_it_an_error():
    fleet = _fleet()
    fleet[8].errors = {"data": "FileNotFoundError: data.root=/data"}
    assert to_exclude(verdicts(fleet)) == ["n2"]
    for found in fleet[::8]:
        found.errors = {"data": "FileNotFoundError: data.root=/data"}
    assert [f.severity for f in verdicts(fleet)] == ["warning"] == [f.severity for f in verdicts(fleet[:8])]


def test_wrong_sums_are_blamed_on_the_node_that_has_them_with_every_partner():
    fleet = _fleet()
    for found in fleet:
        found.wrong_sums = 17
    pairs = [Pair(pair.nodes, pair.seconds, wrong_sums=9 * ("n5" in pair.nodes)) for pair in _pairs()]
    findings = verdicts(fleet, pairs)
    assert to_exclude(findings) == ["n5"]
    assert to_exclude(verdicts(fleet)) == []
    assert ["on 64 ranks" in f.text for f in verdicts(fleet)] == [True]


def test_a_node_that_no_partner_reaches_is_excluded_its_partners_are_not():
    pairs = [Pair(pair.nodes, None, error="timed out") if "n8" in pair.nodes else pair for pair in _pairs()]
    assert to_exclude(verdicts(_fleet(), pairs)) == ["n8"]


def test_a_broken_link_is_reported_even_where_it_is_nobodys_fault_alone():
    pairs = [Pair(pair.nodes, None, error="timed out") if pair.nodes == ("n1", "n4") else pair for pair in _pairs()]
    (finding,) = verdicts(_fleet(), pairs)
    assert str(finding) == "error: all-reduce between n1 and n4 fails: timed out"
    (finding,) = verdicts(_fleet()[:16], [Pair(("n1", "n2"), None, error="timed out")])
    assert finding.severe and finding.node == ""


def test_little_space_and_a_gpu_in_use_are_warnings():
    fleet = _fleet()
    fleet[0].disk = Disk(3 * GIB, 500, MIB, 0.1)
    fleet[9].device = Device("cuda", "NVIDIA H100", "GPU-1-1", 8, 30 * GIB, 80 * GIB)
    fleet[17].memory = Memory(GIB, 1000 * GIB)
    findings = verdicts(fleet)
    assert {f.severity for f in findings} == {"warning"}
    said = "\n".join(map(str, findings))
    for words in (
        "n1: only 3.0 GiB",
        "n1: only 500 inodes",
        "rank 9: its GPU has only 30.0 of 80.0",
        "n3: only 1.0 GiB",
    ):
        assert words in said


def test_with_two_nodes_the_other_version_is_the_one_that_rank_0_has_not():
    fleet = _fleet()[:16]
    for found in fleet[8:]:
        found.versions["code"] = "0.1.0+def"
    assert usual_versions(fleet)["code"] == "0.1.0+abc"
    assert to_exclude(verdicts(fleet)) == ["n2"]
