"""Settings of the two neural-ODE models of Kanaa, Voleti et al. 2019 ("Simple Video Generation using Neural ODEs").

In: numbers. Out: a checked `EncODEConfig` (model (a) of the paper) or `RNNODEConfig` (model (b)). What both share, the
frame networks, the field and its solver, is `LatentODEConfig`. The paper states few numbers; what is unstated is marked
so, with where our default comes from.
"""

from dataclasses import dataclass

from odevid.config.base import ARCHITECTURES, ModelConfig

ACTIVATIONS = ("tanh", "elu", "softplus")
FIXED_METHODS = ("euler", "midpoint", "heun", "heun3", "rk4", "rk4_38")
ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
GRADIENTS = ("direct", "checkpoint", "adjoint")
LEAST_RTOL = 1e-6
"""Of adaptive steps in float32, whose numbers are 1.2e-7 apart: below, a step's error estimate is rounding."""
OBJECTIVES = ("reconstruct", "predict", "both")


@dataclass
class LatentODEConfig(ModelConfig):
    """Frames are decoded from a latent state z that solves dz/dt = f(z); `frame_time` is the time of a frame interval.

    Raises:
        ValueError: a value is out of range, or two values contradict each other; the message names both.
    """

    name: str = ""
    # Networks (unstated in the paper; DCGAN-64 as in SVG, Denton & Fergus 2018).
    architecture: str = "dcgan"  # encoder and decoder: "dcgan" or "vgg"; no skip connections
    nc: int = 1  # channels of a frame
    nf: int = 64  # channels of the first convolution
    nlatent: int = 64  # size of z (unstated)
    # Field f, a perceptron nlatent - nh_field - ... - nlatent (unstated).
    nh_field: int = 256
    nlayers_field: int = 3  # linear layers
    activation: str = "tanh"
    time_input: bool = False  # f(z, t) instead of f(z)
    augment: int = 0  # further dimensions of the state, zero at first and not decoded (Dupont et al. 2019)
    order: int = 1  # 2: the state is (position, velocity), f the acceleration, only the position is decoded
    # Solver.
    # Fixed steps: euler, midpoint, heun, heun3, rk4, rk4_38; adaptive ones of torchdiffeq: dopri5, dopri8, bosh3,
    # fehlberg2, adaptive_heun. Training takes the adaptive steps that the worst clip of a pass needs: what a clip
    # gives depends on its batch mates, hence on the number of ranks and passes, by about the tolerance. Not so with
    # fixed steps, nor in predictions.
    method: str = "rk4"
    substeps: int = 1  # steps per frame, fixed-step methods only
    gradient: str = "direct"  # through the steps; "checkpoint": recomputing each; "adjoint": odeint_adjoint
    rtol: float = 1e-3  # adaptive methods only, for the worst clip of a pass; at least 1e-6, for float32
    atol: float = 1e-4  # adaptive methods only, likewise
    max_steps: int = 10_000  # adaptive methods give up after so many; times further away than so many fixed are refused
    compiled: bool = False  # torch.compile of the loop of steps, fixed-step methods without checkpoints only
    frame_time: float = 1 / 9  # time from frame to frame: ten frames are [0, 1] (unstated; 1: frame i is at time i)
    start: str = "first"  # the given frame whose state starts the solve (the paper's experiments; equations: "last")

    @property
    def state_size(self) -> int:
        """Size of the solved state: position, velocity if of second order, augmented dimensions."""
        return self.order * self.nlatent + self.augment

    @property
    def min_context(self) -> int:
        return 1

    @property
    def own_substeps(self) -> int | None:
        return self.substeps if self.method in FIXED_METHODS else None

    @property
    def continuous(self) -> bool:
        return True

    def __post_init__(self) -> None:
        self._choose("architecture", ARCHITECTURES)
        self._choose("activation", ACTIVATIONS)
        self._choose("order", (1, 2))
        self._choose("method", (*FIXED_METHODS, *ADAPTIVE_METHODS))
        self._choose("gradient", GRADIENTS)
        self._choose("start", ("first", "last"))
        self._at_least(1, "nc", "nf", "nlatent", "nh_field", "nlayers_field", "substeps", "max_steps", "nt_cond")
        self._at_least(0, "augment")
        self._positive("rtol", "atol", "frame_time")
        if self.rtol < LEAST_RTOL:
            raise ValueError(
                f"model.rtol is {self.rtol}, but models are float32, whose numbers are 1.2e-7 apart: errors that small "
                f"are rounding; give model.rtol >= {LEAST_RTOL}, or fixed steps (model.method=rk4)"
            )
        self._check_solver()

    def _check_solver(self) -> None:
        adaptive = self.method in ADAPTIVE_METHODS
        if adaptive and self.substeps != 1:
            raise ValueError(
                f"model.substeps is {self.substeps}, but {self.method} chooses its own steps; set model.substeps=1 and "
                f"model.rtol, or a method of fixed steps: {', '.join(FIXED_METHODS)}"
            )
        if adaptive and self.gradient == "checkpoint":
            raise ValueError(
                f"model.gradient is checkpoint, but {self.method} has no fixed steps to recompute; set "
                f"model.gradient=adjoint, or a method of fixed steps: {', '.join(FIXED_METHODS)}"
            )
        if self.method == "rk4" and self.gradient == "adjoint":
            raise ValueError(
                "model.gradient is adjoint, but torchdiffeq, which computes it, has no classical rk4; set "
                "model.method=rk4_38 (its 3/8 rule of the same order)"
            )
        if self.compiled and (adaptive or self.gradient != "direct"):
            raise ValueError(
                f"model.compiled is true with model.method={self.method} and model.gradient={self.gradient}; only "
                f"fixed steps ({', '.join(FIXED_METHODS)}) with model.gradient=direct are compiled"
            )


@dataclass
class EncODEConfig(LatentODEConfig):
    """Model (a), "Non-RNN Enc-ODE-Dec" (section 5.1): one frame is encoded, the ODE does the rest. Deterministic."""

    name: str = "enode"
    nt_cond: int = 1  # frames given at evaluation; the state starts from one of them (`start`)
    latent_weight: float = 1.0  # of ||q(x_t) - z_t||^2 beside ||x_t - dec(z_t)||^2 (equation 1: 1)
    stop_gradient: bool = False  # whether the codes q(x_t) are constants there (equation 1 does not say so)

    @property
    def min_clip(self) -> int:
        return max(2, self.nt_cond)

    @property
    def stochastic(self) -> bool:
        return False

    @property
    def clip_needs(self) -> str:
        return f"model.nt_cond={self.nt_cond} are given, and a trajectory has two frames at least"

    @property
    def content_options(self) -> str:
        return "this model has none"

    def __post_init__(self) -> None:
        self._choose("name", ("enode",))
        super().__post_init__()
        self._at_least(0, "latent_weight")


@dataclass
class RNNODEConfig(LatentODEConfig):
    """Model (b), "RNN-Enc-ODE-Dec" (sections 5.2, 5.3): a recurrent encoder infers q(z_0), the ODE does the rest.

    `objective` says which frames of a clip the likelihood is of: the nt_cond conditioning ones ("reconstruct", the
    paper's), those that follow ("predict", its "fair comparison"), or both.
    """

    name: str = "rnnode"
    nt_cond: int = 10  # conditioning frames, in training and at evaluation
    nh_rnn: int = 128  # hidden size of the GRU (unstated)
    ncontent: int = 0  # size of a content vector that does not move, decoded beside z; 0: none, as in the paper
    content_in_field: bool = False  # f(z, content) instead of f(z)
    objective: str = "reconstruct"
    obs_scale: float = 1.0  # standard deviation of the observation (the paper's variance is 1)
    beta: float = 1.0  # weight of KL(q(z_0) || N(0, I)), taken once per clip
    nt_obs: int = 0  # conditioning frames that a training clip shows, drawn at random, with their times; 0: all of them
    nt_target: int = 0  # frames decoded per training clip, drawn at random; 0: all that the objective is of

    @property
    def irregular(self) -> bool:
        """Whether the encoder is told times, and so takes frames at any times."""
        return self.nt_obs > 0

    @property
    def min_clip(self) -> int:
        return self.nt_cond if self.objective == "reconstruct" else self.nt_cond + 1

    @property
    def max_clip(self) -> int | None:
        return self.nt_cond if self.objective == "reconstruct" else None

    @property
    def clip_needs(self) -> str:
        return f"model.objective={self.objective} with model.nt_cond={self.nt_cond}"

    @property
    def content_options(self) -> str:
        return f"model.ncontent={self.ncontent}"

    def __post_init__(self) -> None:
        self._choose("name", ("rnnode",))
        super().__post_init__()
        self._choose("objective", OBJECTIVES)
        self._at_least(1, "nh_rnn")
        self._at_least(0, "ncontent", "beta", "nt_obs", "nt_target")
        self._positive("obs_scale")
        if self.nt_obs > self.nt_cond:
            raise ValueError(
                f"model.nt_obs is {self.nt_obs}, but there are model.nt_cond = {self.nt_cond} conditioning frames; "
                f"give nt_obs <= nt_cond, or 0 for all of them"
            )
        if self.objective == "reconstruct" and self.nt_target > self.nt_cond:
            raise ValueError(
                f"model.nt_target is {self.nt_target}, but model.objective=reconstruct decodes the model.nt_cond = "
                f"{self.nt_cond} conditioning frames; give nt_target <= nt_cond, or 0 for all of them"
            )
        if self.content_in_field and not self.ncontent:
            raise ValueError("model.content_in_field is true, but model.ncontent is 0: there is no content; set it")
