"""Everything that a run folder holds, read once and without complaint about what is missing or torn.

In:  a run folder. Out: `RunFacts`; what could not be read is in its `troubles`, in words. Only a folder that is no run
is an error. No torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.data import dataset_root, is_remote
from hpc.evaluation.scores import SCORES, Scores, evaluations_in, read_scores
from hpc.evaluation.time_steps import is_at_a_step, step_of
from hpc.given_runs import short_name
from hpc.jobs.facts import Facts, ask_slurm, gather
from hpc.jobs.standing import state_of
from hpc.run_folder import RunFolder
from hpc.tracking.journal import JournalError, Record, journal_files, parse, surviving
from odevid.config import ModelConfig, model_config


@dataclass(frozen=True)
class Evaluation:
    """Scores, and where their files are."""

    folder: Path
    scores: Scores

    @property
    def samples(self) -> int:
        return int(self.scores.protocol.get("samples", 1))


@dataclass(frozen=True)
class RunFacts:
    """A run as the report knows it."""

    folder: RunFolder
    name: str
    settings: Mapping[str, Any]
    """config.yaml, whatever version of the code wrote it."""
    config: Config | None
    """The same as this code understands it; None: it does not."""
    model: ModelConfig | None
    """Of the settings; None: this code knows no such model."""
    config_text: str
    state: tuple[str, str]
    """In a word, and in words: see hpc/jobs/standing.py."""
    life: Facts
    records: list[Record]
    """The lineage that led to the present weights."""
    evaluation: Evaluation | None
    """At the model's own time step: RUN/evaluation, or where that has no scores RUN/evaluation/substeps-N."""
    evaluations: list[Evaluation]
    """All of them, at other time steps too."""
    unreadable: Mapping[Path, str]
    """Folder of scores that could not be read -> why, in words."""
    manifest: Mapping[str, Any] | None
    """Of the dataset."""
    troubles: list[str]

    @property
    def experiment(self) -> str:
        return str(self.settings.get("experiment", ""))

    @property
    def size(self) -> str:
        return str(self.settings.get("size", "") or "")

    @property
    def evaluation_from(self) -> str:
        """Where the scores are from, in words; empty if from RUN/evaluation itself, as they should be."""
        if self.evaluation is None or self.evaluation.folder == self.folder.evaluation:
            return ""
        name = self.evaluation.folder.relative_to(self.folder.path)
        why = self.unreadable.get(self.folder.evaluation, f"{self.folder.evaluation} itself has no scores")
        return f"The scores are those of {name}, made at the model's own time step: {why}"

    @property
    def is_unreadable(self) -> bool:
        """Whether there are scores of the run that cannot be read."""
        return self.folder.evaluation in self.unreadable

    @property
    def no_scores(self) -> str:
        """Why there is no `evaluation`, in words."""
        if self.is_unreadable:
            return self.unreadable[self.folder.evaluation]
        if self.evaluations:
            names = ", ".join(found.folder.name for found in self.evaluations)
            return f"Evaluated at other time steps only ({names}), not at the one of the training"
        return "Not evaluated on its test split yet"

    @property
    def no_scores_word(self) -> str:
        """The same for a field of a table."""
        if self.is_unreadable:
            return "scores cannot be read"
        return "not evaluated at its own time step" if self.evaluations else "not evaluated"

    @property
    def own_substeps(self) -> int | None:
        """Solver steps per frame in training, 1 from frame to frame; None: not known, or the solver chooses them."""
        return _own_substeps(self.model)

    @property
    def has_free_steps(self) -> bool:
        """Whether the solver chooses its steps, so that there is nothing to score over time steps."""
        return self.model is not None and self.own_substeps is None

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of config.yaml by its dotted name."""
        return at(self.settings, key, default)

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Details of all events of that name."""
        return [r.data.get("details", {}) for r in self.records if r.kind == "event" and r.data.get("name") == name]

    def starts(self) -> list[Mapping[str, Any]]:
        """What each attempt said of itself."""
        return [record.data.get("about", {}) for record in self.records if record.kind == "start"]


def at(settings: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """A value of nested mappings by its dotted name; `default` where a part of the name is missing."""
    found: Any = settings
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def gather_run(folder: RunFolder) -> RunFacts:
    """Read a run. `folder` must hold config.yaml (hpc.run_folder.existing_run sees to that)."""
    troubles: list[str] = []
    text = folder.config.read_text(errors="replace")
    settings = _settings(text, troubles)
    config, model = _config(folder, troubles), _model(settings)
    life = gather(folder, whole=True)
    over = {attempt.job for attempt in life.history.attempts if attempt.cause == "finished"}
    jobs = ask_slurm([job for job in dict.fromkeys(s.job for s in life.history.submissions) if job not in over])
    if jobs.trouble:
        troubles.append(jobs.trouble)
    evaluations, unreadable = _evaluations(folder, troubles)
    return RunFacts(
        folder=folder,
        name=short_name(folder),
        settings=settings,
        config=config,
        model=model,
        config_text=text,
        state=state_of(life, jobs),
        life=life,
        records=_records(folder, troubles),
        evaluation=_at_own_step(evaluations, _own_substeps(model)),
        evaluations=evaluations,
        unreadable=unreadable,
        manifest=_manifest(config, troubles),
        troubles=troubles,
    )


def _settings(text: str, troubles: list[str]) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        troubles.append(f"config.yaml is no YAML: {str(error).splitlines()[0]}")
        return {}
    if isinstance(found, Mapping):
        return found
    troubles.append(f"config.yaml holds {type(found).__name__}, not keys and values")
    return {}


def _config(folder: RunFolder, troubles: list[str]) -> Config | None:
    try:
        return configs.load_file(folder.config)
    except ConfigError as error:
        troubles.append(f"config.yaml does not fit this version of the code: {error}")
        return None


def _model(settings: Mapping[str, Any]) -> ModelConfig | None:
    """The model of the settings, whatever version of the code wrote the rest of them."""
    kept = settings.get("model")
    try:
        return model_config(kept) if isinstance(kept, Mapping) else None
    except ValueError:
        return None


def _own_substeps(model: ModelConfig | None) -> int | None:
    if model is None:
        return None
    return model.own_substeps if model.continuous else 1


def _records(folder: RunFolder, troubles: list[str]) -> list[Record]:
    """The journal's surviving records; lines that are none, such as one that a kill cut short, are counted."""
    files = journal_files(folder.path)
    if not files:
        troubles.append("no metrics.jsonl: nothing was trained here, or it was not copied along")
        return []
    records, torn = [], 0
    for path in files:
        for line in path.read_bytes().splitlines(keepends=True):
            try:
                records.append(parse(line, path.name))
            except JournalError:
                torn += 1
    if torn:
        troubles.append(f"metrics.jsonl: {torn} line{'s' * (torn > 1)} cut short or not readable, passed over")
    with contextlib.suppress(KeyError, TypeError):
        return surviving(records)
    troubles.append("metrics.jsonl: a resume record does not say from which step; all attempts are shown")
    return records


def _evaluations(folder: RunFolder, troubles: list[str]) -> tuple[list[Evaluation], dict[Path, str]]:
    """Those that can be read, and why the others cannot."""
    found: list[Evaluation] = []
    unreadable: dict[Path, str] = {}
    for path in evaluations_in(folder.evaluation):
        if is_at_a_step(path) and step_of(path) is None:
            troubles.append(f"{path} is a folder substeps-N whose N is no number; its scores are passed over")
            continue
        try:
            found.append(Evaluation(path, read_scores(path)))
        except (ConfigError, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            known, what = isinstance(error, ConfigError), f"{type(error).__name__}: {error}"
            unreadable[path] = str(error) if known else f"{path / SCORES} cannot be read ({what})"
    troubles += unreadable.values()
    return found, unreadable


def _at_own_step(evaluations: Sequence[Evaluation], own: int | None) -> Evaluation | None:
    plain = [found for found in evaluations if not is_at_a_step(found.folder)]
    asked = [found for found in evaluations if step_of(found.folder) == own and own]
    return next(iter([*plain, *asked]), None)


def _manifest(config: Config | None, troubles: list[str]) -> Mapping[str, Any] | None:
    """Of a dataset on this machine; what lies behind an address is not fetched."""
    if config is None:
        return None
    root = dataset_root(config.data)
    if is_remote(root):
        troubles.append(f"The dataset's manifest was not read: it lies at {root}")
        return None
    try:
        manifest = json.loads((Path(root) / "manifest.json").read_text())
        return manifest if isinstance(manifest, dict) else None
    except (OSError, ValueError):
        troubles.append(f"The dataset's manifest was not read: there is none at {root} on this machine")
        return None
