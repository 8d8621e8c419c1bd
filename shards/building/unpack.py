"""Unpack a zip or tar that somebody else made, without letting it write anywhere but below one folder.

In: an archive and a folder. Out: its files. All names are looked at before the first byte is written: absolute paths,
``..``, links and devices are refused. Each file appears complete or not at all, and one that is there with the size it
should have is left alone, so an interrupted unpacking goes on.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from shards.atomic import atomic_file
from shards.errors import DamageError, RefusedError, ShardError, is_disk_full
from shards.summary import human_bytes

_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def can_unpack(archive: Path) -> bool:
    """Whether the name is that of a zip or tar."""
    return archive.name.endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def unpack(archive: Path, folder: Path, advance: Callable[[int], None] = lambda _: None) -> int:
    """Unpack into ``folder``; ``advance`` hears the bytes of each block.

    Returns:
        Number of files written; those that were there already are not counted.

    Raises:
        RefusedError: a member would leave the folder, or is a link or a device. Nothing was written.
        DamageError: the archive is damaged.
        ShardError: no room.
    """
    try:
        with _members(archive) as members:
            targets = [(member, _target(folder, member.name, archive)) for member in members]
            todo = [(member, path) for member, path in targets if not _is_there(path, member.size)]
            need, free = sum(member.size for member, _ in todo), _free(folder)
            if need > free:
                raise _no_room(archive, folder, f"{human_bytes(need)} are needed, {human_bytes(free)} are free")
            for member, path in todo:
                _write(member, path, archive, advance)
            return len(todo)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise DamageError(
            f"cannot be unpacked: {error}", file=archive, remedy="Delete it and fetch it again."
        ) from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise _no_room(archive, folder, "the disk is full") from error


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield [_of_zip(opened, info, archive) for info in opened.infolist() if not info.is_dir()]
    else:
        with tarfile.open(archive) as tar:
            yield [_of_tar(tar, info, archive) for info in tar if not info.isdir()]


def _of_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo, archive: Path) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise RefusedError("is a link or a device", file=archive, member=info.filename)
    if info.flag_bits & 1:
        raise ShardError("is encrypted", file=archive, member=info.filename)
    return _Member(info.filename, info.file_size, lambda: opened.open(info))


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo, archive: Path) -> _Member:
    if not info.isreg():
        raise RefusedError("is a link or a device", file=archive, member=info.name)

    def open_member() -> IO[bytes]:
        file = tar.extractfile(info)
        assert file is not None  # it is for links and devices
        return file

    return _Member(info.name, info.size, open_member)


def _target(folder: Path, name: str, archive: Path) -> Path:
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or not path.parts or PureWindowsPath(name).drive or "\\" in name
    if leaves or "\0" in name:
        raise RefusedError("would be written outside of the folder", file=archive, member=name)
    return folder.joinpath(*path.parts)


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _free(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def _write(member: _Member, path: Path, archive: Path, advance: Callable[[int], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with member.open() as source, atomic_file(path) as sink:
        while block := source.read(_BLOCK):
            sink.write(block)
            written += len(block)
            advance(len(block))
        if written != member.size:
            problem = f"has {written} bytes, {member.size} were announced"
            raise DamageError(problem, file=archive, member=member.name, remedy="Delete it and fetch it again.")


def _no_room(archive: Path, folder: Path, detail: str) -> ShardError:
    remedy = f"Free space (see: df -h {folder}); the same command goes on from here."
    return ShardError(f"no room to unpack: {detail}", file=archive, remedy=remedy)
