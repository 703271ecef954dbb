"""Where people read."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH_OF_A_FILE = 140  #: columns, where the output is no terminal


def make_console() -> Console:
    """A console on standard output, wide enough for tables where nobody's window limits it."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
