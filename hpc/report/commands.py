"""The commands that make a run again, to be copied into a shell.

In: a run. Out: lines of shell. The settings that are typed are those that differ from configs/experiment and
configs/size as they are now.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hpc import config as configs
from hpc.config import ConfigError
from hpc.jobs.attempts import LOCAL, Submission
from hpc.report.differences import flat
from hpc.report.facts import RunFacts

LAUNCH = "python hpc/launch.py"
NOT_TYPED = ("experiment", "size", "train.resume", "cluster.nodes")
_PLAIN = re.compile(r"[\w./:+-]+")


def reproduce(run: RunFacts) -> list[str]:
    """From the code to the report, into a folder beside the run."""
    again = Path(f"{run.folder.path}-again")
    return [
        *_checkout(run),
        f"{LAUNCH} {' '.join(map(shlex.quote, train_words(run)))} {shlex.quote(f'run={again}')}",
        evaluate_command(run, again),
        report_command([again]),
    ]


def report_command(runs: Sequence[Path], out: Path | None = None) -> str:
    words = [f"run={path}" for path in runs] + (["--out", str(out)] if out else [])
    return f"{LAUNCH} report {' '.join(map(shlex.quote, words))}"


def evaluate_command(run: RunFacts, folder: Path, extra: Sequence[str] = ()) -> str:
    """With the settings that the scores at hand were made with, where they are not those of the run's configuration."""
    words = [f"run={folder}"]
    if run.evaluation is not None:
        used = run.evaluation.scores.about.get("config")
        if isinstance(used, Mapping):
            words += _overrides(flat(used), flat(_with_defaults(run)), "eval.")
    return f"{LAUNCH} evaluate {' '.join(map(shlex.quote, [*words, *extra]))}"


def _with_defaults(run: RunFacts) -> Mapping[str, Any]:
    """The run's configuration; keys that are younger than it have the values they have where nobody sets them."""
    return configs.to_dict(run.config) if run.config is not None else run.settings


def train_words(run: RunFacts) -> list[str]:
    """The words after launch.py, but for the folder."""
    words = [f"experiment={run.experiment}"] + ([f"size={run.size}"] if run.size else [])
    try:
        usual = flat(configs.to_dict(configs.load(run.experiment, run.size)))
    except ConfigError:
        usual = {}
    return [*_where(run), *words, *_overrides(flat(run.settings), usual)]


def _where(run: RunFacts) -> list[str]:
    """How many ranks, and started by whom."""
    asked = [submission for submission in run.life.history.submissions if submission.verb == "train"]
    if not asked:
        return []
    last: Submission = asked[-1]
    if last.job != LOCAL:
        return ["--nodes", str(last.nodes)]
    on_gpus = run.setting("cluster.gpus_per_node", -1) != 0
    return ["--local"] if on_gpus else ["--ranks", str(last.world_size)]


def _overrides(ours: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> list[str]:
    return [
        f"{key}={_value(value)}"
        for key, value in ours.items()
        if key.startswith(prefix) and key not in NOT_TYPED and (key not in usual or usual[key] != value)
    ]


def _value(value: Any) -> str:
    """As the command line reads it back."""
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and yaml.safe_load(value) == value:
            return value
        return json.dumps(value)
    return json.dumps(value)


def _checkout(run: RunFacts) -> list[str]:
    """The code that ran, as far as a commit says it."""
    codes = [str(about["code"]) for about in run.starts() if "code" in about]
    if not codes:
        return []
    commit = re.search(r"\+([0-9a-f]{7,40})(\.dirty)?$", codes[-1])
    if commit is None:
        return [f"# code {codes[-1]}"]
    kept = [submission.code for submission in run.life.history.submissions if submission.verb == "train"]
    edited = f"  # it was edited; what ran is kept in {kept[-1]}" if commit[2] and kept else ""
    return [f"git checkout {commit[1]}{edited}"]
