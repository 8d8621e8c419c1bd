"""What a build has to say about its sources: a table at the end, and all of it in ``OUT/report.csv``.

In: remarks. Out: text. The table counts each kind of trouble and shows the first few; the file has every one.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from shards.building.part import Remark

REPORT_FILE = "report.csv"
_SHOWN = 10
_COLUMNS = ("split", "key", "source", "kind", "used", "detail")


def report_csv(remarks: Sequence[Remark]) -> str:
    """All remarks as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in remarks:
        writer.writerow([one.split, one.key, one.source, one.kind, "yes" if one.used else "no", one.detail])
    return text.getvalue()


def print_report(remarks: Sequence[Remark], file: str) -> None:
    """The table: kinds with their counts, then the first of each.

    Args:
        remarks: what was found.
        file: where the rest can be read; empty if nowhere.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if not remarks:
        return
    console = Console(stderr=True)
    counts = Counter((one.used, one.kind) for one in remarks)
    table = Table("what was found", "sources", "in the dataset", "for instance", title="Sources to know about")
    for (used, kind), count in sorted(counts.items()):
        examples = [one for one in remarks if (one.used, one.kind) == (used, kind)]
        shown = "\n".join(escape(f"{Path(one.source).name}: {one.detail}") for one in examples[:_SHOWN])
        more = f"\n... and {count - _SHOWN} more" if count > _SHOWN else ""
        table.add_row(escape(kind), str(count), "yes" if used else "no, left out", shown + more)
    console.print(table)
    if file:
        console.print(f"all of them: {file}", highlight=False, markup=False)
