"""Shared by all tests: the small real data, if this machine has it, and an allow-list of reasons to skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")

REPOSITORY = Path(__file__).resolve().parent.parent
ALLOWED_SKIPS = (
    "shared data",
    "no CUDA device",
    "no published I3D weights",
    *(() if os.environ.get("ODEVID_DEMAND_SLURM") == "1" else ("no SLURM", "no network namespaces")),
    *(() if os.environ.get("ODEVID_DEMAND_CHROMIUM") == "1" else ("no chromium",)),
)
"""A skip for another reason fails the suite: what is not tested must be known."""


def shared_data(*parts: str) -> Path:
    """A file or folder of the small real data; skips the test where it is absent."""
    root = Path(os.environ.get("ODEVID_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no shared data: {'/'.join(parts)} (set ODEVID_SHARED_DATA to its folder)")
    return path


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    reasons = [str(report.longrepr[-1]) for report in reporter.stats.get("skipped", [])]
    unknown = [reason for reason in reasons if not any(allowed in reason for allowed in ALLOWED_SKIPS)]
    if unknown:
        reporter.write_line(f"skipped for reasons outside the allow-list: {unknown}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
