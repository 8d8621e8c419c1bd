"""The checkpoints of a run on the disk: committed whole, verified before use, forgotten by rule.

In:  a plain state (nested dicts of tensors and numbers) and a step.
Out: a directory that is either complete or not there; the newest undamaged one when a run resumes.

    ROOT/.tmp-step-000001000-1f3a/   being written: state.pt, then manifest.json, each hashed and synced
    ROOT/step-000001000/             the same directory after ONE rename: committed
    ROOT/latest                      a hint for people; discovery lists directories and trusts manifests only
    ROOT/.replaced-step-000001000/   a checkpoint of the same step that is just being replaced, or was when killed
    ROOT/.trash-step-000000500/      forgotten, being deleted
    ROOT/set-aside-001/              what a resume did not use (damaged, or `resume=never`); never read, never deleted

One process owns a root: it calls `select` once, then `commit`. Any number of others may use `newest`, `complete` and
`read`; a checkpoint that somebody is reading is not deleted under them.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpc.checkpoint.durable import fsync_directory, replace_text
from hpc.checkpoint.errors import CheckpointDamagedError, CheckpointWriteError, NoUsableCheckpointError
from hpc.checkpoint.manifest import MANIFEST_FILE, STATE_FILE, Manifest
from hpc.checkpoint.retention import Retention
from hpc.checkpoint.serial import read_state, write_state

Resume = Literal["auto", "required", "never"]

_LOGGER = logging.getLogger(__name__)
_STEP_NAME = re.compile(r"step-(\d{9,})")
_TMP, _TRASH, _REPLACED = ".tmp-", ".trash-", ".replaced-"


@dataclass(frozen=True)
class Checkpoint:
    """One complete checkpoint."""

    path: Path
    manifest: Manifest

    @property
    def step(self) -> int:
        """Optimiser steps done when its state was taken."""
        return self.manifest.step

    @property
    def meta(self) -> dict[str, Any]:
        """What was given to `commit` beside the state."""
        return self.manifest.meta


def step_name(step: int) -> str:
    """Directory name of a step: `step-000001000`."""
    return f"step-{step:09d}"


def parse_step(name: str) -> int | None:
    """The step of a directory name that `step_name` could have made, else None."""
    match = _STEP_NAME.fullmatch(name)
    step = int(match[1]) if match else None
    return step if step is not None and step_name(step) == name else None


class CheckpointStore:
    """The directory `root` of checkpoints.

    Args:
        root: made at the first commit.
        keep_last, keep_best, milestone_every, best_metric, best_direction: see `Retention`.
        log: told, in one line each, of damaged checkpoints and of what was done about them.
    """

    def __init__(
        self,
        root: Path,
        *,
        keep_last: int,
        keep_best: int = 0,
        milestone_every: int = 0,
        best_metric: str = "psnr",
        best_direction: Literal["max", "min"] = "max",
        log: Callable[[str], None] = _LOGGER.warning,
    ) -> None:
        self.root = Path(root)
        self._retention = Retention(keep_last, keep_best, milestone_every, best_metric, best_direction)
        self._log = log

    # -- writing: the owner only ------------------------------------------------------------------------------------

    def commit(self, step: int, state: dict[str, Any], meta: dict[str, Any]) -> Path:
        """Save `state` as the checkpoint of `step` and return its directory; blocks until it is durable.

        `meta` is stored readable without torch; `meta["metrics"]` (name -> float) is what `keep_best` looks at.
        A complete checkpoint of the same step is replaced, after the new one is complete.

        Raises:
            CheckpointWriteError: the disk refused (full, quota, I/O); every older checkpoint is intact.
            TypeError: `state` or `meta` holds what could not be read back; nothing was written.
            ValueError: a checkpoint of a later step exists, so `select` was not called or not obeyed.
        """
        self._refuse_step_from_the_past(step)
        started = time.time()
        temporary = self.root / f"{_TMP}{step_name(step)}-{secrets.token_hex(4)}"
        try:
            self._write(temporary, step, state, meta)
            path = self._publish(temporary, step)
        except OSError as error:
            raise self._write_error(step, error) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        try:
            _delete(self.root / f"{_REPLACED}{path.name}")
            replace_text(self.root / "latest", path.name + "\n")
            self._forget(step)
        except OSError as error:
            self._log(f"Checkpoint {path} is complete, but tidying up after it failed: {error}")
        _LOGGER.debug("Checkpoint %s committed in %.2f s", path, time.time() - started)
        return path

    def select(self, resume: Resume) -> Checkpoint | None:
        """What a run that owns this root starts from; None means step 0. Call once, on rank 0, before any commit.

        Clears what a killed save left behind. `auto`: the newest usable checkpoint, None only if there never was one.
        `required`: the same, but none is an error. `never`: None, and existing checkpoints are moved (not deleted) into
        `set-aside-NNN/`. Damaged ones newer than the one chosen are moved there too, so that they are not met again.

        Raises NoUsableCheckpointError saying what to type.
        """
        self._recover()
        if resume == "never":
            self._set_aside(list(self._directories().values()), "resume=never")
            return None
        chosen = self.newest()
        if chosen is None:
            if resume == "required":
                raise NoUsableCheckpointError(
                    f"train.resume=required, but {self.root} holds no checkpoint (folders like {step_name(1000)}). "
                    "Check run=DIR, or type train.resume=auto to start at step 0."
                )
            return None
        newer = [path for step, path in self._directories().items() if step > chosen.step]
        self._set_aside(newer, f"damaged; the run goes on from step {chosen.step}")
        return chosen

    # -- reading: anybody -------------------------------------------------------------------------------------------

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint whose every byte is what was written; None if there is no checkpoint at all.

        A damaged one is passed over with a message that names the file, what was found and what was expected.
        Raises NoUsableCheckpointError if checkpoints exist and all are damaged.
        """
        damaged = []
        for step, path in sorted(self._directories().items(), reverse=True):
            try:
                with _reading(path):
                    manifest = self._manifest(step, path)
                    manifest.check_hashes(path)
            except CheckpointDamagedError as error:
                damaged.append(str(error))
                self._log(f"DAMAGED CHECKPOINT at step {step}, falling back to the one before: {error}")
            else:
                return Checkpoint(path, manifest)
        if damaged:
            raise NoUsableCheckpointError(
                f"All {len(damaged)} checkpoints in {self.root} are damaged:\n  " + "\n  ".join(damaged) + "\n"
                "Restore one of them, or type train.resume=never to start at step 0 (these are then moved aside)."
            )
        return None

    def complete(self) -> list[Checkpoint]:
        """Every checkpoint with a sound manifest and files of the right length, oldest first. Reads no state."""
        found = []
        for step, path in sorted(self._directories().items()):
            with contextlib.suppress(CheckpointDamagedError):
                manifest = self._manifest(step, path)
                manifest.check_sizes(path)
                found.append(Checkpoint(path, manifest))
        return found

    def read(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Its state, tensors on the CPU. Raises CheckpointDamagedError; runs nothing from the file."""
        with _reading(checkpoint.path):
            return read_state(checkpoint.path / STATE_FILE)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _directories(self) -> dict[int, Path]:
        """Step -> directory, whatever its state. One that was being replaced stands in if its successor is lost."""
        found: dict[int, Path] = {}
        if not self.root.is_dir():
            return found
        with os.scandir(self.root) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):  # ".replaced-..." sorts before "step-..."
                step = parse_step(entry.name.removeprefix(_REPLACED))
                if step is not None and entry.is_dir(follow_symlinks=False):
                    found[step] = Path(entry.path)
        return found

    def _manifest(self, step: int, path: Path) -> Manifest:
        manifest = Manifest.load(path)
        if manifest.step != step:
            raise CheckpointDamagedError(
                f"{path / MANIFEST_FILE} is of step {manifest.step}; its directory says {step}"
            )
        return manifest

    def _refuse_step_from_the_past(self, step: int) -> None:
        newest = max(self._directories(), default=-1)
        if step < newest:
            raise ValueError(
                f"commit of step {step}, but {self.root} holds step {newest}. Resume from select(), which decides "
                "where the run goes on, or use another run=DIR."
            )

    def _write(self, temporary: Path, step: int, state: dict[str, Any], meta: dict[str, Any]) -> None:
        temporary.mkdir(parents=True)
        record = write_state(temporary / STATE_FILE, state)
        Manifest(step=step, time=time.time(), files={STATE_FILE: record}, meta=meta).save(temporary)
        fsync_directory(temporary)

    def _publish(self, temporary: Path, step: int) -> Path:
        path = self.root / step_name(step)
        replaced = self.root / f"{_REPLACED}{path.name}"
        if path.exists():
            _delete(replaced)
            path.rename(replaced)
        temporary.rename(path)
        fsync_directory(self.root)
        return path

    def _write_error(self, step: int, error: OSError) -> CheckpointWriteError:
        existing = self.complete()
        intact = f"the newest complete one is step {existing[-1].step}" if existing else "there is no earlier one"
        with contextlib.suppress(OSError):
            intact += f"; free space {shutil.disk_usage(self.root).free / 2**30:.2f} GiB"
        return CheckpointWriteError(
            f"The checkpoint of step {step} could not be written to {self.root}: {error}. Nothing older was touched "
            f"({intact}). Free space there, or lower checkpoint retention; the next save tries again."
        )

    def _forget(self, just_written: int) -> None:
        complete = {checkpoint.step: checkpoint for checkpoint in self.complete()}
        kept = self._retention.kept({step: _metrics(checkpoint) for step, checkpoint in complete.items()})
        for step, checkpoint in complete.items():
            if step not in kept and step != just_written and not _is_being_read(checkpoint.path):
                _delete(checkpoint.path)

    def _recover(self) -> None:
        """Undo what a killed save left: half-written and half-deleted folders go, a half-replaced one comes back."""
        if not self.root.is_dir():
            return
        for path in sorted(self.root.iterdir()):
            if path.name.startswith((_TMP, _TRASH)):
                _remove(path)
            elif path.name.startswith(_REPLACED):
                successor = self.root / path.name.removeprefix(_REPLACED)
                if successor.exists():
                    _delete(path)
                else:
                    path.rename(successor)
            elif path.name.startswith("step-") and (parse_step(path.name) is None or path.is_symlink()):
                self._log(f"{path} is ignored: not a checkpoint directory named like {step_name(1000)}")

    def _set_aside(self, paths: list[Path], reason: str) -> None:
        if not paths:
            return
        taken = [int(path.name[-3:]) for path in self.root.glob("set-aside-[0-9][0-9][0-9]")]
        shelf = self.root / f"set-aside-{max(taken, default=0) + 1:03d}"
        shelf.mkdir()
        for path in paths:
            path.rename(shelf / path.name)
        fsync_directory(self.root)
        names = ", ".join(sorted(path.name for path in paths))
        self._log(f"Moved to {shelf} ({reason}): {names}. Delete that folder when you do not need it.")


def _metrics(checkpoint: Checkpoint) -> dict[str, float]:
    metrics = checkpoint.meta.get("metrics", {})
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Hold a shared lock, so that the owner does not delete the checkpoint meanwhile.

    Where the file system has no locks, or the manifest is gone, nothing is held; reading then speaks for itself.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            manifest = stack.enter_context((path / MANIFEST_FILE).open("rb"))
            fcntl.flock(manifest, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def _is_being_read(path: Path) -> bool:
    try:
        with (path / MANIFEST_FILE).open("r+b") as manifest:
            fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _delete(path: Path) -> None:
    """Take a checkpoint away so that no half of it is ever seen under its name."""
    if path.exists():
        trash = path.with_name(f"{_TRASH}{path.name}-{secrets.token_hex(4)}")
        path.rename(trash)
        _remove(trash)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
