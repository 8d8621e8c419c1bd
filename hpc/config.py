"""The configuration of a run: dataclasses are the schema, OmegaConf merges, misspelt keys are errors with a hint.

Merged in this order: defaults of the dataclasses < configs/experiment/NAME.yaml < configs/size/SIZE/MODEL.yaml <
configs/cluster/NAME.yaml < `key=value` of the command line. A run folder keeps the result as config.yaml, which is
what every later attempt reads. No torch is imported here: a login node resolves a config in well under a second.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from hpc.checkpoint.durable import replace_text
from odevid.config import MODELS, ModelConfig

CONFIG_ROOT = Path(__file__).resolve().parent.parent / "configs"


class ConfigError(ValueError):
    """A configuration that cannot be run; the message says what was found, what was expected, what to type."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _at_least(section: str, values: object, minimum: int, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        _require(value >= minimum, f"{section}.{name}={value}: expected at least {minimum}")


def _choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    _require(value in allowed, f"{name}={value!r}: expected one of {', '.join(map(str, allowed))}")


@dataclass
class MovingMnistConfig:
    digits: int = 2
    """Digits per video."""
    deterministic: bool = False
    """Mirror reflection at the walls instead of a redrawn velocity."""
    mnist: str = ""
    """Folder with the four MNIST idx.gz files; empty: the embedded scikit-learn digits."""
    sequences: int = 0
    """Training clips that are made once and stored, with a twentieth as many of validation; 0: drawn without end, or
    as many as data.root holds."""
    frames: int = 0
    """Frames of a stored training clip; 0: data.num_frames."""
    valid_frames: int = 0
    """Frames of a stored validation clip; 0: twice those of training, so that as many can follow."""

    def __post_init__(self) -> None:
        _at_least("data.moving_mnist", self, 1, "digits")
        _at_least("data.moving_mnist", self, 0, "sequences", "frames", "valid_frames")
        for name in ("frames", "valid_frames"):
            value = getattr(self, name)
            _require(
                self.sequences > 0 or value == 0,
                f"data.moving_mnist.{name}={value} would do nothing with data.moving_mnist.sequences=0, where no clip "
                f"is stored: set data.moving_mnist.sequences too, or {name}=0",
            )


@dataclass
class DataConfig:
    name: str = "moving-mnist"
    root: str = ""
    """A built dataset (folder or http URL with manifest.json), or the parent of several; $ODEVID_DATA or data/."""
    num_frames: int = 15
    """Frames of a training clip."""
    workers: int = 2
    """Loader processes per rank, each good for thousands of raw windows a second; 0: loads in the training process."""
    prefetch: int = 4
    """Micro-batches each loader process keeps ready."""
    verify: bool = True
    """Check the CRC of everything that is read."""
    max_substitutions: int = 0
    """Damaged clips that may be replaced over the whole run before it stops; 0: the first one stops it."""
    shard_url: str = ""
    """Where the tars are, if not beside the manifest: template with {shard}, http(s), file:///PATH (a slow disk, copied
    from when first read) or pipe:COMMAND (--allow-pipe)."""
    cache: str = ""
    """Folder for fetched shards, best on the node's own disk ('$TMPDIR', '/local/$SLURM_JOB_ID': quoted, so that the
    variables are those of the ranks); empty: $ODEVID_CACHE or ~/.cache/odevid."""
    cache_gb: float = -1.0
    """GB of fetched shards kept there, the least recently used deleted first; 0: as much as the disk has; -1: 80 % of
    what the disk has free and the cache holds."""
    moving_mnist: MovingMnistConfig = field(default_factory=MovingMnistConfig)

    def __post_init__(self) -> None:
        _at_least("data", self, 1, "num_frames", "prefetch")
        _at_least("data", self, 0, "workers", "max_substitutions")
        _require(
            self.cache_gb == -1 or self.cache_gb >= 0,
            f"data.cache_gb={self.cache_gb}: expected GB, 0 (as much as the disk has) or -1 (80 % of its room)",
        )


@dataclass
class OptimizerConfig:
    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    constant_steps: int = -1
    """Steps at the full learning rate, which then falls to zero at train.steps; -1: constant to the end."""
    decay: str = "linear"
    """How it falls: linear, or cosine (half a period)."""
    clip_norm: float = 0.0
    """Global gradient norm above which gradients are scaled down; 0: no clipping."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optimizer.lr={self.lr}: expected a positive number")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"optimizer.{name}={value}: expected at least 0 and less than 1")
        _choice("optimizer.decay", self.decay, ("linear", "cosine"))
        _require(
            self.decay == "linear" or self.constant_steps >= 0,
            f"optimizer.decay={self.decay} would do nothing with optimizer.constant_steps=-1, where the rate never "
            "falls: set optimizer.constant_steps=0, or optimizer.decay=linear",
        )
        _require(self.clip_norm >= 0, f"optimizer.clip_norm={self.clip_norm}: expected 0 (off) or a positive norm")


@dataclass
class TrainConfig:
    recipe: str = "likelihood"
    """How one step uses models and optimisers (hpc/recipes.py)."""
    steps: int = 1000
    """Optimiser steps of the whole schedule."""
    global_batch: int = 128
    """Clips per optimiser step over all ranks and accumulation steps."""
    micro_batch: int = 0
    """Clips per rank and forward pass; 0: global_batch / ranks."""
    batchnorm_group: int = 0
    """Clips whose BatchNorm statistics are pooled; 0: the whole global batch, as published."""
    precision: str = "fp32"
    """fp32, or bf16 (autocast; weights stay fp32)."""
    zero_stage: int = 0
    """DeepSpeed ZeRO stage 0, 1 or 2."""
    threads: int = 0
    """CPU threads per rank; 0: the cores of the machine shared out over its ranks."""
    deterministic: bool = False
    """Deterministic GPU kernels: a resume is bit for bit on the same device type, at a cost. CPU runs always are."""
    resume: str = "auto"
    """auto: continue when a checkpoint exists; required: one must exist; never: start anew, moving old ones aside."""
    max_minutes: float = 0.0
    """Wall-clock budget of one attempt: it then saves and stops (under SLURM: requeues); 0: none."""
    max_bad_steps: int = 10
    """Steps with a non-finite gradient (update skipped) or a spike that the run survives."""
    spike_factor: float = 10.0
    """A gradient norm this many mean absolute deviations above its running mean counts as a spike; 0: no guard."""

    def __post_init__(self) -> None:
        _at_least("train", self, 1, "steps", "global_batch")
        _at_least("train", self, 0, "micro_batch", "batchnorm_group", "threads", "max_minutes")
        _at_least("train", self, 0, "max_bad_steps", "spike_factor")
        _choice("train.precision", self.precision, ("fp32", "bf16"))
        _choice("train.zero_stage", self.zero_stage, (0, 1, 2))
        _choice("train.resume", self.resume, ("auto", "required", "never"))


METRICS = ("psnr", "ssim", "ssim_svg", "lpips", "lpips_squeeze", "lpips_vgg", "fvd")


@dataclass
class EvalConfig:
    every: int = 20_000
    """Steps between validations; 0: none during training."""
    clips: int = 64
    """Clips of a validation (always the same ones)."""
    num_frames: int = 15
    """Frames of a validation clip, conditioning included."""
    samples: int = 10
    """Futures sampled per clip in a validation."""
    test_clips: int = 0
    """Clips of `evaluate`; 0: the whole test split."""
    test_num_frames: int = 25
    """Frames of a test clip, conditioning included."""
    test_samples: int = 100
    """Futures sampled per test clip."""
    batch: int = 16
    """Clips per rank and pass."""
    chunk: int = 0
    """Samples of those clips decoded at once, which bounds the memory; 0: as many as make 2048 frames."""
    metrics: list[str] = field(default_factory=list)
    """What `evaluate` scores: psnr, ssim, ssim_svg (as SVG computes it), lpips (AlexNet), lpips_squeeze, lpips_vgg,
    fvd. Empty: psnr, ssim, and lpips and fvd where their weights are found. Validations: psnr and ssim."""
    weights: str = ""
    """Folder with the networks of LPIPS and FVD; empty: $ODEVID_WEIGHTS or ~/.cache/odevid/weights. Never fetched."""
    i3d: str = ""
    """File with I3D's weights for FVD, if not in one of these folders."""
    run_weights_code: bool = False
    """Allows eval.i3d to be a TorchScript file, and to run the code that is in it."""
    fvd_sets: int = 5
    """Sets of samples whose FVD gives its interval (the paper: five)."""
    substeps: list[int] = field(default_factory=list)
    """Solver steps per predicted frame at which `evaluate` scores; several give SRVP's tables 7 to 9. Empty: the
    model's own."""
    split: str = "test"
    """Clips that `evaluate` scores: test, valid or train, by their number and from their first frame on. Results of the
    latter two go to RUN/evaluation/split-NAME."""
    given: bool = False
    """Also score how the first sample of each clip shows the given frames: their reconstruction."""
    halve_step: bool = False
    """Also predict the first sample of each clip with half the solver's step, same noise: by how much PSNR changes says
    whether the step was fine enough for frames between those of the data."""
    pictures: int = 8
    """Clips shown in the GIF and the strip."""
    random_samples: int = 2
    """Samples shown there beside the best and the worst: the first ones drawn."""
    seed: int = 1
    """Of the samples' noise."""
    checkpoint: str = "last"
    """Weights that `evaluate` and `export` use: last, or best by validation."""
    best_metric: str = "psnr"
    """What `best` checkpoints are kept by."""
    centroid: bool = False
    """Also the error of the intensity centroid: meaningful for one bright object on black."""

    def __post_init__(self) -> None:
        _choice("eval.best_metric", self.best_metric, ("psnr", "ssim"))
        _choice("eval.checkpoint", self.checkpoint, ("last", "best"))
        _choice("eval.split", self.split, ("test", "valid", "train"))
        _at_least("eval", self, 1, "clips", "samples", "test_samples", "batch", "fvd_sets")
        _at_least("eval", self, 0, "chunk", "pictures", "random_samples")
        for metric in self.metrics:
            _choice("eval.metrics", metric, METRICS)
            _require(self.metrics.count(metric) == 1, f"eval.metrics={self.metrics}: {metric} is there twice")
        _require(
            self.metrics != ["fvd"],
            "eval.metrics=[fvd]: add a metric of frames, such as psnr, by which the best and worst samples are chosen",
        )
        _require(
            all(step >= 1 for step in self.substeps), f"eval.substeps={self.substeps}: expected whole numbers >= 1"
        )
        _at_least("eval", self, 0, "every", "test_clips", "pictures")


@dataclass
class CheckpointConfig:
    every: int = 0
    """Steps between checkpoints; 0: only by time, at a stop and at the end."""
    every_minutes: float = 10.0
    """Minutes between checkpoints; 0: only by steps."""
    keep_last: int = 2
    keep_best: int = 1
    milestone_every: int = 0
    """Checkpoints at multiples of this step are never deleted; 0: none."""
    give_up_minutes: float = 120.0
    """Minutes for which the disk may refuse every save, with warnings, before the run stops; 0: for ever."""

    def __post_init__(self) -> None:
        _require(
            self.keep_last >= 2, f"checkpoint.keep_last={self.keep_last}: expected at least 2 (one may be damaged)"
        )
        _at_least("checkpoint", self, 0, "every", "every_minutes", "keep_best", "milestone_every")
        _at_least("checkpoint", self, 0, "give_up_minutes")


@dataclass
class LogConfig:
    every: int = 100
    """Steps between lines of metrics.jsonl."""
    wandb: str = "auto"
    """auto (online with a key and network, else offline), online, offline or disabled."""
    project: str = "odevid"
    group: str = ""
    max_file_mb: int = 64
    """Size at which metrics.jsonl is rotated, and beyond which the older half of a rank's output moves to NAME.1."""
    max_wandb_mb: int = 2048
    """Beyond it the oldest offline folders of RUN/wandb go (the journal has everything: hpc.tracking sync); 0: none."""

    def __post_init__(self) -> None:
        _choice("log.wandb", self.wandb, ("auto", "online", "offline", "disabled"))
        _at_least("log", self, 1, "every", "max_file_mb")
        _at_least("log", self, 0, "max_wandb_mb")


@dataclass
class WatchdogConfig:
    """Hangs: a rank is overdue when it does nothing for `factor` times the usual, and for `min_s` at least."""

    enabled: bool = True
    factor: float = 20.0
    min_s: float = 300.0
    start_s: float = 1800.0
    """Patience before the first step: imports, meeting the others, reading the state, compiling."""
    abort: bool = True
    """End the ranks when one is overdue, so that the job is started again; false: only tell who hangs where."""

    def __post_init__(self) -> None:
        _require(self.factor > 1, f"watchdog.factor={self.factor}: expected more than 1")
        _require(self.min_s > 0, f"watchdog.min_s={self.min_s}: expected a positive number of seconds")
        _require(self.start_s > 0, f"watchdog.start_s={self.start_s}: expected a positive number of seconds")


@dataclass
class ClusterConfig:
    nodes: int = 1
    gpus_per_node: int = -1
    """-1: as many as this machine shows when local, 8 on SLURM; 0: CPU ranks."""
    ranks_per_node: int = 1
    """Ranks of a node without GPUs (with GPUs: one rank each)."""
    cpus_per_task: int = 4
    mem_gb: int = 0
    """Memory per node; 0: the site's default."""
    time_min: int = 1440
    partition: str = ""
    qos: str = ""
    account: str = ""
    constraint: str = ""
    exclude: str = ""
    reservation: str = ""
    comment: str = ""
    setup: list[str] = field(default_factory=list)
    """Shell lines run before the ranks start (module load ...)."""
    signal_delay_s: int = 120
    """Seconds before the time limit at which SLURM sends SIGUSR2."""
    restart_on_crash: bool = True
    """Start the job again when a rank died or failed, though not for an error that only a person can mend."""
    max_idle_attempts: int = 3
    """Attempts without a new checkpoint after which the run is not started again by itself."""

    def __post_init__(self) -> None:
        _at_least("cluster", self, 1, "nodes", "ranks_per_node", "cpus_per_task", "time_min")
        _at_least("cluster", self, 0, "mem_gb", "signal_delay_s")
        _at_least("cluster", self, 1, "max_idle_attempts")
        _require(
            self.signal_delay_s < 60 * self.time_min,
            f"cluster.signal_delay_s={self.signal_delay_s}: expected less than the time limit, {60 * self.time_min} s "
            f"(--time {self.time_min})",
        )


@dataclass
class Config:
    experiment: str = "srvp_smmnist"
    size: str = ""
    """Overlay of configs/size: demo (laptop), test (suite); empty: as published."""
    seed: int = 1
    model: Any = None
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        constant = self.optimizer.constant_steps
        _require(
            constant <= self.train.steps,
            f"optimizer.constant_steps={constant} is beyond train.steps={self.train.steps}: "
            "lower the first or raise the second",
        )
        if self.model is not None:
            self._check_frames(self.model)
            self._check_halve_step(self.model)

    def _check_frames(self, model: ModelConfig) -> None:
        """Whether clips are as long as the model needs them, and training clips no longer than it uses."""
        given, clip, most = model.nt_cond, self.data.num_frames, model.max_clip
        for name, frames, needed, why in (
            ("eval.num_frames", self.eval.num_frames, given + 1, f"model.nt_cond={given} are given, one is predicted"),
            ("eval.test_num_frames", self.eval.test_num_frames, given + 1, f"model.nt_cond={given} are given"),
            ("data.num_frames", clip, model.min_clip, model.clip_needs),
        ):
            _require(frames >= needed, f"{name}={frames}: expected at least {needed} ({why})")
        _require(most is None or clip <= most, f"data.num_frames={clip}: expected at most {most} ({model.clip_needs})")

    def _check_halve_step(self, model: ModelConfig) -> None:
        """Whether there is a solver step to halve, if that is asked for."""
        what = f"eval.halve_step=true, but model.name={model.name} as set here has no fixed number of solver steps"
        why, end = "it goes from one frame to the next", "set eval.halve_step=false"
        if model.continuous:
            why, end = "its solver chooses its own, see model.method", f"take another model.method, or {end}"
        fixed = model.continuous and model.own_substeps is not None
        _require(fixed or not self.eval.halve_step, f"{what} per frame ({why}), so there is none to halve: {end}")


def available(kind: str) -> list[str]:
    """Names of the YAML files of configs/KIND (`experiment`, `cluster`) or of its folders (`size`)."""
    folder = CONFIG_ROOT / kind
    names = (path.stem if path.suffix == ".yaml" else path.name for path in folder.iterdir())
    return sorted(name for name in names if not name.startswith("_"))


def load(experiment: str, size: str = "", cluster: str = "", overrides: list[str] | None = None) -> Config:
    """Resolve an experiment of configs/ with an overlay, a cluster and `key=value` overrides.

    Raises:
        ConfigError: unknown experiment, size or key, wrong type, or values that contradict each other.
    """
    chosen, typed = _read_named("experiment", experiment), _parse_overrides(overrides or [])
    model_name = _model_name([chosen, typed])
    _check_model(experiment, chosen, model_name)
    layers = [("experiment", chosen)]
    if size:
        layers.append(("size", _read_size(size, model_name)))
    if cluster:
        layers.append(("cluster", _read_named("cluster", cluster)))
    layers.append(("command line", typed))
    merged = _merge(layers)
    merged.experiment, merged.size = experiment, size
    return to_config(merged)


def load_file(path: Path, overrides: list[str] | None = None) -> Config:
    """A resolved configuration that `save` wrote, with `key=value` overrides on top."""
    if not path.is_file():
        raise ConfigError(
            f"no {path}: that is not the folder of a started run; give run=DIR of one, or experiment=NAME"
        )
    kept = _read_yaml(path)
    if missing := {item.name for item in fields(Config)} - set(kept):
        raise ConfigError(
            f"{path} is not whole ({', '.join(sorted(missing))} missing): a full disk or a power cut may have done it; "
            f"the last checkpoint's state.pt holds the configuration, and {path.parent}/submitted/ one for each launch"
        )
    return to_config(_merge([(str(path), kept), ("command line", _parse_overrides(overrides or []))]))


def save(config: Config, path: Path) -> None:
    """Write the resolved configuration as YAML: whole and durable, whoever else reads or writes it."""
    replace_text(path, to_yaml(config))


def to_yaml(config: Config) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def to_dict(config: Config) -> dict[str, Any]:
    """Plain nested dict of numbers, strings, lists: what checkpoints and W&B keep."""
    container = OmegaConf.to_container(OmegaConf.structured(config))
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def to_config(merged: DictConfig) -> Config:
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error)) from error
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error
    assert isinstance(config, Config)
    return config


def _merge(layers: list[tuple[str, DictConfig]]) -> DictConfig:
    name = _model_name([layer for _, layer in layers])
    merged = OmegaConf.structured(Config())
    merged.model = OmegaConf.structured(MODELS[name]())
    for source, layer in layers:
        _check_keys(layer, merged, source, name)
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source}: {str(error).splitlines()[0]} (key {error.full_key})") from error
    assert isinstance(merged, DictConfig)
    return merged


def _model_name(layers: list[DictConfig]) -> str:
    """The model of merged layers, of which the last one wins."""
    name = next((str(n) for layer in reversed(layers) if (n := OmegaConf.select(layer, "model.name"))), "srvp")
    if name not in MODELS:
        raise ConfigError(f"model.name={name!r}: expected one of {', '.join(MODELS)}{hint(name, MODELS)}")
    return name


def _check_model(experiment: str, chosen: DictConfig, wanted: str) -> None:
    """Whether an experiment is of the model that is asked for: one model's settings mean nothing to another."""
    its = OmegaConf.select(chosen, "model.name")
    if its not in (None, wanted):
        of_it = [name for name in available("experiment") if _model_name([_read_named("experiment", name)]) == wanted]
        raise ConfigError(
            f"model.name={wanted}: experiment={experiment} is one of model {its}, whose settings are not those of "
            f"{wanted}; leave model.name out, or take an experiment of {wanted}: {', '.join(of_it)}"
        )


def _check_keys(layer: DictConfig, schema: DictConfig, source: str, model: str, prefix: str = "") -> None:
    for key in layer:
        full = f"{prefix}{key!s}"
        if key not in schema:
            raise ConfigError(f"{source}: {_unknown(full, model)}")
        child, expected = layer._get_node(key), schema._get_node(key)
        if isinstance(child, DictConfig) and isinstance(expected, DictConfig):
            _check_keys(child, expected, source, model, f"{full}.")
        elif isinstance(child, DictConfig) and len(child):
            raise ConfigError(f"{source}: {_unknown(f'{full}.{next(iter(child))!s}', model)}")


def _unknown(key: str, model: str) -> str:
    """Why a key cannot be set in a run of that model, and what may have been meant."""
    if owners := [name for name, kind in MODELS.items() if key in all_keys(kind, "model.")]:
        return f"{key} is a setting of model {' and '.join(owners)}, while this run's model is {model} (model.name)"
    own = all_keys(MODELS[model], "model.")
    known = [name for name in all_keys() if not name.startswith("model.") or name in own]
    return f"unknown key {key!r}{hint(key, known)}"


def all_keys(schema: Any = None, prefix: str = "") -> list[str]:
    """Every dotted key that a user may set, of all models."""
    if schema is None:
        schema = Config
    keys: list[str] = []
    for item in fields(schema):
        if item.name == "model":
            nested: list[Any] = list(MODELS.values())
        else:
            default = item.default_factory() if callable(item.default_factory) else item.default
            nested = [type(default)] if is_dataclass(default) else []
        keys.append(prefix + item.name)
        for kind in nested:
            keys += [key for key in all_keys(kind, f"{prefix}{item.name}.") if key not in keys]
    return keys


def hint(name: str, candidates: Any) -> str:
    """`; did you mean ...?`, or nothing."""
    candidates = list(candidates)
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    if not near and "." not in name:
        near = [key for key in candidates if key.split(".")[-1] == name][:1]
    return f"; did you mean {near[0]!r}?" if near else ""


def _parse_overrides(overrides: list[str]) -> DictConfig:
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r} is not key=value; for example train.steps=1000")
    try:
        return OmegaConf.from_dotlist(overrides)
    except (OmegaConfBaseException, YAMLError) as error:
        raise ConfigError(f"command line: {error}") from error


def _read_named(kind: str, name: str) -> DictConfig:
    path = CONFIG_ROOT / kind / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{kind}={name}: no such file in configs/{kind}; there are "
            f"{', '.join(available(kind))}{hint(name, available(kind))}"
        )
    return _read_yaml(path)


def _read_size(size: str, model_name: str) -> DictConfig:
    if size not in available("size"):
        raise ConfigError(
            f"size={size}: expected one of {', '.join(available('size'))}, or nothing for the published size"
        )
    path = CONFIG_ROOT / "size" / size / f"{model_name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"size={size}: there is no such overlay for model {model_name} ({path.name} in configs/size/{size})"
        )
    return _read_yaml(path)


def _read_yaml(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path}: expected a mapping of keys to values")
    return loaded
