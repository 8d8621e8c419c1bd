"""Settings of SRVP (Franceschi et al. 2020), and the five that its paper publishes.

In: numbers. Out: a checked `SRVPConfig`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from odevid.config.base import ARCHITECTURES, ModelConfig

DYNAMICS = ("residual", "mlp", "gru")


@dataclass
class SRVPConfig(ModelConfig):
    """Stochastic latent residual video predictor (Franceschi et al. 2020), on 64x64 frames.

    Defaults are the published stochastic Moving MNIST setting. Sizes are counts; `obs_scale` is the *standard
    deviation* of the observation in units of the [0, 1] pixel range; one unit of time is one frame.

    Raises:
        ValueError: a value is out of range, or two values contradict each other; the message names both.
    """

    name: str = "srvp"
    # Networks.
    architecture: str = "dcgan"  # encoder and decoder: "dcgan" or "vgg"
    skip_connections: bool = False  # one frame of a clip feeds the decoder's stages
    nc: int = 1  # channels of a frame
    nf: int = 64  # channels of the first convolution
    nhx: int = 128  # size of a frame's code
    nh_inf: int = 256  # hidden size of the inference networks, and size of the content variable w
    nlayers_inf: int = 3  # linear layers of q(y_0)
    content_variable: bool = True  # False: the decoder sees y only ("without w")
    # Latent dynamics.
    ny: int = 20  # size of the state y
    nz: int = 20  # size of the noise z; 0: no z, no prior, no posterior over z
    dynamics: str = "residual"  # y <- y + f(y, z) / n_euler_steps; or "mlp": y <- f(y, z); or "gru"
    n_euler_steps: int = 1  # Euler steps per frame in training, residual dynamics only
    nh_res: int = 512  # hidden size of f and of the prior
    nlayers_res: int = 4  # linear layers of f and of the prior
    res_gain: float = 1.41  # orthogonal gain at the initialisation of f
    nt_inf: int = 5  # k: frames from which y_0 and w are inferred
    nt_cond: int = 5  # frames given at evaluation, at least nt_inf
    # Objective: nll + beta_y kl_y + beta_z kl_z + l2_res res.
    obs_scale: float = 1.0
    beta_y: float = 1.0
    beta_z: float = 2.0
    l2_res: float = 1.0
    # Arithmetic, same numbers to rounding: what a clip shares (w, skips) is convolved once per clip, not per frame.
    split_decoder: bool = True

    @property
    def min_context(self) -> int:
        return self.nt_inf

    @property
    def min_clip(self) -> int:
        return max(self.nt_inf, 2)

    @property
    def clip_needs(self) -> str:
        return f"y_0 is inferred from model.nt_inf={self.nt_inf}"

    @property
    def own_substeps(self) -> int | None:
        return self.n_euler_steps if self.continuous else None

    @property
    def continuous(self) -> bool:
        """MLP and GRU dynamics map one frame to the next."""
        return self.dynamics == "residual"

    @property
    def content_options(self) -> str:
        content, skips = (str(value).lower() for value in (self.content_variable, self.skip_connections))
        return f"model.content_variable={content}, model.skip_connections={skips}"

    def __post_init__(self) -> None:
        self._choose("name", ("srvp",))
        self._choose("architecture", ARCHITECTURES)
        self._choose("dynamics", DYNAMICS)
        self._check_sizes()
        self._check_dynamics()

    def _check_sizes(self) -> None:
        self._at_least(1, "nc", "nf", "nhx", "nh_inf", "nlayers_inf", "ny", "n_euler_steps", "nh_res", "nlayers_res")
        self._at_least(1, "nt_inf")
        self._at_least(0, "nz", "beta_y", "beta_z", "l2_res")
        self._positive("obs_scale", "res_gain")
        if self.nt_cond < self.nt_inf:
            raise ValueError(
                f"model.nt_cond is {self.nt_cond} but y_0 is inferred from model.nt_inf = {self.nt_inf} frames; "
                f"give nt_cond >= nt_inf"
            )

    def _check_dynamics(self) -> None:
        if self.dynamics != "residual" and self.n_euler_steps != 1:
            raise ValueError(
                f"model.n_euler_steps is {self.n_euler_steps}, but {self.dynamics} dynamics map one frame to the next "
                f"and have no time step; set model.n_euler_steps=1 or model.dynamics=residual"
            )
        if self.dynamics != "residual" and self.l2_res != 0:
            raise ValueError(
                f"model.l2_res is {self.l2_res}, but {self.dynamics} dynamics have no residual to regularise; "
                f"set model.l2_res=0"
            )
        if self.dynamics == "gru" and self.nz == 0:
            raise ValueError("model.nz is 0, but gru dynamics take z as their input; set model.nz or model.dynamics")


# Settings of the paper as its released code gives them. `obs_scale` is a standard deviation there too.
_MNIST: dict[str, Any] = {}
_VGG: dict[str, Any] = {
    "architecture": "vgg",
    "skip_connections": True,
    "ny": 50,
    "nz": 50,
    "n_euler_steps": 2,
    "beta_z": 1.0,
}
PUBLISHED_SRVP: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "smmnist": _MNIST,
        "mmnist": _MNIST,
        "kth": {**_VGG, "nc": 1, "nt_inf": 3, "nt_cond": 10, "res_gain": 1.2, "obs_scale": 0.2},
        "human": {**_VGG, "nc": 3, "nt_inf": 3, "nt_cond": 8, "res_gain": 1.2, "obs_scale": 0.2},
        "bair": {**_VGG, "nc": 3, "nt_inf": 2, "nt_cond": 2, "obs_scale": 0.71},
    }
)


def published_srvp(dataset: str) -> SRVPConfig:
    """The SRVP paper's setting for `dataset`: "smmnist", "mmnist" (deterministic), "kth", "human" or "bair"."""
    if dataset not in PUBLISHED_SRVP:
        raise ValueError(f"no published SRVP setting {dataset!r}; choose one of {', '.join(PUBLISHED_SRVP)}")
    return SRVPConfig(**PUBLISHED_SRVP[dataset])
