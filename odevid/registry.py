"""From a config to the model that it describes.

In: one of the dataclasses of `odevid.config.MODELS`. Out: a `VideoModel`, freshly initialised from torch's generator.
"""

from importlib import import_module

from odevid.config import MODELS, ModelConfig
from odevid.model import VideoModel

_CLASSES = {
    "srvp": ("odevid.models.srvp", "SRVP"),
    "enode": ("odevid.models.enode", "EncODE"),
    "rnnode": ("odevid.models.rnnode", "RNNODE"),
}


def build_model(config: ModelConfig) -> VideoModel:
    """The model that `config` describes, in training mode on the CPU.

    Raises:
        ValueError: the config's type is not the one registered under its name.
    """
    expected = MODELS.get(config.name)
    if expected is None or not isinstance(config, expected):
        raise ValueError(f"no model for a {type(config).__name__} named {config.name!r}; models: {', '.join(MODELS)}")
    module, name = _CLASSES[config.name]
    model: VideoModel = getattr(import_module(module), name)(config)
    return model
