"""W&B's offline folders stay within a limit; the newest, and everything that is not one, stays."""

from __future__ import annotations

from pathlib import Path

from hpc.tracking.offline_limit import limit_offline_folders


def folder(root: Path, name: str, size: int) -> Path:
    (root / name / "files").mkdir(parents=True)
    (root / name / "files" / "video.gif").write_bytes(b"x" * size)
    return root / name


def test_the_oldest_folders_go_until_the_rest_is_within_the_limit(tmp_path):
    old, middle, new = (folder(tmp_path, f"offline-run-2026112{day}_101500-abc", 1000) for day in (1, 2, 3))
    other = folder(tmp_path, "run-20200101_101500-online", 10_000)
    (tmp_path / "latest-run").symlink_to(new.name)
    assert limit_offline_folders(tmp_path, 2500) == [old.name]
    assert not old.exists()
    assert middle.exists() and other.exists() and (tmp_path / "latest-run").is_symlink()


def test_the_newest_stays_even_if_it_is_too_large_alone(tmp_path):
    old, new = (folder(tmp_path, f"offline-run-2026112{day}_101500-abc", 5000) for day in (1, 2))
    assert limit_offline_folders(tmp_path, 100) == [old.name]
    assert new.exists()


def test_within_the_limit_or_without_wandb_nothing_happens(tmp_path):
    folder(tmp_path, "offline-run-20261121_101500-abc", 100)
    assert limit_offline_folders(tmp_path, 1000) == []
    assert limit_offline_folders(tmp_path / "absent", 1000) == []
