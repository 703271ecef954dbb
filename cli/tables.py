"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.console import make_console
from cli.outcome import STYLES

TIMES = {"created_at", "captured_at", "available_at", "resolved_at", "since", "last_at", "started_at"}
WHOLE = {
    "id",
    "job_id",
    "dead_letter_id",
    "sample_id",
    *TIMES,
}  #: what people copy is never broken over lines
READABLE = 16  #: letters below which a column is no longer read but spelt
STATES = {"status", "state"}
STATE_STYLES = {
    **STYLES,
    "running": "green",
    "open": "red",
    "lost": "red",
    "no_room": "red",
    "stopping": "yellow",
    "stopped": "dim",
}


def show(data: object, shown: Table, *, as_json: bool) -> None:
    """Print the one or the other."""
    if as_json:
        print(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        make_console().print(shown)


def table(
    rows: list[dict[str, Any]], names: list[str], *, title: str | None = None, width: int | None = None
) -> Table:
    """The values ``names`` of each row; where the window is too narrow for that, a line for each value.

    ``width`` is the window's, in letters, if it is not that of the standard output.
    """
    heads = [name.replace("_", " ") for name in names]
    cells = [[_cell(name, row.get(name)) for name in names] for row in rows]
    if _least(names, heads, cells) > (width or make_console().width):
        return _upright(heads, cells, title)
    made = Table(title=title, title_justify="left")
    for name, head in zip(names, heads, strict=True):
        made.add_column(head, overflow="fold", no_wrap=name in WHOLE)
    for row in cells:
        made.add_row(*row)
    return made


def _least(names: list[str], heads: list[str], cells: list[list[str]]) -> int:
    """Columns of a window in which the table can be read."""
    widths = [max(map(_width, column)) for column in zip(heads, *cells, strict=True)]
    return 1 + sum(
        3 + (width if name in WHOLE else min(width, READABLE))
        for name, width in zip(names, widths, strict=True)
    )


def _width(cell: str) -> int:
    return Text.from_markup(cell).cell_len


def _upright(heads: list[str], cells: list[list[str]], title: str | None) -> Table:
    made = Table(title=title, title_justify="left", box=None, show_header=False)
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for row in cells:
        for head, cell in zip(heads, row, strict=True):
            made.add_row(head, cell)
        made.add_row()
    return made


def _cell(name: str, value: object) -> str:
    if value is None or value == []:
        return "-"
    if name in TIMES:
        return str(value)[:19].replace("T", " ")
    if name in STATES:
        return f"[{STATE_STYLES.get(str(value), 'cyan')}]{value}[/]"
    if isinstance(value, float):
        return f"{value:,.0f}"
    if isinstance(value, list):
        return escape(", ".join(str(each) for each in value))
    return escape(str(value))
