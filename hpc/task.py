"""What every rank runs: join the others, do the verb, and leave as the cause of a stop demands.

A `Task` is picklable and carries only names: where a run stands is found on the disk at the start of each attempt,
never in the pickle. Torch is imported inside `__call__`, after the signal handlers are in place.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpc import config as configs
from hpc.config import ConfigError
from hpc.errors import FOR_USERS, USER_ERROR, exit_code
from hpc.jobs import slurm
from hpc.jobs.attempts import LOCAL, Attempt, Failure, note_end, note_failure, note_start, read_history
from hpc.jobs.no_progress import refuse_without_progress
from hpc.lease import PATIENCE_S, held
from hpc.rendezvous import Ranks, discover
from hpc.run_folder import RunFolder
from hpc.stop import AfterSave, StopCause, StopFlag
from hpc.watchdog.watchdog import Watchdog

if TYPE_CHECKING:
    from hpc.config import Config
    from hpc.distributed import World

LOOK_EVERY_S = 0.2
ASK_EVERY_S = 10.0


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
    """auto, required or never: the wish of this launch until it has trained; what SLURM starts again then continues."""
    config_file: str = "config.yaml"
    """In the run folder."""
    typed: str = ""
    """The command that started it, to be typed again after a stop."""

    def __call__(self) -> Result:
        """Run on this rank until done or stopped."""
        folder = RunFolder(Path(self.run_dir))
        ranks = discover()
        with _telling_why(folder, ranks):
            config = configs.load_file(folder.path / self.config_file)
            stops_by_file = folder.path if self.verb == "train" else None
            with StopFlag(stops_by_file, ranks.rank, 60 * config.train.max_minutes or None).install() as stop:
                result = self._attempt(config, folder, ranks, stop)
        if result.exit_code and _under_submitit():
            sys.exit(USER_ERROR)
        return result

    def checkpoint(self) -> Any:
        """For submitit, whose handler of SIGUSR2 is there until ours is: the same task again."""
        from hpc.jobs.submit import again

        return again(self)

    def _attempt(self, config: Config, folder: RunFolder, ranks: Ranks, stop: StopFlag) -> Result:
        with contextlib.ExitStack() as exits:
            number = 0
            if ranks.rank == 0:
                if self.verb == "train":
                    exits.enter_context(held(folder.path, f"job {slurm.this_job() or LOCAL}", _patience_s()))
                number = self._begin(config, folder, ranks)
            try:
                code, step, cause = self._joined(config, folder, ranks, stop, number)
            except Exception as error:
                if ranks.rank == 0:
                    note_end(folder.path, number, None, "error", str(error))
                raise
            if ranks.rank == 0:
                note_end(folder.path, number, step, _label(cause, config))
        return self._leave(code, step, cause, ranks.rank, stop)

    def _joined(
        self, config: Config, folder: RunFolder, ranks: Ranks, stop: StopFlag, number: int
    ) -> tuple[int, int, StopCause | None]:
        if self.use_gpu:
            require_gpu()
        from hpc.distributed import joined

        with joined(ranks, config.train.threads or ranks.cpus, force_cpu=not self.use_gpu) as world:
            number = world.broadcast(number)
            with watchdog_of(config, folder, ranks, number) as watchdog:
                return self._work(config, folder, world, stop, number, watchdog)

    def _begin(self, config: Config, folder: RunFolder, ranks: Ranks) -> int:
        """Note that an attempt starts, unless it should not; its number. Rank 0 only."""
        history, job = read_history(folder.path), slurm.this_job() or LOCAL
        if job in history.cancelled:
            again = f"python hpc/launch.py resume {shlex.quote(str(folder.path))}"
            raise ConfigError(f"job {job} was cancelled; to go on: {again}")
        has_trained = any(attempt.job == job and attempt.training_step is not None for attempt in history.attempts)
        config.train.resume = "auto" if slurm.restarts() and has_trained else self.resume
        if slurm.restarts():
            refuse_without_progress(folder, self.verb, config.cluster.max_idle_attempts)
        attempt = Attempt(
            number=history.next_number(),
            verb=self.verb,
            time=time.time(),
            job=job,
            restart=slurm.restarts(),
            nodes=slurm.nodes_of_this_step() or [socket.gethostname()],
            world_size=ranks.world_size,
            checkpoint=folder.newest_checkpoint() if self.verb == "train" else None,
        )
        note_start(folder.path, attempt)
        return attempt.number

    def _work(
        self, config: Config, folder: RunFolder, world: World, stop: StopFlag, attempt: int, watchdog: Watchdog
    ) -> tuple[int, int, StopCause | None]:
        """Exit code, step, and why it stopped early."""
        if self.verb == "doctor":
            from hpc.health.doctor import doctor_rank

            return doctor_rank(world, folder.path, config), 0, None
        if self.verb == "evaluate":
            from hpc.evaluation.verb import evaluate_run

            return 0, *evaluate_run(config, folder, world, stop, watchdog)
        from hpc.train import train

        outcome = train(config, folder, world, stop, attempt, watchdog)
        return 0, outcome.step, outcome.cause

    def _leave(self, code: int, step: int, cause: StopCause | None, rank: int, stop: StopFlag) -> Result:
        """Requeue, wait to be ended, or return, as the cause says."""
        if rank == 0:
            print(self._farewell(step, cause), flush=True)
        if cause is None:
            return Result(code, step, "finished")
        if not _under_submitit():
            return Result(cause.exit_code, step, cause.label)
        if cause.under_slurm is AfterSave.REQUEUE and rank == 0 and not _was_cancelled(self.run_dir):
            _requeue()
        if cause.under_slurm is not AfterSave.EXIT:
            _wait_to_be_ended(stop, cause)
        return Result(0, step, cause.label)

    def _farewell(self, step: int, cause: StopCause | None) -> str:
        """Where things stand and what to type next."""
        if cause is not None:
            if self.verb != "train":
                return f"stopped ({cause.label}) at {self.verb} of step {step}; go on with: {self.typed}"
            again = f"python hpc/launch.py resume {shlex.quote(self.run_dir)}"
            return f"stopped at step {step} ({cause.label}), saved; go on with: {again}"
        if self.verb == "doctor":
            return f"the doctor's findings are in {self.run_dir}/doctor.txt"
        if self.verb != "train":
            return f"{self.verb} of step {step} is complete"
        return (
            f"finished at step {step}; model {self.run_dir}/model.pt; "
            f"score it with: python hpc/launch.py evaluate {shlex.quote(self.run_dir)}"
        )


def watchdog_of(config: Config, folder: RunFolder, ranks: Ranks, attempt: int) -> Watchdog:
    """The guard against hangs of this rank; on each node it also keeps the ranks' logs from growing without bound."""
    first = ranks.rank - ranks.local_rank
    numbers = range(first, first + ranks.local_world_size)
    job = slurm.this_job()
    if job is not None and _under_submitit():
        shelf = Path(os.environ.get("SUBMITIT_FOLDER", folder.logs))
        logs = [shelf / f"{job}_{number}_log.out" for number in numbers]
    else:
        logs = [folder.logs / f"rank-{number}.log" for number in numbers if number]
    return Watchdog(
        folder.path,
        rank=ranks.rank,
        local_rank=ranks.local_rank,
        world_size=ranks.world_size,
        local_world_size=ranks.local_world_size,
        attempt=attempt,
        config=config.watchdog,
        log_files=logs,
        log_limit_bytes=config.log.max_file_mb * 2**20,
    )


@contextlib.contextmanager
def _telling_why(folder: RunFolder, ranks: Ranks) -> Iterator[None]:
    """A rank that fails notes why in the run folder; in a job, an error for users is one message and an exit code."""
    try:
        yield
    except Exception as error:
        code = exit_code(error)
        text = f"{type(error).__name__}: {error}"
        job = slurm.this_job() or LOCAL
        node = socket.gethostname()
        failure = Failure(time.time(), job, slurm.restarts(), ranks.rank, node, code == USER_ERROR, text[:2000])
        note_failure(folder.path, failure)
        if isinstance(error, FOR_USERS) and _under_submitit():
            print(f"error: {error}", file=sys.stderr, flush=True)
            sys.exit(code)
        raise


def _under_submitit() -> bool:
    return "SUBMITIT_EXECUTOR" in os.environ and "ODEVID_LAUNCHER" not in os.environ


def _was_cancelled(run_dir: str) -> bool:
    return slurm.this_job() in read_history(Path(run_dir)).cancelled


def _patience_s() -> float:
    """A person who waits wants to know at once; a job can wait for what is just leaving."""
    return PATIENCE_S if slurm.this_job() else 2.0


def _label(cause: StopCause | None, config: Config) -> str:
    """How an attempt ended. SLURM's signal is the same for its time limit and for a preemption."""
    job = slurm.this_job()
    if cause is StopCause.PREEMPT and job and slurm.is_at_its_time_limit(job, config.cluster.signal_delay_s):
        return StopCause.WALLTIME.label
    return cause.label if cause else "finished"


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


def _requeue() -> None:
    """Ask SLURM to start this job again; it ends the ranks then.

    submitit's own handler would pickle the task anew first, and refuses to if a kill has left a half of that behind.
    """
    job = slurm.this_job()
    assert job is not None
    slurm.patiently(lambda: slurm.requeue(job))


def _wait_to_be_ended(stop: StopFlag, cause: StopCause) -> None:
    """SLURM ends this process: it requeues a preempted job by itself, and a cancelled one must not come back.

    When this job has asked for its requeue the first SIGTERM is the end; else only SIGKILL is, since ranks that left
    after the SIGTERM of a preemption would turn it into a job that ended well and is not requeued. If the SIGTERM was
    somebody's own, SLURM does nothing more, and the rank leaves in the end.
    """
    left_alone = 0
    next_question = time.monotonic() + ASK_EVERY_S
    while not (cause.requeue and stop.local_cause() is StopCause.TERMINATE) and left_alone < 2:
        time.sleep(LOOK_EVERY_S)
        if not cause.requeue and time.monotonic() >= next_question:
            left_alone = left_alone + 1 if _is_left_alone() else 0
            next_question = time.monotonic() + ASK_EVERY_S
    sys.stdout.flush()
    os._exit(0)  # all is saved and closed; Python's own end takes seconds here, which the requeue would wait for


def _is_left_alone() -> bool:
    """Whether SLURM lets this job run on: it neither cancels nor preempts it."""
    job = slurm.this_job()
    if job is None:
        return False
    try:
        shown = slurm.show_job(job)
    except slurm.SlurmError:
        return False
    return shown.get("JobState") == "RUNNING" and shown.get("PreemptTime", "None") == "None"
