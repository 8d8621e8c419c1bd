"""A checkpoint is complete or it is not there; a resume never starts silently from zero; nothing in one is run."""

import fcntl
import json
import mmap
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpc.checkpoint.errors import CheckpointDamagedError, CheckpointWriteError, NoUsableCheckpointError
from hpc.checkpoint.store import Checkpoint, CheckpointStore, parse_step, step_name


def state_of(step):
    generator = torch.Generator().manual_seed(step)
    return {
        "format": 1,
        "step": step,
        "engines": {"main": {"weights": {"w": torch.randn(64, 33, generator=generator)}, "updates": step}},
        "substitutions": [(1, "a", "b")],
        "schedule": None,
        "lr": 0.25,
    }


def same(left, right):
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return left == right


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(tmp_path, said):
    return CheckpointStore(tmp_path / "checkpoints", keep_last=3, log=said.append)


def commit(store, *steps, **metrics):
    for step in steps:
        store.commit(step, state_of(step), {"metrics": metrics})


def newest_of(store) -> Checkpoint:
    checkpoint = store.newest()
    assert checkpoint is not None
    return checkpoint


def steps_in(store):
    return [checkpoint.step for checkpoint in store.complete()]


def hidden(store):
    return sorted(path.name for path in store.root.glob(".*"))


def test_what_was_committed_is_read_back_bit_for_bit(store):
    path = store.commit(1000, state_of(1000), {"metrics": {"psnr": float("nan")}, "attempt": 2})
    newest = store.newest()
    assert path == newest.path == store.root / "step-000001000"
    assert newest.meta["attempt"] == 2
    assert same(store.read(newest), state_of(1000))
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "state.pt"]
    assert (store.root / "latest").read_text() == "step-000001000\n"


def test_manifest_is_standard_json_and_hashes_are_those_of_another_tool(store):
    import hashlib

    path = store.commit(7, state_of(7), {"metrics": {"psnr": float("inf")}})
    body = json.loads((path / "manifest.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    content = (path / "state.pt").read_bytes()
    assert body["files"] == {"state.pt": [len(content), hashlib.sha256(content).hexdigest()]}


def test_state_loads_without_this_project(store):
    path = store.commit(7, state_of(7), {})
    assert same(torch.load(path / "state.pt", weights_only=True), state_of(7))


def test_nothing_there_is_none_for_auto_and_an_error_for_required(store):
    assert store.newest() is None
    assert store.select("auto") is None
    with pytest.raises(NoUsableCheckpointError, match="resume=auto"):
        store.select("required")


def test_no_torch_is_needed_to_list_checkpoints(store):
    import subprocess
    import sys

    commit(store, 5)
    code = (
        "import sys, pathlib; from hpc.checkpoint.store import CheckpointStore;"
        f"s = CheckpointStore(pathlib.Path({str(store.root)!r}), keep_last=2);"
        "assert s.newest().step == 5; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


# -- retention -------------------------------------------------------------------------------------------------------


def test_last_best_and_milestones_stay(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=1, milestone_every=400, best_metric="psnr")
    for step, psnr in [(100, 1.0), (200, 9.0), (300, 2.0), (400, 3.0), (500, float("nan")), (600, 4.0), (700, 5.0)]:
        commit(store, step, psnr=psnr)
    assert steps_in(store) == [200, 400, 600, 700]
    assert hidden(store) == []


def test_best_can_mean_least(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2, keep_best=1, best_metric="loss", best_direction="min")
    for step, loss in [(1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0), (5, 4.0)]:
        commit(store, step, loss=loss)
    assert steps_in(store) == [2, 4, 5]


def test_a_rule_that_leaves_nothing_to_fall_back_on_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep_last=1"):
        CheckpointStore(tmp_path, keep_last=1)


def test_a_checkpoint_being_read_by_somebody_is_not_deleted(store):
    commit(store, 1, 2, 3)
    with (store.root / step_name(1) / "manifest.json").open("rb") as manifest:
        fcntl.flock(manifest, fcntl.LOCK_SH)
        commit(store, 4)
        assert steps_in(store) == [1, 2, 3, 4]
    commit(store, 5)
    assert steps_in(store) == [3, 4, 5]


# -- damage ----------------------------------------------------------------------------------------------------------


def flip_byte(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 0x10
    path.write_bytes(content)


def empty_directory(path):
    for file in path.iterdir():
        file.unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped first byte": lambda path: flip_byte(path / "state.pt", 0),
    "flipped middle byte": lambda path: flip_byte(path / "state.pt", 4000),
    "flipped last byte": lambda path: flip_byte(path / "state.pt", -1),
    "cut by one byte": lambda path: os.truncate(path / "state.pt", (path / "state.pt").stat().st_size - 1),
    "emptied": lambda path: os.truncate(path / "state.pt", 0),
    "missing state": lambda path: (path / "state.pt").unlink(),
    "state is a link": lambda path: (path / "state.pt").rename(path / "x").with_name("state.pt").symlink_to("x"),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "manifest that is a number": lambda path: (path / "manifest.json").write_text("3"),
    "manifest names a file elsewhere": lambda path: (path / "manifest.json").write_text(
        (path / "manifest.json").read_text().replace("state.pt", "../x")
    ),
    "empty directory": empty_directory,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_to_the_one_before_loudly(store, said, damage):
    commit(store, 1, 2, 3)
    DAMAGES[damage](store.root / step_name(3))
    assert newest_of(store).step == 2
    assert same(store.read(newest_of(store)), state_of(2))
    assert "DAMAGED" in said[0]
    assert step_name(3) in said[0]


def test_the_message_names_file_found_and_expected(store, said):
    commit(store, 1, 2)
    path = store.root / step_name(2) / "state.pt"
    size = path.stat().st_size
    os.truncate(path, 100)
    store.newest()
    assert f"{path} has 100 bytes" in said[0]
    assert f"its manifest says {size}" in said[0]


def test_no_flipped_byte_of_a_manifest_goes_unnoticed(store):
    commit(store, 1, 2)
    path = store.root / step_name(2) / "manifest.json"
    sound = path.read_bytes()
    for position in range(len(sound)):
        path.write_bytes(sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
        assert newest_of(store).step == 1, sound[position : position + 20]


def test_all_damaged_is_an_error_that_says_what_to_type(store):
    commit(store, 1, 2)
    for step in (1, 2):
        flip_byte(store.root / step_name(step) / "state.pt", 50)
    for resume in ("auto", "required"):
        with pytest.raises(NoUsableCheckpointError, match="resume=never"):
            store.select(resume)
    assert store.select("never") is None
    assert store.select("auto") is None
    assert sorted(path.name for path in (store.root / "set-aside-001").iterdir()) == [step_name(1), step_name(2)]


def test_a_fallen_back_run_recomputes_the_damaged_step_and_does_not_meet_it_again(store, said):
    commit(store, 1, 2, 3)
    flip_byte(store.root / step_name(3) / "state.pt", 50)
    assert store.select("auto").step == 2
    said.clear()
    commit(store, 3, 4)
    assert newest_of(store).step == 4
    assert steps_in(store) == [2, 3, 4]
    assert said == []


def test_resume_never_moves_old_checkpoints_aside_and_deletes_none(store):
    commit(store, 1, 2)
    assert store.select("never") is None
    commit(store, 1)
    assert store.select("auto").step == 1
    assert store.select("never") is None
    assert (store.root / "set-aside-001" / step_name(2) / "state.pt").exists()
    assert (store.root / "set-aside-002" / step_name(1) / "state.pt").exists()


def test_a_step_from_the_past_is_refused_instead_of_confusing_the_next_resume(store):
    commit(store, 5)
    with pytest.raises(ValueError, match="step 5"):
        commit(store, 4)


@pytest.mark.parametrize(
    "name", ["step-1000", "step-0000010000", "step-00000100x", "step--00000100", "step-000001000~", "Step-000001000"]
)
def test_only_exact_names_are_checkpoints(store, name):
    assert parse_step(name) is None
    commit(store, 3)
    shutil.copytree(store.root / step_name(3), store.root / name)
    assert store.select("auto").step == 3
    assert steps_in(store) == [3]


def test_a_link_or_a_renamed_folder_is_not_taken_for_a_checkpoint(store, said):
    commit(store, 3)
    (store.root / step_name(9)).symlink_to(store.root / step_name(3))
    shutil.copytree(store.root / step_name(3), store.root / step_name(4))
    assert newest_of(store).step == 3
    assert "its directory says 4" in said[0]


def test_nine_digits_are_not_the_end():
    assert parse_step(step_name(12_345_678_901)) == 12_345_678_901


# -- hostile and unfit content -----------------------------------------------------------------------------------------


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused(store, tmp_path):
    """Even one whose manifest fits: the hash says who wrote the bytes last, not that they are harmless."""
    from hpc.checkpoint.durable import hash_file
    from hpc.checkpoint.manifest import Manifest

    commit(store, 1)
    path = store.root / step_name(1)
    touched = tmp_path / "touched"
    torch.save({"weights": Payload(touched)}, path / "state.pt")
    (path / "manifest.json").unlink()
    Manifest(step=1, time=0.0, files={"state.pt": hash_file(path / "state.pt")}, meta={}).save(path)
    with pytest.raises(CheckpointDamagedError, match="refused") as refusal:
        store.read(newest_of(store))
    assert "state.pt" in str(refusal.value)
    assert not touched.exists()
    torch.load(path / "state.pt", weights_only=False)
    assert touched.exists(), "the payload is a real one"


def test_a_state_that_could_not_be_read_back_is_refused_before_writing(store):
    import numpy

    state = {"engines": {"main": {"lr": numpy.float64(3)}}}
    with pytest.raises(TypeError, match=r"state\['engines'\]\['main'\]\['lr'\] is a numpy.float64"):
        store.commit(1, state, {})
    with pytest.raises(TypeError, match="Parameter"):
        store.commit(1, {"w": torch.nn.Parameter(torch.zeros(1))}, {})
    with pytest.raises(TypeError, match="torch"):
        store.commit(1, {}, {"metrics": {"psnr": torch.zeros(1)}})
    assert list(store.root.iterdir()) == []


# -- full disk -------------------------------------------------------------------------------------------------------

IO_CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


class Nth:
    """Before the n-th I/O call below `root` that changes the disk, do `act`."""

    def __init__(self, monkeypatch, nth, act):
        self.count, self.nth, self.act, self.names = 0, nth, act, []
        for name in IO_CALLS:
            monkeypatch.setattr(os, name, self._wrapped(name, getattr(os, name)))

    def _wrapped(self, name, real):
        def call(*args, **kwargs):
            if name != "open" or args[1] & os.O_CREAT:
                self.count += 1
                self.names.append(name)
                if self.count == self.nth:
                    self.act(name, real, args)
            return real(*args, **kwargs)

        return call


def out_of_space(name, real, args):
    if name == "write":
        real(args[0], args[1][: len(args[1]) // 2])
    if name not in ("unlink", "rmdir"):
        raise OSError(28, "No space left on device")


def count_io_calls(tmp_path, monkeypatch, scenario):
    with monkeypatch.context() as patch:
        counter = Nth(patch, -1, None)
        scenario(tmp_path / "count")
    return counter.count


def refusal(store, step):
    try:
        commit(store, step)
    except CheckpointWriteError as error:
        return str(error)
    return None


def four_commits(root):
    store = CheckpointStore(root, keep_last=2)
    commit(store, 1, 2, 3, 3)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """What is killed here is the process, not the machine: hundreds of real syncs would only cost time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_a_full_disk_at_any_call_loses_nothing_older_and_leaves_no_litter(tmp_path, monkeypatch):
    for nth in range(1, count_io_calls(tmp_path, monkeypatch, four_commits) + 1):
        store = CheckpointStore(tmp_path / f"{nth}", keep_last=2, log=lambda _: None)
        done: list[int] = []
        with monkeypatch.context() as patch:
            Nth(patch, nth, out_of_space)
            for step in (1, 2, 3, 3):
                if refused := refusal(store, step):
                    assert "No space left" in refused
                    assert f"step {step}" in refused
                    assert not done or newest_of(store).step >= max(done), nth
                else:
                    done.append(step)
                    assert newest_of(store).step == step
                assert not [name for name in hidden(store) if name.startswith(".tmp-step")]
        assert done.count(3) >= 1
        assert same(store.read(newest_of(store)), state_of(3))
        assert steps_in(store)[-2:] in ([2, 3], [1, 3])


def test_a_real_write_limit_gives_the_typed_error(tmp_path):
    """The kernel itself refuses: a file size limit of 4 KiB, set in a child so that it does not bind the suite."""

    def child():
        store = CheckpointStore(tmp_path, keep_last=2)
        commit(store, 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(CheckpointWriteError, match="File too large"):
            commit(store, 2)
        assert newest_of(store).step == 1
        assert hidden(store) == []

    assert in_child(child) == 0


# -- killed ----------------------------------------------------------------------------------------------------------


def in_child(work):
    """Run `work` in a forked process; its exit code, or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  a forked child must never run on into the suite
            import traceback

            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_self(name, real, args):
    if name == "write":
        real(args[0], args[1][: len(args[1]) // 2])
    os.kill(os.getpid(), 9)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_a_kill_at_every_io_call_leaves_the_newest_complete_and_nothing_older_lost(tmp_path, monkeypatch):
    """Before each call that changes the disk, and half-way through each write: commits, a replacement, deletions."""
    prepared = tmp_path / "prepared"
    commit(CheckpointStore(prepared, keep_last=2), 1, 2)

    def commit_and_replace(root, after_each=lambda: None):
        store = CheckpointStore(root, keep_last=2)
        for _ in range(2):
            commit(store, 3)  # the second time it replaces
            after_each()

    shutil.copytree(prepared, tmp_path / "count")
    total = count_io_calls(tmp_path, monkeypatch, commit_and_replace)
    assert total > 50
    for nth in range(1, total + 1):
        root = Path(shutil.copytree(prepared, tmp_path / f"{nth}"))
        returned = mmap.mmap(-1, 2)

        def child(root=root, nth=nth, returned=returned):
            with pytest.MonkeyPatch.context() as patch:
                Nth(patch, nth, kill_self)
                commit_and_replace(root, lambda: returned.write(b"x"))

        assert in_child(child) == -9
        said: list[str] = []
        store = CheckpointStore(root, keep_last=2, log=said.append)
        found = newest_of(store)  # a reader, before the owner has tidied up
        assert found.step == 3 or (found.step == 2 and returned[:1] == b"\0"), nth
        chosen = store.select("auto")
        assert chosen is not None
        assert chosen.step == found.step
        assert same(store.read(chosen), state_of(chosen.step))
        assert said == [], "a kill leaves no damaged checkpoint, only an absent one"
        assert 2 in steps_in(store), "one to fall back on stays"
        assert hidden(store) == [] or hidden(store) == [".tmp-latest"], nth
        commit(store, 3, 4)
        assert steps_in(store)[-2:] == [3, 4]
        assert hidden(store) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_at_a_random_moment_leaves_the_newest_complete(tmp_path, seed):
    """Saving in a loop in another process, killed from outside, over and over on the same directory."""
    import random
    import signal
    import time

    chance = random.Random(seed)
    survived = 0
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            store = CheckpointStore(tmp_path, keep_last=2)
            chosen = store.select("auto")
            step = chosen.step if chosen else 0
            while True:
                step += 1
                commit(store, step)
        time.sleep(chance.uniform(0.01, 0.12))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        said: list[str] = []
        store = CheckpointStore(tmp_path, keep_last=2, log=said.append)
        newest = store.newest()
        step = newest.step if newest else 0
        assert step >= survived
        assert said == []
        assert newest is None or same(store.read(newest), state_of(step))
        survived = step
    assert survived > 3


def test_every_byte_is_synced_before_the_rename_that_commits_it(tmp_path, monkeypatch):
    """What a power cut may undo: data not synced, and names whose directory was not synced."""
    log = []
    for name in ("write", "fsync", "rename"):
        real = getattr(os, name)

        def call(first, *args, name=name, real=real):
            path = str(Path(f"/proc/self/fd/{first}").readlink()) if isinstance(first, int) else str(first)
            log.append((name, path, str(args[0]) if name == "rename" else ""))
            return real(first, *args)

        monkeypatch.setattr(os, name, call)
    store = CheckpointStore(tmp_path.resolve(), keep_last=2)
    commit(store, 1)
    committed = next(position for position, entry in enumerate(log) if entry[0] == "rename")
    temporary = log[committed][1]
    before, after = log[:committed], log[committed + 1 :]
    for file in ("state.pt", "manifest.json"):
        path = f"{temporary}/{file}"
        operations = [name for name, where, _ in before if where == path]
        assert operations[-1] == "fsync"
        assert operations.count("fsync") == 1
    assert before[-1][:2] == ("fsync", temporary)
    assert after[0][:2] == ("fsync", str(tmp_path.resolve()))
