"""Watches the steps of a run for non-finite gradients and spikes, within a budget.

In: the global gradient norm of each update of one engine, equal on all ranks. Out: a verdict, equal on all ranks. A
non-finite gradient was not applied by the engine; a spike was, and is reported. With more than the budget's bad steps
within `WINDOW` steps the run stops with the batch's keys at hand, before weeks are spent on a diverged model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WARMUP_STEPS = 100
MEMORY = 0.99
WINDOW = 1000
"""Steps after which a bad one is forgiven: a few in a million are no divergence."""


class BudgetExceeded(RuntimeError):
    """More bad steps than train.max_bad_steps."""


class Guard:
    def __init__(self, max_bad_steps: int, spike_factor: float) -> None:
        self.max_bad_steps = max_bad_steps
        self.spike_factor = spike_factor
        self.bad_steps = 0
        self.skipped = 0
        self._recent: list[int] = []
        self._inspected = 0
        self._seen = 0
        self._mean = 0.0
        self._deviation = 0.0

    def inspect(self, grad_norm: float) -> str | None:
        """What is wrong with this step, if anything; counts it."""
        self._inspected += 1
        reason = self._reason(grad_norm)
        if reason is not None:
            self.bad_steps += 1
            self.skipped += not math.isfinite(grad_norm)
            self._recent = [step for step in self._recent if step > self._inspected - WINDOW] + [self._inspected]
        if math.isfinite(grad_norm):
            self._learn(min(grad_norm, self._threshold()))  # one spike must not hide those that follow
        return reason

    @property
    def loss_of_updates(self) -> str | None:
        """How many updates of the whole run were not applied, in words; None: all were."""
        if not self.skipped:
            return None
        verb = "was" if self.skipped == 1 else "were"
        return f"{self.skipped:,} of {self._inspected:,} updates {verb} not applied: the gradient was not finite"

    def check_budget(self, step: int, reason: str, keys: list[str], trouble: Sequence[str] = ()) -> None:
        """
        Args:
            trouble: what the models of all ranks tell of this step.

        Raises:
            BudgetExceeded: this bad step was one too many.
        """
        if len(self._recent) > self.max_bad_steps:
            told = f" ({'; '.join(trouble)})" if trouble else ""
            raise BudgetExceeded(
                f"step {step}: {reason}{told}; that is bad step number {len(self._recent)} of the last {WINDOW}, "
                f"train.max_bad_steps={self.max_bad_steps}. "
                f"Clips of this batch: {', '.join(keys[:16])}{' ...' if len(keys) > 16 else ''}. "
                "Lower optimizer.lr, set optimizer.clip_norm, or look at these clips; run= goes on from the last save"
            )

    def state(self) -> dict[str, Any]:
        return {
            "bad_steps": self.bad_steps,
            "skipped": self.skipped,
            "recent": list(self._recent),
            "inspected": self._inspected,
            "seen": self._seen,
            "mean": self._mean,
            "deviation": self._deviation,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.bad_steps, self._seen = state["bad_steps"], state["seen"]
        self.skipped = state.get("skipped", 0)  # not in the states of before it was counted
        self._recent, self._inspected = list(state["recent"]), state["inspected"]
        self._mean, self._deviation = state["mean"], state["deviation"]

    def _reason(self, grad_norm: float) -> str | None:
        if not math.isfinite(grad_norm):
            return "non-finite gradient, update not applied"
        if grad_norm > self._threshold():
            return f"gradient norm {grad_norm:.3g} spiked (usual {self._mean:.3g}, threshold {self._threshold():.3g})"
        return None

    def _threshold(self) -> float:
        """Gradient norm beyond which a step is a spike; infinite while the usual norm is not known yet."""
        if not self.spike_factor or self._seen < WARMUP_STEPS:
            return math.inf
        return self._mean + self.spike_factor * self._deviation

    def _learn(self, grad_norm: float) -> None:
        """Running mean and mean absolute deviation; the early ones are plain averages."""
        self._seen += 1
        weight = max(1 - MEMORY, 1 / self._seen)
        self._mean += weight * (grad_norm - self._mean)
        self._deviation += weight * (abs(grad_norm - self._mean) - self._deviation)
