"""The manifest: what is written is read back, and nothing in it can reach outside the folder or be run."""

import json
import subprocess
import sys

import pytest

from shards.errors import RefusedError, ShardError
from shards.manifest import ArraySpec, Manifest, ShardInfo, SplitInfo, video_spec


def a_manifest(file: str = "train-000000.tar") -> Manifest:
    shard = ShardInfo(file, 3, 10240, "a" * 64, "b" * 64)
    splits = {"train": SplitInfo(("video",), (shard,), "c" * 64)}
    return Manifest("tiny", {"video": video_spec(12, 3, 8, 8)}, 10.0, "raw", splits, {"command": "build"})


def test_manifest_is_read_back_as_written(tmp_path):
    manifest = a_manifest()
    assert manifest.save(tmp_path) == tmp_path / "manifest.json"
    assert Manifest.load(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "name",
    ["../train.tar", "/etc/passwd", "pipe:touch /tmp/x", "http://host/a.tar", "a/b.tar", "-n.tar", "a;b.tar", ""],
)
def test_a_manifest_cannot_name_paths_addresses_or_commands(name):
    with pytest.raises(RefusedError, match="plain file name"):
        Manifest.from_json(a_manifest(name).to_json())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"fingerprint": "0" * 64}, "fingerprint"),
        ({"fps": 25.0}, "fingerprint"),
        ({"version": 99}, "expected"),
        ({"format": "other"}, "expected"),
        ({"splits": {"train": {"arrays": ["video"]}}}, "incomplete"),
        ({"arrays": {}}, "undeclared"),
    ],
)
def test_a_changed_manifest_is_an_error_that_says_what_is_wrong(change, expected):
    text = json.dumps(json.loads(a_manifest().to_json()) | change)
    with pytest.raises(ShardError, match=expected):
        Manifest.from_json(text)


def test_no_dataset_and_no_split_are_errors_with_what_to_type(tmp_path):
    with pytest.raises(ShardError, match="python -m shards build"):
        Manifest.load(tmp_path)
    with pytest.raises(ShardError, match=r"no split 'valid'; it has: train"):
        a_manifest().split("valid")


def test_impossible_array_declarations_are_refused():
    with pytest.raises(ShardError, match="complex64"):
        ArraySpec("complex64", "T", (3,), (0, 1))
    with pytest.raises(ShardError, match=r"names? 2 axes"):
        ArraySpec("uint8", "TC", (3,), (0, 1))
    with pytest.raises(ShardError, match="range"):
        ArraySpec("uint8", "T", (3,), (1, 0))


def test_importing_the_package_and_its_help_loads_no_torch():
    code = "import shards, shards.manifest, shards.cli, sys; shards.cli.build_parser(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
