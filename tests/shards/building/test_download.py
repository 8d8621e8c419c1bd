"""Raw datasets are fetched whole and checked, go on where they were cut, and unpack nowhere but in their folder."""

from __future__ import annotations

import argparse
import hashlib
import http.server
import io
import shutil
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shards.building import download, fetch, unpack
from shards.building.catalogue import CATALOGUE, RemoteFile
from shards.errors import DamageError, RefusedError, ShardError
from tests.conftest import shared_data

CONTENT = bytes(i * i % 251 for i in range(200_000))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves files with ranges; cuts connections and answers with errors as it is told."""

    files: dict[str, bytes]
    tags: dict[str, str]
    cuts: list[int]  # bytes after which the next answers end early
    errors: list[int]  # status of the next answers
    ranges: list[str | None]  # what was asked for
    knows_ranges: bool

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if self.errors:
            self.send_error(self.errors.pop(0))
            return
        content = self.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        if self.path == "/chunked.bin":
            self._answer_in_chunks(content)
            return
        tag, begin = self.tags.get(self.path, ""), 0
        if asked and self.knows_ranges and self.headers.get("If-Range", tag) == tag:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if tag:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = begin + self.cuts.pop(0) if self.cuts else None
        self.wfile.write(content[begin:end])

    def _answer_in_chunks(self, content: bytes) -> None:
        """No length is announced; a cut answer lacks the last, empty chunk."""
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = self.cuts.pop(0) if self.cuts else None
        part = content[:end]
        self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n" + (b"0\r\n\r\n" if end is None else b""))


@pytest.fixture
def address(monkeypatch) -> Iterator[str]:
    """Where the server is; waiting between attempts is cut short."""
    monkeypatch.setattr(fetch, "_PAUSE_S", 0.0)
    Server.files, Server.tags = {"/a.bin": CONTENT}, {"/a.bin": '"one"'}
    Server.cuts, Server.errors, Server.ranges, Server.knows_ranges = [], [], [], True
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_and_leaves_nothing_else(address, tmp_path):
    heard = []
    remote = RemoteFile(f"{address}/a.bin", len(CONTENT), sha256(CONTENT))
    path = fetch.fetch(remote, tmp_path / "raw", lambda here, whole: heard.append((here, whole)))
    assert path.read_bytes() == CONTENT
    assert names(tmp_path / "raw") == ["a.bin"]
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    fetch.fetch(remote, tmp_path / "raw")
    assert Server.ranges == [None]


def test_a_cut_connection_goes_on_where_it_ended(address, tmp_path):
    Server.cuts = [70_000, 50_000]
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=70000-", "bytes=120000-"]


def test_a_later_command_goes_on_where_an_earlier_one_gave_up(address, tmp_path):
    Server.cuts = [70_000]
    remote = RemoteFile(f"{address}/a.bin")

    def stop(here: int, whole: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(remote, tmp_path, stop)
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.tag"]
    assert fetch.fetch(remote, tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=70000-"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(address, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"old" * 1000)
    (tmp_path / "a.bin.part.tag").write_text('"zero"')
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == ["bytes=3000-"]


def test_without_a_tag_or_a_checksum_nothing_is_put_together_of_two_halves(address, tmp_path):
    Server.tags = {}
    (tmp_path / "a.bin.part").write_bytes(b"old" * 1000)
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None]
    (tmp_path / "a.bin").unlink()
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:3000])
    fetch.fetch(RemoteFile(f"{address}/a.bin", digest=sha256(CONTENT)), tmp_path)
    assert Server.ranges == [None, "bytes=3000-"]


def test_a_server_without_ranges_gives_the_file_all_the_same(address, tmp_path):
    Server.knows_ranges = False
    Server.cuts = [70_000]
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, "bytes=70000-"]


def test_a_file_of_unknown_length_is_not_taken_for_whole_when_it_was_cut(address, tmp_path):
    Server.files["/chunked.bin"] = CONTENT
    Server.cuts = [70_000, 120_000]
    assert fetch.fetch(RemoteFile(f"{address}/chunked.bin"), tmp_path).read_bytes() == CONTENT
    assert Server.ranges == [None, None, None]


def test_a_part_that_is_longer_than_the_file_is_begun_again(address, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    (tmp_path / "a.bin.part.tag").write_text('"one"')
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_the_file_does_not_get_its_name(address, tmp_path):
    remote = RemoteFile(f"{address}/a.bin", digest=sha256(b"other"))
    with pytest.raises(ShardError, match=f"its sha256 is {sha256(CONTENT)[7:]}, published is {sha256(b'other')[7:]}"):
        fetch.fetch(remote, tmp_path)
    assert names(tmp_path) == ["a.bin.rejected"]


def test_a_file_of_another_length_is_not_even_begun(address, tmp_path):
    with pytest.raises(ShardError, match="the server has 200000 bytes, published are 7"):
        fetch.fetch(RemoteFile(f"{address}/a.bin", size=7), tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_is_here_and_wrong_is_left_to_its_owner(address, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(ShardError, match=r"is here already, but it has 4 bytes, published are 200000"):
        fetch.fetch(RemoteFile(f"{address}/a.bin", size=200_000), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine"
    assert Server.ranges == []


def test_a_file_that_is_not_there_is_not_asked_for_again(address, tmp_path):
    with pytest.raises(ShardError, match=rf"{address}/b.bin: HTTP 404"):
        fetch.fetch(RemoteFile(f"{address}/b.bin"), tmp_path)
    assert Server.ranges == [None]


def test_a_busy_server_is_asked_again_but_not_for_ever(address, tmp_path):
    Server.errors = [503, 429]
    assert fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path).read_bytes() == CONTENT
    Server.errors = [503] * 9
    with pytest.raises(ShardError, match=r"HTTP 503 .*\(5 tries\)"):
        fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path / "again")
    assert len(Server.errors) == 4


def test_a_full_disk_is_said_before_the_first_byte(address, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ShardError, match=r"no room: 200 kB are to come, 1 kB are free"):
        fetch.fetch(RemoteFile(f"{address}/a.bin"), tmp_path)
    assert names(tmp_path) == []


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[str, bytes], **info: object) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for attribute, value in info.items():
                setattr(member, attribute, value)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("make", "name"), [(zip_of, "a.zip"), (tar_of, "a.tar")])
def test_archives_unpack_once_and_go_on_where_they_were_cut(tmp_path, make, name):
    members = {"one.txt": b"1", "deep/er/two.txt": CONTENT, "empty": b""}
    archive, out = make(tmp_path / name, members), tmp_path / "out"
    assert unpack.unpack(archive, out) == 3
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == members
    assert unpack.unpack(archive, out) == 0
    (out / "one.txt").unlink()
    (out / "empty").write_bytes(b"longer")
    assert unpack.unpack(archive, out) == 2
    assert (out / "empty").read_bytes() == b""


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/tmp/escaped", "..\\escaped", "C:\\escaped"])
@pytest.mark.parametrize(("make", "archive"), [(zip_of, "a.zip"), (tar_of, "a.tar")])
def test_no_path_escapes_and_nothing_is_written_before_all_are_looked_at(tmp_path, make, archive, name):
    out = tmp_path / "in" / "out"
    with pytest.raises(RefusedError, match="outside of the folder"):
        unpack.unpack(make(tmp_path / archive, {"good": b"x", name: b"evil"}), out)
    assert not out.exists()
    assert names(tmp_path) == [archive]


def test_links_and_devices_are_refused(tmp_path):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        archive = tar_of(tmp_path / "a.tar", {"link": b""}, type=kind, linkname="/etc/passwd")
        with pytest.raises(RefusedError, match="member link: is a link or a device"):
            unpack.unpack(archive, tmp_path / "out")
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(RefusedError, match="member link: is a link or a device"):
        unpack.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_archives_are_named_and_leave_no_half_file(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"x": CONTENT})
    content = bytearray(archive.read_bytes())
    content[300] ^= 255
    archive.write_bytes(content)
    with pytest.raises(DamageError, match=r"a\.zip: cannot be unpacked"):
        unpack.unpack(archive, tmp_path / "out")
    tar = tar_of(tmp_path / "a.tar", {"x": CONTENT})
    tar.write_bytes(tar.read_bytes()[:100_000])
    with pytest.raises(DamageError, match=r"a\.tar"):
        unpack.unpack(tar, tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_no_room_to_unpack_is_said_before_the_first_byte(tmp_path, monkeypatch):
    archive = zip_of(tmp_path / "a.zip", {"x": CONTENT})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ShardError, match=r"no room to unpack: 200 kB are needed, 1 kB are free"):
        unpack.unpack(archive, tmp_path / "out")


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    download.add_arguments(parser)
    return download.run(parser.parse_args(words))


@pytest.mark.parametrize("name", CATALOGUE)
def test_without_a_folder_every_dataset_is_described_and_nothing_is_fetched(name, capsys, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("fetched"))
    assert command(name) == 0
    said = capsys.readouterr().out
    listing = CATALOGUE[name]
    assert listing.licence in said
    assert all(file.url in said and (file.digest or "no published checksum known") in said for file in listing.files)
    assert f"python -m shards build {name} " in said
    assert "{" not in said


@pytest.mark.parametrize("name", ["human", "kinetics"])
def test_what_a_licence_leaves_to_a_person_is_explained_not_fetched(name, capsys, tmp_path):
    assert command(name, "--raw", str(tmp_path / "raw")) == 1
    said = capsys.readouterr().out
    assert "  1. " in said and "http" in said and str(tmp_path / "raw") in said
    assert "nothing was fetched" in said
    assert not (tmp_path / "raw").exists()


def test_the_command_fetches_unpacks_and_tells_what_it_cannot(address, tmp_path, capsys, monkeypatch):
    walking = zip_of(tmp_path / "walking.zip", {"person01_walking_d1_uncomp.avi": b"video"}).read_bytes()
    Server.files |= {"/walking.zip": walking, "/videos.rar": b"Rar!"}
    files = (
        RemoteFile(f"{address}/gone.txt"),
        RemoteFile(f"{address}/walking.zip", digest=sha256(walking), into="walking"),
        RemoteFile(f"{address}/videos.rar", into=""),
    )
    monkeypatch.setitem(CATALOGUE, "kth", replace(CATALOGUE["kth"], files=files))
    raw = tmp_path / "raw"
    assert command("kth", "--raw", str(raw), "--unpack") == 1
    out, err = capsys.readouterr()
    assert (raw / "walking" / "person01_walking_d1_uncomp.avi").read_bytes() == b"video"
    assert f"unrar x {raw}/videos.rar {raw}/" in out
    assert "sha256 as published" in out and "not checked: no published checksum known" in out
    assert "gone.txt: HTTP 404" in err
    Server.files["/gone.txt"] = b"here"
    assert command("kth", "--raw", str(raw), "--unpack") == 0


def test_the_published_checksums_of_mnist_are_those_of_the_real_files():
    for file in CATALOGUE["moving-mnist"].files:
        assert fetch.difference(shared_data("mnist", file.name), file) == ""
