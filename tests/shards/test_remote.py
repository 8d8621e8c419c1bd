"""Datasets elsewhere: fetched whole, checked, kept; commands only if the user allowed them."""

import functools
import http.server
import logging
import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest

from shards.errors import DamageError, RefusedError, ShardError
from shards.manifest import Manifest
from shards.opening import open_source
from shards.remote import allowed_command
from tests.shards.stored_clips import flip_bit, frames_of, make_dataset, samples


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def served(tmp_path):
    """A dataset's folder and its address on this machine."""
    make_dataset(tmp_path / "served" / "d")
    Quiet.asked = []
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield tmp_path / "served" / "d", f"http://127.0.0.1:{server.server_port}/d"
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_users_file(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEVID_PIPES", str(tmp_path / "pipes.txt"))


def test_a_dataset_at_an_address_reads_like_one_here(served, tmp_path, caplog):
    folder, address = served
    with caplog.at_level(logging.WARNING):
        there = open_source(address, "train", 5, cache=tmp_path / "cache")
    positions = np.arange(23)
    fetched = there.fetch(positions, 3)
    assert np.array_equal(fetched.arrays["video"], open_source(folder, "train", 5).fetch(positions, 3).arrays["video"])
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "each shard is fetched whole" in messages[0]


def test_a_shard_is_fetched_once_and_only_when_touched(served, tmp_path):
    _, address = served
    source = open_source(address, "train", 5, cache=tmp_path / "cache")
    source.read([0, 1, 2])
    open_source(address, "train", 5, cache=tmp_path / "cache").read([3])
    assert sorted(Quiet.asked) == [
        "/d/manifest.json",
        "/d/manifest.json",
        "/d/train-000000.index.npz",
        "/d/train-000000.tar",
    ]
    shard = Manifest.load(tmp_path / "served" / "d").splits["train"].shards[0]
    files = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert files == {shard.sha256, shard.index_sha256}  # and nothing temporary


def test_what_arrives_is_checked_against_the_manifest(served, tmp_path):
    folder, address = served
    flip_bit(folder / "train-000001.tar", 5000)
    source = open_source(address, "train", 5, cache=tmp_path / "cache")
    with pytest.raises(
        DamageError, match=rf"{address} train-000001.tar: fetched 31744 bytes.*the manifest says 31744 bytes"
    ):
        source.read([5])
    index = Manifest.load(folder).splits["train"].shards[1].index_sha256
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [
        index
    ]  # and nothing of the tar


def test_a_shard_that_is_not_there_is_damage(served, tmp_path):
    folder, address = served
    (folder / "train-000001.tar").unlink()
    source = open_source(address, "train", 5, cache=tmp_path / "cache")
    with pytest.raises(DamageError, match="HTTP 404"):
        source.read([5])


def test_a_server_that_does_not_answer_is_an_error_not_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("shards.remote.time.sleep", lambda _: None)
    with pytest.raises(ShardError, match="3 tries") as found:
        open_source("http://127.0.0.1:9/d", "train", 5, cache=tmp_path / "cache")
    assert not isinstance(found.value, DamageError)


def _read_all(address: str, cache: Path) -> None:
    source = open_source(address, "train", 5, cache=cache)
    assert source.read(list(range(23))).arrays["label"].tolist() == list(range(23))


def test_many_processes_fetch_each_shard_once(served, tmp_path):
    _, address = served
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_read_all, args=(address, tmp_path / "cache")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    tars = [path for path in Quiet.asked if path.endswith(".tar")]
    assert sorted(tars) == [f"/d/train-{shard:06d}.tar" for shard in range(5)]


def test_manifest_here_and_shards_elsewhere(served, tmp_path):
    folder, address = served
    here = tmp_path / "here"
    here.mkdir()
    (here / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    source = open_source(here, "train", 5, shard_url=address + "/{shard}", cache=tmp_path / "cache")
    assert np.array_equal(source.read([7]).arrays["video"][0], frames_of(7)[:5])
    with pytest.raises(ShardError, match=r"expected \{shard\}"):
        open_source(here, "train", 5, shard_url=address, cache=tmp_path / "cache")
    with pytest.raises(ShardError, match="expected http"):
        open_source(here, "train", 5, shard_url="ftp://host/{shard}", cache=tmp_path / "cache")


def test_a_single_foreign_tar_at_an_address_says_that_it_is_not_checked(served, tmp_path, caplog):
    folder, address = served
    numpy_tar(folder / "clips.tar")
    with caplog.at_level(logging.WARNING):
        source = open_source(address + "/clips.tar", "all", 5, cache=tmp_path / "cache")
    assert np.array_equal(source.read([1]).arrays["video"][0], frames_of(1)[:5])
    assert "not checked" in caplog.text


def numpy_tar(path: Path) -> None:
    import webdataset

    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples(3):
            writer.write({"__key__": sample.key, "npy": sample.arrays["video"]})


# -- pipes ---------------------------------------------------------------------------------------------------------


def test_an_allowed_command_gives_the_bytes_and_is_run_without_a_shell(served, tmp_path):
    folder, _ = served
    root = f"pipe:cat {folder}/{{shard}}"
    source = open_source(root, "train", 5, allow_pipe=["cat"], cache=tmp_path / "cache")
    assert np.array_equal(source.read([7]).arrays["video"][0], frames_of(7)[:5])
    tricky = f"pipe:cat {folder}/{{shard}} ; touch {tmp_path}/run"
    with pytest.raises(ShardError, match="ended with status 1"):
        open_source(tricky, "train", 5, allow_pipe=["cat"], cache=tmp_path / "cache2")
    assert not (tmp_path / "run").exists()


def test_commands_are_compared_word_by_word(tmp_path):
    command = "ssh host cat /data/{shard}"
    for allowed in ("ssh", "ssh host", "ssh host cat", "ssh 'host' cat /data/{shard}"):
        assert allowed_command(command, [allowed])[:2] == ("ssh", "host")
    for other in ("ss", "ssh hos", "cat", "ssh host cat /data", "", "ssh otherhost"):
        with pytest.raises(RefusedError, match="is not allowed"):
            allowed_command(command, [other])
    with pytest.raises(ShardError, match=r"no \{shard\}"):
        allowed_command("ssh host cat /data", ["ssh"])
    (tmp_path / "pipes.txt").write_text("# my machines\n\nssh host cat\n")
    assert allowed_command(command, [])


def test_a_command_that_nobody_allowed_is_not_run(tmp_path):
    with pytest.raises(RefusedError, match=r"(?s)allowed beginnings: none.*pipes.txt"):
        open_source(f"pipe:touch {tmp_path}/run-{{shard}}", "train", 5, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("run-*"))


def test_a_manifest_that_names_a_command_is_refused_even_if_the_command_is_allowed(tmp_path):
    make_dataset(tmp_path / "d")
    text = (tmp_path / "d" / "manifest.json").read_text()
    (tmp_path / "d" / "manifest.json").write_text(text.replace("train-000000.tar", f"pipe:touch {tmp_path}/run"))
    (tmp_path / "pipes.txt").write_text("touch\n")
    with pytest.raises(RefusedError, match="plain file name"):
        open_source(tmp_path / "d", "train", 5, allow_pipe=["touch"])
    assert not (tmp_path / "run").exists()
