"""From a run's checkpoint to a bare model: for evaluation, and as model.pt for `odevid.load`. No DeepSpeed here."""

from __future__ import annotations

from pathlib import Path

from hpc.checkpoint.store import Checkpoint, CheckpointStore
from hpc.config import Config, ConfigError
from hpc.distributed import World
from hpc.run_folder import RunFolder
from odevid.model import VideoModel


def load_predictor(config: Config, folder: RunFolder, world: World) -> tuple[VideoModel, int]:
    """The model with the weights that eval.checkpoint names, on this rank's device, and their step. Collective."""
    store = _store(config, folder)
    chosen = world.on_rank_0(lambda: choose(store, config))
    model = _build(config, store, chosen)
    return model.to(world.device), chosen.step


def load_model(config: Config, folder: RunFolder) -> tuple[VideoModel, int]:
    """The same for one process: on the CPU."""
    store = _store(config, folder)
    chosen = choose(store, config)
    return _build(config, store, chosen), chosen.step


def export(config: Config, folder: RunFolder) -> Path:
    """Write model.pt from the checkpoint that eval.checkpoint names."""
    from odevid import save_model

    model, _ = load_model(config, folder)
    save_model(folder.model, config.model, model.state_dict())
    return folder.model


def choose(store: CheckpointStore, config: Config) -> Checkpoint:
    """The newest complete checkpoint, or the best one by validation.

    Raises:
        ConfigError: there is none.
    """
    if config.eval.checkpoint == "best":
        name = config.eval.best_metric
        scored = [checkpoint for checkpoint in store.complete() if name in checkpoint.meta.get("metrics", {})]
        if not scored:
            raise ConfigError(
                f"eval.checkpoint=best, but no checkpoint in {store.root} was validated; use eval.checkpoint=last"
            )
        return max(scored, key=lambda checkpoint: float(checkpoint.meta["metrics"][name]))
    newest = store.newest()
    if newest is None:
        raise ConfigError(f"no checkpoint in {store.root}: train first (python hpc/launch.py run={store.root.parent})")
    return newest


def _store(config: Config, folder: RunFolder) -> CheckpointStore:
    return CheckpointStore(
        folder.checkpoints, keep_last=config.checkpoint.keep_last, best_metric=config.eval.best_metric
    )


def _build(config: Config, store: CheckpointStore, chosen: Checkpoint) -> VideoModel:
    from odevid import build_model

    model = build_model(config.model)
    saved = store.read(chosen)["engines"]["model"]
    try:
        model.load_state_dict({**saved["weights"], **saved["buffers"]})
    except RuntimeError as error:
        where = f"{chosen.path} does not fit the model that model.* describes; leave those keys out"
        raise ConfigError(f"{where}: {str(error).splitlines()[1].strip()}") from error
    return model.eval()
