"""SLURM's commands as shell scripts on PATH, for tests of what we make of their answers.

Each call of `squeue` runs the next line of a script (the last one again and again), so that a job's states, and what
the job does meanwhile, follow each other as a test wants them. `scancel` notes what it was told. There is no sacct.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DOWN = "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1"


def line(job: str, state: str, reason: str = "None", nodes: str = "", elapsed: str = "0:00", start: str = "N/A") -> str:
    """Shell that prints a job as squeue does."""
    return f"echo '{job}|{state}|{reason}|{nodes}|{elapsed}|{start}'"


class FakeSlurm:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.script, self.orders = folder / "script", folder / "orders"
        folder.mkdir()
        self.answers("true")
        advance = f'if [ "$(wc -l < {self.script})" -gt 1 ]; then sed -i 1d {self.script}; fi'
        self._put("squeue", f'now=$(head -n 1 {self.script}); {advance}; eval "$now"')
        self._put("scancel", f'echo "$@" >> {self.orders}')
        self._put("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        self._put("sbatch", "exit 1")
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def answers(self, *looks: str) -> None:
        """What squeue does at its next calls: shell lines."""
        self.script.write_text("\n".join(looks) + "\n")

    def orders_given(self) -> list[str]:
        return self.orders.read_text().splitlines() if self.orders.exists() else []

    def _put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)
