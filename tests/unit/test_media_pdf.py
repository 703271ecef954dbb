"""PDF: what it says is found, what it claims is checked, and nothing in it runs."""

from __future__ import annotations

from pathlib import Path

import pypdfium2
import pytest
from PIL import Image

from pipeline.errors import PermanentStageError
from pipeline.media import pdf as reader
from pipeline.media.reader import Description, Limits
from tests.documents import ENOUGH, LIMITS, encrypted, pdf, written


def described(folder: Path, data: bytes, limits: Limits = LIMITS) -> Description:
    return reader.describe(written(folder, data), limits)


def drawn(folder: Path, data: bytes) -> Image.Image:
    with reader.picture(written(folder, data), LIMITS, ENOUGH) as still:
        still.load()
        return still.image.copy()


def refused(folder: Path, data: bytes) -> str:
    codes = set()
    for read in (described, drawn):
        with pytest.raises(PermanentStageError) as error:
            read(folder, data)
        codes.add(error.value.code)
    return codes.pop() if len(codes) == 1 else str(codes)


def test_information_text_and_size_are_found(tmp_path: Path) -> None:
    info = "/Title (Call sheet) /Author (Zo\xeb) /Keywords (day 3, gate; day 3) /Creator (Writer)"
    info += " /CreationDate (D:20260102030405+02'30') /ModDate (D:20260103Z)"
    found = described(tmp_path, pdf("First page", "Second page", info=info))
    assert (found.title, found.text) == ("Call sheet", "First page\n\nSecond page")
    assert found.details == {
        "format": "PDF",
        "version": "1.7",
        "encrypted": False,
        "form": None,
        "javascript": False,
        "title": "Call sheet",
        "author": "Zoë",
        "software": "Writer",
        "keywords": ["day 3", "gate"],
        "created_at": "2026-01-02T03:04:05+02:30",
        "modified_at": "2026-01-03T00:00:00+00:00",
        "pages": 2,
        "page_size_pt": [612, 792],
    }
    assert found.warnings == ()


def test_the_first_page_is_drawn_on_white_just_large_enough(tmp_path: Path) -> None:
    page = drawn(tmp_path, pdf("Hello", "Other"))
    assert (page.mode, page.size) == ("RGB", (1280, 1656))
    assert page.getpixel((3, 3)) == (255, 255, 255)
    line = page.crop((140, 120, 400, 210))
    assert line.convert("L").getextrema()[0] < 60
    assert drawn(tmp_path, pdf(page="/Rotate 90")).size == (1280, 990)


@pytest.mark.parametrize(
    "box", ["0 0 1000000 1", "0 0 1 14400", "0 0 0.001 0.001", "0 0 99999999999999999999 9"]
)
def test_no_page_size_makes_a_large_picture(tmp_path: Path, box: str) -> None:
    assert max(drawn(tmp_path, pdf(box=box)).size) <= 4096


def test_forms_show_what_is_filled_in(tmp_path: Path) -> None:
    field = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (n) /V (FILLED) /Rect [100 300 400 340] "
    field += "/DA (/F 24 Tf 0 g) /F 4 >>"
    form = "/AcroForm << /Fields [5 0 R] /DA (/F 12 Tf 0 g) /DR << /Font << /F 3 0 R >> >> >>"
    data = pdf("", catalog=form, page="/Annots [5 0 R]", more=(field,))
    assert described(tmp_path, data).details["form"] == "AcroForm"
    assert drawn(tmp_path, data).convert("L").getextrema()[0] < 60


def test_pages_are_counted_not_believed(tmp_path: Path) -> None:
    found = described(tmp_path, pdf("One", "Two", "Three", count=100_000))
    assert found.details["pages"] == 3
    assert found.warnings == ("The document claims 100,000 pages and has 3.",)
    assert found.text == "One\n\nTwo\n\nThree"


def test_a_broken_page_is_a_warning_and_a_broken_first_page_an_error(tmp_path: Path) -> None:
    found = described(tmp_path, pdf("One", "Two", kids="5 0 R 99 0 R 98 0 R 7 0 R", count=4))
    assert (found.details["pages"], found.text) == (4, "One\n\nTwo")
    assert found.warnings == ("2 of the pages cannot be read; the first of them is page 2.",)
    assert refused(tmp_path, pdf("One", kids="99 0 R 5 0 R", count=2)) == "CORRUPT_DOCUMENT"


@pytest.mark.parametrize(
    "data", [pdf(kids="2 0 R"), pdf(kids="2 0 R " * 500, count=5000), b"%PDF-1.7\n", b"%"]
)
def test_a_document_without_a_page_is_corrupt(tmp_path: Path, data: bytes) -> None:
    assert refused(tmp_path, data) == "CORRUPT_DOCUMENT"


@pytest.mark.parametrize("share", range(5, 100, 5))
def test_a_cut_document_is_read_or_refused(tmp_path: Path, share: int) -> None:
    data = pdf("One", "Two")
    assert refused(tmp_path, data[: len(data) * share // 100]) == "CORRUPT_DOCUMENT"


def test_a_password_is_asked_for(tmp_path: Path) -> None:
    assert refused(tmp_path, encrypted(opens_without_password=False)) == "ENCRYPTED_DOCUMENT"
    unknown = pdf(trailer="/Encrypt << /Filter /Foo /V 9 /R 9 /P -4 >> /ID [(a) (b)]")
    assert refused(tmp_path, unknown) == "ENCRYPTED_DOCUMENT"
    assert described(tmp_path, encrypted(opens_without_password=True)).details["encrypted"] is True


def test_scripts_and_attachments_are_noted_and_the_library_could_not_run_them(tmp_path: Path) -> None:
    assert not {"V8", "XFA"} & set(pypdfium2.version.PDFIUM_INFO.flags)
    script = "<< /S /JavaScript /JS (app.alert\\(1\\)) >>"
    found = described(tmp_path, pdf(catalog=f"/OpenAction {script}"))
    assert found.details["javascript"] is True
    assert found.warnings == ("The document carries JavaScript; it is not run.",)
    named = f"/Names << /JavaScript << /Names [(a) {script}] >> >>"
    assert described(tmp_path, pdf(catalog=named)).details["javascript"] is True
    document = pypdfium2.PdfDocument(pdf())
    document.new_attachment("notes\x01.txt").set_data(b"x")
    document.save(tmp_path / "with.pdf")
    document.close()
    details = reader.describe(tmp_path / "with.pdf", LIMITS).details
    assert (details["attachments"], details["attachment_names"]) == (1, ["notes.txt"])


def test_text_is_bounded_by_characters_and_pages(tmp_path: Path) -> None:
    found = described(tmp_path, pdf("x" * 30, "y" * 30), Limits(text=40))
    assert len(found.text) == 40
    assert found.warnings == ("Only the first 40 characters can be searched.",)
    many = pdf(kids="6 0 R " * 2500, count=2500, more=("null",))
    found = described(tmp_path, many, Limits(text=10**6))
    assert found.details["pages"] == 2500
    assert found.text.count("Hello") == 2000
    assert found.warnings == ("Only the first 2,000 of 2,500 pages can be searched.",)


def test_strings_and_dates_that_are_none_harm_nothing(tmp_path: Path) -> None:
    info = "/Title <FEFF0041D800> /Subject (a\\000b) /CreationDate (yesterday) /ModDate (D:20269999)"
    found = described(tmp_path, pdf(info=info))
    assert found.title is None
    assert found.details["subject"] == "ab"
    assert found.warnings == (
        "The document's CreationDate is 'yesterday', which is no date.",
        "The document's ModDate is 'D:20269999', which is no date.",
    )
