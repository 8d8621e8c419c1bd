"""What a rank tells the observer that it starts, and what both sides must agree on."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, dataclass, field

SURVIVED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGCONT)
"""A scheduler sends these to every process of a job; the observer's end is the end of its ranks."""
DUMP_SIGNAL = signal.SIGRTMIN + 10
"""With it the observer asks a rank that is not overdue itself where its threads are; nobody else uses it."""


@dataclass(frozen=True)
class ObserverSpec:
    run_dir: str
    heartbeats: str
    """Folder of this node's ranks."""
    host: str
    attempt: int
    world_size: int
    local_world_size: int
    min_s: float
    """Shortest patience of a rank; the observer's own times follow from it."""
    judges: bool = True
    """False: it only limits the logs."""
    abort: bool = True
    log_files: list[str] = field(default_factory=list)
    log_limit_bytes: int = 0
    log_check_s: float = 60.0

    @property
    def poll_s(self) -> float:
        """Between two looks at the heartbeats."""
        return min(0.5, self.min_s / 10)

    @property
    def slack_s(self) -> float:
        """A rank's own timer dumps this long after the deadline, at the latest."""
        return min(1.0, self.min_s / 10)

    @property
    def gather_s(self) -> float:
        """How long the nodes wait for each other's records."""
        return min(30.0, max(1.0, self.min_s / 10))

    @property
    def stall_s(self) -> float:
        """This much too long a sleep means that the node was suspended, the observer with its ranks."""
        return min(5.0, self.min_s)

    def to_json(self) -> str:
        return json.dumps(asdict(self))
