"""Plain text: read whatever its encoding, cleaned for the database, its first page set as if typed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.media.image import Still
from pipeline.media.paper import COLUMNS, LINES, Row, Size, draw_page, wrapped
from pipeline.media.reader import Description, Limits

MOST_BYTES = 8_000_000  #: of a file that are read: more than any book
_FIRST_PAGE = 65_536  # bytes that hold a first page
_MARGIN = 6  # columns on either side
_MARKS = ((codecs.BOM_UTF8, "UTF-8"), (codecs.BOM_UTF16_LE, "UTF-16-LE"), (codecs.BOM_UTF16_BE, "UTF-16-BE"))
_LEGACY = "Windows-1252"  # Latin-1 with the quotation marks that such files have where it has control marks

_NEW_LINES = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control marks, invisible ones that only steer typesetting, halves of pairs, and codes that are no letter.
_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ud800-\udfff\ufdd0-\ufdef"
    "\ufeff\ufff0-\ufffb\ufffe\uffff]"
)
_BLANKS = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")


@dataclass(frozen=True, slots=True)
class Plain:
    """The text of a file."""

    text: str  #: storable, lines ended by "\n"
    encoding: str
    warnings: tuple[str, ...] = ()


def describe(path: Path, limits: Limits) -> Description:
    """Count lines and words, keep the text. Reads ``MOST_BYTES`` at most; whatever they are, it is text."""
    plain = read_text(path)
    details = {
        "format": "text",
        "encoding": plain.encoding,
        "lines": len(plain.text.splitlines()),
        "words": len(plain.text.split()),
    }
    text, cut = shortened(plain.text, limits)
    return Description(text=text, details=details, warnings=plain.warnings + cut)


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The first page, typed."""
    rows: list[Row] = []
    for line in read_text(path, _FIRST_PAGE).text.split("\n"):
        rows.extend((_MARGIN, row) for row in wrapped(line, COLUMNS - 2 * _MARGIN))
        if len(rows) >= LINES:
            break
    with draw_page(rows[:LINES], at_least, limits.pixels) as page:
        yield Still(page, path, orientation=1, to_apply=1, warnings=())


def read_text(path: Path, most: int = MOST_BYTES) -> Plain:
    """The first ``most`` bytes of ``path`` as text: UTF-8, UTF-16 with its mark, else Windows-1252.

    A character that is cut at the end is left out. The first two without a flaw, or the third and a warning.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    notes = [f"Only the first {most / 1e6:.0f} MB of the text were read."] if len(data) > most else []
    data = data[:most]
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "UTF-8"))
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data[len(mark) :])
    except UnicodeDecodeError:
        if mark:
            text = data[len(mark) :].decode(encoding, "replace")
            notes.append(f"Some of the text is no {encoding}, although it begins like it.")
        else:
            text, encoding = data.decode(_LEGACY, "replace"), _LEGACY
            notes.append("The text is not UTF-8 and was read as Windows-1252; save it as UTF-8 to be sure.")
    return Plain(storable(text), encoding, tuple(notes))


def storable(text: str) -> str:
    """``text`` as PostgreSQL takes it: no NUL, no lone surrogate, no control mark but line and tab."""
    return _UNWANTED.sub("", _BLANKS.sub(" ", _NEW_LINES.sub("\n", text)))


def shortened(text: str, limits: Limits) -> tuple[str, tuple[str, ...]]:
    """As much of ``text`` as is kept for the search, and a warning if that is not all."""
    if len(text) <= limits.text:
        return text, ()
    return text[: limits.text], (f"Only the first {limits.text:,} characters can be searched.",)
