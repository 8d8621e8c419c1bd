"""What `python hpc/launch.py evaluate --help` says: how to score a run, and every key that changes how.

In: `EvalConfig`, whose fields and the words below them are read from its source. Out: text. No torch import.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields

from hpc.config import EvalConfig

DESCRIPTION = """\
Score a run on the test split of its data: the best and the mean of many samples by PSNR, SSIM, LPIPS, and FVD, with
95 % intervals, beside curves over time and pictures. It runs on SLURM or on this machine, on any number of ranks; the
numbers do not depend on how many. One that was stopped goes on where it was when the same line is typed again.
"""

EPILOG = """\
examples
  python hpc/launch.py evaluate run=RUN                            as the papers do: all test clips, 100 samples of each
  python hpc/launch.py evaluate run=RUN --nodes 2                  the same by 2 nodes of a cluster
  python hpc/launch.py evaluate run=RUN --ranks 2 eval.test_clips=8 eval.test_samples=5         a quick look, on 2 CPUs
  python hpc/launch.py evaluate run=RUN 'eval.metrics=[psnr,ssim,ssim_svg]' eval.checkpoint=best
  python hpc/launch.py evaluate run=RUN eval.weights=weights/ eval.i3d=weights/i3d_pretrained_400.pt
  python hpc/launch.py evaluate run=RUN 'eval.substeps=[1,2,3,4,5]'                             SRVP's tables 7 to 9
  python hpc/launch.py evaluate run=RUN eval.given=true eval.halve_step=true     given frames; is the step fine enough?
  python hpc/launch.py evaluate run=RUN eval.split=train eval.test_clips=256                   does it fit its training?
  python hpc/launch.py evaluate run=RUN --dry-run                  the run's configuration, with these keys as they are

keys (on top of the run's configuration; lists in quotes)
{keys}

Scores and pictures go to RUN/evaluation/, those of another split to RUN/evaluation/split-NAME/; `report run=RUN` sets
them beside the papers' numbers.
"""

OF_VALIDATIONS = ("every", "clips", "num_frames", "samples")
"""Fields of EvalConfig that say how a training validates: not told here."""

_WIDTH = 120
_INDENT = 26


def epilog() -> str:
    """Examples, then every key of an evaluation with what it does."""
    return EPILOG.format(keys="\n".join(_entry(name, meaning) for name, meaning in keys().items()))


def keys() -> dict[str, str]:
    """`eval.KEY` -> what it does, as `EvalConfig` says."""
    said = _docstrings()
    return {f"eval.{item.name}": said[item.name] for item in fields(EvalConfig) if item.name not in OF_VALIDATIONS}


def _docstrings() -> dict[str, str]:
    """The string below each field of EvalConfig that has one."""
    (definition,) = ast.parse(inspect.getsource(EvalConfig)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return found


def _entry(key: str, meaning: str) -> str:
    indent = " " * _INDENT
    return textwrap.fill(f"  {key}=".ljust(_INDENT) + meaning, _WIDTH, subsequent_indent=indent)
