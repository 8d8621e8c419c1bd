"""What is handed to SLURM: the batch script, the pickled task, the environment. SLURM itself need not be there.

Where `sbatch` has to answer, a two-line shell script of that name does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import config as configs
from hpc.config import ConfigError
from hpc.jobs import submit as submission
from hpc.jobs.snapshot import code_digest, keep_code
from hpc.jobs.submit import again, outside_of_jobs, sbatch_text, submit
from hpc.run_folder import RunFolder
from hpc.task import Task

ROOT = Path(__file__).resolve().parents[2]


def script(folder: Path, *overrides: str, world_size: int = 4, verb: str = "train") -> list[str]:
    config = configs.load("srvp_smmnist", "test", "", ["cluster.nodes=2", *overrides])
    return sbatch_text(RunFolder(folder), config, world_size, verb).splitlines()


def shell(lines: str, cwd: Path) -> str:
    """What the lines of a batch script print."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(lines, shell=True, cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Puts an `sbatch` on PATH that does what the given shell lines say."""

    def put(*lines: str) -> None:
        tools = tmp_path / "tools"
        tools.mkdir()
        for name in ("sbatch", "srun"):
            (tools / name).write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    return put


def test_one_gpu_per_rank_and_none_for_cpu_ranks(tmp_path):
    gpu = script(tmp_path, "cluster.gpus_per_node=2")
    assert "#SBATCH --gpus-per-node=2" in gpu
    assert "#SBATCH --ntasks-per-node=2" in gpu
    cpu = script(tmp_path, "cluster.gpus_per_node=0", "cluster.ranks_per_node=2")
    assert "#SBATCH --ntasks-per-node=2" in cpu
    assert not [line for line in cpu if line.startswith("#SBATCH") and "--gpu" in line]


def test_only_what_the_site_set_is_asked_for(tmp_path):
    plain = "\n".join(script(tmp_path))
    options = {"partition": "a100", "qos": "long", "account": "vision", "reservation": "march", "exclude": "n7"}
    full = script(tmp_path, *(f"cluster.{name}={value}" for name, value in options.items()), "cluster.mem_gb=64")
    for name, value in {**options, "mem": "64GB"}.items():
        assert f"--{name}" not in plain
        assert f"#SBATCH --{name}={value}" in full
    assert "--wckey" not in plain


def test_a_job_can_be_requeued_ends_with_any_rank_and_its_ranks_have_their_cpus(tmp_path):
    lines = script(tmp_path, "cluster.cpus_per_task=6", "cluster.signal_delay_s=45", "cluster.time_min=90")
    assert {"#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=USR2@45", "#SBATCH --time=90"} <= {
        *lines
    }
    (srun,) = [line for line in lines if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in srun
    assert "--cpus-per-task=6" in srun


def test_jobs_on_one_run_folder_wait_for_each_other_and_no_others_do(tmp_path):
    def name(folder: Path, verb: str) -> str:
        lines = script(folder, verb=verb)
        assert "#SBATCH --dependency=singleton" in lines
        return next(line for line in lines if line.startswith("#SBATCH --job-name="))

    assert name(tmp_path / "a", "train") == name(tmp_path / "a", "train")
    names = {name(tmp_path / folder, verb) for folder in ("a", "b") for verb in ("train", "evaluate")}
    assert len(names) == 4


def test_signals_that_come_before_python_is_ready_do_not_end_a_rank():
    probe = "import signal as s; print([s.getsignal(n) == s.SIG_IGN for n in (s.SIGUSR2, s.SIGTERM, s.SIGALRM)])"
    assert shell(f'{submission._python()} -c "{probe}"', ROOT) == "[True, True, False]"


def test_a_job_imports_the_code_it_was_submitted_with_wherever_that_was(tmp_path):
    decoy = tmp_path / "elsewhere" / "hpc"
    decoy.mkdir(parents=True)
    (decoy / "__init__.py").write_text("raise SystemExit('the wrong checkout')")
    lines = [
        *submission._python_setup(keep_code(tmp_path / "code")),
        f'{sys.executable} -c "import hpc.task; print(hpc.task.__file__)"',
    ]
    assert shell("\n".join(lines), decoy.parent) == str(tmp_path / "code" / code_digest() / "hpc" / "task.py")


def test_a_submission_prints_its_id_and_leaves_a_small_pickle_that_needs_no_torch(tmp_path, sbatch, capsys):
    sbatch("echo Submitted batch job 4242")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    task = Task("train", str(folder.path), use_gpu=False, resume="required")
    assert submit(task, folder, configs.load("srvp_smmnist", "test"), 1).job == "4242"
    shown = capsys.readouterr().out
    assert "submitted job 4242" in shown
    assert f"tail -F {folder.logs}/4242_0_log.out" in shown
    pickled = folder.logs / "4242_submitted.pkl"
    assert pickled.stat().st_size < 1000
    look = (
        "import sys; from submitit.core.utils import DelayedSubmission as D; d = D.load(sys.argv[1]);"
        "print(d.function, d._timeout_countdown, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, str(pickled)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{task} 1000000000 False"


def test_what_sbatch_refuses_is_an_error_in_its_words(tmp_path, sbatch):
    sbatch("echo 'invalid partition specified: nosuch' >&2; exit 1")
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with pytest.raises(
        ConfigError, match=r"(?s)1 nodes, 0 GPUs each.*invalid partition specified: nosuch.*--partition"
    ):
        submit(Task("train", str(folder.path)), folder, configs.load("srvp_smmnist", "test"), 1)


def test_a_job_submitted_from_inside_a_job_does_not_inherit_it(monkeypatch):
    inside = {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "3", "SLURM_CONF": "/etc/slurm.conf", "SBATCH_ACCOUNT": "lab"}
    for name, value in inside.items():
        monkeypatch.setenv(name, value)
    with outside_of_jobs():
        assert {name: os.environ.get(name) for name in inside} == {
            **dict.fromkeys(inside),
            "SLURM_CONF": "/etc/slurm.conf",
            "SBATCH_ACCOUNT": "lab",
        }
    assert {name: os.environ.get(name) for name in inside} == inside


def test_what_is_requeued_is_the_same_task(tmp_path):
    from submitit.core.utils import DelayedSubmission

    task = Task("evaluate", str(tmp_path), use_gpu=False)
    task.checkpoint().dump(tmp_path / "task.pkl")
    loaded = DelayedSubmission.load(tmp_path / "task.pkl")
    assert (loaded.function, loaded.args, loaded.kwargs) == (task, (), {})
    assert again(task).function == task
