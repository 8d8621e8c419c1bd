"""The training's end of the W&B mirror: hands records to a process of its own, and lives on without it.

    Tracker --record--> pipe --> python -m hpc.tracking.wandb_mirror --> W&B's service --> RUN/wandb, server

In:  journal records. Out: one non-blocking write each.

W&B's service can die, hang, or wait for a network; its client then raises, or blocks for ever, even at interpreter
exit. Here that happens to another process: when it is gone or takes nothing any more, the mirror is switched off with
one warning. When the training itself is killed, the mirror sees its input end and finishes the W&B run by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hpc.config import LogConfig
from hpc.tracking.journal import Record
from hpc.tracking.wandb_mirror import ERROR, LAST_WORD, MirrorSpec, kept_id

FINISH_TIMEOUT_S = 30.0
MAX_WAITING_BYTES = 8 * 2**20
"""Records that wait for a mirror that does not read; beyond that it counts as hung."""


def spec_of(run_dir: Path, log: LogConfig) -> MirrorSpec:
    """The W&B run of a run folder. OSError: its id cannot be kept there."""
    folder = run_dir.resolve()
    return MirrorSpec(
        run_dir=str(folder),
        mode=log.wandb,
        project=log.project,
        group=log.group,
        run_id=kept_id(folder),
        title=f"{folder.parent.name}/{folder.name}",
        pid=os.getpid(),
    )


def command_and_environ(spec: MirrorSpec, *words: str) -> tuple[list[str], dict[str, str]]:
    """What starts the mirror process, wherever the present folder is."""
    root = str(Path(__file__).resolve().parents[2])
    environ = dict(os.environ)
    environ["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", "hpc.tracking.wandb_mirror", spec.to_json(), *words], environ


class Mirror:
    """
    Args:
        run_dir: the run's folder; W&B's files go to its wandb/.
        log: mode, project and group.
        say: shows a line to the user.
        warn: shows a warning.
    """

    def __init__(self, run_dir: Path, log: LogConfig, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        self._dir, self._say, self._warn = run_dir, say, warn
        self._stdin = self._stdout = -1
        self._waiting = bytearray()
        self._heard = bytearray()
        self._error = ""
        self.lost_records = 0
        """Records that W&B did not get; the journal has them."""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = self._start(log)
        except OSError as error:
            self._give_up(str(error))

    @property
    def alive(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process of the mirror, which leads a process group that includes W&B's service."""
        return self._process.pid if self._process else None

    def send(self, record: Record) -> None:
        """Pass a record on. Never blocks, never raises for anything that W&B does."""
        if self._process is None:
            self.lost_records += 1
            return
        self._waiting += record.line()
        self._push()
        if len(self._waiting) > MAX_WAITING_BYTES:
            self._give_up("it takes no records any more")

    def finish(self, failed: bool) -> None:
        """Let W&B write what it has, for at most FINISH_TIMEOUT_S."""
        if self._process is None:
            if self.lost_records:
                self._say(f"W&B missed at least {self.lost_records} records")
            return
        self._waiting += LAST_WORD + b"%d\n" % failed
        deadline = time.monotonic() + FINISH_TIMEOUT_S
        while self._process and self._waiting and time.monotonic() < deadline:
            select.select([], [self._stdin], [], 0.1)
            self._push()
        if self._process is None:
            return
        os.close(self._stdin)
        self._stdin = -1
        try:
            code = self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._give_up(f"it did not finish within {FINISH_TIMEOUT_S:.0f} s")
            return
        self._listen()
        if code:
            self._give_up(f"it ended with code {code}")
        else:
            self._release()

    def _start(self, log: LogConfig) -> subprocess.Popen[bytes]:
        command, environ = command_and_environ(spec_of(self._dir, log))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = os.dup(process.stdin.fileno()), os.dup(process.stdout.fileno())
        process.stdin.close()
        process.stdout.close()
        for descriptor in (self._stdin, self._stdout):
            os.set_blocking(descriptor, False)
        return process

    def _push(self) -> None:
        """Write what the pipe takes; notice a mirror that is gone."""
        self._listen()
        try:
            while self._waiting:
                del self._waiting[: os.write(self._stdin, self._waiting)]
        except BlockingIOError:
            return
        except OSError:
            self._listen()
            self._give_up("its process is gone")

    def _listen(self) -> None:
        """Show what the mirror has to say."""
        with contextlib.suppress(BlockingIOError):
            while heard := os.read(self._stdout, 65536):
                self._heard += heard
        *lines, self._heard[:] = bytes(self._heard).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if text.startswith(ERROR):
                self._error = text.removeprefix(ERROR)
            else:
                self._say(text)

    def _give_up(self, reason: str) -> None:
        self.lost_records += self._waiting.count(b"\n")
        self._release()
        self._warn(
            f"W&B mirror switched off: {self._error or reason}. Training goes on, {self._dir / 'metrics.jsonl'} has "
            f"everything; afterwards: python -m hpc.tracking sync {self._dir}"
        )

    def _release(self) -> None:
        """End what is left of the mirror's process group."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        self._waiting.clear()
        for descriptor in (self._stdin, self._stdout):
            if descriptor >= 0:
                os.close(descriptor)
