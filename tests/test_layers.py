"""The house keeps its walls: who imports whom, and which module alone imports a heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("hpc", "odevid", "shards")
ALONE = {"deepspeed": "hpc/engine.py", "wandb": "hpc/tracking/wandb_mirror.py", "submitit": "hpc/jobs/submit.py"}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("package", "forbidden"), [("odevid", {"hpc", "shards"}), ("shards", {"hpc", "odevid"})])
def test_science_and_data_know_neither_each_other_nor_the_cluster(package, forbidden):
    offenders = {
        str(p.relative_to(ROOT)): bad for p in (ROOT / package).rglob("*.py") if (bad := _imports(p) & forbidden)
    }
    assert offenders == {}


@pytest.mark.parametrize(("library", "home"), ALONE.items())
def test_each_heavy_library_is_imported_in_one_module_only(library, home):
    homes = {
        str(p.relative_to(ROOT)) for name in PACKAGES for p in (ROOT / name).rglob("*.py") if library in _imports(p)
    }
    assert homes == {home}


@pytest.mark.parametrize(
    "module",
    [
        "hpc.cli",
        "hpc.config",
        "hpc.task",
        "hpc.jobs.submit",
        "hpc.stop",
        "hpc.evaluation.scores",
        "hpc.report.command",
        "hpc.report.page",
        "hpc.studies.command",
        "hpc.predict",
        "odevid.paper_results",
        "hpc.jobs.status",
        "hpc.sweep",
        "hpc.jobs.restart",
        "hpc.watchdog.watchdog",
        "hpc.watchdog.observer",
        "odevid",
        "odevid.config",
        "shards",
    ],
)
def test_what_a_login_node_imports_does_not_import_torch(module):
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_function_is_longer_than_sixty_lines():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for name in PACKAGES
        for path in (ROOT / name).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert long == []
