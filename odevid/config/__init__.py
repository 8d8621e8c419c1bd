"""Model configurations: plain dataclasses, checked when they are made, and no torch.

In: the numbers of an experiment. Out: a validated config that `odevid.registry.build_model` turns into a model.
`MODELS` maps the name of each model to its dataclass; `PUBLISHED_SRVP` holds the five settings of the SRVP paper.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from odevid.config.base import FRAME_SIZE, ModelConfig
from odevid.config.latent_ode import EncODEConfig, LatentODEConfig, RNNODEConfig
from odevid.config.srvp import PUBLISHED_SRVP, SRVPConfig, published_srvp

MODELS: Mapping[str, type[ModelConfig]] = MappingProxyType(
    {"srvp": SRVPConfig, "enode": EncODEConfig, "rnnode": RNNODEConfig}
)


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """The config whose fields are `values`, of the dataclass that `values["name"]` tells.

    Raises:
        ValueError: no such model; fields that it does not have; values that it refuses.
    """
    name = str(values.get("name"))
    if name not in MODELS:
        raise ValueError(f"no model is named {name!r}; known: {', '.join(MODELS)}")
    kind: Any = MODELS[name]
    try:
        made: ModelConfig = kind(**values)
    except TypeError as error:
        raise ValueError(f"these settings do not fit {kind.__name__}: {error}") from error
    return made


__all__ = [
    "FRAME_SIZE",
    "MODELS",
    "PUBLISHED_SRVP",
    "EncODEConfig",
    "LatentODEConfig",
    "ModelConfig",
    "RNNODEConfig",
    "SRVPConfig",
    "model_config",
    "published_srvp",
]
