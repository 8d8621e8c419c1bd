"""``python -m shards``: what the commands find, make, print and return."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards.cli import BUILDERS, main
from shards.manifest import Manifest
from shards.opening import open_source
from tests.shards.stored_clips import flip_bit, make_dataset, open_reader
from tests.shards.test_foreign import saved, smooth, write_tar


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "d")
    return tmp_path / "d"


def test_verify_passes_what_is_as_it_was_written(root, capsys):
    assert main(["verify", str(root)]) == 0
    assert "every bit is as it was written" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["zstd", "mp4"])
def test_verify_decodes_every_encoding(tmp_path, encoding):
    make_dataset(tmp_path / "e", encoding=encoding)
    assert main(["verify", str(tmp_path / "e")]) == 0


def test_verify_lists_every_damage_and_returns_1(root, capsys):
    flip_bit(root / "train-000000.tar", int(open_reader(root)._index(0).arrays["video"].offset[2]))
    (root / "train-000001.tar").unlink()
    cut = root / "train-000002.tar"
    cut.write_bytes(cut.read_bytes()[:9000])
    flip_bit(root / "test-000000.index.npz", 300)
    assert main(["verify", str(root)]) == 1
    found = capsys.readouterr().out
    assert "train-000000.tar: SHA-256 is not that of the manifest" in found
    assert "train-000000.tar, member clip002.video.raw, offset" in found
    assert found.count("train-000001.tar: the shard is missing") == 1
    assert "train-000002.tar: found 9000 bytes, expected 31744" in found
    assert "train-000002.tar, member clip014.video.raw" in found
    assert "test-000000.index.npz: not the index that was written" in found


def test_verify_finds_a_flipped_bit_anywhere_in_a_shard(root):
    path = root / "test-000000.tar"
    whole = path.read_bytes()
    for offset in np.random.default_rng(0).integers(0, len(whole), 20).tolist():
        flip_bit(path, offset)
        assert main(["verify", str(root)]) == 1
        path.write_bytes(whole)


def test_lost_indexes_are_made_again_bit_for_bit(root, capsys):
    before = {path: path.read_bytes() for path in root.glob("*.index.npz")}
    for path in before:
        path.unlink()
    (root / "train-000003.index.npz").write_bytes(b"nonsense")
    assert main(["index", str(root)]) == 0
    assert {path: path.read_bytes() for path in root.glob("*.index.npz")} == before
    assert capsys.readouterr().out.count("made again") == 6
    assert main(["index", str(root)]) == 0
    assert "every index is as it was written" in capsys.readouterr().out


def test_an_index_is_not_made_of_a_tar_that_is_not_the_manifests(root, capsys):
    (root / "train-000000.index.npz").unlink()
    flip_bit(root / "train-000000.tar", int(open_reader(root)._index(1).arrays["video"].offset[0]))
    assert main(["index", str(root)]) == 1
    assert "not the shard that the manifest describes" in capsys.readouterr().err
    assert not (root / "train-000000.index.npz").exists()


def test_inspect_prints_the_card_and_says_where_it_is(root, capsys):
    assert main(["inspect", str(root), "--split", "test", "--clips", "2", "--frames", "3"]) == 0
    printed = capsys.readouterr().out
    for expected in ("test", "T12 C3 H8 W8", "10 frames/s", "encoding raw", "$ test", "4 of 4"):
        assert expected in printed
    assert f"card: {root / 'card' / 'card.md'}" in printed
    with Image.open(root / "card" / "contact-sheet-test.png") as sheet:
        assert sheet.width >= 3 * 112 and 2 * 112 <= sheet.height < 3 * 112


def test_inspect_refuses_a_sheet_without_rows(root, capsys):
    with pytest.raises(SystemExit):
        main(["inspect", str(root), "--clips", "0"])
    assert "--clips" in capsys.readouterr().err


def test_repack_keeps_contents_fingerprint_and_order(root, tmp_path):
    out = tmp_path / "new"
    assert main(["repack", str(root), "--out", str(out), "--shard-size", "9", "--encoding", "zstd"]) == 0
    before, after = Manifest.load(root), Manifest.load(out)
    assert after.fingerprint == before.fingerprint
    assert [shard.samples for shard in after.splits["train"].shards] == [9, 9, 5]
    assert after.encoding == "zstd"
    assert after.provenance["command"] == "test"
    assert "repack" in after.provenance["history"][0] or "python -m shards" in after.provenance["history"][0]
    assert main(["verify", str(out)]) == 0
    positions = np.arange(50)
    old, new = (open_source(folder, "train", 5).fetch(positions, 3) for folder in (root, out))
    assert old.keys == new.keys
    assert np.array_equal(old.arrays["video"], new.arrays["video"])


def test_repack_makes_a_dataset_of_anyones_tars(tmp_path):
    clips = {f"d/c{n}.npy": saved(smooth(n)[: 9 - n]) for n in range(4)} | {"../up.npy": saved(smooth(7))}
    write_tar(tmp_path / "x.tar", clips)
    arguments = ["--split", "all", "--min-frames", "7"]
    assert main(["repack", str(tmp_path / "x.tar"), "--out", str(tmp_path / "new"), *arguments]) == 0
    source = open_source(tmp_path / "new", "all", 7)
    fetched = source.read(range(len(source)))
    assert fetched.keys == ["d/c0", "d/c1", "d/c2", "__/up"]
    assert np.array_equal(fetched.arrays["video"][2], smooth(2)[:7])


def test_index_scans_anyones_tars_and_lists_damage(tmp_path, capsys):
    write_tar(tmp_path / "x.tar", {"a.npy": saved(smooth(1)), "b.mp4": b"no video", "c.pkl": b"x"})
    assert main(["index", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 1
    printed = capsys.readouterr().out
    assert "2 clips, 1 damaged, 1 pickles left alone" in printed
    assert "b.mp4, offset" in printed


def test_a_built_dataset_knows_the_command_that_made_it(tmp_path, capsys):
    out = tmp_path / "mmnist"
    words = ["build", "moving-mnist", "--out", str(out), "--test-set", "generated", "--test-sequences", "3"]
    assert main(words) == 0
    assert "built moving-mnist" in capsys.readouterr().out
    assert Manifest.load(out).splits["test"].samples == 3
    assert Manifest.load(out).provenance["command"] == f"python -m shards {' '.join(words)}"


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["build", name, "--help"])
    assert ended.value.code == 0
    assert "--out" in capsys.readouterr().out


def test_help_teaches_with_examples_and_errors_are_short(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m shards verify" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "nothing")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    (tmp_path / "empty").mkdir()
    assert main(["inspect", str(tmp_path / "empty")]) == 1
    assert "repack DIR --split all" in capsys.readouterr().err
