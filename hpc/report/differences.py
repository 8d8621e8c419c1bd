"""Where a run's numbers may not be compared with the paper's as they stand: said in words.

In:  a run and its evaluation, and configs/experiment/NAME.yaml, which is the published configuration if a paper has
     numbers of that experiment (odevid.paper_results), and else no more than the experiment as configured.
Out: sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpc import config as configs
from hpc.config import ConfigError
from hpc.report.facts import Evaluation, RunFacts, at
from hpc.report.numbers import metric
from odevid import paper_results

TEST_CLIPS = {"srvp_smmnist": 5000, "srvp_mmnist": 5000, "srvp_kth": 1000, "srvp_human": 1000, "srvp_bair": 256}
"""Videos of the published test sets: README and preprocessing of edouardelasalles/srvp at 05661fa."""
TRAINING = ("optimizer", "train.recipe", "train.batchnorm_group", "train.precision")
"""Settings whose change is worth a word, because it may change the numbers."""


def has_numbers(experiment: str) -> bool:
    """Whether a paper has numbers of an experiment, which makes its configuration the published one."""
    return bool(paper_results.for_experiment(experiment))


def usual_protocol(experiment: str) -> str:
    """What the runs of an experiment are compared with."""
    return "the paper's protocol" if has_numbers(experiment) else "the experiment as configured"


def usual_size(experiment: str) -> str:
    """The size of a run without size=."""
    return "published size" if has_numbers(experiment) else "size of the experiment as configured"


def _usually(run: RunFacts) -> str:
    """Comes before a setting of configs/experiment."""
    return "published" if has_numbers(run.experiment) else "as configured"


def published(experiment: str) -> Mapping[str, Any] | None:
    """The configuration of configs/experiment; None for an experiment that is not there."""
    try:
        return configs.to_dict(configs.load(experiment))
    except ConfigError:
        return None


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names and values."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def differences(run: RunFacts, evaluation: Evaluation | None) -> list[str]:
    """Sentences; none where everything is as in configs/experiment."""
    paper = published(run.experiment)
    if paper is None:
        return [f"configs/experiment has no {run.experiment or 'experiment of that name'}: nothing to compare with."]
    found = [*_schedule(run, evaluation, paper), *_model(run, paper), *_data(run, paper), *_other(run, paper)]
    if evaluation is None:
        return [*found, f"There is no number to compare: {run.no_scores_word}."]
    return found + _protocol(run, evaluation, paper) + absent(evaluation)


def _schedule(run: RunFacts, evaluation: Evaluation | None, paper: Mapping[str, Any]) -> list[str]:
    steps = int(at(paper, "train.steps", 0))
    done = int(evaluation.scores.about.get("step", run.life.step)) if evaluation else run.life.step
    found = []
    schedule = "published schedule" if has_numbers(run.experiment) else "schedule of the experiment as configured"
    if done < steps:
        found.append(f"Fewer steps: {done:,} of the {steps:,} of the {schedule} ({_percent(done / steps)}).")
    elif done > steps:
        found.append(f"More steps: {done:,}; the {schedule} has {steps:,}.")
    batch, usual = run.setting("train.global_batch"), at(paper, "train.global_batch")
    if batch != usual:
        found.append(f"Clips per step: {batch}; {_usually(run)} {usual}.")
    return found


def _model(run: RunFacts, paper: Mapping[str, Any]) -> list[str]:
    changed = _changed(run.settings, paper, ("model",))
    if not changed:
        return []
    name = f"size={run.size}" if run.size else "the settings"
    return [f"Another model ({name}): {_listed(changed)}."]


def _data(run: RunFacts, paper: Mapping[str, Any]) -> list[str]:
    found = []
    name, usual = run.setting("data.name"), at(paper, "data.name")
    if name != usual:
        found.append(f"Other data: {name}; {_usually(run)} {usual}.")
    changed = _changed(run.settings, paper, ("data.moving_mnist",))
    changed.pop("data.moving_mnist.mnist", None)
    if name == "moving-mnist" and changed:
        found.append(f"Another variant of Moving MNIST: {_listed(changed)}.")
    origin = at(run.manifest or {}, "provenance.digits.origin")
    embedded = origin == "sklearn-digits" or (origin is None and not run.setting("data.moving_mnist.mnist"))
    if name == "moving-mnist" and embedded:
        found.append("Other digits: the embedded ones of scikit-learn (8x8 pixels, enlarged) instead of MNIST.")
    frames, usual = run.setting("data.num_frames"), at(paper, "data.num_frames")
    if frames != usual:
        found.append(f"Frames of a training clip: {frames}; {_usually(run)} {usual}.")
    return found


def _other(run: RunFacts, paper: Mapping[str, Any]) -> list[str]:
    changed = _changed(run.settings, paper, TRAINING)
    return [f"Other settings of the training: {_listed(changed)}."] if changed else []


def _protocol(run: RunFacts, evaluation: Evaluation, paper: Mapping[str, Any]) -> list[str]:
    protocol = evaluation.scores.protocol
    clips, of_split = protocol.get("num_clips"), protocol.get("clips_of_split")
    usual_clips = TEST_CLIPS.get(run.experiment)
    found = []
    if isinstance(clips, int) and usual_clips and clips != usual_clips:
        rest = f" of the {of_split:,} of this test split" if isinstance(of_split, int) and of_split != clips else ""
        found.append(f"{_more_or_less(clips, usual_clips)} test videos: {clips:,}{rest}; published {usual_clips:,}.")
    for name, key, words in (
        ("samples", "eval.test_samples", "samples per test video"),
        ("num_frames", "eval.test_num_frames", "frames of a test clip"),
        ("num_context", "model.nt_cond", "given frames"),
    ):
        ours, theirs = protocol.get(name), at(paper, key)
        if isinstance(ours, int) and ours != theirs:
            found.append(f"{_more_or_less(ours, theirs)} {words}: {ours:,}; {_usually(run)} {theirs:,}.")
    substeps, own = protocol.get("substeps"), run.own_substeps
    if substeps not in (None, own):
        trained = f"trained at 1/{own}" if own else "that of the training is not known"
        found.append(f"Another time step than in training: 1/{substeps}; {trained}.")
    chosen = at(evaluation.scores.about.get("config", {}), "eval.checkpoint", run.setting("eval.checkpoint"))
    if chosen != at(paper, "eval.checkpoint"):
        found.append(f"Weights: the {chosen} checkpoint; {_usually(run)}: the {at(paper, 'eval.checkpoint')} one.")
    return found


def absent(evaluation: Evaluation) -> list[str]:
    """Metrics that were not computed, and why."""
    return [f"No {metric(name).label}: {why}" for name, why in evaluation.scores.absent.items()]


def _changed(
    settings: Mapping[str, Any], paper: Mapping[str, Any], below: tuple[str, ...]
) -> dict[str, tuple[Any, Any]]:
    """Key -> (here, in configs/experiment), of settings below those names."""
    ours, theirs = flat(settings), flat(paper)
    return {
        key: (ours[key], theirs[key])
        for key in theirs
        if any(key == name or key.startswith(f"{name}.") for name in below) and key in ours and ours[key] != theirs[key]
    }


def _listed(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} {_plain(here)} ({_plain(there)})" for key, (here, there) in changed.items())


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "none"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _more_or_less(ours: int, theirs: int) -> str:
    return "Fewer" if ours < theirs else "More"
