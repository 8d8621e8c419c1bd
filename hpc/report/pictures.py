"""The pictures of a run as parts of the page: of the evaluation, of the studies, of the newest validation.

In: a run. Out: galleries whose pictures are data URIs. A file that is no picture, or too large, is named instead.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from hpc.report.blocks import Block, Commands, Figure, Gallery, Paragraph
from hpc.report.commands import LAUNCH, evaluate_command
from hpc.report.facts import RunFacts

MAX_BYTES = 24 * 2**20
"""Of one picture inside the page."""
SCREEN_DPI = 96.0
MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"GIF87a": "image/gif", b"GIF89a": "image/gif"}
PICTURES = (".png", ".gif")
CAPTIONS = {
    "GIF": "The same clips as they play: conditioning frames in green, then predictions in red.",
    "strip": "Frame by frame: conditioning frames in green, truth in grey, predictions in red.",
}
REBUILT = " In the rows of the predictions the given frames are those that the model rebuilt, in red too."
CAPTION_FILES = ("caption.txt", "README.txt", "README.md")


def data_uri(content: bytes) -> str | None:
    """A PNG or GIF as text that an <img> shows; None for anything else."""
    kind = next((kind for magic, kind in MAGIC.items() if content.startswith(magic)), None)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}" if kind else None


def figure(content: bytes, alt: str, caption: str = "", scale: float | None = None) -> Figure | None:
    """A picture inside the page; None if it is none.

    Args:
        scale: pixels of the page per pixel; None: as its resolution says (plots are drawn finer than a screen), else 1.
    """
    uri = data_uri(content)
    if uri is None:
        return None
    try:
        with Image.open(io.BytesIO(content)) as picture:
            dpi = picture.info.get("dpi", (SCREEN_DPI, SCREEN_DPI))[0]
            return Figure(uri, alt, caption, round(picture.width * (scale or min(1.0, SCREEN_DPI / dpi))))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def of_evaluation(run: RunFacts) -> list[Block]:
    """Samples beside the truth."""
    evaluation = run.evaluation
    if evaluation is None:
        return [
            Paragraph(f"No pictures of a test. {run.no_scores}.", "missing"),
            Commands([evaluate_command(run, run.folder.path)]),
        ]
    more = REBUILT if evaluation.scores.protocol.get("given") else ""
    samples = [
        (f"{CAPTIONS[what]}{more}" if what in CAPTIONS else what, evaluation.folder / name)
        for what, name in evaluation.scores.files.items()
        if Path(name).suffix in PICTURES and "curve" not in what
    ]
    blocks: list[Block] = list(_gallery("Test clips", "", samples, run))
    films = [name for name in evaluation.scores.files.values() if Path(name).suffix == ".mp4"]
    if films:
        blocks.append(Paragraph(f"As a film: {', '.join(str(evaluation.folder / name) for name in films)}", "caption"))
    return blocks or [Paragraph("The evaluation made no pictures (eval.pictures=0).", "missing")]


def of_validation(run: RunFacts) -> list[Block]:
    """The newest one."""
    newest = max(run.folder.pictures.glob("*.gif"), default=None, key=lambda path: path.name)
    if newest is None:
        return []
    return list(_gallery("Newest validation", "", [(newest.name, newest)], run))


def of_studies(run: RunFacts) -> list[Block]:
    """One gallery for each folder of RUN/studies."""
    folders = sorted(path for path in run.folder.studies.glob("*") if path.is_dir())
    blocks: list[Block] = []
    for folder in folders:
        found = sorted(path for path in folder.rglob("*") if path.suffix in PICTURES)
        named = [(str(path.relative_to(folder)), path) for path in found]
        blocks += _gallery(folder.name.replace("-", " ").replace("_", " "), _caption(folder), named, run)
        if not found:
            blocks.append(Paragraph(f"The study {folder.name} left no picture.", "missing"))
    if not folders:
        blocks.append(
            Paragraph(f"No studies of this run (content swap, interpolation, ...): {LAUNCH} study --help", "missing")
        )
    return blocks


def _caption(folder: Path) -> str:
    texts = [folder / name for name in CAPTION_FILES if (folder / name).is_file()]
    return texts[0].read_text(errors="replace").strip() if texts else ""


def _gallery(title: str, text: str, files: list[tuple[str, Path]], run: RunFacts) -> Iterator[Gallery | Paragraph]:
    figures, left_out = [], []
    for what, path in files:
        try:
            too_large = path.stat().st_size > MAX_BYTES
            found = None if too_large else figure(path.read_bytes(), f"{title}, {what}", what)
        except OSError:
            found, too_large = None, False
        if found:
            figures.append(found)
        else:
            left_out.append((path, "too large for the page" if too_large else "missing, or no picture"))
    if figures:
        yield Gallery(figures, title, text)
    for path, why in left_out:
        yield Paragraph(f"{path.relative_to(run.folder.path)} is {why}.", "missing")
