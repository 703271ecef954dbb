"""What an SVG file says, read as a stream under limits: no entity, no tree in memory, nothing followed.

Source: SVG 1.1 (second edition) and SVG 2, chapters 5 (structure), 6 (linking) and 8 (coordinates).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.sax import SAXException
from xml.sax.handler import ContentHandler, feature_namespaces
from xml.sax.xmlreader import AttributesNSImpl

import defusedxml.sax
from defusedxml import DefusedXmlException

from pipeline.errors import PermanentStageError
from pipeline.media.text import storable

_MOST_BYTES = 32_000_000
_MOST_ELEMENTS, _MOST_DEPTH = 200_000, 200  # librsvg ends at a million, and libxml2 at a depth of 256
_MOST_TEXT = 1_000_000  # characters
_MOST_REFERENCES, _LONGEST_REFERENCE = 20, 300
_PIECE = 65_536  # bytes

_SVG = "http://www.w3.org/2000/svg"
#: Pixels of each unit (CSS Values 4, section 6.2; em and ex of the initial font)
_UNITS = {
    "": 1.0, "px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4,
    "q": 96 / 101.6, "em": 16.0, "ex": 8.0,
}  # fmt: skip
_LENGTH = re.compile(
    r"(\d{1,40}(?:\.\d{0,40})?(?:e[+-]?\d{1,3})?|\.\d{1,40})([a-z]*)", re.ASCII | re.IGNORECASE
)
_URL = re.compile(r"url\(\s*[\"']?([^\"')\s]*)|@import\s+[\"']([^\"']*)", re.IGNORECASE)
_TEXTS = {"text", "title", "desc"}
_ANIMATIONS = {"animate", "animateMotion", "animateTransform", "set"}


class Drawing(ContentHandler):
    """What was seen in a drawing so far."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.root: dict[str, str] = {}  #: its viewBox, width and height, as written
        self.title = ""
        self.description = ""
        self.texts: list[str] = []  #: of every text, title and desc
        self.embedded = 0  #: files inside, by data: addresses
        self.references: dict[str, None] = {}  #: to what lies outside, in order, the first of them
        self.scripts = 0  #: script elements, event handlers and addresses that are scripts
        self.animated = False
        self.foreign = False  #: HTML in it, which is not drawn
        self.has_letters = False  #: text that needs a font
        self._open: list[str] = []
        self._letters: list[str] = []
        self._kept = 0

    def view_box(self) -> list[float] | None:
        """Left, top, width and height in the drawing's own units; None if it has none that can be used."""
        parts = self.root.get("viewBox", "").replace(",", " ").split()
        try:
            left, top, width, height = (float(part) for part in parts)
        except ValueError:  # too few, too many, or no numbers
            return None
        usable = all(map(math.isfinite, (left, top, width, height))) and width > 0 and height > 0
        return [left, top, width, height] if usable else None

    def size(self) -> tuple[float, float] | None:
        """Width and height in pixels: as given, else by the viewBox; None where nothing is said."""
        width, height = (_pixels(self.root.get(side, "")) for side in ("width", "height"))
        box = self.view_box()
        if box is not None:
            if width is None:
                width = box[2] if height is None else height * (box[2] / box[3])
            if height is None:
                height = width * (box[3] / box[2])
        if width is None or height is None or not (0 < width < math.inf and 0 < height < math.inf):
            return None
        return width, height

    def startElementNS(  # noqa: N802 - the name that SAX calls
        self, name: tuple[str | None, str], _qname: str | None, attrs: AttributesNSImpl
    ) -> None:
        """Count it, and look at what it refers to."""
        space, local = name
        self.elements += 1
        self._open.append(local if space == _SVG else "")
        if self.elements > _MOST_ELEMENTS or len(self._open) > _MOST_DEPTH:
            raise _too_complex(f"more than {_MOST_ELEMENTS:,} elements or {_MOST_DEPTH} levels of them")
        if self.elements == 1:
            self._take_root(name, attrs)
        self.scripts += local == "script"
        self.animated = self.animated or local in _ANIMATIONS
        self.foreign = self.foreign or local == "foreignObject"
        for (_, attribute), value in attrs.items():
            self._look(local, attribute, value)

    def endElementNS(self, _name: tuple[str | None, str], _qname: str | None) -> None:  # noqa: N802
        """Keep the text of the element."""
        local = self._open.pop()
        if local == "style":
            self._urls("".join(self._letters))
        elif local in _TEXTS:
            self._keep(local, " ".join(storable("".join(self._letters)).split()))
        else:
            return
        self._letters.clear()

    def characters(self, content: str) -> None:
        """Collect what stands in texts and styles, whole up to a limit."""
        if self._kept < _MOST_TEXT and ("style" in self._open[-1:] or not _TEXTS.isdisjoint(self._open[-8:])):
            self._letters.append(content)
            self._kept += len(content)

    def processingInstruction(self, target: str, data: str) -> None:  # noqa: N802
        """A style sheet can be named outside of the drawing."""
        if target == "xml-stylesheet":
            found = re.search("href\\s*=\\s*[\"']([^\"']*)", data)
            self._refer(found[1] if found else "")

    def skippedEntity(self, name: str) -> None:  # noqa: N802
        """What a DTD elsewhere may define is not known here."""
        raise _corrupt(f"it uses the entity {storable(name)[:40]!r}; save it as plain SVG")

    def _take_root(self, name: tuple[str | None, str], attrs: AttributesNSImpl) -> None:
        if name != (_SVG, "svg"):
            raise _corrupt("its first element is no svg of the SVG namespace")
        self.root = {local: value for (space, local), value in attrs.items() if space is None}

    def _look(self, element: str, attribute: str, value: str) -> None:
        if attribute.startswith("on"):
            self.scripts += 1
        elif attribute == "href" and element != "a":  # a link is for people to follow
            self._refer(value)
        elif "url(" in value:
            self._urls(value)

    def _urls(self, text: str) -> None:
        for match in _URL.finditer(text):
            self._refer(match[1] or match[2] or "")

    def _refer(self, address: str) -> None:
        address = address.strip()
        if address[:11].lower() == "javascript:":
            self.scripts += 1
        elif address[:5].lower() == "data:":
            self.embedded += 1
        elif address and not address.startswith("#") and len(self.references) < _MOST_REFERENCES:
            self.references[storable(address[:_LONGEST_REFERENCE])] = None

    def _keep(self, element: str, text: str) -> None:
        if not text:
            return
        self.texts.append(text)
        if element == "title":
            self.title = self.title or text
        elif element == "desc":
            self.description = self.description or text
        else:
            self.has_letters = True


def read_svg(path: Path) -> Drawing:
    """Read the drawing. Raises PermanentStageError CORRUPT_VECTOR or VECTOR_TOO_COMPLEX."""
    if path.stat().st_size > _MOST_BYTES:
        raise _too_complex(f"more than {_MOST_BYTES / 1e6:.0f} MB")
    drawing = Drawing()
    parser = defusedxml.sax.make_parser()
    parser.setFeature(feature_namespaces, True)  # noqa: FBT003 - SAX takes no names
    # The usual DOCTYPE names a DTD elsewhere: taken, and not read, since external entities stay off.
    parser.forbid_external = False
    parser.setContentHandler(drawing)
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                parser.feed(piece)
        parser.close()
        if not drawing.elements:
            raise _corrupt("there is nothing in it")
    except DefusedXmlException as error:
        raise _corrupt("it declares entities; save it as plain SVG") from error
    except (SAXException, ValueError, LookupError) as error:  # the latter: an encoding that nobody knows
        raise _corrupt(f"it is not well-formed XML ({_reason(error)})") from error
    return drawing


def _pixels(length: str) -> float | None:
    """A length in pixels; None for a share of something ("100%") and for what is none."""
    match = _LENGTH.fullmatch(length.strip())
    unit = _UNITS.get(match[2].lower()) if match else None
    return None if match is None or unit is None else float(match[1]) * unit


def _reason(error: Exception) -> str:
    said = error.getMessage() if isinstance(error, SAXException) else str(error)
    return storable(said)[:100]


def _corrupt(why: str) -> PermanentStageError:
    return PermanentStageError(f"The drawing cannot be read: {why}.", code="CORRUPT_VECTOR")


def _too_complex(why: str) -> PermanentStageError:
    return PermanentStageError(
        f"The drawing has {why}; upload a simpler one, or a picture of it.", code="VECTOR_TOO_COMPLEX"
    )
