"""What a file of text is: SVG, XMP, a Fountain script or plain text. No entity is resolved."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

from pipeline.media import kinds
from pipeline.media.kinds import FileType

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
_ASCII_SHARE = 0.8  # of text in an older coding: letters with accents and quotation marks are the rest
_ROOT = re.compile(r"<(?:[\w.-]+:)?([\w.-]+)[\s/>]")
_ROOTS = {"svg": kinds.SVG, "xmpmeta": kinds.XMP, "xapmeta": kinds.XMP, "RDF": kinds.XMP}
_OTHER_MARKUP = re.compile(r"<(\?xml|!doctype|html)\b", re.IGNORECASE)
_OTHER_STARTS = ("{\\rtf", "%!PS")
#: A scene heading alone in its paragraph (Fountain 1.1), in capitals as scripts have them
_HEADING = re.compile(r"(?:\A|\n[ \t]*\n)[ \t]*(?:INT|EXT|EST|INT/EXT|I/E)[. ][^\na-z]{3,}(?=\n|\Z)")
_ENOUGH_HEADINGS = 2


def text_type(head: bytes, *, whole: bool, name: str) -> FileType | None:
    """The type of the text that begins with ``head`` (all of it, if ``whole``); None if none is ours.

    XML is SVG or XMP, by its root, or nothing; so are HTML, RTF and PostScript.
    """
    text = _decoded(head, whole=whole)
    if not text:
        return None
    root = _root(text)
    if root in _ROOTS:
        return _ROOTS[root]
    start = text.lstrip()
    if _CONTROL.search(text) or start.startswith(_OTHER_STARTS) or _OTHER_MARKUP.match(start):
        return None
    if PurePosixPath(name).suffix.lower() in kinds.FOUNTAIN.extensions:
        return kinds.FOUNTAIN
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return kinds.FOUNTAIN if len(_HEADING.findall(lines)) >= _ENOUGH_HEADINGS else kinds.TEXT


def _decoded(head: bytes, *, whole: bool) -> str | None:
    """``head`` as text: UTF-8, UTF-16 by its mark, or nearly ASCII in some older coding."""
    bom, coding = next(((bom, coding) for bom, coding in _BOMS if head.startswith(bom)), (b"", "utf-8"))
    try:
        # Incremental: the head may end within a character.
        return codecs.getincrementaldecoder(coding)().decode(head[len(bom) :], final=whole)
    except UnicodeDecodeError:
        plain = sum(byte < 0x80 for byte in head)  # noqa: PLR2004 - ASCII's end
        return head.decode("latin-1") if not bom and plain >= _ASCII_SHARE * len(head) else None


def _root(text: str) -> str | None:
    """The local name of the root element, past prolog, comments and document type."""
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if text.startswith("<?", at):
            end = text.find("?>", at)
        elif text.startswith("<!--", at):
            end = text.find("-->", at)
        elif text[at : at + 9].lower() == "<!doctype":
            end = _end_of_doctype(text, at)
        else:
            found = _ROOT.match(text, at)
            return found[1] if found else None
        if end < 0:
            return None
        at = text.find(">", end) + 1


def _end_of_doctype(text: str, at: int) -> int:
    """Where its last mark stands; -1 if it does not end. Its internal subset is passed over, not read."""
    end, subset = text.find(">", at), text.find("[", at)
    if 0 <= subset < end:
        close = re.compile(r"\]\s*>").search(text, subset)
        return close.end() - 1 if close else -1
    return end
