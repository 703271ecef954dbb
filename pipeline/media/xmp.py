"""What XMP says: read as a stream, a bounded number of values kept, no entity allowed.

Sources: ISO 16684-1 (its RDF), XMP Specification Part 2 (Adobe's properties), IPTC Photo Metadata Standard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from pipeline.media.told import (
    LONGEST_DESCRIPTION,
    LONGEST_TEXT,
    Gps,
    Told,
    number_of,
    position,
    rating_of,
    signed_degrees,
    text_of,
    words_of,
)
from pipeline.media.when import Candidate, DateField

LARGEST = 10_000_000  #: bytes of a packet
_MOST_ELEMENTS, _DEEPEST, _MOST_VALUES = 100_000, 30, 5_000
_MOST_ITEMS = 50  # languages of a text
_FEED = 65_536

_RDF, _XML = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://www.w3.org/XML/1998/namespace"
_PREFIXES = {
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/xap/1.0/": "xmp",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/exif/1.0/aux/": "aux",
    "http://cipa.jp/exif/1.0/": "exifEX",
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": "Iptc4xmpCore",
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": "Iptc4xmpExt",
    "http://ns.google.com/photos/1.0/camera/": "GCamera",
    "http://ns.google.com/photos/1.0/container/": "Container",
    "http://ns.google.com/photos/1.0/container/item/": "Item",
}
_DATES = {
    DateField.XMP_ORIGINAL: ("exif:DateTimeOriginal", "exifEX:OffsetTimeOriginal"),
    DateField.PHOTOSHOP_CREATED: ("photoshop:DateCreated", ""),
    DateField.XMP_DIGITIZED: ("exif:DateTimeDigitized", "exifEX:OffsetTimeDigitized"),
    DateField.XMP_CREATED: ("xmp:CreateDate", ""),
    DateField.GPS: ("exif:GPSTimeStamp", ""),
}
#: The first property that is there tells it.
_CAMERA = {
    "make": ("tiff:Make",),
    "model": ("tiff:Model",),
    "lens_make": ("exifEX:LensMake",),
    "lens": ("exifEX:LensModel", "aux:Lens"),
}
_EXPOSURE = {
    "time_seconds": ("exif:ExposureTime",),
    "f_number": ("exif:FNumber",),
    "iso": ("exifEX:PhotographicSensitivity", "exif:ISOSpeedRatings"),
    "bias_ev": ("exif:ExposureBiasValue",),
    "focal_length_mm": ("exif:FocalLength",),
    "focal_length_35mm": ("exif:FocalLengthIn35mmFilm",),
}
_TEXTS = {
    "label": "xmp:Label",
    "title": "dc:title",
    "headline": "photoshop:Headline",
    "credit": "photoshop:Credit",
    "copyright": "dc:rights",
}
_LISTS = {"keywords": "dc:subject", "creator": "dc:creator", "people": "Iptc4xmpExt:PersonInImage"}
_LOCATION = {
    "sublocation": "Iptc4xmpCore:Location",
    "city": "photoshop:City",
    "state": "photoshop:State",
    "country": "photoshop:Country",
    "country_code": "Iptc4xmpCore:CountryCode",
}
_PLACE = {
    "sublocation": "Iptc4xmpExt:Sublocation",
    "city": "Iptc4xmpExt:City",
    "state": "Iptc4xmpExt:ProvinceState",
    "country": "Iptc4xmpExt:CountryName",
    "country_code": "Iptc4xmpExt:CountryCode",
}
_PLACES = ("Iptc4xmpExt:LocationCreated", "Iptc4xmpExt:LocationShown")
_COORDINATE = re.compile(
    r"(\d{1,3}(?:\.\d{1,20})?)(?:,(\d{1,2}(?:\.\d{1,20})?))?(?:,(\d{1,2}(?:\.\d{1,20})?))? ?([NSEW])",
    re.ASCII,
)

Path = tuple[str | int, ...]


class XmpError(ValueError):
    """The packet is no XMP. The message says why."""


@dataclass(slots=True)
class Values:
    """The values of a packet by path: names such as "dc:title", and numbers from 0 for items of lists."""

    texts: dict[Path, str] = field(default_factory=dict)
    languages: dict[Path, str] = field(default_factory=dict)

    def one(self, *path: str | int) -> str | None:
        """The value at ``path``; of a list the first, of a choice of languages the default."""
        if path in self.texts:
            return self.texts[path]
        items = [(*path, number) for number in range(_MOST_ITEMS) if (*path, number) in self.texts]
        default = (item for item in items if self.languages.get(item) == "x-default")
        chosen = next(default, items[0] if items else None)
        return None if chosen is None else self.texts[chosen]

    def many(self, name: str) -> list[str]:
        """All items of the list ``name``; a plain value is a list of one."""
        return [text for path, text in self.texts.items() if path[0] == name and len(path) <= 2]  # noqa: PLR2004


def read_packet(packet: bytes) -> Values:
    """Read an XMP packet. Raises XmpError."""
    if b"\0" not in packet[:4]:  # or it is UTF-16, whose padding cannot be told from letters so easily
        packet = packet.strip(b"\0 \t\r\n")
    if len(packet) > LARGEST:
        raise XmpError(f"it has {len(packet) / 1e6:.0f} MB, and the limit is {LARGEST / 1e6:.0f}")
    target = _Target()
    parser = DefusedXMLParser(target=target, forbid_dtd=True)
    try:
        for start in range(0, len(packet), _FEED):
            parser.feed(packet[start : start + _FEED])
        parser.close()
    except DefusedXmlException as error:
        raise XmpError("it declares a document type or entities, which XMP has no use for") from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise XmpError(str(error)) from error
    if not target.is_rdf:
        raise XmpError("it has no rdf:RDF")
    return target.values


def told_by_xmp(values: Values) -> Told:
    """What the packet tells."""
    notes: list[str] = []
    fields: dict[str, Any] = {
        "rating": rating_of(values.one("xmp:Rating")),
        "description": text_of(values.one("dc:description"), LONGEST_DESCRIPTION),
        "location": _location(values),
    }
    fields |= {name: text_of(values.one(source)) for name, source in _TEXTS.items()}
    fields |= {name: words_of(values.many(source)) for name, source in _LISTS.items()}
    return Told(
        dates=tuple(_dates(values)),
        gps=_gps(values, notes),
        altitude=_altitude(values),
        camera={name: text for name, sources in _CAMERA.items() if (text := _text(values, sources))},
        exposure={
            name: number
            for name, sources in _EXPOSURE.items()
            if (number := number_of(_text(values, sources))) is not None
        },
        fields={name: value for name, value in fields.items() if value not in (None, [], {})},
        warnings=tuple(notes),
    )


def _text(values: Values, sources: tuple[str, ...]) -> str | None:
    return next((text for source in sources if (text := text_of(values.one(source)))), None)


def _dates(values: Values) -> list[Candidate]:
    return [
        Candidate(name, text[:LONGEST_TEXT], values.one(offset))
        for name, (source, offset) in _DATES.items()
        if (text := values.one(source))
    ]


def _location(values: Values) -> dict[str, str]:
    simple = {name: text for name, source in _LOCATION.items() if (text := text_of(values.one(source)))}
    if simple:
        return simple
    for place in _PLACES:
        parts = {name: text_of(values.one(place, 0, source)) for name, source in _PLACE.items()}
        if any(parts.values()):
            return {name: text for name, text in parts.items() if text}
    return {}


def _gps(values: Values, notes: list[str]) -> Gps | None:
    latitude, longitude = values.one("exif:GPSLatitude"), values.one("exif:GPSLongitude")
    if latitude is None and longitude is None:
        return None
    return position(_degrees(latitude, "NS"), _degrees(longitude, "EW"), notes)


def _degrees(text: str | None, signs: str) -> float | None:
    """Degrees, minutes and seconds as XMP writes them: "48,12,30N" or "48,12.5N"."""
    match = _COORDINATE.fullmatch((text or "").strip().upper())
    if match is None:
        return None
    return signed_degrees((float(part or 0) for part in match.groups()[:3]), match[4], signs)


def _altitude(values: Values) -> float | None:
    metres = number_of(values.one("exif:GPSAltitude"))
    return -metres if metres is not None and values.one("exif:GPSAltitudeRef") == "1" else metres


class _Target:
    """Takes the parser's events and keeps values of the namespaces above. Its memory is bounded."""

    def __init__(self) -> None:
        self.values = Values()
        self.is_rdf = False
        self._paths: list[Path] = [()]
        self._parts: list[list[str]] = [[]]
        self._items: dict[Path, int] = {}
        self._elements = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > _MOST_ELEMENTS or len(self._paths) > _DEEPEST:
            raise XmpError("it has too many elements, or too deeply nested ones")
        path = self._paths[-1]
        namespace, name = _split(tag)
        if namespace != _RDF:
            path = (*path, f"{_PREFIXES.get(namespace, '')}:{name}") if self.is_rdf else ()
        elif name == "RDF":
            self.is_rdf = True
        elif name == "li":
            number = self._items.get(path, 0)
            self._items[path] = number + 1
            path = (*path, number)
        for attribute, value in attributes.items():
            self._attribute(path, attribute, value)
        self._paths.append(path)
        self._parts.append([])

    def data(self, text: str) -> None:
        if self._paths[-1]:
            self._parts[-1].append(text)

    def end(self, _tag: str) -> None:
        path, parts = self._paths.pop(), self._parts.pop()
        text = "".join(parts).strip()
        if path and text:
            self._keep(path, text)

    def close(self) -> None:
        """The parser's last call; there is nothing left to do."""

    def _attribute(self, path: Path, attribute: str, value: str) -> None:
        namespace, name = _split(attribute)
        if namespace == _XML and name == "lang" and path:
            if len(self.values.languages) < _MOST_VALUES:
                self.values.languages[path] = value
        elif self.is_rdf and namespace in _PREFIXES:
            self._keep((*path, f"{_PREFIXES[namespace]}:{name}"), value)

    def _keep(self, path: Path, text: str) -> None:
        known = not any(isinstance(part, str) and part.startswith(":") for part in path)
        if known and len(self.values.texts) < _MOST_VALUES:
            self.values.texts.setdefault(path, text[: 2 * LONGEST_DESCRIPTION])


def _split(name: str) -> tuple[str, str]:
    """Namespace and local name of "{namespace}local"."""
    namespace, brace, local = name[1:].rpartition("}")
    return (namespace, local) if brace else ("", name)
