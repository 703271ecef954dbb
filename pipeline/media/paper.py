"""A page of typed text, drawn: US Letter, ten characters and six lines to the inch."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

Size = tuple[int, int]
Row = tuple[int, str]  #: column of its first character, from the page's left edge, and the text

COLUMNS, ROWS = 85, 66  #: characters across and lines down the whole page, margins counted
TOP = 6  #: empty lines above the first
LINES = 54  #: between the margins of one inch
LONGEST_SIDE = 4096  #: pixels of a page or drawing, whatever its shape
_PAPER, _INK = 255, 28  # grey values
_BASELINE = 0.78  # of a row's height: how far down its letters stand
# The built-in font of Pillow has no letter beyond ASCII, and no fixed width.
_TYPEWRITERS = ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf", "Menlo.ttc")
_EM = 0.602  # width of a typewriter's letter, of its size


def covering(shape: tuple[float, float], at_least: Size, pixels: int) -> Size:
    """The size in pixels at which something of ``shape`` (any unit, both above 0) just covers ``at_least``.

    Less, where a strange shape would take more than ``LONGEST_SIDE`` or ``pixels`` in all.
    """
    aspect = min(max(shape[0] / shape[1], 1 / LONGEST_SIDE), LONGEST_SIDE)
    width = max(at_least[0], at_least[1] * aspect)
    height = width / aspect
    shrink = min(1.0, LONGEST_SIDE / max(width, height), math.sqrt(pixels / (width * height)))
    return max(1, round(width * shrink)), max(1, round(height * shrink))


def wrapped(line: str, width: int) -> Iterator[str]:
    """``line`` broken into rows of at most ``width`` characters, no more of them than a page holds."""
    line = line.expandtabs()[: width * LINES]
    yield from textwrap.wrap(line, width, drop_whitespace=True, replace_whitespace=False) or [""]


def draw_page(rows: Sequence[Row], at_least: Size, pixels: int) -> Image.Image:
    """The page with ``rows`` from its first line down, in grey (mode L), large enough to cover ``at_least``.

    Rows that do not fit on the page are left out.
    """
    width, height = covering((8.5, 11), at_least, pixels)
    page = Image.new("L", (width, height), _PAPER)
    cell, leading = width / COLUMNS, height / ROWS
    pen = ImageDraw.Draw(page)
    font, fixed = _font(max(1.0, cell / _EM))
    for number, (column, text) in enumerate(rows[: ROWS - TOP]):
        base = (TOP + number + _BASELINE) * leading
        if fixed:
            pen.text((column * cell, base), text, _INK, font, anchor="ls")
            continue
        for place, mark in enumerate(_plain(text)):
            pen.text(((column + place + 0.5) * cell, base), mark, _INK, font, anchor="ms")
    return page


@lru_cache(maxsize=2)
def _font(size: float) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, bool]:
    """A typewriter's font of this machine, else Pillow's own; and whether its letters are equally wide."""
    for name in _TYPEWRITERS:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False


def _plain(text: str) -> str:
    """``text`` in ASCII, accents dropped and what has no such letter as a question mark."""
    parts = unicodedata.normalize("NFKD", text.translate(_PUNCTUATION))
    return (
        "".join(mark for mark in parts if not unicodedata.combining(mark)).encode("ascii", "replace").decode()
    )


_PUNCTUATION = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u2014\u2022", "''\"\"--*")
