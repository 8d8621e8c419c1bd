"""Means and maxima of what the steps of a run report, without making the host wait for the device.

In:  per optimiser step the objective's terms (scalars on the device), gradient norms (host) and the frames it used.
Out: once per logged line a dict of plain floats: means over the steps since the last line, speed, waiting. A term whose
     name ends in "_max" is a maximum: over passes, steps and ranks the largest counts, not the mean.

Terms are gathered on the device; the only transfer is one small vector in `collect`. A step lasts from the first wait
for its data to its `update`, so what happens between steps (validation, saving) does not look like slow training.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

MAXIMUM = "_max"
"""How the name of a term ends that is a maximum."""


def is_maximum(name: str) -> bool:
    return name.endswith(MAXIMUM)


def over_ranks(name: str, values: Sequence[float]) -> float:
    """What stands for the values of all ranks: their mean or, as the name says, their maximum; NaN if one is NaN."""
    if not is_maximum(name):
        return sum(values) / len(values)
    return math.nan if any(map(math.isnan, values)) else max(values)


class Meters:
    """
    Args:
        device: where the terms live and are summed.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._terms: dict[str, Tensor] = {}
        self._norms: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._begun: float | None = None
        self._last_update = time.perf_counter()
        self._reset()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the block as waiting for data; the first one after an `update` begins the next step."""
        entered = time.perf_counter()
        if self._begun is None:
            self._begun = entered
        try:
            yield
        finally:
            self._waited_s += time.perf_counter() - entered

    def update(self, terms: Mapping[str, Tensor], norms: Mapping[str, float], frames: int) -> None:
        """End of a step.

        Args:
            terms: named scalars on the device; a name may be absent from some steps and is that of the others.
            norms: named host floats.
            frames: frames of the global batch.
        """
        for name, term in terms.items():
            value = term.detach().to(self._device, torch.float64)
            if name not in self._terms:
                self._terms[name] = value.clone()
            elif is_maximum(name):
                torch.maximum(self._terms[name], value, out=self._terms[name])
            else:
                self._terms[name].add_(value)
        for name, norm in norms.items():
            self._norms[name] = self._norms.get(name, 0.0) + norm
        for name in (*terms, *norms):
            self._counts[name] = self._counts.get(name, 0) + 1
        now = time.perf_counter()
        self._step_s += now - (self._last_update if self._begun is None else self._begun)
        self._begun, self._last_update = None, now
        self._updates += 1
        self._frames += frames

    def collect(self) -> dict[str, float]:
        """Means and maxima since the last `collect`, which this one resets.

        Returns:
            each term and norm by its name; `frames_per_s` of the global batch; `step_s`, seconds of a step;
            `data_wait_share` in [0, 1], the part of it spent in `waiting`. Without any update the last three are 0.
        """
        sums = dict(self._norms)
        if self._terms:
            sums |= zip(self._terms, torch.stack(list(self._terms.values())).tolist(), strict=True)
        found = {name: sums[name] / (1 if is_maximum(name) else self._counts[name]) for name in sums}
        busy = self._step_s if self._updates else 0.0
        found["frames_per_s"] = self._frames / busy if busy else 0.0
        found["step_s"] = busy / self._updates if self._updates else 0.0
        found["data_wait_share"] = min(1.0, self._waited_s / busy) if busy else 0.0
        self._reset()
        return found

    def _reset(self) -> None:
        self._terms.clear()
        self._norms.clear()
        self._counts.clear()
        self._updates = self._frames = 0
        self._step_s = self._waited_s = 0.0
