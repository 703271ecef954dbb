"""Drawings, documents, texts and sidecars that mean harm."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable
from pathlib import Path

from tests import documents
from tests.documents import pdf, svg
from tests.hostile import good
from tests.hostile.blocks import MILLION, png, zeros
from tests.hostile.case import SECRET_PICTURE, SECRET_TEXT, Case
from tests.hostile.pictures import HTML, UNKNOWN, zipped
from tests.metadata_files import bag, packet

COMPLEX, NO_DRAWING, NO_DOCUMENT, NO_SIDECAR = (
    "VECTOR_TOO_COMPLEX", "CORRUPT_VECTOR", "CORRUPT_DOCUMENT", "CORRUPT_SIDECAR",
)  # fmt: skip
_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
LAUGHS = f'<!DOCTYPE x [<!ENTITY l0 "ha">{_LAUGHS}]>'
_BOX = '<rect width="9" height="9" fill="red"/>'


def refers(inside: str) -> Callable[[Path], str]:
    """A drawing in which %s is a file beside it, the first time by its path, then by its name."""

    def make(path: Path) -> str:
        places = (
            path.with_name(SECRET_PICTURE).as_uri(),
            str(path.with_name(SECRET_PICTURE)),
            SECRET_PICTURE,
        )
        return svg(_BOX + "".join(inside.replace("%s", place) for place in places))

    return make


def external_entity(path: Path) -> str:
    secret = path.with_name(SECRET_TEXT).as_uri()
    return f'<!DOCTYPE svg [<!ENTITY e SYSTEM "{secret}">]>' + svg("<text y='50'>&e;</text>")


def uses(levels: int, each: int) -> str:
    """A drawing that shows ``each`` to the power of ``levels`` boxes by a few references."""
    groups = '<g id="g0"><rect width="9" height="9"/></g>'
    for level in range(1, levels + 1):
        groups += f'<g id="g{level}">' + f'<use xlink:href="#g{level - 1}" x="1"/>' * each + "</g>"
    return svg(groups)


def drawing_in_drawing(_path: Path) -> str:
    inner = svg(_BOX)
    for _ in range(7):
        data = base64.b64encode(inner.encode()).decode()
        inner = svg(f'<image width="160" height="90" xlink:href="data:image/svg+xml;base64,{data}"/>' * 3)
    return inner


def picture_in_drawing(_path: Path) -> str:
    data = base64.b64encode(png(size=(30_000, 33_000), pixels=zeros(1000))).decode()
    return svg(f'<image width="160" height="90" xlink:href="data:image/png;base64,{data}"/>')


def stream(data: bytes, more: str) -> str:
    """A PDF's stream object; ``data`` as Latin-1."""
    return f"<< /Length {len(data)} {more} >>\nstream\n{data.decode('latin-1')}\nendstream"


def page_loop(_path: Path) -> bytes:
    return pdf(kids="2 0 R 5 0 R 2 0 R", count=9)


def page_pair(_path: Path) -> bytes:
    return pdf(kids="5 0 R", more=("<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 7 0 R] /Count 5 >>", "<< >>"))


def drawn_by_itself(_path: Path) -> bytes:
    form = stream(
        b"/X Do /X Do",
        "/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 5 0 R >> >>",
    )
    return pdf(more=(form,), page="/Contents 6 0 R /Resources << /XObject << /X 5 0 R >> >>")


def forms(levels: int, each: int) -> bytes:
    """A page that draws ``each`` to the power of ``levels`` forms."""
    objects = []
    for level in range(levels):
        what = f"/X{level} Do " * each if level + 1 < levels else "0 0 5 5 re f"
        inside = f"/Resources << /XObject << /X{level} {6 + level} 0 R >> >>" if level + 1 < levels else ""
        objects.append(stream(what.encode(), f"/Type /XObject /Subtype /Form /BBox [0 0 900 900] {inside}"))
    return with_content(b"/X0 Do", "/XObject << /X0 5 0 R >>", *objects)


def with_content(content: bytes, resources: str, *more: str, packed: str = "") -> bytes:
    """A page with ``content``; the objects ``more`` are 5 and up."""
    page = f"/Contents {6 + len(more)} 0 R /Resources << {resources} >>"
    objects = (
        *more,
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] {page} >>",
        stream(content, packed),
    )
    return pdf(kids=f"{5 + len(more)} 0 R", more=objects)


def packed_objects(_path: Path) -> bytes:
    """A document whose catalog is in an object stream that inflates to a gigabyte."""
    bomb = stream(zeros(1000), "/Type /ObjStm /N 100000 /First 900000 /Filter /FlateDecode")
    return pdf(more=(bomb,), catalog="/Names 99 0 R")


def image_of(width: int, height: int) -> bytes:
    """A page with a picture of black and white pixels, compressed a thousandfold."""
    said = "/Type /XObject /Subtype /Image /BitsPerComponent 1 /ColorSpace /DeviceGray /Filter /FlateDecode"
    image = stream(zeros(1000), f"{said} /Width {width} /Height {height}")
    return with_content(b"600 0 0 700 0 0 cm /I Do", "/XObject << /I 5 0 R >>", image)


def external_stream(path: Path) -> bytes:
    """A document whose page, attachment and actions are another file, by its name."""
    secret = path.with_name(SECRET_TEXT)
    outside = f"<< /Length 0 /F ({secret}) /FFilter [] >>\nstream\n\nendstream"
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R >>"
    attached = f"<< /Type /Filespec /F ({secret}) /EF << /F 5 0 R >> >>"
    actions = (
        f"/OpenAction << /S /Launch /F ({secret}) >> /AA << /O << /S /URI /URI ({secret.as_uri()}) >> >>"
    )
    names = f"/Names << /EmbeddedFiles << /Names [(a) {attached}] >> >> {actions}"
    return pdf(kids="6 0 R", more=(outside, page), catalog=names)


def xref_loop(_path: Path) -> bytes:
    data = pdf()
    return data.replace(b"/Root", b"/Prev %d /Root" % data.rindex(b"xref\n0"))


def deep_sidecar(levels: int) -> bytes:
    return packet("<xmp:a><rdf:Description>" * levels + "</rdf:Description></xmp:a>" * levels)


SCRIPTS = '<script>alert(1)</script><rect width="9" height="9" onload="alert(2)"/>'
_REFERENCES = '<image width="90" height="90" xlink:href="%s"/><image width="90" height="90" href="%s"/>'
_STYLE = '<style>@import "%s"; rect { fill: url(%s#a); filter: url("%s#b") }</style>'
_INCLUDE = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="%s" parse="text"/>'
_BLUR = '<filter id="f" width="9" height="9"><feGaussianBlur stdDeviation="1e9"/></filter>'
_NOISE = '<filter id="f">' + '<feTurbulence baseFrequency=".9" numOctaves="2147483647"/>' * 50 + "</filter>"
_GROW = '<filter id="f">' + '<feMorphology operator="dilate" radius="5000"/>' * 50 + "</filter>"
_FILTERED = '<rect width="160" height="90" filter="url(#f)"/>'
_MANY_PATHS = "<path d='M0 0" + "L160 90L0 45" * 200_000 + "Z'/>"
_OUTSIDE = "refers to what lies outside"
DRAWINGS = (
    Case("SVG with a billion laughs", "a.svg", lambda _: LAUGHS + svg("<text>&l9;</text>"), NO_DRAWING),
    Case("SVG with an entity that is a file", "a.svg", external_entity, NO_DRAWING),
    Case("SVG with pictures by file:, by path and by name", "a.svg", refers(_REFERENCES), warning=_OUTSIDE),
    Case("SVG with styles by file:, by path and by name", "a.svg", refers(_STYLE), warning=_OUTSIDE),
    Case("SVG that includes files (XInclude)", "a.svg", refers(_INCLUDE), warning=_OUTSIDE),
    Case(
        "SVG with a picture by http:",
        "a.svg",
        lambda _: svg(_BOX + '<image width="9" height="9" href="http://127.0.0.1:9/a"/>'),
        warning=_OUTSIDE,
    ),
    Case("SVG with scripts", "a.svg", lambda _: svg(SCRIPTS), warning="carries scripts"),
    Case("SVG of 1,000,000 elements", "a.svg", lambda _: svg("<g/>" * MILLION), COMPLEX),
    Case("SVG of 100,000 levels", "a.svg", lambda _: svg("<g>" * 100_000 + "</g>" * 100_000), COMPLEX),
    Case(
        "SVG of 100,000 x 100,000 pixels",
        "a.svg",
        lambda _: svg(_BOX, 'width="100000" height="100000" viewBox="0 0 9 9"'),
    ),
    Case(
        "SVG of 1e30 x 1 pixels",
        "a.svg",
        lambda _: svg(_BOX, 'width="1e30" height="1"'),
        warning="only its shape",
    ),
    Case("SVG of 10^10 boxes by references", "a.svg", lambda _: uses(10, 10), COMPLEX),
    Case("SVG that shows itself", "a.svg", lambda _: svg('<g id="a"><use xlink:href="#a"/></g>')),
    Case("SVG with a blur of 1e9 pixels", "a.svg", lambda _: svg(_BLUR + _FILTERED)),
    Case(
        "SVG with noise of 2,147,483,647 octaves, fifty times",
        "a.svg",
        lambda _: svg(_NOISE + _FILTERED),
        COMPLEX,
        slow=True,
    ),
    Case(
        "SVG that grows by 5,000 pixels fifty times",
        "a.svg",
        lambda _: svg(_GROW + _FILTERED),
        COMPLEX,
        slow=True,
    ),
    Case("SVG of a path with 400,000 lines", "a.svg", lambda _: svg(_MANY_PATHS), slow=True),
    Case("SVG with drawings in drawings", "a.svg", drawing_in_drawing),
    Case("SVG with a PNG of 990 megapixels inside", "a.svg", picture_in_drawing),
    Case(
        "SVG of a gigabyte, compressed",
        "a.svg",
        lambda _: gzip.compress(svg(" " * 10**8).encode(), 9),
        UNKNOWN,
    ),
)
DOCUMENTS = (
    Case("PDF whose tree of pages holds itself", "a.pdf", page_loop),
    Case("PDF with a loop of two nodes in its tree of pages", "a.pdf", page_pair, NO_DOCUMENT),
    Case("PDF that claims 2,147,483,647 pages", "a.pdf", lambda _: pdf(count=2**31 - 1)),
    Case(
        "PDF with JavaScript",
        "a.pdf",
        lambda _: pdf(catalog="/OpenAction << /S /JavaScript /JS (app.alert\\(1\\); while\\(1\\);) >>"),
    ),
    Case(
        "PDF that needs a password",
        "a.pdf",
        lambda _: documents.encrypted(opens_without_password=False),
        "ENCRYPTED_DOCUMENT",
    ),
    Case("PDF whose page, attachment and action are a file", "a.pdf", external_stream),
    Case(
        "PDF with an array of 100,000 levels",
        "a.pdf",
        lambda _: pdf(catalog="/A " + "[" * 100_000 + "]" * 100_000),
    ),
    Case(
        "PDF with a page's content of 100,000 levels",
        "a.pdf",
        lambda _: with_content(b"[" * 100_000 + b"]" * 100_000 + b" TJ", ""),
    ),
    Case("PDF with objects that inflate to a gigabyte", "a.pdf", packed_objects),
    Case(
        "PDF with a page that inflates to a gigabyte",
        "a.pdf",
        lambda _: with_content(zeros(1000), "", packed="/Filter /FlateDecode"),
        "DECODER_CRASHED",
    ),
    Case("PDF with a picture of 60,000 x 60,000 pixels", "a.pdf", lambda _: image_of(60_000, 60_000)),
    Case("PDF whose form draws itself", "a.pdf", drawn_by_itself),
    Case("PDF of 10^10 forms by references", "a.pdf", lambda _: forms(10, 10), "DECODER_CRASHED"),
    Case("PDF whose table of objects follows itself", "a.pdf", xref_loop),
    Case("PDF with a page of 1e9 points", "a.pdf", lambda _: pdf(box="0 0 1000000000 1000000000")),
    Case("PDF that is a ZIP archive", "a.pdf", lambda path: good.made("pdf", path) + zipped(HTML)),
    Case("ZIP archive that is a PDF", "a.pdf", lambda path: zipped(good.made("pdf", path)), UNKNOWN),
)
TEXTS = (
    Case(
        "Text of one line of 200 MB",
        "a.txt",
        lambda _: b"wren " * 40 * MILLION,
        warning="Only the first 8 MB",
    ),
    Case(
        "Fountain of 1,000,000 headings",
        "a.fountain",
        lambda _: "INT. A - DAY\n\n" * MILLION,
        warning="Only the first",
    ),
    Case(
        "Fountain of open notes, stars and underlines",
        "a.fountain",
        lambda _: "INT. A - DAY\n\n" + "[[" * MILLION + "\n" + "*" * MILLION + "\n" + "_a " * MILLION,
    ),
    Case("XMP of 100,000 levels", "a.xmp", lambda _: deep_sidecar(100_000), NO_SIDECAR),
    Case(
        "XMP with a billion laughs",
        "a.xmp",
        lambda _: LAUGHS.encode() + packet(bag("dc:subject", "&l9;")),
        NO_SIDECAR,
    ),
    Case(
        "XMP of 200,000 keywords",
        "a.xmp",
        lambda _: packet(bag("dc:subject", *["wren"] * 200_000)),
        NO_SIDECAR,
    ),
    Case("XMP of 11 MB", "a.xmp", lambda _: packet(" " * 11 * MILLION), "FILE_TOO_LARGE"),
)
CASES = (*DRAWINGS, *DOCUMENTS, *TEXTS)
