"""What a rank finds out about its machine on its own: device, memory, versions, disk, one matrix product.

In: this machine. Out: `Measurement`, plain data that can be gathered, judged (`hpc.health.findings`) and kept as JSON.
No probe here talks to another rank, and a failed one is data, too: an exception on one rank would leave the others
waiting in the next collective. Torch is imported only by the probes that need it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpc.jobs.snapshot import code_digest
from hpc.version import code_version

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
KIB, MIB, GIB = 2**10, 2**20, 2**30
DISK_LIMIT_S = 60.0
"""A disk that has not answered by then is dead: a hanging network file system never returns an error."""


@dataclass(frozen=True)
class Device:
    kind: str
    """cuda or cpu."""
    name: str
    uuid: str
    """Two ranks with the same one share a GPU; empty for a CPU."""
    visible: int
    """GPUs that this rank sees; CPU cores that it may use."""
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Memory:
    available_bytes: int
    total_bytes: int
    """Of the machine, or what the job's cgroup allows if that is less."""


@dataclass(frozen=True)
class Disk:
    free_bytes: int
    free_files: int | None
    """Inodes; None where the file system does not count them."""
    written_bytes: int
    seconds: float
    """For writing them and waiting until they are durable."""


@dataclass(frozen=True)
class Clock:
    ahead_s: float
    """Of rank 0's clock."""
    uncertainty_s: float
    """Half of the fastest round trip."""


@dataclass
class Measurement:
    """What is known of one rank; None or empty where it was not, or could not be, measured."""

    rank: int
    node: str
    device: Device | None = None
    memory: Memory | None = None
    versions: dict[str, str] = field(default_factory=dict)
    disk: Disk | None = None
    """Like the clock: measured by the first rank of each node."""
    clock: Clock | None = None
    compute_s: float | None = None
    """Time of a matrix product, the fastest of several: a passing disturbance is not the device's fault."""
    wrong_products: int = 0
    all_reduce_s: dict[str, float] = field(default_factory=dict)
    """Median time of one all-reduce of the whole group, by its size in bytes."""
    wrong_sums: int = 0
    errors: dict[str, str] = field(default_factory=dict)
    """By the name of the probe: what it raised."""

    def attempt(self, name: str, probe: Callable[[], T]) -> T | None:
        """What `probe` returns, or None after noting what it raised."""
        try:
            return probe()
        except Exception as error:  # noqa: BLE001 - it is a finding, and the other ranks must not wait for this one
            self.errors[name] = f"{type(error).__name__}: {error}"
            return None


def measure(rank: int, device: torch.device) -> Measurement:
    """The quick probes of this rank's machine; no disk, no network. Never raises."""
    found = Measurement(rank, node_name())
    found.device = found.attempt("device", lambda: this_device(device))
    found.memory = found.attempt("memory", memory)
    found.versions = found.attempt("versions", versions) or {}
    return found


def node_name() -> str:
    """The name that SLURM's --exclude takes, else the host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def this_device(device: torch.device) -> Device:
    """The device of this rank; for a CPU its memory is not repeated here."""
    import torch

    if device.type != "cuda":
        return Device("cpu", _cpu_name(), "", len(os.sched_getaffinity(0)), 0, 0)
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device)  # what this process itself holds is no surprise
    about = torch.cuda.get_device_properties(device)
    uuid = str(getattr(about, "uuid", "")) or f"device {device.index}"
    return Device("cuda", about.name, uuid, torch.cuda.device_count(), free, total)


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory(root: Path = Path("/")) -> Memory:
    """Host memory of this process: the machine's, or its cgroup's (of version 1 or 2) where that is less.

    Args:
        root: the file system's root; another one in tests.
    """
    lines = (root / "proc/meminfo").read_text().splitlines()
    machine = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest}
    available, total = machine["MemAvailable"], machine["MemTotal"]
    for limit, used in _cgroup_limits(root):
        available, total = min(available, max(0, limit - used)), min(total, limit)
    return Memory(available, total)


def _cgroup_limits(root: Path) -> list[tuple[int, int]]:
    """(limit, used) of this process's memory cgroup and of those around it; only of those that have a limit."""
    found = []
    listing = root / "proc/self/cgroup"
    for line in listing.read_text().splitlines() if listing.is_file() else []:
        _, controllers, inner = line.split(":", 2)
        if controllers == "":
            top, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            top, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        folder = top / inner.strip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(top):
                break
            limit, used = place / names[0], place / names[1]
            if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
                found.append((int(limit.read_text()), int(used.read_text())))
    return found


def versions() -> dict[str, str]:
    """What must be the same on all ranks (and, for `driver` and `kernel`, is a surprise where it is not)."""
    import torch

    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deepspeed": importlib.metadata.version("deepspeed"),
        "code": code_version(),
        "sources": code_digest(),
        "kernel": platform.release(),
    }
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        found["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        found["driver"] = driver.read_text().splitlines()[0]
    return found


def disk(folder: Path, node: str, num_bytes: int, limit_s: float = DISK_LIMIT_S) -> Disk:
    """Write and sync a file in `folder`, remove it, and look at what is free.

    Raises:
        OSError: it cannot be written.
        TimeoutError: it has not been after `limit_s`.
    """
    return within(limit_s, lambda: _disk(folder, node, num_bytes))


def _disk(folder: Path, node: str, num_bytes: int) -> Disk:
    path = folder / f".write-probe-{node}"  # the same name each time: one that was left behind is overwritten
    block = os.urandom(min(MIB, num_bytes))  # nothing that the file system could squeeze
    try:
        start = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for _ in range(num_bytes // len(block)):
                file.write(block)
            os.fsync(file.fileno())
        seconds = time.perf_counter() - start
    finally:
        path.unlink(missing_ok=True)
    free = os.statvfs(folder)
    return Disk(free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None, num_bytes, seconds)


def data_is_there(root: str, limit_s: float = DISK_LIMIT_S) -> None:
    """
    Raises:
        FileNotFoundError: `root` is a folder, and this machine does not see it. URLs and pipes are not asked.
    """
    if "://" in root or root.startswith("pipe:"):
        return

    def look() -> None:
        if not os.access(root, os.R_OK):
            raise FileNotFoundError(f"data.root={root} is not there, or may not be read")

    within(limit_s, look)


def within(limit_s: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises, or a TimeoutError: it runs in a thread, which is left behind when it hangs."""
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except Exception as error:  # noqa: BLE001 - raised again below
            outcome.put((None, error))

    threading.Thread(target=run, name="probe", daemon=True).start()
    try:
        result, failure = outcome.get(timeout=limit_s)
    except queue.Empty:
        raise TimeoutError(f"no answer in {limit_s:.0f} s") from None
    if failure is not None:
        raise failure
    return result


def compute(device: torch.device, size: int, repeats: int) -> tuple[float, int]:
    """Time of a float32 matrix product of `size` (the fastest of some), and how many of its rows are wrong.

    The factors are -1, 0 and 1, so that every sum is exact in float32 (TF32 included), and the product A B is
    checked by (A B) v = A (B v). Uses a generator of its own. On a GPU this is a first use of cuBLAS, which then reads
    CUBLAS_WORKSPACE_CONFIG: set it before.
    """
    import torch

    generator = torch.Generator().manual_seed(1)
    a, b, v = (
        torch.randint(-1, 2, shape, generator=generator).float().to(device)
        for shape in ((size, size), (size, size), (size, 1))
    )
    product = a @ b
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        product = a @ b
        synchronize(device)
        times.append(time.perf_counter() - start)
    wrong = product.double() @ v.double() != a.double() @ (b.double() @ v.double())
    return min(times), int(wrong.sum())


def synchronize(device: torch.device) -> None:
    """Wait for what was asked of the device; a CPU has done it already."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
