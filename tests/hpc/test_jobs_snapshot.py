"""A run keeps the code it was submitted with: an edit afterwards changes the tree, not the run."""

from __future__ import annotations

import os
import subprocess
import sys

from hpc.jobs.snapshot import PACKAGES, code_digest, code_root, keep_code
from hpc.version import VERSION_FILE, code_version


def test_the_kept_code_is_complete_runs_and_knows_where_it_came_from(tmp_path):
    kept = keep_code(tmp_path / "code")
    assert {path.name for path in kept.iterdir()} == {*PACKAGES, VERSION_FILE}
    assert not list(kept.rglob("*.pyc"))
    environ = {**os.environ, "PYTHONPATH": str(kept), "PYTHONSAFEPATH": "1"}
    code = "import hpc.config as c, hpc.version as v; print(c.__file__); print(v.code_version()); c.load('srvp_bair')"
    done = subprocess.run([sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(kept / "hpc" / "config.py"), code_version()]


def test_the_same_code_is_kept_once_and_an_edit_makes_another_folder(tmp_path, monkeypatch):
    shelf = tmp_path / "code"
    first = keep_code(shelf)
    assert keep_code(shelf) == first == shelf / code_digest()
    monkeypatch.setattr("hpc.jobs.snapshot.code_root", lambda: first)
    assert keep_code(tmp_path / "again").name == first.name
    edited = first / "hpc" / "noise.py"
    edited.write_text(edited.read_text() + "\n# edited\n")
    assert keep_code(shelf).name != first.name
    assert (code_root() / "hpc" / "noise.py").read_text().count("# edited") == 0
