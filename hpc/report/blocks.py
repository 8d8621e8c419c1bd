"""What a page is made of: paragraphs, tables, figures, commands. The template knows these and nothing of runs.

In: plain text and picture data. Out: frozen dataclasses; `kind` tells the template which macro draws one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paragraph:
    text: str
    tone: str = ""
    """"" for plain words, "warning", "missing" (something was not computed) or "caption"."""
    kind: str = "paragraph"


@dataclass(frozen=True)
class Heading:
    """Above the blocks of one run, where a page shows several, or of one topic."""

    text: str
    kind: str = "heading"


@dataclass(frozen=True)
class Cell:
    """A field of a table: a number with what belongs to it in smaller letters below."""

    text: str
    small: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Row:
    cells: Sequence[Cell]
    group: str = ""
    """"" (ours), "paper", or "head" (a line across the table)."""


@dataclass(frozen=True)
class Table:
    """The first `text_columns` columns hold words, the others numbers, which are set to the right."""

    header: Sequence[Cell]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    text_columns: int = 1
    name: str = ""
    kind: str = "table"


@dataclass(frozen=True)
class Bullets:
    title: str
    lines: Sequence[str]
    kind: str = "bullets"


@dataclass(frozen=True)
class Figure:
    """A picture inside the page."""

    data_uri: str
    alt: str
    caption: str = ""
    width: int = 0
    """Pixels at which it is shown; less where the page is narrower."""


@dataclass(frozen=True)
class Gallery:
    figures: Sequence[Figure]
    title: str = ""
    text: str = ""
    kind: str = "gallery"


@dataclass(frozen=True)
class Commands:
    lines: Sequence[str]
    kind: str = "commands"


@dataclass(frozen=True)
class Details:
    """Closed until somebody opens it."""

    title: str
    text: str
    kind: str = "details"


@dataclass(frozen=True)
class Card:
    """A main number."""

    label: str
    value: str
    below: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Cards:
    cards: Sequence[Card]
    kind: str = "cards"


Block = Paragraph | Heading | Table | Bullets | Gallery | Commands | Details | Cards


@dataclass
class Section:
    """A part of the page with an entry in its contents."""

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)
