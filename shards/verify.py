"""Is a dataset as it was written? ``python -m shards verify DIR``

In: a folder. Out: a report of every file and sample that is missing, cut short, changed or not decodable, and where.

    each shard: length, SHA-256, index --> each sample: CRC-32, decoding, shape --> each split: digest of its contents
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from shards.checksum import sha256_of_file
from shards.encoding import Encoding
from shards.errors import DamageError
from shards.folder import Folder
from shards.manifest import Manifest, ShardInfo
from shards.reader import ShardReader, read_arrays
from shards.writer import ContentDigest, Sample, sample_digest


@dataclass
class SplitReport:
    """What was found in one split: samples that are sound, their number by the manifest, and the damage, in words."""

    split: str
    expected: int
    sound: int = 0
    damage: list[str] = field(default_factory=list)


def verify_dataset(
    folder: Folder, manifest: Manifest, on_bytes: Callable[[int], None] = lambda _: None
) -> list[SplitReport]:
    """Read everything once and compare it with the manifest and the indexes.

    Args:
        folder: the dataset's.
        manifest: the dataset's.
        on_bytes: hears the bytes of the tars as they are dealt with, each counted twice: once for the digest of the
            file, once for the samples in it.

    Returns:
        One report for each split; no ``damage`` in any of them means that every bit is as it was written.
    """
    return [_verify_split(folder, manifest, split, on_bytes) for split in manifest.splits]


def _verify_split(folder: Folder, manifest: Manifest, split: str, on_bytes: Callable[[int], None]) -> SplitReport:
    reader = ShardReader(folder, manifest, split, verify=True)
    report = SplitReport(split, len(reader))
    content = ContentDigest()
    first = 0
    for info in reader.shards:
        _verify_file(folder, info, report, on_bytes)
        for clip in range(first, first + info.samples):
            _verify_sample(reader, clip, manifest, content, report)
            on_bytes(info.bytes // info.samples)
        first += info.samples
    reader.close()
    if not report.damage and content.hexdigest() != manifest.split(split).content:
        report.damage.append(f"split {split}: samples are sound but not those of the manifest (digest of contents)")
    return report


def _verify_file(folder: Folder, info: ShardInfo, report: SplitReport, on_bytes: Callable[[int], None]) -> None:
    try:
        with folder.open(info.file, info.bytes, info.sha256) as opened:
            if opened.length != info.bytes:
                raise DamageError(f"found {opened.length} bytes, expected {info.bytes}", file=opened.path)
            if sha256_of_file(opened.descriptor, on_bytes) != info.sha256:
                raise DamageError("SHA-256 is not that of the manifest", file=opened.path)
    except FileNotFoundError:
        return  # its samples will say so
    except DamageError as error:
        report.damage.append(_in_one_line(error))


def _verify_sample(
    reader: ShardReader, clip: int, manifest: Manifest, content: ContentDigest, report: SplitReport
) -> None:
    encoding = Encoding.parse(manifest.encoding)
    try:
        sample = Sample(reader.key(clip), read_arrays(reader, clip), reader.meta(clip))
        lossy = [] if encoding.is_exact else [n for n, s in reader.arrays.items() if encoding.kind_for(s) == "mp4"]
        content.add(sample_digest(sample, {name: reader.payload(clip, name) for name in lossy}))
        report.sound += 1
    except DamageError as error:
        problem = _in_one_line(error)
        if problem not in report.damage:  # a missing shard says so once, not for each of its samples
            report.damage.append(problem)


def _in_one_line(error: DamageError) -> str:
    return str(error).splitlines()[0]
