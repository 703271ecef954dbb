"""PDF by PDFium: what the document says of itself, its text, and its first page.

The PDFium that is used has no JavaScript engine and no XFA, so nothing in a document runs. It is not safe for
threads: one call at a time in a process.
"""

from __future__ import annotations

import mmap
import re
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pypdfium2.raw as pdfium
from PIL import Image
from pypdfium2 import PdfDocument, PdfiumError, PdfPage

from pipeline.errors import PermanentStageError
from pipeline.media.image import Still
from pipeline.media.paper import Size, covering
from pipeline.media.reader import Description, Limits
from pipeline.media.text import shortened, storable

_MOST_PAGES = 2000  # whose text is read
_SECONDS = 15.0  # of CPU time, for the text
_LONGEST_VALUE, _MOST_KEYWORDS, _MOST_NAMES = 1000, 200, 20
_LOCKED = {pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY}
_FORMS = {
    pdfium.FORMTYPE_ACRO_FORM: "AcroForm",
    pdfium.FORMTYPE_XFA_FULL: "XFA",
    pdfium.FORMTYPE_XFA_FOREGROUND: "XFA",
}
#: Keys of the details, and their names in the document's information dictionary (ISO 32000-2, 14.3.3)
_INFO = {
    "title": "Title",
    "author": "Author",
    "subject": "Subject",
    "software": "Creator",
    "producer": "Producer",
}
_DATES = {"created_at": "CreationDate", "modified_at": "ModDate"}
_DATE = re.compile(
    r"(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:(Z)|([+-])(\d\d)'?(\d\d)?)?.*", re.ASCII
)


def describe(path: Path, limits: Limits) -> Description:
    """Pages, information, text. Raises ENCRYPTED_DOCUMENT or CORRUPT_DOCUMENT."""
    notes: list[str] = []
    with _opened(path) as document:
        pages = _count_pages(document, notes)
        with _reading(), closing(document[0]) as page:
            details = _details(document, path, notes) | {
                "pages": pages,
                "page_size_pt": [round(side, 2) for side in page.get_size()],
            }
        text, cut = shortened(_text(document, pages, limits, notes), limits)
    return Description(title=details.get("title"), text=text, details=details, warnings=(*notes, *cut))


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The first page on white, with what is filled into its forms. Raises what ``describe`` raises."""
    with _opened(path) as document:
        if document.get_formtype() == pdfium.FORMTYPE_ACRO_FORM:
            document.init_forms()
        with _reading(), closing(document[0]) as page:
            image = _rendered(page, limits, at_least)
        with image:
            yield Still(image, path, orientation=1, to_apply=1, warnings=())


@contextmanager
def _opened(path: Path) -> Iterator[PdfDocument]:
    with _reading():
        document = PdfDocument(path)
    with closing(document):
        yield document


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except PdfiumError as error:
        if getattr(error, "err_code", None) in _LOCKED:
            raise PermanentStageError(
                "The document is encrypted and opens only with its password; upload a copy without one.",
                code="ENCRYPTED_DOCUMENT",
            ) from error
        raise PermanentStageError(
            "The document is damaged or incomplete; save it again as PDF and upload that.",
            code="CORRUPT_DOCUMENT",
        ) from error


def _count_pages(document: PdfDocument, notes: list[str]) -> int:
    """How many pages there are, whatever the document claims. Raises CORRUPT_DOCUMENT where there is none."""
    claimed = len(document)
    if claimed and _has_page(document, claimed - 1):
        return claimed
    with _reading(), closing(document[0]):
        pages = bisect_left(range(claimed), 1, key=lambda number: not _has_page(document, number))
    notes.append(f"The document claims {claimed:,} pages and has {pages:,}.")
    return pages


def _has_page(document: PdfDocument, number: int) -> bool:
    try:
        document[number].close()
    except PdfiumError:
        return False
    return True


def _text(document: PdfDocument, pages: int, limits: Limits, notes: list[str]) -> str:
    """The text of the pages in order, as far as limits of characters, pages and time go."""
    parts: list[str] = []
    broken: list[int] = []
    length, end = 0, time.process_time() + _SECONDS
    for number in range(pages):
        if number >= _MOST_PAGES or time.process_time() > end:
            notes.append(f"Only the first {number:,} of {pages:,} pages can be searched.")
            break
        try:
            with closing(document[number]) as page, closing(page.get_textpage()) as text:
                parts.append(storable(text.get_text_bounded()).strip())
        except PdfiumError:
            broken.append(number + 1)
            continue
        length += len(parts[-1])
        if length > limits.text:
            break
    if broken:
        notes.append(f"{len(broken):,} of the pages cannot be read; the first of them is page {broken[0]:,}.")
    return "\n\n".join(filter(None, parts))


def _rendered(page: PdfPage, limits: Limits, at_least: Size) -> Image.Image:
    width, height = page.get_size()
    if min(width, height) <= 0:
        raise PermanentStageError("The document's first page has no size.", code="CORRUPT_DOCUMENT")
    size = covering((width, height), at_least, limits.pixels)
    with closing(page.render(scale=max(size) / max(width, height), rev_byteorder=True)) as bitmap:
        image: Image.Image = bitmap.to_pil()
        return image.convert("RGB")  # a copy: the bitmap's memory goes


def _details(document: PdfDocument, path: Path, notes: list[str]) -> dict[str, Any]:
    version = document.get_version()
    details: dict[str, Any] = {
        "format": "PDF",
        "version": f"{version // 10}.{version % 10}" if version else None,
        "encrypted": pdfium.FPDF_GetSecurityHandlerRevision(document) >= 0,
        "form": _FORMS.get(document.get_formtype()),
        "javascript": pdfium.FPDFDoc_GetJavaScriptActionCount(document) > 0
        or _mentions(path, b"/JavaScript"),
    }
    if details["javascript"]:
        notes.append("The document carries JavaScript; it is not run.")
    details |= {key: value for key, name in _INFO.items() if (value := _info(document, name))}
    keywords = [word.strip() for word in re.split("[,;\n]", _info(document, "Keywords"))]
    if found := list(dict.fromkeys(filter(None, keywords)))[:_MOST_KEYWORDS]:
        details["keywords"] = found
    for key, name in _DATES.items():
        if said := _info(document, name):
            details |= _dated(key, said, notes)
    return details | _attachments(document)


def _info(document: PdfDocument, name: str) -> str:
    """An entry of the information dictionary, "" where there is none."""
    try:
        return storable(document.get_metadata_value(name)).strip()[:_LONGEST_VALUE]
    except UnicodeDecodeError:  # half of a pair of surrogates
        return ""


def _dated(key: str, said: str, notes: list[str]) -> dict[str, str]:
    moment = _moment(said)
    if moment is None:
        notes.append(f"The document's {_DATES[key]} is {said[:40]!r}, which is no date.")
        return {}
    return {key: moment.isoformat()}


def _moment(said: str) -> datetime | None:
    """A PDF date (ISO 32000-2, 7.9.4), naive where it gives no offset; None if it is none."""
    match = _DATE.fullmatch(said)
    if match is None:
        return None
    digits = zip(match.groups()[:6], (0, 1, 1, 0, 0, 0), strict=True)
    year, month, day, hour, minute, second = (int(part or first) for part, first in digits)
    zulu, sign, hours, minutes = match.groups()[6:]
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0)) * (-1 if sign == "-" else 1)
    try:
        zone = timezone(offset) if sign or zulu else None
        return datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None


def _attachments(document: PdfDocument) -> dict[str, Any]:
    count = document.count_attachments()
    names = []
    for number in range(min(count, _MOST_NAMES)):
        try:
            names.append(storable(document.get_attachment(number).get_name())[:_LONGEST_VALUE])
        except (PdfiumError, UnicodeDecodeError):
            continue
    return {"attachments": count, "attachment_names": names} if count else {}


def _mentions(path: Path, name: bytes) -> bool:
    """Whether ``name`` stands anywhere in the file, compressed parts apart."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(name) >= 0
