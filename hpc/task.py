"""What every rank runs: join the others, do the verb, and leave as the cause of a stop demands.

A `Task` is picklable and carries only names: where a run stands is found on the disk at the start of each attempt,
never in the pickle. Torch is imported inside `__call__`, after the signal handlers are in place.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpc import config as configs
from hpc.rendezvous import discover
from hpc.run_folder import RunFolder
from hpc.stop import AfterSave, StopCause, StopFlag

if TYPE_CHECKING:
    from hpc.config import Config
    from hpc.distributed import World


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
            from hpc.distributed import joined

            with joined(ranks, config.train.threads, force_cpu=not self.use_gpu) as world:
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
        if cause is None:
            return Result(0, step, "finished")
        if "SLURM_JOB_ID" not in os.environ:
            return Result(cause.exit_code, step, cause.label)
        if cause.under_slurm is AfterSave.REQUEUE and rank == 0:
            self._requeue(stop)
        if cause.under_slurm is not AfterSave.EXIT:
            _wait_to_be_ended()
        return Result(0, step, cause.label)

    @staticmethod
    def _requeue(stop: StopFlag) -> None:
        """Hand over to submitit's own handler, which pickles the task again, requeues the job and exits."""
        handler = stop.former_handler(signal.SIGUSR2)
        if handler is not None:
            handler(signal.SIGUSR2, None)
        else:
            from hpc.submit import requeue

            requeue()


def _wait_to_be_ended() -> None:
    """SLURM ends this process: it requeues a preempted job by itself, and a cancelled one must not come back."""
    sys.stdout.flush()
    while True:
        time.sleep(1)
