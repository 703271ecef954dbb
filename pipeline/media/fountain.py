"""Fountain screenplays: scenes, characters and length, and the first page in a screenplay's layout.

Source: the syntax of Fountain 1.1, fountain.io/syntax. Columns and lines are those of the trade: Courier 12,
55 lines to a page, dialogue 35 characters wide.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.media.image import Still
from pipeline.media.paper import LINES, Row, Size, draw_page, wrapped
from pipeline.media.reader import Description, Limits
from pipeline.media.text import MOST_BYTES, read_text, shortened

_MOST_HEADINGS, _MOST_CHARACTERS, _MOST_KEYS, _LONGEST_VALUE = 200, 50, 20, 1000
_FIRST_PAGES = 262_144  # bytes that hold the first page, whatever stands in notes before it
_LINES_PER_PAGE = 55
#: For each sort of element its first column on the page and its width, in characters
_LAYOUT = {
    "heading": (15, 60),
    "action": (15, 60),
    "character": (37, 38),
    "parenthetical": (31, 26),
    "dialogue": (25, 35),
    "lyric": (25, 35),
    "transition": (15, 60),
    "centred": (15, 60),
}
_TIGHT = {"dialogue", "parenthetical", "lyric"}  # no empty line before them
_TITLE_KEYS = {
    "title", "credit", "author", "authors", "source", "draft date", "date", "contact", "copyright", "notes",
    "revision", "version", "draft", "format",
}  # fmt: skip

_KEY = re.compile(r"([A-Za-z][A-Za-z0-9 _-]{0,40}):[ \t]*(.*)")
_HEADING = re.compile(r"(?:INT\.?/EXT|EXT\.?/INT|I/E|INT|EXT|EST)[. ]", re.IGNORECASE)
_NUMBER = re.compile(r"#[^#\n]+#$")
_EXTENSION = re.compile(r"\([^()\n]*\)")
# The class of each leaves its own mark out, so that a line of nothing but marks costs no more than another.
_NOTE = re.compile(r"\[\[(?:[^\[\]\n]++|\n(?!\n))*+\]\]")
_UNDERLINED = re.compile(r"(?<![\\\w])_(?=\S)([^_\n]+)(?<=\S)_(?!\w)")
_STARRED = re.compile(r"(?<!\\)\*{1,3}(?=\S)([^*\n]+)(?<=\S)\*{1,3}")
_ESCAPED = re.compile(r"\\([*_\\])")


class Element(NamedTuple):
    """A paragraph of a script, without its marks."""

    sort: str  #: a key of the layout, or "page_break"
    text: str


@dataclass(frozen=True, slots=True)
class Script:
    """A script, its title page apart."""

    title_page: dict[str, str]  #: by its keys in lower case
    lines: list[str]

    def elements(self) -> Iterator[Element]:
        """What is printed, in order; outline and notes are not."""
        before, speech = "", False
        for number, line in enumerate(self.lines):
            after = self.lines[number + 1] if number + 1 < len(self.lines) else ""
            speech = speech and bool(line)  # two blanks alone on a line keep it going
            element = _spoken(line) if speech else _element(line.strip(), before.strip(), after.strip())
            if element is not None:
                speech = speech or element.sort == "character"
                yield element
            before = line


def describe(path: Path, limits: Limits) -> Description:
    """Scenes, characters and an estimate of the pages; never fails for what it reads."""
    plain = read_text(path, MOST_BYTES)
    script = parse(plain.text)
    elements = list(script.elements())
    details = _details(script, elements) | {"encoding": plain.encoding}
    printed = [*script.title_page.values(), *(element.text for element in elements if element.text)]
    text, cut = shortened("\n".join(printed), limits)
    title = script.title_page.get("title", "").replace("\n", " ") or None
    return Description(title=title, text=text, details=details, warnings=plain.warnings + cut)


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The title page, or the first page of a script that has none."""
    script = parse(read_text(path, _FIRST_PAGES).text)
    rows = _title_rows(script.title_page) if "title" in script.title_page else list(_rows(script.elements()))
    with draw_page(rows, at_least, limits.pixels) as page:
        yield Still(page, path, orientation=1, to_apply=1, warnings=())


def parse(text: str) -> Script:
    """Split a script, boneyard and notes taken out, into title page and lines."""
    lines = [line.rstrip() or line[:2] for line in _NOTE.sub("", _without_boneyard(text)).split("\n")]
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    match = _KEY.fullmatch(lines[first]) if first < len(lines) else None
    if match is None or match[1].lower() not in _TITLE_KEYS:  # "FADE IN:" is no key
        return Script({}, lines)
    end = next((number for number in range(first, len(lines)) if not lines[number].strip()), len(lines))
    return Script(_title_page(lines[first:end]), lines[end:])


def _title_page(lines: list[str]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    key = ""
    for line in lines:
        match = None if line[0].isspace() else _KEY.fullmatch(line)
        if match is not None:
            key, line = match[1].lower(), match[2]  # noqa: PLW2901 - the rest of the line is its first value
        values.setdefault(key, []).append(_unmarked(line.strip()))
    joined = ((key, "\n".join(filter(None, parts))[:_LONGEST_VALUE]) for key, parts in values.items())
    return dict(islice(((key, value) for key, value in joined if value), _MOST_KEYS))


def _without_boneyard(text: str) -> str:
    kept, place = [], 0
    while (start := text.find("/*", place)) >= 0 and (end := text.find("*/", start + 2)) >= 0:
        kept.append(text[place:start])
        place = end + 2
    return "".join([*kept, text[place:]])


def _spoken(line: str) -> Element:
    text = line.strip()
    if text.startswith("(") and text.endswith(")"):
        return Element("parenthetical", _unmarked(text))
    sort, words = ("lyric", text[1:].lstrip()) if text.startswith("~") else ("dialogue", text)
    return Element(sort, _unmarked(words))


def _element(line: str, before: str, after: str) -> Element | None:
    """The element that ``line`` is outside of speech; None for what is not printed."""
    if not line or line.startswith("#"):
        return None
    if line.startswith("="):
        return Element("page_break", "") if line.startswith("===") and not line.strip("=") else None
    return _forced(line, after) or _guessed(line, before, after)


def _forced(line: str, after: str) -> Element | None:
    """What its first mark says that it is."""
    first, rest = line[0], line[1:].strip()
    if first == "." and rest[:1].isalnum():
        return _heading(rest)
    if first == ">":
        return (
            Element("centred", _unmarked(rest[:-1].strip()))
            if rest.endswith("<")
            else Element("transition", rest)
        )
    if first == "@" and after:
        return Element("character", rest.rstrip("^ "))
    sort = {"!": "action", "~": "lyric"}.get(first)
    return Element(sort, _unmarked(rest)) if sort else None


def _guessed(line: str, before: str, after: str) -> Element:
    if not before:
        if _HEADING.match(line):
            return _heading(line)
        name = _EXTENSION.sub("", line)
        if name.isupper() and after:
            return Element("character", line.rstrip("^ "))
        if line.isupper() and line.endswith("TO:"):
            return Element("transition", line)
    return Element("action", _unmarked(line))


def _heading(line: str) -> Element:
    return Element("heading", " ".join(_NUMBER.sub("", line).split()).upper())


def _unmarked(text: str) -> str:
    """``text`` without the marks of emphasis."""
    return _ESCAPED.sub(r"\1", _STARRED.sub(r"\1", _UNDERLINED.sub(r"\1", text)))


def name_of(cue: str) -> str:
    """Who speaks: a cue without "(V.O.)" and "(CONT'D)"."""
    return " ".join(_EXTENSION.sub(" ", cue).split()).upper()


def _details(script: Script, elements: list[Element]) -> dict[str, Any]:
    headings = [element.text for element in elements if element.sort == "heading"]
    cues = Counter(name_of(element.text) for element in elements if element.sort == "character")
    page = script.title_page
    details: dict[str, Any] = {
        "format": "fountain",
        "scenes": len(headings),
        "scene_headings": [heading[:_LONGEST_VALUE] for heading in headings[:_MOST_HEADINGS]],
        "characters": {name[:100]: count for name, count in cues.most_common(_MOST_CHARACTERS)},
        "dialogue_words": sum(
            len(element.text.split()) for element in elements if element.sort == "dialogue"
        ),
        "pages_estimated": _pages(elements),
    }
    named = {"title": page.get("title"), "author": page.get("author") or page.get("authors")}
    others = {key.replace(" ", "_"): value for key, value in page.items() if key not in {*named, "authors"}}
    return (
        details
        | {key: value for key, value in named.items() if value}
        | ({"title_page": others} if others else {})
    )


def _pages(elements: Iterable[Element]) -> int:
    """How many pages the script takes, title page apart: 55 lines each, breaks where it asks for them."""
    pages, lines = 0, 0
    for element in elements:
        if element.sort == "page_break":
            pages, lines = pages + -(-lines // _LINES_PER_PAGE), 0
            continue
        width = _LAYOUT[element.sort][1]
        lines += max(1, -(-len(element.text) // width)) + (element.sort not in _TIGHT)
    return pages + -(-lines // _LINES_PER_PAGE)


def _rows(elements: Iterable[Element]) -> Iterator[Row]:
    """The rows of the first page."""
    count = 0
    for element in elements:
        if element.sort == "page_break":
            if count:
                return
            continue
        column, width = _LAYOUT[element.sort]
        rows = [(column, row) for row in wrapped(element.text, width)]
        if element.sort in {"transition", "centred"}:
            share = 1 if element.sort == "transition" else 2
            rows = [(column + (width - len(row)) // share, row) for _, row in rows]
        if count and element.sort not in _TIGHT:
            rows.insert(0, (0, ""))
        yield from rows[: LINES - count]
        count += len(rows)
        if count >= LINES:
            return


def _title_rows(page: dict[str, str]) -> list[Row]:
    """Title and author in the middle of the upper half; contact and date at the foot on the left."""
    title = [row for line in page["title"].split("\n") for row in wrapped(line.upper(), 60)]
    block = [*title, ""]
    for key in ("credit", "author", "authors", "source"):
        if key in page:
            block += ["", *(row for line in page[key].split("\n") for row in wrapped(line, 60))]
    rows: list[Row] = [(0, "")] * 16 + [(15 + (60 - len(row)) // 2, row) for row in block][:28]
    foot = [
        line
        for key in ("draft date", "contact", "copyright")
        for line in page.get(key, "").split("\n")
        if line
    ]
    foot = foot[: LINES - len(rows)]
    return rows + [(0, "")] * (LINES - len(rows) - len(foot)) + [(15, line[:60]) for line in foot]
