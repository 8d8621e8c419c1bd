"""One part of a build, in a worker process: items -> one tar, its index, and a note that says it is complete.

The tar grows in a folder of this process's own. Only when it is on disk do tar and index take their names, and then the
note (``train-000000.part.json``): a part with a note is complete, whatever was killed when.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from shards.atomic import sync_folder, write_atomically
from shards.building.plan import BadSource, BuildPlan, Item, Notice, Part, name_of, printable
from shards.building.site import AT_WORK, Site
from shards.encoding import Encoding
from shards.errors import ShardError
from shards.manifest import ShardInfo
from shards.writer import TarWriter

Bad = Literal["stop", "skip"]


@dataclass(frozen=True)
class Remark:
    """A line of the report: what was found about a source, and whether it is in the dataset."""

    split: str
    key: str
    source: str
    kind: str
    detail: str
    used: bool


@dataclass(frozen=True)
class PartNote:
    """What a finished part leaves behind.

    Attributes:
        identity: of the part when it was made, see :meth:`Part.identity`.
        info: its tar; None if all of its sources were left out.
        keys: of its samples.
        digests: of its samples' contents, hexadecimal.
        remarks: about its sources.
    """

    identity: str
    info: ShardInfo | None
    keys: tuple[str, ...]
    digests: tuple[str, ...]
    remarks: tuple[Remark, ...] = field(default=())

    def to_json(self) -> str:
        """Text of the note: the same part, the same bytes."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def load(cls, path: Path) -> PartNote | None:
        """The note of a finished part; None if there is none."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        info = None if raw["info"] is None else ShardInfo(**raw["info"])
        remarks = tuple(Remark(**remark) for remark in raw["remarks"])
        return cls(raw["identity"], info, tuple(raw["keys"]), tuple(raw["digests"]), remarks)


class BadSources(ShardError):
    """Sources of a part that cannot be used, in a build that may not leave any out."""

    def __init__(self, remarks: tuple[Remark, ...]) -> None:
        super().__init__(f"{len(remarks)} sources cannot be used")
        self.remarks = remarks

    def __reduce__(self) -> tuple[type[BadSources], tuple[tuple[Remark, ...]]]:
        return type(self), (self.remarks,)


@dataclass(frozen=True)
class PartMaker:
    """Makes parts of one dataset. Can be pickled.

    Attributes:
        site: where the parts go.
        plan: what is built, without its items.
        encoding: how uint8 arrays are stored.
        bad: ``skip`` leaves sources out that cannot be used; ``stop`` finishes no part that has one.
        deadly: split and key of items that have killed their worker.
    """

    site: Site
    plan: BuildPlan
    encoding: Encoding
    bad: Bad
    deadly: frozenset[tuple[str, str]] = frozenset()

    def __call__(self, part: Part, tick: Callable[[], None] = lambda: None) -> PartNote:
        """Make a part; ``tick`` is called after each item.

        Raises:
            BadSources: sources cannot be used, and none may be left out. All of the part's sources were tried.
            ShardError: a sample is not as declared.
            OSError: as the file system says.
        """
        identity = part.identity(self.plan)
        with self.site.scratch() as scratch:
            tar = TarWriter(scratch / part.tar, self.plan.arrays, encoding=self.encoding, fps=self.plan.fps)
            try:
                keys, digests, remarks = self._fill(tar, part, scratch / AT_WORK, tick)
            except BaseException:
                tar.abandon()
                raise
            info = tar.close()
            refused = tuple(remark for remark in remarks if not remark.used)
            if refused and self.bad == "stop":
                raise BadSources(refused)
            note_path(self.site.folder, part).unlink(missing_ok=True)  # it would speak of another tar
            sync_folder(self.site.folder)
            if not keys:
                note = PartNote(identity, None, (), (), remarks)
            else:
                for name in (info.file, info.index_file):
                    (scratch / name).replace(self.site.folder / name)
                note = PartNote(identity, info, keys, digests, remarks)
        sync_folder(self.site.folder)
        write_atomically(note_path(self.site.folder, part), note.to_json().encode())
        return note

    def _fill(
        self, tar: TarWriter, part: Part, at_work: Path, tick: Callable[[], None]
    ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Remark, ...]]:
        keys: list[str] = []
        digests: list[str] = []
        remarks: list[Remark] = []
        for item in part.items:
            at_work.write_text(json.dumps([part.tar, part.split, item.key]))
            try:
                if (part.split, item.key) in self.deadly:
                    raise BadSource("deadly", "its worker was killed, also alone: a crash of the decoder, or no memory")
                for found in self.plan.make(item):
                    if isinstance(found, Notice):
                        remarks.append(self._remark(part, item, found.kind, found.detail, used=True))
                    else:
                        digests.append(tar.add(found).hex())
                        keys.append(found.key)
            except BadSource as error:
                remarks.append(self._remark(part, item, error.kind, error.detail, used=False))
            except Exception as error:
                error.add_note(f"while making {item.key} of split {part.split} from {item.source}")
                raise
            tick()
        return tuple(keys), tuple(digests), tuple(remarks)

    def _remark(self, part: Part, item: Item, kind: str, detail: str, *, used: bool) -> Remark:
        whole = printable(item.source)
        source = printable(name_of(item.source, self.plan.raw))
        return Remark(part.split, item.key, source, kind, detail.removeprefix(f"{whole}: "), used)


def note_path(folder: Path, part: Part) -> Path:
    """Where the note of a finished part is."""
    return folder / part.tar.replace(".tar", ".part.json")
