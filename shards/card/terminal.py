"""A card on a terminal.

In: sections. Out: headings, tables and lines, printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shards.card.text import Section


def print_card(title: str, warnings: Sequence[str], parts: Mapping[str, Section]) -> None:
    """Print a card to standard output."""
    console = Console(highlight=False)
    console.print(Text(title, style="bold"))
    for part in parts.values():
        console.print()
        console.print(Text(part.title, style="bold"))
        if part.header:
            console.print(_table(part))
        for command in part.commands:
            console.print(Text(f"  $ {command}"), soft_wrap=True)
        for line in part.lines:
            console.print(Text(f"  {line}", style="bold red" if line in warnings else ""), soft_wrap=True)


def _table(part: Section) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in part.header:
        table.add_column(name, overflow="fold")
    for row in part.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
