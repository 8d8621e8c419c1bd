"""What a person sees of a run: bars on a terminal, sparse lines in a log file.

In:  progress of the schedule, of validations, and the scalars of logged steps. Out: text on stdout, of rank 0 only.

On a terminal one live display holds a bar for the schedule, with its ETA, and one below it for whatever runs inside
(a validation). Anywhere else each logged step is one line, and other work says at most every 30 s how far it is.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

PLAIN_EVERY_S = 30.0
RATE_WINDOW = 50
"""Logged steps over which the speed of the schedule is measured: it follows a change, and a validation is in it."""
NOT_TERMS = ("frames_per_s", "step_s", "data_wait_share", "data_wait_share_max", "lr", "memory_gib", "samples_consumed")

Report = Callable[[int, int], None]
"""Called with (done, total)."""


@contextlib.contextmanager
def progress_bar(name: str, enabled: bool) -> Iterator[Report]:
    """Shows how far a piece of work is: call what this yields with (done, total). Silent unless `enabled`."""
    if not enabled:
        yield silent
        return
    display = Display(total_steps=0)
    try:
        yield display.progress(name)
    finally:
        display.close()


class Rate:
    """Speed and remaining time from the last few (time, count) marks, of this process only."""

    def __init__(self, count: int, window: int = RATE_WINDOW) -> None:
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), count)], maxlen=window)

    def mark(self, count: int) -> None:
        self._marks.append((time.monotonic(), count))

    @property
    def per_s(self) -> float:
        """Counts per second; 0 before anything is known."""
        (first_time, first), (last_time, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_time - first_time) if last > first and last_time > first_time else 0.0

    def eta(self, total: int) -> str:
        """Time until `total` at this speed."""
        return format_duration((total - self._marks[-1][1]) / self.per_s if self.per_s else math.inf)


class Display:
    """Everything that one process shows.

    Args:
        total_steps: end of the schedule; 0: there is none, only `progress`.
        console: where to; stdout unless a test says otherwise.
    """

    def __init__(self, total_steps: int, console: Console | None = None) -> None:
        self._total = total_steps
        self._console = console or Console(file=sys.stdout, soft_wrap=True, highlight=False)
        self._live = _progress(self._console) if self._console.is_terminal else None
        self._schedule: TaskID | None = None
        self._rate = Rate(0)
        self._validation = ""

    def start(self, step: int) -> None:
        """The schedule begins or continues at `step`; speed counts from here."""
        self._rate = Rate(step)
        if self._live is not None:
            self._live.start()
            self._schedule = self._live.add_task("train", total=self._total, completed=step, rate="", eta="", text="")
        elif step:
            self.say(f"continuing at step {step} of {self._total}")

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """A logged step of training."""
        self._rate.mark(step)
        if self._live is not None and self._schedule is not None:
            text = (f"loss {scalars['loss']:.4g}" if "loss" in scalars else "") + self._validation
            rate, eta = f"{self._rate.per_s:.3g} steps/s", f"ETA {self._rate.eta(self._total)}"
            self._live.update(self._schedule, completed=step, rate=rate, eta=eta, text=text)
        else:
            text = _describe(scalars) + self._validation
            self.say(f"step {step}/{self._total}  {text}  ETA {self._rate.eta(self._total)}")

    def evaluated(self, step: int, scalars: Mapping[str, float], cost: Mapping[str, float]) -> None:
        """A finished validation."""
        told = "  ".join(f"{name} {value:.4g}" for name, value in scalars.items())
        if cost:
            told += f"  ({cost['clips']} clips x {cost['samples']} samples, {format_duration(cost['wall_s'])})"
        self.say(f"step {step}  validation  {told}")
        if "psnr" in scalars:
            self._validation = f"  psnr {scalars['psnr']:.2f}"

    def progress(self, name: str) -> Report:
        """A bar, or sparse lines, for work inside a run; it goes away when done reaches total."""
        return self._plain(name) if self._live is None else self._bar(name)

    def say(self, message: str) -> None:
        """One line, above the bars if there are any."""
        self._console.print(message, markup=False)
        self._console.file.flush()

    def warn(self, message: str) -> None:
        """One line that nobody should miss."""
        self._console.print(f"WARNING: {message}", style="bold red", markup=False)
        self._console.file.flush()

    def close(self) -> None:
        """Take the bars down."""
        if self._live is not None:
            self._live.stop()

    def _bar(self, name: str) -> Report:
        live = self._live
        assert live is not None
        state: list[tuple[TaskID, Rate]] = []

        def report(done: int, total: int) -> None:
            if not state:
                live.start()
                task = live.add_task(name, total=total, rate="", eta="", text="")
                state.append((task, Rate(0 if done <= 1 else done)))
            task, rate = state[0]
            rate.mark(done)
            live.update(task, completed=done, total=total, rate=f"{rate.per_s:.3g}/s", eta=f"ETA {rate.eta(total)}")
            if done >= total:
                live.remove_task(task)
                state.clear()

        return report

    def _plain(self, name: str) -> Report:
        rate, last = Rate(0), time.monotonic()

        def report(done: int, total: int) -> None:
            nonlocal last
            rate.mark(done)
            if time.monotonic() - last >= PLAIN_EVERY_S:
                last = time.monotonic()
                self.say(f"{name} {done}/{total}  {rate.per_s:.3g}/s  ETA {rate.eta(total)}")

        return report


class _CountColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{int(task.completed)}/{int(task.total or 0)}")


def _progress(console: Console) -> Progress:
    """The live display: no clock of its own, every number comes with an update."""
    names = ("{task.description}", "{task.fields[rate]}", "{task.fields[eta]}", "{task.fields[text]}")
    what, *fields = (TextColumn(name, table_column=Column(no_wrap=True)) for name in names)
    columns = [what, BarColumn(bar_width=10), _CountColumn(table_column=Column(no_wrap=True)), *fields]
    return Progress(*columns, console=console, refresh_per_second=2)


def _describe(scalars: Mapping[str, float]) -> str:
    """Loss first, its terms, then speed."""
    names = sorted((name for name in scalars if name not in NOT_TERMS), key=lambda name: name != "loss")
    parts = [f"{name} {scalars[name]:.4g}" for name in names if "/" not in name and _is_told(name, scalars[name])]
    if "frames_per_s" in scalars:
        parts.append(f"{scalars['frames_per_s']:.4g} frames/s")
    if "data_wait_share" in scalars:
        parts.append(f"data wait {scalars['data_wait_share']:.0%}")
    return "  ".join(parts)


def _is_told(name: str, value: float) -> bool:
    """Counters of trouble are shown once there is some."""
    return name not in ("bad_steps", "substitutions") or value > 0


def format_duration(seconds: float) -> str:
    """`42s`, `5m 03s`, `7h 09m`, `12d 04h`; `?` for unknown."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    for size, name, lower, lower_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{name} {whole % size // lower:02d}{lower_name}"
    return f"{whole}s"


def silent(done: int, total: int) -> None:
    """For ranks that show nothing."""
