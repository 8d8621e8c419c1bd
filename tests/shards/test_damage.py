"""Damaged data: an error that says where, or a substitute that is the same on every rank and after every resume."""

from pathlib import Path

import numpy as np
import pytest

from shards.dataset import substitute_clip
from shards.errors import DamageError, ShardError
from shards.order import Order
from shards.source import Substitution
from shards.substitution import SubstitutionLedger
from tests.shards.stored_clips import NUM_CLIPS, flip_bit, frames_of, make_dataset, open_clips, open_reader

SEED = 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "d")
    return tmp_path / "d"


def break_clip(root: Path, clip: int) -> None:
    """Flip a bit in every frame of a clip."""
    reader = open_reader(root)
    offset = int(reader._index(clip // 5).arrays["video"].offset[clip % 5])
    for frame in range(12):
        flip_bit(root / f"train-{clip // 5:06d}.tar", offset + frame * frames_of(0)[0].nbytes)


def all_keys(root: Path, **options) -> list[str]:
    return open_clips(root, **options).fetch(np.arange(NUM_CLIPS), SEED).keys


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_tar_names_file_member_and_offset(root, verify):
    path = root / "train-000002.tar"
    reader = open_reader(root)
    offset = int(reader._index(2).arrays["video"].offset[3])
    path.write_bytes(path.read_bytes()[: offset + 100])
    source = open_clips(root, 5, verify=verify)
    assert source.read([12]).keys == ["clip012"]  # what lies before the cut is still good
    with pytest.raises(DamageError) as found:
        source.read([13])
    expected = (
        f"{path}, member clip013.video.raw, offset {offset}: truncated: the member needs bytes up to {offset + 960}"
    )
    assert expected in str(found.value)
    assert "python -m shards verify" in str(found.value)


def test_a_file_of_another_length_is_checked_even_without_verify(root):
    break_clip(root, 1)
    path = root / "train-000000.tar"
    assert open_clips(root, verify=False).read([1]).keys == ["clip001"]
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DamageError, match="corrupt"):
        open_clips(root, verify=False).read([1])


def test_a_missing_shard_is_named(root):
    (root / "train-000001.tar").unlink()
    with pytest.raises(DamageError, match=r"train-000001.tar: the shard is missing\n.*verify DIR"):
        all_keys(root)


def test_a_missing_index_and_one_of_another_tar_say_what_to_type(root):
    first, second = root / "train-000000.index.npz", root / "train-000001.index.npz"
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(DamageError, match=r"the index is missing\n.*python -m shards index"):
        open_clips(root).read([0])
    first.write_bytes(second.read_bytes())
    with pytest.raises(DamageError, match=r"not the index that was written for train-000000.tar"):
        open_clips(root).read([0])
    first.write_bytes(kept)
    assert open_clips(root).read([0]).keys == ["clip000"]


@pytest.mark.parametrize("encoding", ["zstd", "mp4"])
def test_flipped_bits_in_compressed_clips_are_found(tmp_path, encoding):
    make_dataset(tmp_path / "e", encoding=encoding)
    offset = int(open_reader(tmp_path / "e")._index(0).arrays["video"].offset[1])
    flip_bit(tmp_path / "e" / "train-000000.tar", offset + 40)
    with pytest.raises(DamageError, match=r"train-000000.tar, member clip001.video.*corrupt"):
        open_clips(tmp_path / "e").read([1])


def test_without_a_budget_damage_ends_the_run(root):
    break_clip(root, 7)
    with pytest.raises(DamageError, match="clip007"):
        all_keys(root)


def test_within_the_budget_another_clip_takes_the_place_and_both_are_named(root):
    whole = all_keys(root)
    break_clip(root, 7)
    fetched = open_clips(root, max_substitutions=1).fetch(np.arange(NUM_CLIPS), SEED)
    position = whole.index("clip007")
    (record,) = fetched.substitutions
    assert (record.position, record.bad_key, record.attempt) == (position, "clip007", 1)
    assert "CRC-32" in record.reason
    assert record.substitute_key == f"clip{substitute_clip(SEED, position, 1, NUM_CLIPS):03d}"
    assert fetched.keys == [record.substitute_key if key == "clip007" else key for key in whole]
    clip = int(record.substitute_key[4:])
    start = fetched.arrays["video"][position, 0, 0, 0, 0]
    assert np.array_equal(fetched.arrays["video"][position], frames_of(clip)[start : start + 5])


def test_a_substitute_does_not_depend_on_who_reads_it_with_what(root):
    for clip in (2, 7, 11, 12, 13, 20):
        break_clip(root, clip)
    together = open_clips(root, max_substitutions=9).fetch(np.arange(60), SEED)
    records = {record.position: record for record in together.substitutions}
    assert len(records) > 10
    for position, record in records.items():
        alone = open_clips(root, max_substitutions=9).fetch(np.array([position]), SEED)
        assert alone.substitutions == [record]
        assert np.array_equal(alone.arrays["video"][0], together.arrays["video"][position])


def test_a_lost_shard_is_replaced_clip_by_clip(root):
    (root / "train-000001.tar").unlink()
    (root / "train-000001.index.npz").unlink()
    fetched = open_clips(root, max_substitutions=5).fetch(np.arange(NUM_CLIPS), SEED)
    assert len(fetched.substitutions) == 5
    assert {record.bad_key for record in fetched.substitutions} == {f"train-000001.tar[{row}]" for row in range(5)}


def test_beyond_repair_is_an_error(root):
    for path in root.glob("train-*.tar"):
        path.unlink()
    with pytest.raises(ShardError, match="32 substitutes"):
        open_clips(root, max_substitutions=100).fetch(np.arange(1), SEED)


def test_what_a_checkpoint_knows_is_replayed_even_if_the_file_was_mended(root):
    mended = {path: path.read_bytes() for path in root.glob("*.tar")}
    for clip in (2, 7, 11, 12, 13, 20):
        break_clip(root, clip)
    ledger = SubstitutionLedger(6)
    broken = open_clips(root, max_substitutions=6).fetch(np.arange(100), SEED)
    for record in broken.substitutions:
        ledger.add(record)
    for path, data in mended.items():
        path.write_bytes(data)
    resumed = SubstitutionLedger(6)
    resumed.load_state_dict(ledger.state_dict())
    source = open_clips(root, max_substitutions=6)
    source.quarantine(resumed.records)
    for positions in (np.arange(100), np.arange(0, 100, 2), np.arange(1, 100, 4)):  # as 1, 2 and 4 ranks would ask
        again = source.fetch(positions, SEED)
        assert again.keys == [broken.keys[position] for position in positions]
        assert np.array_equal(again.arrays["video"], broken.arrays["video"][positions])
        wanted = set(positions.tolist())
        found = [(r.position, r.bad_key, r.substitute_key) for r in again.substitutions]
        assert found == [
            (r.position, r.bad_key, r.substitute_key) for r in broken.substitutions if r.position in wanted
        ]


def test_a_substitute_that_was_damaged_too_is_quarantined(root):
    position = 0
    clip = int(Order(SEED, open_reader(root).fingerprint, NUM_CLIPS).index(np.array(position)))
    first = substitute_clip(SEED, position, 1, NUM_CLIPS)
    assert first != clip
    break_clip(root, clip)
    break_clip(root, first)
    (record,) = open_clips(root, max_substitutions=2).fetch(np.array([position]), SEED).substitutions
    assert record.attempt >= 2
    source = open_clips(root, max_substitutions=2)
    source.quarantine([record])
    replaced = {r.bad_key for r in source.fetch(np.arange(NUM_CLIPS), SEED).substitutions}
    assert replaced == {f"clip{clip:03d}", f"clip{first:03d}"}


def a_record(position: int, bad: str) -> Substitution:
    return Substitution(position, bad, "good", 1, "corrupt")


def test_the_ledger_counts_damaged_samples_and_lists_them_over_budget():
    ledger = SubstitutionLedger(2)
    assert ledger.add(a_record(5, "a"))
    assert not ledger.add(a_record(105, "a"))  # the next epoch
    assert ledger.add(a_record(7, "b"))
    assert (ledger.positions, len(ledger.records)) == (3, 2)
    with pytest.raises(
        ShardError, match=r"3 samples are damaged, the budget is 2:(?s:.*)position 6: c -> good"
    ) as found:
        ledger.add(a_record(6, "c"))
    assert "data.max_substitutions" in str(found.value)


def test_the_ledger_is_the_same_whatever_the_order_of_the_ranks():
    records = [a_record(5, "a"), a_record(105, "a"), a_record(7, "b")]
    states = []
    for order in (records, records[::-1]):
        ledger = SubstitutionLedger(2)
        for record in order:
            ledger.add(record)
        states.append(ledger.state_dict())
    assert states[0] == states[1]
    assert [Substitution(**record).position for record in states[0]["records"]] == [5, 7]
