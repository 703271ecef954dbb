"""Tables of the command line, in windows of any width."""

from __future__ import annotations

import io

from rich.console import Console

from cli.tables import table

JOB = "01a1ff98-3a76-7075-9df7-0a55d6ae0605"
ROW = {"id": JOB, "key": "uploads/day 1/the wren [2].jpg", "status": "completed", "error_code": None}
NAMES = ["id", "key", "status", "error_code"]


def printed(width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table([ROW, ROW], NAMES, width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_wide_window_has_a_row_on_a_line() -> None:
    assert sum(JOB in line and ROW["key"] in line and "completed" in line for line in printed(120)) == 2  # type: ignore[operator]


def test_no_value_is_broken_in_a_narrow_window() -> None:
    lines = [line.strip().split(maxsplit=1) for line in printed(60) if line.strip()]
    assert lines == [["id", JOB], ["key", ROW["key"]], ["status", "completed"], ["error", "code  -"]] * 2
