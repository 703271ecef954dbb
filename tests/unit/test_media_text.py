"""Plain text: every encoding it comes in, storable whatever it holds, set as a page."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from PIL import Image

from pipeline.media import paper
from pipeline.media import text as reader
from pipeline.media.paper import COLUMNS, LINES, ROWS, TOP, covering, draw_page, wrapped
from pipeline.media.reader import Limits
from tests.documents import ENOUGH, LIMITS, written

ODD = "Été à la mer — “один”\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (ODD.encode(), "UTF-8"),
        (codecs.BOM_UTF8 + ODD.encode(), "UTF-8"),
        (codecs.BOM_UTF16_LE + ODD.encode("utf-16-le"), "UTF-16-LE"),
        (codecs.BOM_UTF16_BE + ODD.encode("utf-16-be"), "UTF-16-BE"),
    ],
)
def test_unicode_is_read_by_its_mark(tmp_path: Path, data: bytes, encoding: str) -> None:
    found = reader.describe(written(tmp_path, data), LIMITS)
    assert found.text == ODD
    assert found.details == {"format": "text", "encoding": encoding, "lines": 1, "words": 6}
    assert found.warnings == ()


def test_other_text_is_taken_for_windows_1252_with_a_warning(tmp_path: Path) -> None:
    found = reader.describe(written(tmp_path, "Été “à” la mer".encode("cp1252") + b"\x81"), LIMITS)
    assert found.text == "Été “à” la mer\ufffd"
    assert "Windows-1252" in found.warnings[0]


def test_a_character_cut_at_the_end_is_left_out(tmp_path: Path) -> None:
    for mark, encoding in ((b"", "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")):
        found = reader.describe(written(tmp_path, mark + "gate é".encode(encoding)[:-1]), LIMITS)
        assert (found.text, found.warnings) == ("gate ", ())


def test_text_is_storable_whatever_it_holds(tmp_path: Path) -> None:
    lone = codecs.BOM_UTF16_LE + "a\0b\ud800c".encode("utf-16-le", "surrogatepass")
    found = reader.describe(written(tmp_path, lone), LIMITS)
    assert found.text == "ab\ufffdc"
    assert "UTF-16" in found.warnings[0]
    every = "".join(map(chr, [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFDC0, 0x10010)]))
    kept = reader.storable(every)
    assert kept.encode()  # no lone surrogate
    assert not {mark for mark in kept if not mark.isprintable() and mark.isascii()} - {"\n", "\t"}
    assert "\r" not in reader.storable("a\r\nb\rc\x0cd\x85e")
    assert reader.storable("a\r\nb\rc\x0cd\x85e") == "a\nb\nc\nd\ne"
    assert reader.storable("na\xefve co\xadop\xa0x\u200dy") == "naïve coop x\u200dy"


def test_reading_and_what_is_kept_are_bounded(tmp_path: Path) -> None:
    path = written(tmp_path, b"word " * 2_000_000)
    found = reader.describe(path, LIMITS)
    assert found.details["words"] == reader.MOST_BYTES // 5
    assert len(found.text) == LIMITS.text
    assert found.warnings == (
        "Only the first 8 MB of the text were read.",
        "Only the first 5,000 characters can be searched.",
    )


def rows_with_ink(page: Image.Image) -> set[int]:
    leading = page.height / ROWS
    bands = (
        page.crop((0, round(row * leading), page.width, round((row + 1) * leading))) for row in range(ROWS)
    )
    return {row - TOP for row, band in enumerate(bands) if band.getextrema()[0] < 128}


@pytest.mark.parametrize("typewriters", [paper._TYPEWRITERS, ()])
def test_the_first_page_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typewriters: tuple[str]
) -> None:
    monkeypatch.setattr(paper, "_TYPEWRITERS", typewriters)
    paper._font.cache_clear()
    text = "HHHH\n\n\tHHHH\n" + "H" * 100 + "\n" * 80 + "HHHH"
    with reader.picture(written(tmp_path, text), LIMITS, ENOUGH) as still:
        still.load()
        page = still.image.copy()
    paper._font.cache_clear()
    assert (page.mode, page.size) == ("L", (1280, 1656))
    assert rows_with_ink(page) == {0, 2, 3, 4}
    cell = page.width / COLUMNS
    left, _, right, _ = (
        page.crop((0, 0, page.width, round(8.1 * page.height / ROWS))).point(lambda v: 255 - v).getbbox()
    )
    assert left == pytest.approx(6 * cell, abs=cell / 2)
    assert right == pytest.approx(18 * cell, abs=cell / 2)  # the tab leads to column 8 of the text


def test_a_line_is_broken_at_words_and_never_takes_more_than_a_page() -> None:
    assert list(wrapped("  one two three", 9)) == ["  one two", "three"]
    assert list(wrapped("x" * 25, 10)) == ["x" * 10, "x" * 10, "x" * 5]
    assert list(wrapped("", 10)) == [""]
    assert len(list(wrapped("x" * 10**6, 10))) == LINES


def test_rows_beyond_the_page_are_left_out() -> None:
    assert draw_page([(0, "H")] * 500, (320, 180), 10**6).size == (320, 414)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1920, 1080), (1280, 720)),
        ((1, 1), (1280, 1280)),
        ((300, 100), (2160, 720)),
        ((1e300, 1e-300), (4096, 1)),
        ((1e-300, 1e300), (1, 4096)),
    ],
)
def test_a_page_covers_what_is_asked_for_and_no_shape_is_too_strange(
    shape: tuple[float, float], size: tuple[int, int]
) -> None:
    assert covering(shape, ENOUGH, 10**8) == size


def test_a_page_keeps_to_the_limit_of_pixels() -> None:
    width, height = covering((8.5, 11), ENOUGH, 10_000)
    assert 9_000 < width * height <= 10_100


def test_an_empty_text_is_an_empty_page(tmp_path: Path) -> None:
    path = written(tmp_path, codecs.BOM_UTF8)
    assert reader.describe(path, Limits()).details["words"] == 0
    with reader.picture(path, LIMITS, ENOUGH) as still:
        assert rows_with_ink(still.image) == set()
