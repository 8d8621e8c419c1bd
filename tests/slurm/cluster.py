"""A real SLURM for the tests: munged, slurmctld and four slurmd on loopback, in a folder of their own.

In: `Settings`. Out: a running cluster, and `environ`, with which SLURM's commands reach it. Nothing outside the folder
is written. It ends with its owner, however that ends: a janitor process (this file as a program) waits for that.

Where the machine lets us, every slurmd has its own host name (n1, n2 ...) and its own /etc/hosts, which its jobs see;
the nodes still share one network stack, one file system and all processes. Each node has a port of its own, not an
address: srun listens on its node's address, but its peers answer to the one the kernel chose.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
PREFIX = "odevid-slurm-"
FOREIGN = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SCANCEL_", "MASTER_")
"""What a job or a shell around the tests must not hand to ours."""
PORTS_FROM, PORTS_TO, PORT_BLOCK, SRUN_PORTS = 10_000, 17_000, 200, 50


@dataclass(frozen=True)
class Settings:
    nodes: int = 4
    cpus: int = 4
    """Per node; more than the machine has is allowed."""
    memory_mb: int = 8000
    gpus: int = 0
    """Per node; each is a link to /dev/null, so that SLURM counts them and sets CUDA_VISIBLE_DEVICES."""
    kill_wait_s: int = 8
    """Between SIGTERM and SIGKILL."""
    grace_s: int = 20
    """Between the announcement of a preemption and its SIGTERM."""
    preempt_send_user_signal: bool = True
    """Whether a preemption is announced by the signal of --signal (USR2), else by SIGTERM."""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]


class SlurmCluster:
    """One cluster. `start` and `stop` may be called again; `folder` exists in between."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.nodes = [f"n{number + 1}" for number in range(self.settings.nodes)]
        self.own_host_names = _may_have_host_names()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> SlurmCluster:
        """Returns when every node is idle, after about a second."""
        remove_stale_clusters()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))  # UNIX sockets: the path must be short
        (self.folder / "owner").write_text(_identity(os.getpid()))
        self._janitor = subprocess.Popen([sys.executable, "-I", __file__, self.folder], stdin=subprocess.PIPE)
        self.folder.chmod(0o755)
        for name in ("etc", "munge", "state", "spool", "run", "log", "bin", "gpu"):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(0o755)  # whatever the umask: munged demands it
        self.port = _free_ports(self.folder)
        try:
            self._start_munged()
            self._write_files()
            self._start_controller()
            for node in self.nodes:
                self.start_slurmd(node)
            self.wait_for_nodes()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the daemons, the jobs and what they left; remove the folder."""
        sweep(self.folder)
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()

    def __enter__(self) -> SlurmCluster:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- use -------------------------------------------------------------------------------------------------------

    @property
    def environ(self) -> dict[str, str]:
        """Of a shell on this cluster's login node."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**clean, "SLURM_CONF": str(self.folder / "etc/slurm.conf"), "PATH": f"{self.folder}/bin:{_path()}"}

    def run(self, *command: str, check: bool = True) -> str:
        """Output of a command on the login node; its errors are shown."""
        done = subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """State of a job in SLURM's words, also after its end."""
        return self.run("squeue", "-h", "-r", "-a", "-t", "all", "-j", job, "-o", "%T")

    def show(self, job: str) -> dict[str, str]:
        """`scontrol show job`."""
        words = self.run("scontrol", "-o", "show", "job", job).split()
        return {name: value for name, _, value in (word.partition("=") for word in words)}

    def clear(self) -> None:
        """No jobs, all nodes up: for the next test."""
        self.run("scancel", "--user", getpass.getuser(), check=False)
        mine = f"SLURM_CONF={self.folder}/etc/slurm.conf"
        for pid, environ in _environments():
            if mine in environ and any(line.startswith("SLURM_JOB_ID=") for line in environ):
                with contextlib.suppress(ProcessLookupError):  # they would take KillWait to say goodbye
                    os.kill(pid, signal.SIGKILL)
        _wait("the queue to be empty", lambda: not self.run("squeue", "-h"), 60)
        for node in self.nodes:
            self.resume(node)
        self.wait_for_nodes()

    def configure(self, settings: Settings) -> None:
        """Go on with other settings (not of nodes); jobs live through it."""
        assert replace(settings, nodes=len(self.nodes)) == settings
        self.settings = settings
        controller = self._daemons.pop("slurmctld")
        controller.terminate()
        controller.wait(timeout=30)
        self._write_files()
        self._start_controller()
        for node in self.nodes:
            self.start_slurmd(node)
        self.run("scontrol", "reconfigure")
        self.wait_for_nodes()

    # -- faults ----------------------------------------------------------------------------------------------------

    def tasks(self, job: str) -> dict[int, int]:
        """The living tasks of a job's step on all nodes: rank -> pid."""
        found = {}
        for pid, environ in _environments():
            if {f"SLURM_JOB_ID={job}", f"SLURM_TASK_PID={pid}"} <= environ:
                values = dict(line.partition("=")[::2] for line in environ)
                if "SLURM_STEP_NUM_TASKS" in values:  # else it is the batch script
                    found[int(values["SLURM_PROCID"])] = pid
        return found

    def processes(self, job: str) -> list[int]:
        """Whatever of a job lives: batch script, srun, tasks and their children."""
        return [pid for pid, environ in _environments() if f"SLURM_JOB_ID={job}" in environ]

    def daemon(self, node: str) -> int:
        """Process id of its slurmd."""
        return self._daemons[f"slurmd-{node}"].pid

    def kill_slurmd(self, node: str, *, with_its_jobs: bool = True) -> None:
        """SIGKILL, as when a machine loses its power: the daemon and all that it has started."""
        victims = self._on_node(node) if with_its_jobs else []
        daemon = self._daemons.pop(f"slurmd-{node}")
        for pid in [daemon.pid, *victims]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def set_down(self, node: str) -> None:
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def resume(self, node: str) -> None:
        """Whatever was done to it: the node works again."""
        self.start_slurmd(node)
        state = self.run("sinfo", "-h", "-N", "-n", node, "-p", "main", "-o", "%T")
        if "down" in state or "drain" in state:
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)

    def start_slurmd(self, node: str) -> None:
        """Start its daemon if it does not run."""
        daemon = self._daemons.get(f"slurmd-{node}")
        if daemon is not None and daemon.poll() is None:
            return
        command = ["slurmd", "-D", "-N", node]
        if self.own_host_names:
            script = f"hostname {node} && mount --bind {self.folder}/etc/hosts /etc/hosts && exec {' '.join(command)}"
            command = ["unshare", "--uts", "--mount", "sh", "-c", script]
        (self.folder / "spool" / node).mkdir(exist_ok=True)
        self._spawn(f"slurmd-{node}", command)

    def wait_for_nodes(self, state: str = "idle,mixed,allocated") -> None:
        def all_there() -> bool:
            answer = self.run("sinfo", "-h", "-N", "-p", "main", "-t", state, "-o", "%N %T", check=False).splitlines()
            return len([line for line in answer if not line.endswith("*")]) == len(self.nodes)

        _wait(f"the nodes to be {state} (see {self.folder}/log)", all_there, 60)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _on_node(self, node: str) -> list[int]:
        """Everything that runs on a node, its slurmd excepted."""
        daemon = self._daemons[f"slurmd-{node}"].pid
        if self.own_host_names:
            machine = Path(f"/proc/{daemon}/ns/uts").readlink()
            return [pid for pid, _ in _environments() if pid != daemon and _uts(pid) == machine]
        tasks = [pid for pid, environ in _environments() if f"SLURMD_NODENAME={node}" in environ]
        parents = {_status(pid).get("PPid", "") for pid in tasks}
        steps = [int(pid) for pid in parents if pid and _status(int(pid)).get("Name") == "slurmstepd"]
        return [*steps, *tasks]

    def _spawn(self, name: str, command: list[str]) -> None:
        log = self.folder / "log" / f"{name}.out"
        with log.open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                command,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,
            )

    def _start_munged(self) -> None:
        munge = self.folder / "munge"
        descriptor = os.open(munge / "key", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, os.urandom(1024))
        os.close(descriptor)
        names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in names.items()]
        self._spawn("munged", ["munged", "--foreground", "--num-threads=4", *options])
        asking = ["munge", "--no-input", f"--socket={munge / 'socket'}"]
        _wait("munged", lambda: _succeeds(asking, self.environ), 20)

    def _start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D"])
        _wait("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False), 60)

    def _write_files(self) -> None:
        etc, gpus = self.folder / "etc", self.settings.gpus
        hosts = ["127.0.0.1 localhost", *(f"127.0.0.1 {node}" for node in self.nodes)]
        hosts.append(f"127.0.0.1 {socket.gethostname()}")
        (etc / "hosts").write_text("\n".join(hosts) + "\n")
        for number in range(gpus):  # a character device, or SLURM would not tell jobs which they have
            link = self.folder / f"gpu/nvidia{number}"
            if not link.is_symlink():
                link.symlink_to("/dev/null")
        gres = f"NodeName={_range('n', 1, len(self.nodes))} Name=gpu File={self.folder}/gpu/{_range('nvidia', 0, gpus)}"
        (etc / "gres.conf").write_text(gres + "\n" if gpus else "")
        (etc / "slurm.conf").write_text(_slurm_conf(self))
        sacct = self.folder / "bin/sacct"
        sacct.write_text(SACCT)
        sacct.chmod(0o755)


# -- what is left of a cluster -----------------------------------------------------------------------------------------


def sweep(folder: Path) -> None:
    """Kill every process that belongs to the cluster of that folder, and remove the folder."""
    mine = f"SLURM_CONF={folder}/etc/slurm.conf"
    for _ in range(100):
        alive = [pid for pid, environ in _environments() if mine in environ and pid != os.getpid()]
        if not alive:
            break
        for pid in alive:  # the daemons too: all is thrown away, nobody needs to save a state
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale_clusters() -> None:
    """Those whose owner is gone, though the janitor should have done so."""
    for folder in Path("/tmp").glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            owner = (folder / "owner").read_text()
            if _identity(int(owner.split()[0])) != owner:
                sweep(folder)


def _identity(pid: int) -> str:
    """A process by number and time of birth: numbers are used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return f"{pid} gone"
    state, *rest = stat.rpartition(")")[2].split()
    return f"{pid} {'gone' if state in 'ZX' else rest[18]}"


def _environments() -> Iterator[tuple[int, set[str]]]:
    """Every living process whose environment we may read."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines = set((entry / "environ").read_bytes().decode(errors="replace").split("\0"))
            if _status(int(entry.name)).get("State", "Z")[0] not in "ZX":
                yield int(entry.name), lines


def _status(pid: int) -> dict[str, str]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return {}


def _uts(pid: int) -> Path | None:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/ns/uts").readlink()
    return None


# -- choices -----------------------------------------------------------------------------------------------------------


def _path() -> str:
    """PATH with the folders of daemons, which a user's often lacks."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@functools.cache
def _may_have_host_names() -> bool:
    """Whether we may give a process a host name and an /etc/hosts of its own."""
    trial = "hostname x && mount --bind /etc/hosts /etc/hosts"
    return _succeeds(["unshare", "--uts", "--mount", "sh", "-c", trial], dict(os.environ))


def _succeeds(command: list[str], environ: dict[str, str]) -> bool:
    try:
        return subprocess.run(command, env=environ, capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


def _free_ports(folder: Path) -> int:
    """First port of a free block, below the ephemeral ones and those of the runs' own meetings."""
    others = {path.read_text() for path in Path("/tmp").glob(f"{PREFIX}*/port")}
    blocks = list(range(PORTS_FROM, PORTS_TO, PORT_BLOCK))
    random.shuffle(blocks)
    for first in blocks:
        if str(first) not in others and all(_is_free(first + offset) for offset in range(PORT_BLOCK)):
            (folder / "port").write_text(str(first))
            return first
    raise RuntimeError(f"no {PORT_BLOCK} free ports between {PORTS_FROM} and {PORTS_TO}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _range(stem: str, first: int, count: int) -> str:
    """`n[1-4]`, as SLURM writes it."""
    return f"{stem}{first}" if count == 1 else f"{stem}[{first}-{first + count - 1}]"


def _loopback_only() -> str:
    """Listen on the address of the own host name: only right where that is a loopback one."""
    try:
        loopback = socket.gethostbyname(socket.gethostname()).startswith("127.")
    except OSError:
        loopback = False
    return "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if loopback else "#"


def _wait(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)


# -- files -------------------------------------------------------------------------------------------------------------


def _slurm_conf(cluster: SlurmCluster) -> str:
    settings, folder, port = cluster.settings, cluster.folder, cluster.port
    count = len(cluster.nodes)
    nodes = _range("n", 1, count)
    return SLURM_CONF.format(
        folder=folder,
        user=getpass.getuser(),
        controller=socket.gethostname().split(".")[0],
        controller_port=port,
        srun_ports=f"{port + SRUN_PORTS}-{port + PORT_BLOCK - 1}",
        listen=_loopback_only(),
        memory_per_cpu=settings.memory_mb // settings.cpus,
        kill_wait=settings.kill_wait_s,
        grace=settings.grace_s,
        controller_parameters="SlurmctldParameters=preempt_send_user_signal"
        if settings.preempt_send_user_signal
        else "#",
        first_job=int(time.time()) % 600_000 * 100 + 1000,  # ids that no older cluster's left-overs bear
        nodes=nodes,
        hosts=nodes if cluster.own_host_names else "localhost",
        ports=_range("", port + 1, count),
        cpus=settings.cpus,
        memory=settings.memory_mb,
        gres=f"Gres=gpu:{settings.gpus}" if settings.gpus else "",
    )


SLURM_CONF = """\
ClusterName=odevid
SlurmctldHost={controller}(127.0.0.1)
SlurmctldPort={controller_port}
SrunPortRange={srun_ports}
{listen}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# cred_expire also is how long a requeued job must wait; 5 s is the least that is accepted
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
MailProg=/bin/true
# needs no cgroups, no systemd, no PMIx
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU={memory_per_cpu}
SlurmdParameters=config_overrides
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,bf_yield_sleep=100000
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{controller_parameters}
JobRequeue=1
ReturnToService=2
KillWait={kill_wait}
OverTimeLimit=0
MinJobAge=3600
CompleteWait=0
InactiveLimit=0
WaitTime=0
# a dead node is noticed within half a minute
SlurmdTimeout=6
SlurmctldTimeout=30
MessageTimeout=20
TCPTimeout=3
BatchStartTimeout=20
UnkillableStepTimeout=60
FirstJobId={first_job}
NodeName=DEFAULT CPUs={cpus} RealMemory={memory} {gres} State=UNKNOWN
NodeName={nodes} NodeHostname={hosts} NodeAddr=127.0.0.1 Port={ports}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=10 State=UP
PartitionName=main Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high PriorityTier=100 PreemptMode=OFF
"""

SACCT = """\
#!/bin/sh
# Without SLURM's data base sacct refuses to answer. This one tells states, from the controller's memory.
header=yes fields=JobID,State,NodeList jobs=
while [ $# -gt 0 ]; do
    case $1 in
    -n | --noheader) header= ;;
    -o | --format) fields=$2 && shift ;;
    -j | --jobs) jobs="$jobs,$2" && shift ;;
    esac
    shift
done
squeue -h -r -a -t all -o '%i|%T|%N|%M' | awk -F'|' -v fields="$fields" -v jobs="$jobs" -v header="$header" '
BEGIN {
    columns = split(fields, names, ",")
    place["JobID"] = 1; place["State"] = 2; place["NodeList"] = 3; place["Elapsed"] = 4
    for (i = split(jobs, list, ","); i > 0; i--) if (list[i] != "") wanted[list[i]] = 1
    if (header) { gsub(",", "|", fields); print fields }
}
{
    split($1, id, "_")
    if (!($1 in wanted) && !(id[1] in wanted)) next
    if ($3 == "") $3 = "None assigned"
    line = ""
    for (i = 1; i <= columns; i++) line = line (i > 1 ? "|" : "") $(place[names[i]])
    print line
}'
"""


if __name__ == "__main__":  # the janitor: its input ends when its owner does
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.read()
    sweep(Path(sys.argv[1]))
