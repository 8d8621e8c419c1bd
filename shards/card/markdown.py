"""``card.md``: a card that reads well on a terminal and on a web page.

In: sections, and the files of the pictures. Out: Markdown; tables have columns of even width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shards.card.text import Section


def markdown(
    title: str, warnings: Sequence[str], parts: Mapping[str, Section], pictures: Mapping[str, Sequence[tuple[str, str]]]
) -> str:
    """The text of ``card.md``.

    Args:
        title: heading.
        warnings: loud lines below it.
        parts: the sections.
        pictures: name of a section -> caption and file of each picture in it; those of "" come first, those of names
            that are no section's at the end.
    """
    blocks = [f"# {_plain(title)}"]
    blocks += [f"> **{_plain(line)}**" for line in warnings]
    blocks += _shown(pictures.get("", ()))
    for name, part in parts.items():
        blocks.append(f"## {_plain(part.title)}")
        if part.header:
            blocks.append(_table(part.header, part.rows))
        if part.commands:
            fence = "`" * (1 + max(2, *(len(run) for run in re.findall("`+", " ".join(part.commands))), 0))
            blocks.append("\n".join([f"{fence}bash", *part.commands, fence]))
        if part.lines:
            blocks.append("\n".join(f"- {_plain(line)}" for line in part.lines))
        blocks += _shown(pictures.get(name, ()))
    for name, shown in pictures.items():
        if name and name not in parts:
            blocks += [f"## {_plain(name)}", *_shown(shown)]
    return "\n\n".join(blocks) + "\n"


def _shown(pictures: Sequence[tuple[str, str]]) -> list[str]:
    return [f"![{_plain(caption)}]({file})" for caption, file in pictures]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns are also even as plain text; numbers stand at the right."""
    cells = [[_plain(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    right = [all(_is_number(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True))
        for row in cells
    ]
    rule = "| " + " | ".join("-" * (w - 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True))
    return "\n".join(line + " |" for line in (lines[0], rule, *lines[1:]))


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").isdecimal()


def _plain(text: str) -> str:
    """Text that no page takes for HTML or for several lines."""
    return " ".join(text.replace("<", "&lt;").split())
