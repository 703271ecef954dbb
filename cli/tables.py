"""What commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
from typing import Any

from rich.markup import escape
from rich.table import Table

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


def table(rows: list[dict[str, Any]], names: list[str], *, title: str | None = None) -> Table:
    """The values ``names`` of each row."""
    made = Table(title=title, title_justify="left")
    for name in names:
        made.add_column(name.replace("_", " "), overflow="fold", no_wrap=name in WHOLE)
    for row in rows:
        made.add_row(*(_cell(name, row.get(name)) for name in names))
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
