"""The commit record of a checkpoint: which files it has, how long they are, what they hash to, and what it is about.

In:  a checkpoint's directory.
Out: `Manifest`, or `CheckpointDamagedError` naming the file, what was found and what was expected.

`manifest.json` is written last and carries a digest of itself, so that neither it nor a file it names can be wrong
unnoticed. Nothing here needs torch: a login node can list and verify checkpoints.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc.checkpoint.durable import FileRecord, hash_file, write_new
from hpc.checkpoint.errors import CheckpointDamagedError
from hpc.tracking import strict_json

FORMAT = 1
MANIFEST_FILE = "manifest.json"
STATE_FILE = "state.pt"


@dataclass(frozen=True)
class Manifest:
    """What a complete checkpoint says about itself."""

    step: int
    """Optimiser steps done when the state was taken."""
    time: float
    """When it was written, in seconds since 1970."""
    files: dict[str, FileRecord]
    """Every file beside the manifest."""
    meta: dict[str, Any]
    """What the caller wanted to be readable without torch: `metrics`, `code_version`, `attempt`, ..."""

    def save(self, directory: Path) -> None:
        """Write `manifest.json`, synced. TypeError if `meta` holds what JSON cannot."""
        write_new(directory / MANIFEST_FILE, self._encoded())

    @classmethod
    def load(cls, directory: Path) -> Manifest:
        """Read and check `manifest.json` itself; the files it names are checked by `check_sizes` and `check_hashes`."""
        path = directory / MANIFEST_FILE
        try:
            raw = path.read_bytes()
            body = strict_json.loads(raw)
            found = body["format"]
            manifest = cls(
                step=body["step"],
                time=body["time"],
                files={name: FileRecord(*record) for name, record in body["files"].items()},
                meta=body["meta"],
            )
        except FileNotFoundError as error:
            raise CheckpointDamagedError(f"{path} is missing: this directory was never committed") from error
        except OSError as error:
            raise CheckpointDamagedError(f"{path} cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointDamagedError(f"{path} is not a checkpoint manifest: {error!r}") from error
        if found != FORMAT:
            raise CheckpointDamagedError(f"{path} has format {found!r}; this version of the code reads format {FORMAT}")
        if raw != manifest._encoded():
            raise CheckpointDamagedError(f"{path} was altered: its own digest does not fit its content")
        return manifest

    def check_sizes(self, directory: Path) -> None:
        """Cheap check: every file is there, is a plain file, and has its length."""
        if set(self.files) != {STATE_FILE}:
            raise CheckpointDamagedError(f"{directory} lists the files {sorted(self.files)}; expected {[STATE_FILE]}")
        for name, expected in self.files.items():
            try:
                found = os.lstat(directory / name)
            except OSError as error:
                raise CheckpointDamagedError(f"{directory / name} cannot be found: {error}") from error
            if not stat.S_ISREG(found.st_mode):
                raise CheckpointDamagedError(f"{directory / name} is not a plain file")
            if found.st_size != expected.bytes:
                raise CheckpointDamagedError(
                    f"{directory / name} has {found.st_size} bytes; its manifest says {expected.bytes}"
                )

    def check_hashes(self, directory: Path) -> None:
        """Full check: every byte of every file is what was written."""
        self.check_sizes(directory)
        for name, expected in self.files.items():
            try:
                found = hash_file(directory / name)
            except OSError as error:
                raise CheckpointDamagedError(f"{directory / name} cannot be read: {error}") from error
            if found != expected:
                raise CheckpointDamagedError(
                    f"{directory / name} has SHA-256 {found.sha256}; its manifest says {expected.sha256}"
                )

    def _encoded(self) -> bytes:
        body = {
            "format": FORMAT,
            "step": self.step,
            "time": self.time,
            "files": {name: list(record) for name, record in sorted(self.files.items())},
            "meta": self.meta,
        }
        digest = hashlib.sha256(strict_json.dumps(body).encode()).hexdigest()
        return (strict_json.dumps({**body, "digest": digest}) + "\n").encode()
