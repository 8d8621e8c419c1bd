"""Fetch one large file so that nothing fetched is lost and nothing wrong is kept.

In: an address, and what is published of the file. Out: FOLDER/NAME, complete and checked; until then FOLDER/NAME.part,
from which the next attempt, or the next command, goes on. A file that is not as published becomes NAME.rejected.

A server says by an ETag or a date whether the file is still the one that was begun (If-Range); NAME.part.tag keeps it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from shards.atomic import locked, sync_folder
from shards.building.catalogue import RemoteFile
from shards.errors import ShardError, is_disk_full
from shards.summary import human_bytes

Advance = Callable[[int, int | None], None]
"""Hears the number of bytes here and, if known, of the whole file."""

_TRIES = 5  # in a row that bring nothing
_PAUSE_S = 2.0
_TIMEOUT_S = 60.0
_BLOCK = 1 << 20
_NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})
_BEGIN_AGAIN = 416
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def fetch(file: RemoteFile, folder: Path, advance: Advance = lambda *_: None) -> Path:
    """The file in ``folder``: fetched, or the one already there if it is as published.

    Raises:
        ShardError: not there, not as published, no room, the network fails again and again, or another process is
            fetching it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file.name
    with locked(folder / f".{file.name}.lock", wait=False) as got_it:
        if not got_it:
            raise ShardError("another process is fetching it", file=path, remedy="Wait for it to end.")
        if path.exists():
            if problem := difference(path, file):
                remedy = f"Move or delete it, then fetch again: rm {path}"
                raise ShardError(f"is here already, but {problem}", file=path, remedy=remedy)
            return path
        part = folder / f"{file.name}.part"
        try:
            _fetch_all(file, part, advance)
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise _no_room(part, "the disk is full") from error
        if problem := difference(part, file):
            rejected = part.replace(folder / f"{file.name}.rejected")
            _forget(part)
            remedy = f"Fetch again. If it is the same again, that file has changed; to use it: mv {rejected} {path}"
            raise ShardError(f"was fetched, but {problem}; kept as {rejected.name}", file=file.url, remedy=remedy)
        part.replace(path)
        _forget(part)
        sync_folder(folder)
    return path


def difference(path: Path, file: RemoteFile) -> str:
    """How a file on this disk differs from what is published of it; empty if it does not."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size} bytes, published are {file.size}"
    if file.digest is not None:
        kind, _, expected = file.digest.partition(":")
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, kind).hexdigest()
        if found != expected:
            return f"its {kind} is {found}, published is {expected}"
    return ""


def _fetch_all(file: RemoteFile, part: Path, advance: Advance) -> None:
    failures = 0
    while file.size is None or _length(part) != file.size:
        before = _length(part)
        problem = _attempt(file, part, advance)
        if not problem:
            break
        failures = failures + 1 if _length(part) <= before else 1
        if failures == _TRIES:
            remedy = f"The same command goes on from {_length(part)} bytes; check the network."
            raise ShardError(f"{problem} ({_TRIES} tries)", file=file.url, remedy=remedy)
        time.sleep(_PAUSE_S * failures)
    if part.exists():
        with part.open("rb") as written:
            os.fsync(written.fileno())


def _attempt(file: RemoteFile, part: Path, advance: Advance) -> str:
    """One request; returns what went wrong, empty if the file is complete.

    Raises:
        ShardError: what another attempt would not mend.
    """
    try:
        with urllib.request.urlopen(_request(file, part), timeout=_TIMEOUT_S) as answer:
            return _receive(answer, file, part, advance)
    except urllib.error.HTTPError as error:
        if error.code == _BEGIN_AGAIN:
            _forget(part)
        elif error.code not in _NOT_NOW:
            remedy = "The address may have moved: look at the page of the dataset."
            raise ShardError(f"HTTP {error.code} {error.reason}", file=file.url, remedy=remedy) from error
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            remedy = f"Renew this machine's certificates, or fetch it with a browser and put it here: {part.parent}"
            problem = f"the server's certificate is not accepted ({error.reason})"
            raise ShardError(problem, file=file.url, remedy=remedy) from error
        return str(error.reason)
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        return str(error) or type(error).__name__


def _request(file: RemoteFile, part: Path) -> urllib.request.Request:
    """For the rest of the file if that can be known to fit what is here, otherwise for all of it."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "python -m shards download"})
    here = _length(part)
    tag = _tag(part).read_text(encoding="utf-8") if _tag(part).exists() else ""
    if here and (tag or file.digest):
        request.add_header("Range", f"bytes={here}-")
        if tag:
            request.add_header("If-Range", tag)
    return request


def _receive(answer: http.client.HTTPResponse, file: RemoteFile, part: Path, advance: Advance) -> str:
    begin, whole = _extent(answer)
    if file.size is not None and whole is not None and whole != file.size:
        remedy = "The file at that address has changed: look at the page of the dataset."
        raise ShardError(f"the server has {whole} bytes, published are {file.size}", file=file.url, remedy=remedy)
    if begin not in (0, _length(part)):
        _forget(part)
        return f"the server sent bytes from {begin}, which were not asked for"
    if whole is not None and whole - begin > (free := shutil.disk_usage(part.parent).free):
        raise _no_room(part, f"{human_bytes(whole - begin)} are to come, {human_bytes(free)} are free")
    tag = answer.headers.get("ETag") or ""
    if not tag or tag.startswith("W/"):
        tag = answer.headers.get("Last-Modified") or ""
    _tag(part).write_text(tag, encoding="utf-8")
    here = begin
    with part.open("ab") as sink:
        sink.truncate(begin)
        while block := answer.read(_BLOCK):
            sink.write(block)
            here += len(block)
            advance(here, whole)
    return "" if whole is None or here == whole else f"the connection ended at {here} of {whole} bytes"


def _extent(answer: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where the answer's bytes begin in the file, and the length of the whole, if it is said."""
    if answer.status == http.client.PARTIAL_CONTENT:
        match = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        return (int(match[1]), int(match[2])) if match else (-1, None)
    length = answer.headers.get("Content-Length")
    return 0, None if length is None else int(length)


def _no_room(part: Path, detail: str) -> ShardError:
    remedy = f"Free space (see: df -h {part.parent}), or choose another folder; the same command goes on from here."
    return ShardError(f"no room: {detail}", file=part.parent, remedy=remedy)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _tag(part: Path) -> Path:
    return part.with_name(part.name + ".tag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)
