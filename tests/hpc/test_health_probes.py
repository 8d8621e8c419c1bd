"""What a rank finds out on its own, and that a probe which cannot be done is an answer, not an end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from hpc.health import probes
from hpc.health.probes import GIB, MIB, Measurement


def _machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    listing = {"proc/meminfo": f"MemTotal: {64 * MIB} kB\nMemAvailable: {32 * MIB} kB\nHugePages_Total:  0\n"}
    for name, text in {**listing, "proc/self/cgroup": cgroup, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_memory_is_the_machines_where_no_cgroup_limits_it(tmp_path):
    root = _machine(tmp_path, "0::/job\n", {"sys/fs/cgroup/job/memory.max": "max\n"})
    assert probes.memory(root) == probes.Memory(32 * GIB, 64 * GIB)


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        (
            "0::/job/step\n",
            {
                "sys/fs/cgroup/job/step/memory.max": "max",
                "sys/fs/cgroup/job/memory.max": str(16 * GIB),
                "sys/fs/cgroup/job/memory.current": str(6 * GIB),
            },
        ),
        (
            "5:devices:/x\n4:cpu,memory:/job\n0::/\n",
            {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(16 * GIB),
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(6 * GIB),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
                "sys/fs/cgroup/memory/memory.usage_in_bytes": str(30 * GIB),
            },
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_memory_is_what_the_jobs_cgroup_leaves(tmp_path, cgroup, files):
    assert probes.memory(_machine(tmp_path, cgroup, files)) == probes.Memory(10 * GIB, 16 * GIB)


def test_disk_probe_writes_measures_and_leaves_nothing_behind(tmp_path):
    (tmp_path / ".write-probe-n1").write_bytes(b"left behind by a killed one")
    found = probes.disk(tmp_path, "n1", 3 * MIB)
    assert found.written_bytes == 3 * MIB and found.seconds > 0 and found.free_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_noted_not_raised(tmp_path):
    found = Measurement(0, "n1")
    assert found.attempt("disk", lambda: probes.disk(tmp_path / "missing", "n1", MIB)) is None
    assert found.errors["disk"].startswith("FileNotFoundError") and "missing" in found.errors["disk"]


def test_a_hanging_file_system_is_an_error_after_the_limit(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(probes, "_disk", lambda *_: release.wait(30))
    with pytest.raises(TimeoutError, match=r"no answer in 0 s"):
        probes.disk(tmp_path, "n1", MIB, limit_s=0.05)
    release.set()


def test_data_that_is_not_here_is_missed_and_a_url_is_not_asked(tmp_path):
    probes.data_is_there(str(tmp_path))
    probes.data_is_there("https://example.org/shards")
    probes.data_is_there("pipe:cat shards")
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*gone"):
        probes.data_is_there(str(tmp_path / "gone"))


def test_a_device_that_computes_wrong_is_found_out(monkeypatch):
    cpu = torch.device("cpu")
    seconds, wrong = probes.compute(cpu, 64, 2)
    assert seconds > 0 and wrong == 0
    right = torch.Tensor.__matmul__

    def broken(self: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        product = right(self, other)
        if product.dtype == torch.float32:
            product[3] += 1
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", broken)
    assert probes.compute(cpu, 64, 2)[1] == 1


def test_the_probes_draw_nothing_from_the_generator_of_the_training():
    before = torch.get_rng_state()
    probes.compute(torch.device("cpu"), 16, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rank_is_measured_on_this_machine(monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    found = probes.measure(3, torch.device("cpu"))
    assert (found.rank, found.node, found.errors) == (3, "n7", {})
    assert found.device is not None and found.device.kind == "cpu"
    assert found.memory is not None and 0 < found.memory.available_bytes <= found.memory.total_bytes
    assert found.versions["torch"] == torch.__version__
    assert {"python", "deepspeed", "code", "sources"} <= found.versions.keys()
