"""The guard against a loop of restarts: a run that gets nowhere is given up, with a diagnosis.

In: RUN/attempts.jsonl and the checkpoints. Out: nothing, or an error that holds the diagnosis, kept as
RUN/diagnosis.txt. Asked before a crashed job is requeued, and at the start of every attempt: SLURM requeues by itself
after a node's failure or a preemption.
"""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from hpc.jobs.attempts import Attempt, History, read_history
from hpc.run_folder import RunFolder

LOG_LINES = 20


class NoProgressError(RuntimeError):
    """The run was started again and again without getting anywhere; the message is the diagnosis."""


def refuse_without_progress(folder: RunFolder, verb: str, allowed: int) -> None:
    """The guard against a loop of restarts.

    Raises:
        NoProgressError: as many attempts as are allowed have brought no new checkpoint; RUN/diagnosis.txt says so too.
    """
    history = read_history(folder.path)
    idle = history.without_progress(folder.newest_checkpoint() if verb == "train" else None, verb)
    if len(idle) < allowed:
        return
    text = diagnosis(folder, history, idle)
    if verb == "train":
        folder.diagnosis.write_text(text + "\n")
    raise NoProgressError(text)


def diagnosis(folder: RunFolder, history: History, idle: list[Attempt]) -> str:
    """What happened to attempts without progress, and what to do."""
    step = idle[-1].checkpoint
    verb = idle[-1].verb
    if verb == "train":
        stand = f"step {step}" if step is not None else "no checkpoint at all"
        lines = [
            f"{len(idle)} attempts in a row ended without a new checkpoint ({stand}); the run is not started again."
        ]
    else:
        lines = [f"{len(idle)} attempts to {verb} in a row came to nothing; it is not started again."]
    for attempt in idle:
        failures = [f for f in history.failures if (f.job, f.restart) == (attempt.job, attempt.restart)]
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(attempt.time))
        lines.append(
            f"attempt {attempt.number}, {when}, job {attempt.job} on {', '.join(attempt.nodes)}: {_end(attempt)}"
        )
        lines += [f"    rank {failure.rank} on {failure.node}: {failure.error}" for failure in failures[:4]]
    culprits = [set(attempt.nodes) for attempt in idle]
    if common := set.intersection(*culprits):
        lines.append(f"nodes of all of them: {', '.join(sorted(common))} (python hpc/launch.py doctor checks nodes)")
    again = "resume" if verb == "train" else verb
    lines += [*_last_words(history, verb), f"when mended: python hpc/launch.py {again} {shlex.quote(str(folder.path))}"]
    return "\n".join(lines)


def _end(attempt: Attempt) -> str:
    came = "never began to train" if attempt.training_step is None else f"trained from step {attempt.training_step}"
    if not attempt.cause:
        return f"{came}, killed without a word"
    return f"{came}, {attempt.cause}" + (f": {attempt.error.splitlines()[0][:200]}" if attempt.error else "")


def _last_words(history: History, verb: str) -> list[str]:
    """The end of rank 0's output."""
    logs = [Path(submission.log) for submission in history.submissions if submission.verb == verb]
    log = logs[-1] if logs else None
    if log is None or not log.is_file():
        return []
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
        words = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    return [f"the end of {log}:", *(f"    {word}" for word in words)]
