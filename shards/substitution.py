"""The run's account of substituted samples: counted against a budget, kept in the checkpoint, replayed on resume.

In: the substitutions of consumed batches, gathered from all ranks. Out: an error over budget; the records for
``quarantine()`` of a source, so that samples known to be damaged stay replaced, by the same ones, at any world size.
"""

from __future__ import annotations

from typing import Any

from shards.errors import ShardError
from shards.source import Substitution


class SubstitutionLedger:
    """Counts damaged samples. A sample that comes round in every epoch is one damaged sample, many substitutions.

    Args:
        budget: damaged samples that the run may replace; 0 for none.

    Attributes:
        positions: positions of the stream that were filled by a substitute so far.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.positions = 0
        self._first: dict[str, Substitution] = {}

    @property
    def records(self) -> list[Substitution]:
        """First substitution of each damaged sample, by position."""
        return sorted(self._first.values(), key=lambda record: record.position)

    def add(self, record: Substitution) -> bool:
        """Take in one substitution of a consumed batch; ranks add those of all ranks, in any order.

        Returns:
            Whether this sample was not known to be damaged before.

        Raises:
            ShardError: more samples are damaged than the budget allows; the message lists them.
        """
        self.positions += 1
        known = self._first.get(record.bad_key)
        if known is None or record.position < known.position:
            self._first[record.bad_key] = record
        if len(self._first) > self.budget:
            raise ShardError(self._over_budget(), remedy="Mend the dataset, or allow more: data.max_substitutions=N")
        return known is None

    def state_dict(self) -> dict[str, Any]:
        """Plain types for the checkpoint."""
        return {"positions": self.positions, "records": [record.to_dict() for record in self.records]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the account of a checkpoint."""
        self.positions = state["positions"]
        self._first = {record["bad_key"]: Substitution(**record) for record in state["records"]}

    def _over_budget(self) -> str:
        lines = [f"{len(self._first)} samples are damaged, the budget is {self.budget}:"]
        lines += [f"  position {r.position}: {r.bad_key} -> {r.substitute_key}: {r.reason}" for r in self.records]
        return "\n".join(lines)
