"""The folder of a card: ``card.md`` and its pictures.

In: :class:`shards.card.facts.Card`. Out: files; each is written whole or not at all, ``card.md`` last.
"""

from __future__ import annotations

import io
import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from shards.atomic import write_atomically
from shards.card.clips import as_pictures, is_block, shown_array, spread, stored_clips
from shards.card.facts import Card
from shards.card.markdown import markdown
from shards.card.mosaic import MAX_FRAMES, MosaicClip, mosaic, reduced
from shards.card.notes import classes_of
from shards.card.plots import plot_classes, plot_lengths
from shards.card.sheet import contact_sheet
from shards.card.text import sections, warnings
from shards.errors import ShardError
from shards.manifest import Manifest
from shards.moving_mnist import READING_SEED, generate_clips, is_endless, open_endless
from shards.opening import open_table
from shards.reader import ClipTable

FOLDER = "card"  # in the dataset's folder
_MOSAIC_CLIPS = 16
_DRAWN_FRAMES = 20  # of a clip that is drawn for the mosaic
_REMEDY = "Choose a folder for the card: --card DIR"


def card_folder(root: str, wanted: Path | None) -> Path:
    """The folder that a card will be written to; it is made and tried now, before the work of looking at the data.

    Args:
        root: address of the dataset.
        wanted: the user's choice; default is the folder ``card`` in the dataset's.

    Raises:
        ShardError: it cannot be written to, or a dataset that is not on this machine leaves no default.
    """
    if wanted is None and not Path(root).is_dir():
        raise ShardError("not a folder of this machine, so no place for the card", file=root, remedy=_REMEDY)
    folder = wanted or Path(root) / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        raise ShardError(f"cannot be written to: {error.strerror or error}", file=folder, remedy=_REMEDY) from error
    return folder


def write_card(card: Card, folder: Path, *, clips: int = 8, frames: int = 10) -> Path:
    """Draw the pictures and write the text.

    Args:
        card: what to say.
        folder: where; it exists. Files of an older card are replaced.
        clips: rows of the contact sheets.
        frames: columns of the contact sheets.

    Returns:
        The path of ``card.md``.

    Raises:
        DamageError: a clip is gone or damaged.
        ShardError: the folder cannot be written to.
    """
    pictures: dict[str, list[tuple[str, str]]] = defaultdict(list)
    try:
        _draw_mosaic(card, folder, pictures)
        if card.lengths_differ:
            plot_lengths(folder / "lengths.png", {split: facts.sizes.frames for split, facts in card.splits.items()})
            pictures["splits"].append(("How many clips have how many frames", "lengths.png"))
        if card.classes:
            plot_classes(folder / "classes.png", card.classes)
            pictures["classes"].append(("How many of each class", "classes.png"))
        _draw_sheets(card, folder, pictures, clips, frames)
        text = markdown(card.manifest.name, warnings(card), sections(card), pictures)
        write_atomically(folder / "card.md", text.encode())
    except OSError as error:
        raise ShardError(f"cannot be written to: {error.strerror or error}", file=folder, remedy=_REMEDY) from error
    return folder / "card.md"


def _draw_mosaic(card: Card, folder: Path, pictures: dict[str, list[tuple[str, str]]]) -> None:
    """The mosaic of the first split that has clips with motion, drawn ones if need be."""
    for split in card.splits:
        table = open_table(card.folder, card.manifest, split)
        clips = _mosaic_clips(card.manifest, split, table)
        if any(len(clip.pictures_THWC) > 1 for clip in clips):
            title = f"{card.manifest.name} · {split}"
            write_atomically(folder / "mosaic.gif", mosaic(clips, title, card.manifest.fps))
            pictures[""].append((f"{len(clips)} clips of {split}", "mosaic.gif"))
            return


def _mosaic_clips(manifest: Manifest, split: str, table: ClipTable) -> list[MosaicClip]:
    """Clips spread over a split with their classes; of a split of digits, clips as training would draw them."""
    if is_endless(manifest, split):
        source = open_endless(manifest, table, _DRAWN_FRAMES)
        drawn = generate_clips(source.bank, source.rules, _DRAWN_FRAMES, np.arange(_MOSAIC_CLIPS), READING_SEED)
        spec = source.arrays["video"]
        videos = [as_pictures(video_THW[:, None], spec) for video_THW in drawn.video_BTHW]
        labels = [", ".join(map(str, labels_D)) for labels_D in drawn.labels_BD.tolist()]
        return [MosaicClip(video, label) for video, label in zip(videos, labels, strict=True)]
    name = shown_array(table.arrays)
    if name is None or is_block(table.arrays[name]):
        return []
    clips = []
    for number in spread(len(table), _MOSAIC_CLIPS):
        (stored_TCHW,) = stored_clips(table, number, name, frames=2 * MAX_FRAMES)
        shown = reduced(as_pictures(stored_TCHW, table.arrays[name]))
        clips.append(MosaicClip(shown, ", ".join(classes_of(table.meta(number)))))
    return clips


def _draw_sheets(card: Card, folder: Path, pictures: dict[str, list[tuple[str, str]]], clips: int, frames: int) -> None:
    for split, facts in card.splits.items():
        if facts.values is None:
            continue
        table = open_table(card.folder, card.manifest, split)
        sheet = contact_sheet(table, f"{card.manifest.name} · {split}", clips=clips, frames=frames)
        file = io.BytesIO()
        sheet.save(file, format="PNG", optimize=True)
        name = f"contact-sheet-{split}.png"
        write_atomically(folder / name, file.getvalue())
        pictures["Contact sheets"].append((f"Clips spread over {split}", name))
