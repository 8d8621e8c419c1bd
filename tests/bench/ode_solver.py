"""Solving a latent ODE, forward and backward: our solver beside torchdiffeq.

    python -m tests.bench.ode_solver [--repeats 15] [--device cpu|cuda] [--plot tests/bench/ode_solver.png]

Out: markdown tables, and with --plot a picture of time against gradient error. All contestants take turns in one
process; a turn is one solve, a mean square error on all outputs, and its backward pass. Times are CPU time of one
thread (on a GPU: wall time between two synchronisations), medians. Gradient error: of the first state and all
parameters together, relative, against the ODE's own gradient (float64, dopri8 at 1e-12). Saved memory: storages that
autograd keeps for the backward pass, parameters left out. Operators and waits for the device (`.item()`), forward /
backward, are counted by a dispatch mode in further runs. x3: the weights times three, a steep field as after training.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torchdiffeq
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from odevid.ode import Solver

SCALES = (1, 3)


class Field(nn.Module):
    """A perceptron, tanh between its layers."""

    def __init__(self, sizes: tuple[int, ...], scale: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for size, following in itertools.pairwise(sizes):
            layers += [nn.Linear(size, following), nn.Tanh()]
        self.net = nn.Sequential(*layers[:-1])
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(scale)

    def forward(self, time: float | Tensor, state_BD: Tensor) -> Tensor:
        slope: Tensor = self.net(state_BD)
        return slope


Solve = Callable[[nn.Module, Tensor, list[float]], Tensor]  # field, first state, times -> states BTD


def ours(method: str, steps: int = 1, **settings: object) -> Solve:
    """Our solver with `steps` steps from one time to the next."""

    def solve(field: nn.Module, initial_BD: Tensor, times: list[float]) -> Tensor:
        return Solver(method, step=times[1] / steps, **settings)(field, initial_BD, times).states_BTD  # type: ignore[arg-type]

    return solve


def theirs(adjoint: bool = False, **settings: object) -> Solve:
    """torchdiffeq as it comes."""
    integrate = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def solve(field: nn.Module, initial_BD: Tensor, times: list[float]) -> Tensor:
        states: Tensor = integrate(field, initial_BD, torch.tensor(times, device=initial_BD.device), **settings)
        return states.transpose(0, 1)

    return solve


TURN_S = 0.05
LOOSE = {"rtol": 1e-3, "atol": 1e-4}
CONTESTANTS: dict[str, Solve] = {
    "ours rk4": ours("rk4"),
    "ours rk4_38": ours("rk4_38"),
    "ours heun3": ours("heun3"),
    "ours rk4_38, checkpoint": ours("rk4_38", gradient="checkpoint"),
    "ours rk4, compiled": ours("rk4", compiled=True),
    "ours rk4_38, compiled": ours("rk4_38", compiled=True),
    "ours dopri5 1e-3/1e-4": ours("dopri5", **LOOSE),
    "torchdiffeq rk4": theirs(method="rk4"),
    "torchdiffeq rk4, adjoint": theirs(adjoint=True, method="rk4"),
    "torchdiffeq dopri5 1e-3/1e-4": theirs(method="dopri5", **LOOSE),
    "torchdiffeq adjoint, defaults": theirs(adjoint=True),
}


@dataclass(frozen=True)
class Problem:
    """A field, where to start, and when and what to hit."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    frames: int

    def tensors(self, scale: float, device: str) -> tuple[Field, Tensor, list[float], Tensor]:
        field = Field(self.sizes, scale).to(device)
        generator = torch.Generator().manual_seed(1)
        initial_BD = torch.randn(self.batch, self.sizes[0], generator=generator).to(device)
        target_BTD = torch.randn(self.batch, self.frames, self.sizes[0], generator=generator).to(device)
        return field, initial_BD, [n / (self.frames - 1) for n in range(self.frames)], target_BTD


LATENT = Problem("latent field 64-256-256-64", (64, 256, 256, 64), 128, 10)
SMALL = (Problem("field 16-16-16", (16, 16, 16), 32, 16), Problem("field 16-16-16", (16, 16, 16), 1024, 16))


class Turn:
    """One contestant on one problem."""

    def __init__(self, problem: Problem, scale: float, solve: Solve, device: str) -> None:
        self.field, self.initial_BD, self.times, self.target_BTD = problem.tensors(scale, device)
        self.initial_BD.requires_grad_()
        self.solve, self.device = solve, device
        self.seconds: list[float] = []

    def loss(self) -> Tensor:
        self.field.zero_grad()
        self.initial_BD.grad = None
        states_BTD = self.solve(self.field, self.initial_BD, self.times)
        return (states_BTD - self.target_BTD).square().mean()

    def timed(self) -> None:
        """A turn: solves for at least 50 ms, so that a short one is not timed on what another left in the caches."""
        begin, solves = self._clock(), 0
        while not solves or self._clock() - begin < TURN_S:
            self.loss().backward()
            solves += 1
        self.seconds.append((self._clock() - begin) / solves)

    def gradient(self) -> Tensor:
        self.loss().backward()
        grads = [self.initial_BD.grad, *(parameter.grad for parameter in self.field.parameters())]
        return torch.cat([grad.detach().flatten().double() for grad in grads if grad is not None])

    def evaluations(self) -> str:
        """Forward / backward."""
        counts = [0]
        handle = self.field.net.register_forward_hook(lambda *_: counts.append(counts.pop() + 1))
        loss = self.loss()
        forward = counts[0]
        loss.backward()
        handle.remove()
        return f"{forward} / {counts[0] - forward}"

    def saved_mib(self) -> float:
        """Storages kept for the backward pass, each once."""
        sizes: dict[int, int] = {}
        own = {parameter.untyped_storage().data_ptr() for parameter in self.field.parameters()}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = self.loss()
        del loss
        return sum(sizes.values()) / 2**20

    def operators(self) -> tuple[str, str]:
        """Operators, and waits for the device; forward / backward."""
        with Operators() as forward:
            loss = self.loss()
        with Operators() as backward:
            loss.backward()
        both = (forward, backward)
        return " / ".join(str(mode.count) for mode in both), " / ".join(str(mode.waits) for mode in both)

    def _clock(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


class Operators(TorchDispatchMode):
    """Counts operators and waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = self.waits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        self.waits += func.overloadpacket.__name__ == "_local_scalar_dense"
        return func(*args, **(kwargs or {}))


def true_gradient(problem: Problem, scale: float) -> Tensor:
    """Of the ODE, in float64."""
    turn = Turn(problem, scale, ours("dopri8", rtol=1e-12, atol=1e-12), "cpu")
    turn.field.double()
    turn.initial_BD = turn.initial_BD.detach().double().requires_grad_()
    turn.target_BTD = turn.target_BTD.double()
    return turn.gradient()


def run_in_turns(turns: list[Turn], repeats: int) -> None:
    for turn in turns:
        turn.loss().backward()
    for _ in range(repeats):
        for turn in turns:
            turn.timed()


def compare(problem: Problem, scale: float, options: argparse.Namespace) -> None:
    """One table."""
    truth = true_gradient(problem, scale)
    contestants = {name: solve for name, solve in CONTESTANTS.items() if name not in (options.skip or [])}
    turns = {name: Turn(problem, scale, solve, options.device) for name, solve in contestants.items()}
    run_in_turns(list(turns.values()), options.repeats)
    base = statistics.median(turns["torchdiffeq rk4"].seconds)
    print(f"\n{problem.name}{' x3' if scale == 3 else ''}, batch {problem.batch}, {problem.frames} times in [0, 1]:\n")
    print(
        "| | field fwd / bwd | ms, median (min) | x torchdiffeq rk4 | gradient error | saved MiB | operators | waits |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, turn in turns.items():
        compiled = "compiled" in name
        operators, waits = ("", "0 / 0") if compiled else turn.operators()
        calls = turn.evaluations() if not compiled else ""
        median = statistics.median(turn.seconds)
        print(
            f"| {name} | {calls} | {1e3 * median:.1f} ({1e3 * min(turn.seconds):.1f}) | {base / median:.2f} "
            f"| {error(turn.gradient(), truth):.0e} | {turn.saved_mib():.2f} | {operators} | {waits} |",
            flush=True,
        )


def error(gradient: Tensor, truth: Tensor) -> float:
    return float((gradient.cpu() - truth).norm() / truth.norm())


def curves() -> dict[str, list[Solve]]:
    """What the picture shows: each method at several steps or tolerances."""
    fixed = {name: [ours(name, steps) for steps in (1, 2, 4)] for name in ("euler", "midpoint", "heun", "heun3")}
    tolerances = [{"rtol": rtol, "atol": rtol / 10} for rtol in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)]
    return {
        **fixed,
        "rk4": [ours("rk4", steps) for steps in (1, 2, 4)],
        "rk4_38": [ours("rk4_38", steps) for steps in (1, 2, 4)],
        "dopri5": [ours("dopri5", **tolerance) for tolerance in tolerances],
        "torchdiffeq dopri5": [theirs(method="dopri5", **tolerance) for tolerance in tolerances],
        "torchdiffeq adjoint": [theirs(adjoint=True, **tolerance) for tolerance in tolerances[1::2]],
    }


def plot(options: argparse.Namespace) -> None:
    """Time against gradient error, on the field and on the field x3."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for panel, scale in zip(panels, SCALES, strict=True):
        truth = true_gradient(LATENT, scale)
        turns = {
            name: [Turn(LATENT, scale, solve, options.device) for solve in solves] for name, solves in curves().items()
        }
        run_in_turns([turn for line in turns.values() for turn in line], max(3, options.repeats // 4))
        for (name, line), marker in zip(turns.items(), "osv^D*xPh", strict=True):
            errors = [error(turn.gradient(), truth) for turn in line]
            milliseconds = [1e3 * statistics.median(turn.seconds) for turn in line]
            panel.loglog(errors, milliseconds, marker=marker, label=name, linewidth=1)
            print(
                f"x{scale} {name}: "
                + ", ".join(f"{x:.0e} {y:.0f} ms" for x, y in zip(errors, milliseconds, strict=True))
            )
        panel.set(title=f"weights x {scale}", xlabel="relative error of the gradient")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms, forward and backward")
    panels[1].legend(fontsize=8)
    figure.savefig(options.plot, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repeats", type=int, default=15, help="measured turns of each contestant, after one to warm up"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--plot", type=Path, help="where to draw time against gradient error")
    parser.add_argument("--field", choices=("latent", "small"), help="default: both")
    parser.add_argument("--skip", action="append", choices=CONTESTANTS, metavar="CONTESTANT", help="leave one out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    problems = {"latent": (LATENT,), "small": SMALL, None: (LATENT, *SMALL)}
    for problem in problems[options.field]:
        for scale in SCALES if problem is LATENT else SCALES[:1]:
            compare(problem, scale, options)
    if options.plot:
        plot(options)


if __name__ == "__main__":
    main()
