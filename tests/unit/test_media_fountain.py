"""Fountain: the syntax of its specification, and a page that looks like a screenplay's."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.media import fountain as reader
from pipeline.media.fountain import Element, name_of, parse
from pipeline.media.paper import COLUMNS, ROWS, TOP
from pipeline.media.reader import Description
from tests.documents import ENOUGH, LIMITS, written

SCRIPT = """Title:
    _**BRICK & STEEL**_
    FULL RETIRED
Credit: Written by
Author: Stu Maschwitz
Draft date: 1/20/2012

EXT. BRICK'S PATIO - DAY #1-A#

A gorgeous day. [[what
light?]] BRICK opens *two* cold \\*beers\\*.

STEEL
(raised)
Beer's ready!

BRICK (O.S.) (CONT'D)
Are they cold?
  
They are.

@McCLANE ^
~la la

/* INT. NOWHERE - NIGHT

GHOST
Boo. */

# Act two
= What it means

CUT TO:

int./ext car - night

steel leaves
STEEL stays.

>The end<

===

.a forced place

!EXT. NOT A PLACE

> Fade out.
"""  # noqa: W293 - two blanks keep a speech going


def elements(text: str) -> list[Element]:
    return list(parse(text).elements())


def described(folder: Path, text: str) -> Description:
    return reader.describe(written(folder, text), LIMITS)


def test_every_element_of_the_syntax_is_told_apart() -> None:
    assert elements(SCRIPT) == [
        ("heading", "EXT. BRICK'S PATIO - DAY"),
        ("action", "A gorgeous day.  BRICK opens two cold *beers*."),
        ("character", "STEEL"),
        ("parenthetical", "(raised)"),
        ("dialogue", "Beer's ready!"),
        ("character", "BRICK (O.S.) (CONT'D)"),
        ("dialogue", "Are they cold?"),
        ("dialogue", ""),
        ("dialogue", "They are."),
        ("character", "McCLANE"),
        ("lyric", "la la"),
        ("transition", "CUT TO:"),
        ("heading", "INT./EXT CAR - NIGHT"),
        ("action", "steel leaves"),
        ("action", "STEEL stays."),
        ("centred", "The end"),
        ("page_break", ""),
        ("heading", "A FORCED PLACE"),
        ("action", "EXT. NOT A PLACE"),
        ("transition", "Fade out."),
    ]


def test_scenes_characters_and_title_page_are_found(tmp_path: Path) -> None:
    found = described(tmp_path, SCRIPT)
    assert found.title == "BRICK & STEEL FULL RETIRED"
    assert found.details == {
        "format": "fountain",
        "encoding": "UTF-8",
        "scenes": 3,
        "scene_headings": ["EXT. BRICK'S PATIO - DAY", "INT./EXT CAR - NIGHT", "A FORCED PLACE"],
        "characters": {"STEEL": 1, "BRICK": 1, "MCCLANE": 1},
        "dialogue_words": 7,
        "pages_estimated": 2,
        "title": "BRICK & STEEL\nFULL RETIRED",
        "author": "Stu Maschwitz",
        "title_page": {"credit": "Written by", "draft_date": "1/20/2012"},
    }
    assert "Stu Maschwitz" in found.text
    assert "Are they cold?" in found.text
    for hidden in ("light?", "GHOST", "Boo", "Act two", "What it means"):
        assert hidden not in found.text


def test_a_script_may_begin_without_a_title_page() -> None:
    assert parse("FADE IN:\n\nINT. A - DAY\n").title_page == {}
    assert elements("FADE IN:\n\nHello.") == [("action", "FADE IN:"), ("action", "Hello.")]
    assert parse("\n\nTitle: A\nCustom key: b\n\nHello").title_page == {"title": "A", "custom key": "b"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("INTERIOR DECORATION", "action"),
        ("THE END", "action"),  # nothing is said
        ("...or not", "action"),
        ("12\nHello", "action"),
        ("R2D2\nBeep", "character"),
        ("ÉLODIE\nOui", "character"),
        ("EST. CITY", "heading"),
        ("i/e house", "heading"),
        ("== no", None),
        ("[[open\n\nnote", "action"),
        ("/* open", "action"),
    ],
)
def test_what_looks_like_something_else(text: str, found: str | None) -> None:
    first = next(iter(elements(text)), None)
    assert (first.sort if first else None) == found


def test_a_name_is_one_whatever_stands_behind_it() -> None:
    assert {name_of(cue) for cue in ("MOM", "MOM (V.O.)", "Mom (on the phone) (CONT'D)")} == {"MOM"}


def test_pages_are_estimated_by_lines(tmp_path: Path) -> None:
    line = "x" * 60 + "\n\n"
    assert described(tmp_path, line * 27).details["pages_estimated"] == 1  # two lines each
    assert described(tmp_path, line * 28).details["pages_estimated"] == 2
    assert described(tmp_path, "x" * 6_600).details["pages_estimated"] == 3  # 110 lines and an empty one
    assert described(tmp_path, "a\n\n===\n\nb").details["pages_estimated"] == 2


def test_lists_are_bounded(tmp_path: Path) -> None:
    text = "".join(f"INT. ROOM {number}\n\nCHARACTER {number}\nHi.\n\n" for number in range(300))
    details = described(tmp_path, text).details
    assert (details["scenes"], len(details["scene_headings"]), len(details["characters"])) == (300, 200, 50)


@pytest.mark.parametrize(
    "unit", ["[[", "/*", "*", "_", "(", "#", "\\", " ", "A ", "[[\n\n", "*a ", "_a ", "A\n\n"]
)
def test_marks_without_end_take_no_longer_than_others(tmp_path: Path, unit: str) -> None:
    # Quadratic work on this would run into the limit that pytest sets.
    assert described(tmp_path, "A" + unit * (400_000 // len(unit)) + "b").details["format"] == "fountain"


def ink(folder: Path, text: str) -> dict[int, tuple[int, int]]:
    """First and last column with ink, for each line of the page."""
    with reader.picture(written(folder, text), LIMITS, ENOUGH) as still:
        still.load()
        page = still.image.point(lambda value: 255 - value)
    assert page.size == (1280, 1656)
    found = {}
    for line in range(ROWS - TOP):
        leading = page.height / ROWS
        box = page.crop(
            (0, round((TOP + line) * leading), page.width, round((TOP + line + 1) * leading))
        ).getbbox()
        if box is not None:
            found[line] = (round(box[0] * COLUMNS / page.width), round(box[2] * COLUMNS / page.width))
    return found


def test_the_page_is_set_as_a_screenplay(tmp_path: Path) -> None:
    text = "INT. HHHHH\n\nHHHHH\n\nHHH\n(HHH)\nHHHHH\n\n> HHHHH\n\n> HHHH <\n\n===\n\nHHHHHHH"
    assert ink(tmp_path, text) == {
        0: (15, 25),
        2: (15, 20),
        4: (37, 40),
        5: (31, 36),
        6: (25, 30),
        8: (70, 75),
        10: (43, 47),
    }


def test_a_title_page_comes_first(tmp_path: Path) -> None:
    text = "Title: HH\nAuthor: HHHH\nContact: H\n\nINT. HOUSE"
    assert ink(tmp_path, text) == {16: (44, 46), 19: (43, 47), 53: (15, 16)}


def test_no_first_page_is_longer_than_a_page(tmp_path: Path) -> None:
    assert max(ink(tmp_path, "HHHH\n\n" * 200 + "H" * 9999)) <= 53
    assert max(ink(tmp_path, "Title: " + "H" * 9999 + "\nContact: H\n" + "  H\n" * 90)) <= 53
