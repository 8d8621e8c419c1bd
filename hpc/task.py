"""What every rank runs: join the others, do the verb, and leave as the cause of a stop demands.

A `Task` is picklable and carries only names: where a run stands is found on the disk at the start of each attempt,
never in the pickle. Torch is imported inside `__call__`, after the signal handlers are in place.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc import config as configs
from hpc.config import ConfigError
from hpc.rendezvous import discover
from hpc.run_folder import RunFolder
from hpc.stop import AfterSave, Handler, StopCause, StopFlag

if TYPE_CHECKING:
    from hpc.config import Config
    from hpc.distributed import World

LOOK_EVERY_S = 0.2
REQUEUE_TRIES, REQUEUE_PAUSE_S = 30, 10.0
"""SLURM's controller may be away for minutes, for a failover or an update."""


@dataclass(frozen=True)
class Result:
    exit_code: int
    step: int
    cause: str


@dataclass(frozen=True)
class Task:
    verb: str
    run_dir: str
    use_gpu: bool = True
    """Each rank takes a GPU; without one it is an error, never a run on the CPU that nobody asked for."""
    resume: str = "auto"
    """auto, required or never: the wish of this launch. It is not kept: what SLURM starts again always continues."""

    def __call__(self) -> Result:
        """Run on this rank until done or stopped."""
        from pathlib import Path

        folder = RunFolder(Path(self.run_dir))
        name = "config.yaml" if self.verb == "train" else "evaluate.yaml"
        config = configs.load_file(folder.path / name)
        restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        config.train.resume = "auto" if restarted else self.resume
        ranks = discover()
        with StopFlag(folder.path, ranks.rank, 60 * config.train.max_minutes or None).install() as stop:
            if self.use_gpu:
                require_gpu()
            from hpc.distributed import joined

            with joined(ranks, config.train.threads or ranks.cpus, force_cpu=not self.use_gpu) as world:
                step, cause = self._work(config, folder, world, stop)
            return self._leave(step, cause, ranks.rank, stop)

    def checkpoint(self) -> Any:
        """For submitit: the same task again (its state is on the disk, saved before this is called)."""
        from hpc.submit import again

        return again(self)

    def _work(self, config: Config, folder: RunFolder, world: World, stop: StopFlag) -> tuple[int, StopCause | None]:
        if self.verb == "evaluate":
            from hpc.evaluate import evaluate_run

            return evaluate_run(config, folder, world, stop)
        from hpc.train import train

        outcome = train(config, folder, world, stop)
        return outcome.step, outcome.cause

    def _leave(self, step: int, cause: StopCause | None, rank: int, stop: StopFlag) -> Result:
        """Requeue, wait to be ended, or return, as the cause says."""
        if rank == 0:
            print(self._farewell(step, cause), flush=True)
        if cause is None:
            return Result(0, step, "finished")
        requeue = stop.former_handler(signal.SIGUSR2)
        if requeue is None:  # not a job of submitit's
            return Result(cause.exit_code, step, cause.label)
        if cause.under_slurm is AfterSave.REQUEUE and rank == 0:
            _requeue(requeue)
        if cause.under_slurm is not AfterSave.EXIT:
            _wait_to_be_ended(stop, cause)
        return Result(0, step, cause.label)

    def _farewell(self, step: int, cause: StopCause | None) -> str:
        """Where things stand and what to type next."""
        if cause is not None:
            again = f"{self.verb} run={self.run_dir}" if self.verb != "train" else f"run={self.run_dir}"
            saved = ", saved" if self.verb == "train" else ""
            return f"stopped at step {step} ({cause.label}){saved}; go on with: python hpc/launch.py {again}"
        if self.verb != "train":
            return f"{self.verb} of step {step} is complete"
        return (
            f"finished at step {step}; model {self.run_dir}/model.pt; "
            f"score it with: python hpc/launch.py evaluate run={self.run_dir}"
        )


def require_gpu() -> None:
    """
    Raises:
        ConfigError: PyTorch sees no GPU here; the message says why it may be so, and how to ask for the CPU.
    """
    import torch

    if torch.cuda.is_available():
        return
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    raise ConfigError(
        f"no CUDA device is visible on {socket.gethostname()}: PyTorch {torch.__version__} is {build}, "
        f"CUDA_VISIBLE_DEVICES is {visible}. Look at nvidia-smi there, install PyTorch for CUDA, "
        "or say --gpus-per-node 0 to run on the CPU"
    )


def _requeue(handler: Handler) -> None:
    """Hand over to submitit's own handler, which pickles the task again, requeues the job and exits."""
    for _ in range(REQUEUE_TRIES):
        try:
            handler(signal.SIGUSR2, None)
        except subprocess.SubprocessError as error:
            print(f"SLURM did not requeue the job, trying again: {error}", file=sys.stderr, flush=True)
            time.sleep(REQUEUE_PAUSE_S)
    raise RuntimeError("SLURM did not requeue the job; everything is saved: start it again with the same run=")


def _wait_to_be_ended(stop: StopFlag, cause: StopCause) -> None:
    """SLURM ends this process: it requeues a preempted job by itself, and a cancelled one must not come back.

    When this job has asked for its requeue the first SIGTERM is the end; else only SIGKILL is, since ranks that left
    after the SIGTERM of a preemption would turn it into a job that ended well and is not requeued.
    """
    while not (cause.requeue and stop.local_cause() is StopCause.TERMINATE):
        time.sleep(LOOK_EVERY_S)
    sys.stdout.flush()
    os._exit(0)  # all is saved and closed; Python's own end takes seconds here, which the requeue would wait for
