"""The cache of remote shards: by content, within its bound, right for many processes, and nobody else's files."""

from __future__ import annotations

import argparse
import errno
import functools
import hashlib
import http.server
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from hpc.config import ConfigError, DataConfig
from hpc.data import open_split
from shards import cache_command
from shards.atomic import locked
from shards.cache import Store, Usage, Wanted, cache_place
from shards.errors import DamageError, ShardError
from shards.folder import open_folder
from shards.manifest import Manifest
from shards.opening import open_source, open_table
from shards.reader import ShardReader
from tests.shards.stored_clips import NUM_CLIPS, flip_bit, frames_of, make_dataset

_SPAWN = multiprocessing.get_context("spawn")


class Counting(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and notes what was asked for."""

    asked: list[str] = []  # noqa: RUF012

    def log_message(self, *_: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "served" / "d")
    return tmp_path / "served" / "d"


@pytest.fixture
def address(dataset: Path) -> Iterator[str]:
    """Of the dataset's parent, served on this machine."""
    Counting.asked = []
    handler = functools.partial(Counting, directory=str(dataset.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def tars_asked() -> list[str]:
    return [path for path in Counting.asked if path.endswith(".tar")]


def content(letter: str, size: int = 100) -> bytes:
    return letter.encode() * size


def wanted(data: bytes) -> Wanted:
    return Wanted(hashlib.sha256(data).hexdigest(), len(data), f"file {data[:1].decode()}")


def use(store: Store, data: bytes, fetch: Callable[[BinaryIO], object] | None = None) -> bool:
    """Open a file of a store; returns whether it was fetched."""
    fetched = []

    def write(sink: BinaryIO) -> None:
        fetched.append(True)
        sink.write(data) if fetch is None else fetch(sink)

    time.sleep(0.01)  # file systems note times to some milliseconds
    with store.open(wanted(data), write) as file:
        assert file.read() == data
    return bool(fetched)


def held(store: Store) -> set[str]:
    """First letters of the files in a store."""
    return {path.read_text()[0] for path in store.folder.iterdir() if len(path.name) == 64}


def bytes_in(folder: Path) -> int:
    """Length of all files, finished or not, found by looking at them."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                total += entry.stat().st_size
            except FileNotFoundError:
                continue
    return total


# -- the bound -----------------------------------------------------------------------------------------------------


def test_the_least_recently_used_go_first_and_using_is_opening(tmp_path):
    store = Store(tmp_path / "files", 300)
    a, b, c, d, e = (content(letter) for letter in "abcde")
    assert [use(store, data) for data in (a, b, c, a)] == [True, True, True, False]
    use(store, d)
    assert held(store) == {"a", "c", "d"}
    use(store, c)
    use(store, e)
    assert held(store) == {"c", "d", "e"}


def test_room_is_made_before_the_file_comes(tmp_path):
    store = Store(tmp_path / "files", 250)
    use(store, content("a"))
    use(store, content("b"))
    seen = []
    use(store, content("c"), lambda sink: (seen.append(held(store)), sink.write(content("c"))))
    assert seen == [{"b"}]


def test_what_others_are_fetching_counts_and_is_waited_for(tmp_path):
    store = Store(tmp_path / "files", 150)
    may_end, began, log = threading.Event(), threading.Event(), []

    def slowly(sink: BinaryIO) -> None:
        began.set()
        may_end.wait(10)
        log.append("a came")
        sink.write(content("a"))

    def quickly(sink: BinaryIO) -> None:
        log.append("b asked for")
        sink.write(content("b"))

    first = threading.Thread(target=use, args=(store, content("a"), slowly))
    first.start()
    assert began.wait(10)
    assert store.usage().fetching == 100  # though not a byte of it is here
    second = threading.Thread(target=use, args=(store, content("b"), quickly))
    second.start()
    time.sleep(0.3)
    assert log == []
    may_end.set()
    first.join()
    second.join()
    assert log == ["a came", "b asked for"]
    assert held(store) == {"b"}


def test_a_file_larger_than_the_bound_says_what_to_set(tmp_path):
    store = Store(tmp_path / "files", 90_000_000)
    use(store, content("a"))
    big = Wanted("0" * 64, 200_000_000, "http://host/d big.tar")
    with pytest.raises(ShardError, match=r"(?s)big.tar, 200 MB: the cache may hold 90 MB.*data.cache_gb=0.202 or more"):
        store.open(big, lambda _: pytest.fail("fetched"))
    assert held(store) == {"a"}  # nothing was deleted in vain
    huge = Wanted("0" * 64, 10**18, "http://host/d huge.tar")
    with pytest.raises(ShardError, match=r"(?s)The disk has .*data.cache=/path"):
        Store(tmp_path / "files", 0).open(huge, lambda _: pytest.fail("fetched"))


def test_the_bound_is_a_number_or_what_the_disk_has_or_four_fifths_of_it(tmp_path):
    usage = Usage(files=((Path("x"), 300),), fetching=100, room=1000)
    assert [Store(tmp_path, bound).limit(usage) for bound in (700, 1200, 0, None)] == [700, 1000, 1000, 800]
    (tmp_path / "files").mkdir()
    disk = os.statvfs(tmp_path)
    assert Store(tmp_path / "files").usage().room == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.05)


class TinyDisk:
    """Stands for a disk, or a quota, with room for 250 bytes in a folder, which statvfs does not tell."""

    def __init__(self, folder: Path, data: bytes) -> None:
        self.folder, self.data = folder, data

    def __call__(self, sink: BinaryIO) -> None:
        sink.write(self.data[:50])
        sink.flush()
        if bytes_in(self.folder) + len(self.data) - 50 > 250:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sink.write(self.data[50:])


def test_a_full_disk_deletes_older_files_then_fails_with_what_to_do(tmp_path):
    store = Store(tmp_path / "files", 0)
    for letter in "abcd":
        use(store, content(letter), TinyDisk(store.folder, content(letter)))
    assert held(store) == {"c", "d"}
    large = content("e", 260)
    with pytest.raises(ShardError, match=r"(?s)no room to fetch file e.*data.cache=/path"):
        use(store, large, TinyDisk(store.folder, large))
    assert bytes_in(store.folder) == 0


def test_files_of_others_are_neither_counted_nor_deleted(tmp_path):
    store = Store(tmp_path / "cache" / "files", 250)
    use(store, content("a"))
    name = hashlib.sha256(b"x").hexdigest()
    strange = ["notes.txt", f"{name}.txt", name[:63], f".{name}.part", f".{name}.x.part", name.upper(), ".lock2"]
    for other in strange:
        (store.folder / other).write_bytes(b"x" * 1000)
    (tmp_path / "cache" / name).write_bytes(b"x")  # of our naming, but not in our folder
    (store.folder / name).mkdir()  # of our naming, but not a file
    (store.folder / name / "inside").write_bytes(b"x")
    use(store, content("b"))
    assert [size for _, size in store.usage().files] == [100, 100]
    use(store, content("c"))
    assert store.shrink(0) == 200
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([*strange, name])
    assert (store.folder / name / "inside").exists()
    assert (tmp_path / "cache" / name).exists()


# -- many processes ------------------------------------------------------------------------------------------------


def _hammer(root: str, cache: Path, max_bytes: int, seed: int) -> None:
    source = open_source(root, "train", None, cache=cache, cache_gb=max_bytes / 1e9)
    for clip in np.random.default_rng(seed).integers(NUM_CLIPS, size=150).tolist():
        assert np.array_equal(source.read([clip]).arrays["video"][0], frames_of(clip))


def test_processes_that_share_too_small_a_cache_read_rightly_and_stay_within_it(dataset, address, tmp_path):
    shards = Manifest.load(dataset).splits["train"].shards
    indexes = sum((dataset / shard.index_file).stat().st_size for shard in shards)
    bound = sum(shard.bytes for shard in shards) // 2 + indexes
    cache, num = tmp_path / "cache", 4
    workers = [_SPAWN.Process(target=_hammer, args=(f"{address}/d", cache, bound, seed)) for seed in range(num)]
    for worker in workers:
        worker.start()
    sizes = []
    (cache / "files").mkdir(parents=True, exist_ok=True)
    while any(worker.is_alive() for worker in workers):
        with locked(cache / "files" / ".lock"):  # else a look may see a file before it goes and another after it came
            sizes.append(bytes_in(cache / "files"))
        time.sleep(0.01)
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * num
    assert len(tars_asked()) > 2 * len(shards)  # files did have to go
    index = max((dataset / shard.index_file).stat().st_size for shard in shards)
    assert bound / 2 < max(sizes) <= bound + num * index  # the length of an index is known when it has come
    assert Store(cache / "files").usage().fetching == 0


def _read_after(barrier, root: str, cache: Path) -> None:
    source = open_source(root, "train", None, cache=cache)
    barrier.wait(60)
    assert np.array_equal(source.read([7]).arrays["video"][0], frames_of(7))


def test_two_processes_fetch_a_file_once_and_two_addresses_share_it(dataset, address, tmp_path):
    (dataset.parent / "same").symlink_to(dataset)
    barrier = _SPAWN.Barrier(3)
    roots = [f"{address}/d", f"{address}/d", f"{address}/same"]
    workers = [_SPAWN.Process(target=_read_after, args=(barrier, root, tmp_path / "cache")) for root in roots]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [path.rpartition("/")[2] for path in tars_asked()] == ["train-000001.tar"]


def _fetch_half_and_hang(folder: Path, data: bytes, told: Path) -> None:
    def half(sink: BinaryIO) -> None:
        sink.write(data[:50])
        sink.flush()
        told.touch()
        time.sleep(60)

    Store(folder, 250).open(wanted(data), half)


def test_what_a_killed_process_left_is_deleted_by_the_next(tmp_path):
    store, told = Store(tmp_path / "files", 250), tmp_path / "told"
    worker = _SPAWN.Process(target=_fetch_half_and_hang, args=(store.folder, content("a"), told))
    worker.start()
    deadline = time.monotonic() + 60
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    use(store, content("b"))
    assert store.usage().fetching == 100  # a living process's is left alone
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert bytes_in(store.folder) == 150
    use(store, content("c"))
    assert sorted(path.name for path in store.folder.iterdir()) == sorted(wanted(content(x)).sha256 for x in "bc")
    use(store, content("a"))
    assert "a" in held(store)


# -- a reader of it ------------------------------------------------------------------------------------------------


def reader_of(dataset: Path, cache: Path, max_bytes: int = 0) -> ShardReader:
    folder = open_folder(f"file://{dataset}", cache=cache, cache_gb=max_bytes / 1e9)
    table = open_table(folder, folder.manifest(), "train")
    assert isinstance(table, ShardReader)
    return table


def video(reader: ShardReader, clip: int) -> np.ndarray:
    frames_TCHW = np.empty_like(frames_of(clip))
    reader.read_into(clip, "video", 0, frames_TCHW)
    return frames_TCHW


def deleted_and_open(folder: Path) -> int:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue
    return sum(link.startswith(str(folder)) and link.endswith("(deleted)") for link in links)


def test_a_file_deleted_under_its_reader_is_read_on_and_let_go_when_the_next_is_opened(dataset, tmp_path):
    reader, store = reader_of(dataset, tmp_path / "cache"), Store(tmp_path / "cache" / "files")
    assert np.array_equal(video(reader, 0), frames_of(0))
    store.shrink(0)
    assert np.array_equal(video(reader, 1), frames_of(1))
    assert len(store.usage().files) == 0  # not fetched again for that
    assert deleted_and_open(store.folder) == 1
    assert np.array_equal(video(reader, 5), frames_of(5))
    assert deleted_and_open(store.folder) == 0
    assert np.array_equal(video(reader, 1), frames_of(1))
    reader.close()


def test_a_file_that_is_read_on_and_on_counts_as_used(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.cache._KEEP_OPEN_S", 0.0)
    reader, store = reader_of(dataset, tmp_path / "cache"), Store(tmp_path / "cache" / "files")
    video(reader, 0)
    video(reader, 5)
    time.sleep(0.01)
    video(reader, 0)
    assert store.usage().files[-1][0].name == Manifest.load(dataset).splits["train"].shards[0].sha256
    reader.close()


def test_a_file_that_another_node_deleted_is_fetched_again(dataset, tmp_path, monkeypatch):
    reader = reader_of(dataset, tmp_path / "cache")
    video(reader, 0)
    real, failed = os.preadv, []

    def stale_once(*arguments):
        if not failed:
            failed.append(True)
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(*arguments)

    monkeypatch.setattr("os.preadv", stale_once)
    assert np.array_equal(video(reader, 1), frames_of(1))
    assert failed
    reader.close()


def test_a_damaged_file_is_fetched_again_and_said_so(dataset, tmp_path, caplog):
    reader_of(dataset, tmp_path / "cache").shapes(0)
    assert np.array_equal(video(reader_of(dataset, tmp_path / "cache"), 0), frames_of(0))
    shard = Manifest.load(dataset).splits["train"].shards[0]
    tar, index = (tmp_path / "cache" / "files" / name for name in (shard.sha256, shard.index_sha256))
    tar.write_bytes(tar.read_bytes()[:-1000])
    flip_bit(index, 100)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(video(reader_of(dataset, tmp_path / "cache"), 0), frames_of(0))
    told = [record.getMessage() for record in caplog.records if ": damaged (" in record.getMessage()]
    assert len(told) == 2
    assert any(f"{tar}: damaged ({shard.bytes - 1000} bytes), fetched again" in text for text in told)
    for path, digest in ((tar, shard.sha256), (index, shard.index_sha256)):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_a_split_larger_than_the_bound_is_warned_of(dataset, tmp_path, caplog):
    total = Manifest.load(dataset).splits["train"].bytes
    with caplog.at_level(logging.WARNING):
        open_source(f"file://{dataset}", "train", 5, cache=tmp_path / "c", cache_gb=total / 2e9)
    # half of the files are here; 23 clips, each in a shard that is missing with probability 1/2, in 5 shards
    assert "about 50 % of the clips" in caplog.text
    assert "about 2.3 times the dataset" in caplog.text
    assert f"data.cache_gb={1.01 * total / 1e9:.4g} or more" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        open_source(f"file://{dataset}", "train", 5, cache=tmp_path / "c", cache_gb=total / 1e9)
    assert "random order" not in caplog.text


def test_reading_a_split_larger_than_the_bound_has_the_price_that_the_warning_tells(tmp_path, monkeypatch):
    shards = make_dataset(tmp_path / "d", samples_per_shard=4).splits["train"].shards
    assert len(shards) == 6
    reader, fetched = reader_of(tmp_path / "d", tmp_path / "cache", 3 * shards[0].bytes + 100), []
    real = Store._fetch
    monkeypatch.setattr(Store, "_fetch", lambda self, what, fetch: fetched.append(what) or real(self, what, fetch))
    epochs = 12
    for clip in np.random.default_rng(0).integers(NUM_CLIPS, size=epochs * NUM_CLIPS).tolist():
        video(reader, clip)
    reader.close()
    measured = sum(what.num_bytes is not None for what in fetched) / epochs / len(shards)
    assert measured == pytest.approx((1 - 3 / 6) * 23 / 6, rel=0.15)


# -- where it is, and what is in it --------------------------------------------------------------------------------


def test_variables_in_the_folders_name_are_those_of_the_process(tmp_path, monkeypatch):
    monkeypatch.setenv("ODEVID_CACHE", "$SCRATCH_OF_NODE/c")
    monkeypatch.setenv("SCRATCH_OF_NODE", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_place() == tmp_path / "c"
    assert cache_place("$SCRATCH_OF_NODE/$HOME") == tmp_path / "home/me"
    monkeypatch.delenv("SCRATCH_OF_NODE")
    with pytest.raises(ShardError, match=r"variable in it is not set.*SCRATCH_OF_NODE"):
        cache_place()
    monkeypatch.delenv("ODEVID_CACHE")
    assert cache_place() == Path("/home/me/.cache/odevid")


@pytest.mark.parametrize("template", ["file://{0}/{{shard}}", "{0}/{{shard}}"])
def test_a_slow_disk_is_a_remote_place(dataset, tmp_path, template):
    here = tmp_path / "here"
    here.mkdir()
    (here / "manifest.json").write_bytes((dataset / "manifest.json").read_bytes())
    options = {"shard_url": template.format(dataset), "cache": tmp_path / "cache"}
    assert np.array_equal(open_source(here, "train", None, **options).read([7]).arrays["video"][0], frames_of(7))
    shard = Manifest.load(dataset).splits["train"].shards[1]
    copied = {path.name for path in (tmp_path / "cache" / "files").iterdir()}
    assert copied == {shard.sha256, shard.index_sha256}
    (dataset / shard.file).unlink()
    assert np.array_equal(open_source(here, "train", None, **options).read([8]).arrays["video"][0], frames_of(8))
    (dataset / "train-000000.tar").unlink()
    with pytest.raises(DamageError, match=r"train-000000.tar: not found"):
        open_source(here, "train", None, **options).read([0])


def test_a_folder_with_a_space_is_a_file_address_with_percent_20(tmp_path):
    make_dataset(tmp_path / "my data")
    source = open_source(f"file://{tmp_path}/my%20data", "train", None, cache=tmp_path / "cache")
    assert source.read([3]).keys == ["clip003"]


def test_a_run_names_the_folder_and_the_bound(dataset, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("SCRATCH_OF_NODE", str(tmp_path))
    data = DataConfig(name="kth", root=f"file://{dataset}", cache="$SCRATCH_OF_NODE/c", cache_gb=0.001)
    with caplog.at_level(logging.WARNING):
        assert open_split(data, "train", 5, []).read([0]).keys == ["clip000"]
    assert f"{tmp_path}/c/files (at most 1 MB" in caplog.text
    assert len(list((tmp_path / "c" / "files").iterdir())) == 2
    with pytest.raises(ConfigError, match="cache_gb"):
        DataConfig(cache_gb=-2)


def test_a_cache_that_cannot_be_written_says_what_to_type(dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match=r"(?s)cannot be used as a cache.*data.cache=/path"):
        open_source(f"file://{dataset}", "train", 5, cache=tmp_path / "file")


def run_command(*typed: str) -> None:
    parser = argparse.ArgumentParser()
    cache_command.add_arguments(parser)
    assert cache_command.run(parser.parse_args(typed)) == 0


def test_the_command_lists_limits_and_clears(tmp_path, capsys):
    store = Store(tmp_path / "files", 0)
    for letter in "abc":
        use(store, content(letter, 1000))
    run_command("--cache", str(tmp_path))
    listed = capsys.readouterr().out
    assert "3 kB" in listed
    run_command("--cache", str(tmp_path), "--limit", "2.5e-6")
    assert "deleted 1 kB" in capsys.readouterr().out
    assert held(store) == {"b", "c"}
    run_command("--cache", str(tmp_path), "--clear")
    assert "deleted 2 kB" in capsys.readouterr().out
    assert held(store) == set()
    with pytest.raises(SystemExit):
        run_command("--limit", "-1")
