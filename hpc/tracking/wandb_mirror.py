"""W&B's picture of a run: turns journal records into rows of one W&B run. The only module that imports wandb.

    record of the journal --`row`--> {"step", "attempt", "train/loss", ...} --> W&B, offline or online

In:  records, from `python -m hpc.tracking sync` or, while a run goes on, on the standard input of this module run as a
     program by mirror.py: a process of its own, so that nothing W&B does can hold up or end the training. And the
     findings of an evaluation, from evaluation_mirror.py in the same way.
Out: a W&B run whose id is kept in RUN/wandb_id and used again after every resume.

W&B's own step never decreases, a run's does when it goes back to a checkpoint: W&B gets the journal's line number as
its step, and every chart is drawn over the logged "step" instead. Rows of a former attempt beyond the checkpoint stay
in a live mirror (W&B cannot take them back; "attempt" tells them apart); `sync` makes a run without them.

A scheduler's SIGTERM reaches W&B's own service too, which dies of it with the rows it had not written yet. The mirror
of the next attempt begins with those: the journal has them.
"""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

from hpc.tracking import strict_json
from hpc.tracking.journal import JournalError, Record, parse, read_records, surviving

ID_FILE = "wandb_id"
DEFAULT_URL = "https://api.wandb.ai"
REACH_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
_ROW = re.compile(r'"type": ?"history"')
"""A summary names a step too, and may reach the disk before its row, which an end in between then costs."""
_STEP = re.compile(r'"_step": ?(\d+)')
INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 20.0
"""For W&B's own uploads at the end; after it the rest can be had from the journal."""
PARENT_POLL_S = 1.0
SURVIVED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""A scheduler sends these to every process of a job; the mirror's end is the end of its input. W&B's service does not
inherit the deafness to all of them."""

LAST_WORD = b"exit_code "
"""Begins the line after which the mirror finishes; its number becomes the exit code of the W&B run."""
ERROR = "error: "
"""Begins the line in which the mirror says why it ends early."""

EVALUATION = "evaluation"
"""The word after the specification when an evaluation comes on standard input, not records."""

Mode = Literal["online", "offline"]


class Findings(TypedDict):
    """An evaluation as W&B gets it, by name: see hpc.tracking.evaluation_mirror."""

    values: dict[str, Any]
    tables: dict[str, Any]
    """Each {"columns": names, "data": lines}."""
    pictures: dict[str, str]
    """Files: GIF, MP4 or PNG."""


class MirrorError(RuntimeError):
    """W&B does not want to; the message is its own and what to do."""


@dataclass(frozen=True)
class MirrorSpec:
    """Which W&B run to write."""

    run_dir: str
    mode: str
    """auto, online or offline (log.wandb)."""
    project: str
    group: str
    run_id: str
    title: str
    """How W&B lists it."""
    pid: int
    """Process whose memory and GPU use W&B records."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def kept_id(run_dir: Path) -> str:
    """The W&B id of a run, made at its first start and the same for ever after.

    Raises:
        OSError: the run folder cannot be written.
    """
    path = run_dir / ID_FILE
    if path.is_file() and (found := path.read_text().strip()):
        return found
    fresh = new_id()
    partial = path.with_name(ID_FILE + ".tmp")
    partial.write_text(fresh + "\n")
    partial.replace(path)
    return fresh


def new_id() -> str:
    return uuid.uuid4().hex[:12]


def choose_mode(wanted: str) -> Mode:
    """`wanted`, or for auto: $WANDB_MODE if set, else online with a key and a reachable server, else offline."""
    if wanted == "auto":
        wanted = os.environ.get("WANDB_MODE", "auto")
    if wanted == "auto":
        url = os.environ.get("WANDB_BASE_URL", DEFAULT_URL)
        return "online" if has_key(url) and is_reachable(url) else "offline"
    return "online" if wanted == "online" else "offline"


def has_key(url: str) -> bool:
    """Whether W&B would find an API key: $WANDB_API_KEY, or an entry of the netrc file for the server."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        entries = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError):
        return False
    return entries.authenticators(urllib.parse.urlsplit(url).hostname or "") is not None


def is_reachable(url: str, timeout_s: float = REACH_TIMEOUT_S) -> bool:
    """Whether a server answers there within `timeout_s` (through the proxy, if the environment names one)."""
    answered: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout_s).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except (OSError, ValueError):
            return
        answered.append(True)

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up has no time-out of its own
    thread.start()
    thread.join(timeout_s)
    return bool(answered)


def open_run(spec: MirrorSpec, mode: Mode, config: dict[str, Any], finish_timeout_s: float = FINISH_TIMEOUT_S) -> Any:
    """Begin or continue the W&B run of `spec`.

    Args:
        finish_timeout_s: how long `run.finish` may upload; 0: as long as it takes.

    Raises:
        OSError: RUN/wandb cannot be made. MirrorError: W&B does not start.
    """
    import wandb

    folder = Path(spec.run_dir)
    (folder / "wandb").mkdir(exist_ok=True)  # W&B itself would go to /tmp without a word
    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=finish_timeout_s,
        x_stats_pid=spec.pid,
    )
    try:
        run = wandb.init(
            project=spec.project,
            group=spec.group or None,
            id=spec.run_id,
            name=spec.title,
            dir=str(folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            config=config,
            settings=settings,
        )
    except Exception as error:  # not all of W&B's own errors are a wandb.Error
        raise MirrorError(f"W&B ({mode}): {str(error)[:300]} (set WANDB_API_KEY, or choose offline)") from error
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def open_run_or_offline(spec: MirrorSpec, config: dict[str, Any]) -> tuple[Any, Mode]:
    """Like `open_run`; auto falls back to offline when the server turns us away."""
    import wandb

    mode = choose_mode(spec.mode)
    try:
        return open_run(spec, mode, config), mode
    except MirrorError:
        if spec.mode != "auto" or mode == "offline":
            raise
        wandb.teardown()  # its service still holds the id
        return open_run(spec, "offline", config), "offline"


def row(record: Record) -> dict[str, float]:
    """What W&B logs of a record, videos aside; only "step" and "attempt" for a record that holds no number."""
    values: dict[str, float] = {"step": record.step, "attempt": record.attempt}
    if record.kind in ("train", "eval"):
        values |= {f"{record.kind}/{name}": value for name, value in record.data["scalars"].items()}
    if record.kind == "event":
        values[f"event/{record.data['name']}"] = 1
    return values


def write_record(run: Any, record: Record, run_dir: Path) -> bool:
    """Log one record at the journal's line number and time; False for a video whose file is gone.

    A "resume" makes no row: the "start" after it says the same.
    """
    import wandb

    if record.kind == "resume":
        return True
    values: dict[str, Any] = {**row(record), "_timestamp": record.time}
    if record.kind == "video":
        path = run_dir / record.data["path"]
        if not path.is_file():
            return False
        values[f"video/{record.data['name']}"] = wandb.Video(str(path), format=path.suffix.lstrip("."))
    if record.kind == "start":
        run.config.update({"about": record.data["about"], "attempt": record.attempt}, allow_val_change=True)
    run.log(values, step=record.seq, commit=True)
    return True


def write_findings(run: Any, findings: Findings) -> None:
    """Put an evaluation into the summary of a W&B run; no row, so no step of its history is taken."""
    import wandb

    shown: dict[str, Any] = dict(findings["values"])
    shown |= {name: wandb.Table(table["columns"], table["data"]) for name, table in findings["tables"].items()}
    for name, file in findings["pictures"].items():
        kind = Path(file).suffix.lstrip(".")
        if Path(file).is_file():
            shown[name] = wandb.Image(file) if kind == "png" else wandb.Video(file, format=kind)
    run.summary.update(shown)


def last_offline_step(run_dir: Path, run_id: str) -> int | None:
    """Line number in the journal of the newest row in a run's offline folders; -1: no row; None: no folder."""
    folders = sorted((run_dir / "wandb").glob(f"offline-run-*-{run_id}"), reverse=True)
    for folder in folders:
        if (last := _last_step(folder)) is not None:
            return last
    return -1 if folders else None


def _last_step(folder: Path) -> int | None:
    for log in folder.glob("*.wandb"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            done = subprocess.run(command, capture_output=True, text=True, timeout=READ_TIMEOUT_S, check=False)
            rows = [line for line in done.stdout.splitlines() if _ROW.search(line)]
            return max((int(step) for line in rows for step in _STEP.findall(line)), default=None)
    return None


def catch_up(run: Any, run_dir: Path, last: int | None, until: int) -> None:
    """Write what W&B lacks of former attempts: rows of the journal after `last` and before `until`, by line number."""
    if last is not None:
        for record in read_records(run_dir):
            if last < record.seq < until:
                write_record(run, record, run_dir)


def serve(spec: MirrorSpec) -> int:
    """The mirror process: records as JSON lines on stdin until its end, what to tell the user on stdout."""
    run = None
    exit_code = 1  # without a last word the training was killed
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            break
        if line.startswith(LAST_WORD):
            exit_code = int(line.removeprefix(LAST_WORD))
            break
        record = parse(line, "standard input")
        if run is None:
            last = last_offline_step(Path(spec.run_dir), spec.run_id)
            run, mode = open_run_or_offline(spec, record.data.get("config", {}))
            _tell(_greeting(spec, mode, run))
            catch_up(run, Path(spec.run_dir), run.starting_step - 1 if mode == "online" else last, record.seq)
        write_record(run, record, Path(spec.run_dir))
    if run is not None:
        run.finish(exit_code=exit_code)
    return 0


def serve_evaluation(spec: MirrorSpec) -> int:
    """The mirror process for one evaluation: one line of JSON on stdin, its end, and W&B has it."""
    told = strict_json.loads(sys.stdin.buffer.readline())
    os.environ.setdefault("WANDB_DATA_DIR", str(Path(spec.run_dir) / "wandb"))  # where tables wait for their upload
    run, mode = open_run_or_offline(spec, told["config"])
    if mode == "offline":  # no server keeps the summary that the training left
        run.summary.update(newest_values(Path(spec.run_dir)))
    write_findings(run, told["findings"])
    _tell(_greeting(spec, mode, run))
    run.finish(exit_code=0)
    return 0


def newest_values(run_dir: Path) -> dict[str, float]:
    """The last value of everything that the journal's surviving lineage logged; none where there is no journal."""
    try:
        kept = surviving(read_records(run_dir))
    except JournalError:
        return {}
    values: dict[str, float] = {}
    for record in kept:
        values |= row(record) if record.kind in ("train", "eval") else {}
    return values


def _tell(message: str) -> None:
    """One line to the training, which may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), message.replace("\n", " ").encode() + b"\n")


def _greeting(spec: MirrorSpec, mode: Mode, run: Any) -> str:
    if mode == "online":
        return f"W&B: {run.url}"
    return (
        f"W&B: offline, id {spec.run_id}; upload later with: python -m hpc.tracking sync {spec.run_dir} --mode online"
    )


def _end_with(parent: int) -> None:
    """W&B may wait for its service without a time-out; nothing of the mirror may outlive a killed training for long."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_S)
        time.sleep(FINISH_TIMEOUT_S)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(argument: str, what: str = "") -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SURVIVED)  # inherited by W&B's service
    spec = MirrorSpec(**json.loads(argument))
    _end_with(spec.pid)
    try:
        return serve_evaluation(spec) if what == EVALUATION else serve(spec)
    except Exception as error:  # noqa: BLE001 - W&B's failures have no common class; all end the mirror, not the run
        _tell(f"{ERROR}{type(error).__name__}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
