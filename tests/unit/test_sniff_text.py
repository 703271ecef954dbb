"""Text, markup and scripts; and what names and uploaders say of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import PermanentStageError
from pipeline.media import kinds
from pipeline.media.kinds import FileType
from pipeline.media.sniff import sniff
from tests.images import corners, encoded

SCENES = "Title: Night\n\nINT. HOUSE - NIGHT\n\nShe waits.\n\nEXT. STREET - DAY\n\nHe comes.\n"


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


TEXTS: dict[str, tuple[bytes, FileType]] = {
    "ASCII": (b"Notes for Monday.\r\n\tBring tea.\n", kinds.TEXT),
    "UTF-8": ("Dvořák, 東京, naïve".encode(), kinds.TEXT),
    "UTF-8 with its mark": (b"\xef\xbb\xbf" + "naïve".encode(), kinds.TEXT),
    "UTF-16": ("Dvořák".encode("utf-16"), kinds.TEXT),
    "UTF-16 of the other order": (b"\xfe\xff" + "Dvořák".encode("utf-16-be"), kinds.TEXT),
    "Latin-1": ("Das Übliche für Zoë, bitte sehr".encode("latin-1"), kinds.TEXT),
    "a character cut by the end of what is read": (b"a" * 65_535 + "é".encode() + b"\0", kinds.TEXT),
    "JSON": (b'{"a": 1}', kinds.TEXT),
    "Markdown that begins with a tag": (b'<p align="center">\n\n# Title\n', kinds.TEXT),
    "words that begin like a format": (b"BMW, RIFF, and ID3 are three words\n", kinds.TEXT),
    "one letter": (b"a", kinds.TEXT),
    "talk of PDF": (b"A PDF begins with %PDF-1.7, they say.\n", kinds.TEXT),
    "a script by its scenes": (SCENES.encode(), kinds.FOUNTAIN),
    "a script with the lines of Windows": (SCENES.replace("\n", "\r\n").encode(), kinds.FOUNTAIN),
    "a script in UTF-16": (SCENES.encode("utf-16"), kinds.FOUNTAIN),
    "one scene heading proves nothing": (b"INT. HOUSE - NIGHT\n\nNotes.\n", kinds.TEXT),
    "SVG": (b"<svg/>", kinds.SVG),
    "SVG after everything that may stand before it": (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a > b --><!DOCTYPE svg [<!ENTITY a "b>">]><?pi x?><svg >',
        kinds.SVG,
    ),
    "SVG with a prefix": (b'<s:svg xmlns:s="http://www.w3.org/2000/svg">', kinds.SVG),
    "SVG in UTF-16": ('<?xml version="1.0" encoding="UTF-16"?><svg />'.encode("utf-16"), kinds.SVG),
    "XMP": (b'<x:xmpmeta xmlns:x="adobe:ns:meta/">', kinds.XMP),
    "XMP in its packet": (b'<?xpacket begin="\xef\xbb\xbf" id="W5M"?>\n<x:xmpmeta >', kinds.XMP),
    "XMP that is bare RDF": (b'<?xml version="1.0"?><rdf:RDF xmlns:rdf="x">', kinds.XMP),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts(tmp_path: Path, name: str) -> None:
    data, expected = TEXTS[name]
    assert sniff(written(tmp_path, data)).type is expected


@pytest.mark.parametrize("name", ["script.fountain", "SCRIPT.FOUNTAIN", "a.spmd"])
def test_a_script_by_its_name(tmp_path: Path, name: str) -> None:
    found = sniff(written(tmp_path, b"She waits."), name=name, content_type="text/plain")
    assert (found.type, found.warnings) == (kinds.FOUNTAIN, ())


@pytest.mark.parametrize(
    "data",
    [
        b"text with a NUL\0",
        b"text with an \x1b[1mescape\x1b[0m",
        "UTF-16 without its mark".encode("utf-16-le"),
        b'<?xml version="1.0"?><html/>',
        b"<!DOCTYPE html><p>",
        b"<html>",
        b'<?xml version="1.0"?><other/>',
        b"<?xml version='1.0'?><!-- without an end",
        b"<!DOCTYPE svg [ <!ENTITY a 'b'>",
        b"{\\rtf1 hello}",
        b"%!PS-Adobe-3.0",
        "все по-русски".encode("koi8-r"),
    ],
)
def test_no_text_of_ours(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PermanentStageError) as raised:
        sniff(written(tmp_path, data))
    assert raised.value.code == "UNSUPPORTED_TYPE"


@pytest.mark.parametrize(
    ("name", "content_type", "expected"),
    [
        ("photo.png", None, ["The name says image/png, the bytes are image/jpeg."]),
        ("photo.webp", None, ["The name says image/webp, the bytes are image/jpeg."]),
        ("clip.mp4", None, ["The name says video/mp4, the bytes are image/jpeg."]),
        ("archive.zip", None, ["The name says application/zip, the bytes are image/jpeg."]),
        ("photo.JPG", "image/jpg", []),
        ("photo.jpe", "IMAGE/PJPEG", []),
        ("photo", "application/octet-stream", []),
        ("photo.unheard-of", "image/jpeg; charset=binary", []),
        ("photo.jpeg", "image/png", ["The upload was declared as image/png, the bytes are image/jpeg."]),
    ],
)
def test_a_name_or_uploader_that_disagrees_is_a_warning(
    tmp_path: Path, name: str, content_type: str | None, expected: list[str]
) -> None:
    path = written(tmp_path, encoded(corners()))
    assert list(sniff(path, name=name, content_type=content_type).warnings) == expected


@pytest.mark.parametrize(
    ("name", "content_type", "warned"),
    [("a.csv", "text/csv", 0), ("a.html", "text/html", 2), ("a.fountain.txt", None, 0), ("a.jpg", None, 1)],
)
def test_plain_text_goes_by_many_names(
    tmp_path: Path, name: str, content_type: str | None, warned: int
) -> None:
    found = sniff(written(tmp_path, b"a,b\n"), name=name, content_type=content_type)
    assert (found.type, len(found.warnings)) == (kinds.TEXT, warned)
