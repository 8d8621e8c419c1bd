"""Which checkpoints stay on the disk: a pure rule over their steps and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Retention:
    """What to keep. Raises ValueError for a rule that could leave nothing to fall back on."""

    keep_last: int
    """The newest so many; at least 2, since a damaged newest one falls back to the one before."""
    keep_best: int = 0
    """The best so many by `best_metric`; 0 keeps none for being good."""
    milestone_every: int = 0
    """Every checkpoint at a multiple of so many steps stays for ever; 0 means no milestones."""
    best_metric: str = "psnr"
    """Name in the checkpoint's `meta["metrics"]`."""
    best_direction: Literal["max", "min"] = "max"
    """Whether more or less of it is better."""

    def __post_init__(self) -> None:
        if self.keep_last < 2:
            raise ValueError(
                f"keep_last={self.keep_last}; expected at least 2: a damaged newest checkpoint falls back to another"
            )
        if self.keep_best < 0 or self.milestone_every < 0:
            raise ValueError(
                f"keep_best={self.keep_best} and milestone_every={self.milestone_every}; expected 0 (off) or more"
            )
        if self.best_direction not in ("max", "min"):
            raise ValueError(f"best_direction={self.best_direction!r}; expected 'max' or 'min'")

    def kept(self, metrics_by_step: Mapping[int, Mapping[str, float]]) -> set[int]:
        """The steps that stay, out of the complete checkpoints and their metrics. Ties go to the newer one."""
        steps = sorted(metrics_by_step)
        kept = set(steps[-self.keep_last :])
        if self.milestone_every:
            kept |= {step for step in steps if step % self.milestone_every == 0}
        scored = [(self._score(metrics_by_step[step]), step) for step in steps]
        ranked = sorted((pair for pair in scored if pair[0] is not None), reverse=True)
        return kept | {step for _, step in ranked[: self.keep_best]}

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        value = metrics.get(self.best_metric)
        if value is None or not math.isfinite(value):
            return None
        return value if self.best_direction == "max" else -value
