"""Pictures that carry EXIF, XMP and IPTC, and their parts, made on the spot."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

from PIL import Image

from pipeline.media.facts import Facts, read_facts
from pipeline.media.image import Still
from tests.images import corners, encoded

_NAMESPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
}


def packet(properties: str = "", **attributes: str) -> bytes:
    """An XMP packet: ``properties`` are XML elements; ``attributes`` as xmp__Rating="5"."""
    names = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items())
    simple = " ".join(f'{name.replace("__", ":")}="{value}"' for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta {names}><rdf:RDF><rdf:Description rdf:about="" {simple}>{properties}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def bag(name: str, *items: str) -> str:
    """A list property."""
    return f"<{name}><rdf:Bag>{''.join(f'<rdf:li>{item}</rdf:li>' for item in items)}</rdf:Bag></{name}>"


def either(name: str, **languages: str) -> str:
    """A text in several languages; the default one is ``x_default``."""
    items = (f'<rdf:li xml:lang="{key.replace("_", "-")}">{text}</rdf:li>' for key, text in languages.items())
    return f"<{name}><rdf:Alt>{''.join(items)}</rdf:Alt></{name}>"


def iim(*datasets: tuple[int, bytes]) -> bytes:
    """IPTC datasets of the application record."""
    return b"".join(b"\x1c\x02" + struct.pack(">BH", number, len(data)) + data for number, data in datasets)


def resource(number: int, data: bytes) -> bytes:
    """One of Photoshop's image resources."""
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + bytes(len(data) % 2)


def jpeg(exif: bytes = b"", xmp: bytes = b"", resources: bytes = b"", behind: bytes = b"") -> bytes:
    """A small JPEG with these segments, and ``behind`` after its end."""
    plain = encoded(corners((32, 18)))
    segments = b""
    for marker, body in (
        (0xE1, b"Exif\0\0" + exif if exif and not exif.startswith(b"Exif") else exif),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp if xmp else b""),
        (0xED, b"Photoshop 3.0\0" + resources if resources else b""),
    ):
        segments += struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body if body else b""
    return plain[:2] + segments + plain[2:] + behind


def facts(folder: Path, data: bytes) -> Facts:
    """What the picture ``data`` says of itself."""
    path = folder / "file"
    path.write_bytes(data)
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # Pillow's, of broken EXIF: the stills' reader listens to them
        with Image.open(file) as image:
            image.load()
            return read_facts(Still(image, path, 1, 1, ()), path)
