"""Whole steps as one compiled graph: the loop of `fixed.walk` under torch.compile.

In: a field, a state, how many steps. Out: the states at the nodes. The graph is of one kind of solve: so many steps of
this length and method from this start, this shape, with or without gradients; the first call of each kind takes seconds
to minutes. Which times are asked for is not a part of the kind: between two nodes the solve goes on uncompiled.

Axes: B states, N nodes, D size of a state.
"""

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from odevid.ode.fixed import Field, walk
from odevid.ode.tableaus import Tableau

MOST_KINDS = 64
"""Graphs kept; torch's own limit of 8 is soon reached by a last, smaller batch, evaluation and several lengths."""


def walk_compiled(
    field: Field, state_BD: Tensor, last: int, tableau: Tableau, start: float, step: float, recompute: bool = False
) -> tuple[Tensor, ...]:
    """The same as `fixed.walk`; nothing is recomputed.

    Raises:
        RuntimeError: torch could not compile, as where there is no C++ compiler.
    """
    from torch._dynamo import config
    from torch._dynamo.exc import BackendCompilerFailed, FailOnRecompileLimitHit

    try:
        with config.patch(recompile_limit=MOST_KINDS):
            return _in_one_graph()(field, state_BD, last, tableau, start, step).unbind(1)
    except FailOnRecompileLimitHit:
        warnings.warn(f"more than {MOST_KINDS} kinds of compiled solves: further ones run uncompiled", stacklevel=2)
        return walk(field, state_BD, last, tableau, start, step, recompute)
    except BackendCompilerFailed as error:
        raise RuntimeError(
            f"the solver could not be compiled: {str(error).splitlines()[0]}\n"
            "torch.compile needs a C++ compiler (on a GPU: Triton and a C compiler); install one and put it on PATH, "
            "or set model.compiled=false"
        ) from error


@functools.cache
def _in_one_graph() -> Callable[..., Tensor]:
    """Built when first needed: importing torch's compiler takes seconds."""
    return torch.compile(_stacked, fullgraph=True, dynamic=False)


def _stacked(field: Field, state_BD: Tensor, last: int, tableau: Tableau, start: float, step: float) -> Tensor:
    return torch.stack(walk(field, state_BD, last, tableau, start, step), dim=1)
