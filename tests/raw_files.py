"""Camera raw files made on the spot, since no real one is at hand.

``dng`` is a whole DNG that LibRaw develops. The others are shells: the container of the maker, with magic,
directories and preview where the maker puts them, around values that no camera has written.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from PIL import Image

from tests.images import corners, encoded

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL = 1, 2, 3, 4, 5, 7, 10
_LETTERS = {SHORT: "H", LONG: "I", RATIONAL: "II", SRATIONAL: "ii"}
Directory = Mapping[int, Any]


class Blob(bytes):
    """Bytes that a directory points to by offset: pixels, a JPEG."""


def tiff(directories: Sequence[Directory], head: bytes = b"II*\0", *, tail: bytes = b"") -> bytes:
    """A TIFF of ``directories``: values are (type, numbers or bytes), Blob, or directories below."""
    body = bytearray(head + bytes(4) + tail)
    struct.pack_into("<I", body, 4, _append(body, directories))
    return bytes(body)


def _append(body: bytearray, directories: Sequence[Directory]) -> int:
    """Append ``directories`` and what they point to; where the first one stands."""
    places = []
    for directory in directories:
        fields = b""
        for tag, value in sorted(directory.items()):
            kind, count, data = _field(body, value)
            if len(data) > 4:
                body += bytes(len(body) % 2)
                data, place = struct.pack("<I", len(body)), data
                body += place
            fields += struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0")
        body += bytes(len(body) % 2)
        places.append(len(body))
        body += struct.pack("<H", len(directory)) + fields + bytes(4)
    for here, after in pairwise(places):
        count = struct.unpack_from("<H", body, here)[0]
        struct.pack_into("<I", body, here + 2 + 12 * count, after)
    return places[0]


def _field(body: bytearray, value: Any) -> tuple[int, int, bytes]:
    if isinstance(value, Blob):
        body += bytes(len(body) % 2)
        place = len(body)
        body += value
        return LONG, 1, struct.pack("<I", place)
    if isinstance(value, list):
        below = [_append(body, [directory]) for directory in value]
        return LONG, len(below), struct.pack(f"<{len(below)}I", *below)
    kind, content = value
    if isinstance(content, bytes):
        return kind, len(content), content
    numbers = [part for one in content for part in (one if isinstance(one, tuple) else (one,))]
    return (
        kind,
        len(content),
        struct.pack(f"<{len(content) * len(_LETTERS[kind])}{_LETTERS[kind][0]}", *numbers),
    )


def mosaic(image: Image.Image) -> bytes:
    """``image`` through a red-green-green-blue filter: 16 bits a pixel, shares of light."""
    width, height = image.size
    pixels = image.convert("RGB").load()
    assert pixels is not None
    channels = ((0, 1), (1, 2))
    values = (
        round((pixels[x, y][channels[y % 2][x % 2]] / 255) ** 2.2 * 65535)  # type: ignore[index]
        for y in range(height)
        for x in range(width)
    )
    return struct.pack(f"<{width * height}H", *values)


def sensor(image: Image.Image) -> dict[int, Any]:
    """The directory of the values of a sensor that saw ``image``, as in a DNG."""
    values = mosaic(image)
    width, height = image.size
    return {
        254: (LONG, [0]), 256: (LONG, [width]), 257: (LONG, [height]), 258: (SHORT, [16]), 259: (SHORT, [1]),
        262: (SHORT, [32803]), 273: Blob(values), 277: (SHORT, [1]), 278: (LONG, [height]),
        279: (LONG, [len(values)]), 284: (SHORT, [1]), 33421: (SHORT, [2, 2]), 33422: (BYTE, b"\0\1\1\2"),
        50717: (LONG, [65535]),
    }  # fmt: skip


def camera(make: str, orientation: int = 1) -> dict[int, Any]:
    """The tags of the first directory that every camera writes."""
    return {
        271: (ASCII, make.encode() + b"\0"), 272: (ASCII, b"Model 1\0"), 274: (SHORT, [orientation]),
        34665: [{36867: (ASCII, b"2024:05:06 07:08:09\0"), 34855: (SHORT, [400])}],
    }  # fmt: skip


_COLOURS: dict[int, Any] = {
    50706: (BYTE, b"\1\4\0\0"), 50707: (BYTE, b"\1\1\0\0"), 50708: (ASCII, b"Maker Model 1\0"),
    # From XYZ to linear sRGB: the camera sees as a screen shows.
    50721: (SRATIONAL, [(round(one * 10_000), 10_000) for one in (
        3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)]),
    50728: (RATIONAL, [(1, 1)] * 3), 50778: (SHORT, [21]),
}  # fmt: skip


def dng(image: Image.Image, preview: Image.Image | None = None, orientation: int = 1) -> bytes:
    """A DNG of ``image`` as the sensor stores it, uncompressed; with ``preview`` as the first directory."""
    main = camera("Maker", orientation) | _COLOURS
    if preview is None:
        return tiff([main | sensor(image)])
    return tiff([main | jpeg_strip(preview) | {254: (LONG, [1]), 330: [sensor(image)]}])


def jpeg_strip(preview: Image.Image) -> dict[int, Any]:
    """A directory's JPEG as its one strip."""
    data = Blob(encoded(preview))
    return {
        256: (LONG, [preview.width]), 257: (LONG, [preview.height]), 258: (SHORT, [8, 8, 8]),
        259: (SHORT, [7]), 262: (SHORT, [6]), 273: data, 277: (SHORT, [3]), 278: (LONG, [preview.height]),
        279: (LONG, [len(data)]),
    }  # fmt: skip


def jpeg_pointer(preview: Image.Image) -> dict[int, Any]:
    """A directory's JPEG by the pair of tags that TIFF/EP inherited."""
    data = Blob(encoded(preview))
    return {259: (SHORT, [6]), 513: data, 514: (LONG, [len(data)])}


def shell(kind: str, preview: Image.Image, orientation: int = 1) -> bytes:
    """The shell of a raw file of ``kind`` ("CR2", "NEF", "ARW", "RAF", "RW2") around ``preview``."""
    small = jpeg_pointer(corners((160, 120)))
    noise = {259: (SHORT, [1]), 262: (SHORT, [32803]), 273: Blob(bytes(64)), 279: (LONG, [64])}
    if kind == "CR2":
        strip = jpeg_strip(preview) | {259: (SHORT, [6])}
        lossless = {
            259: (SHORT, [6]),
            273: Blob(b"\xff\xd8\xff\xc3\0\x0b\x0e" + bytes(60)),
            279: (LONG, [67]),
        }
        tail = b"CR\2\0" + bytes(4)
        return tiff([camera("Canon", orientation) | strip, small, lossless], tail=tail)
    if kind == "NEF":
        main = camera("NIKON CORPORATION", orientation) | {254: (LONG, [1])}
        return tiff([main | {330: [jpeg_pointer(preview), noise | {259: (SHORT, [34713])}]}])
    if kind == "ARW":
        main = camera("SONY", orientation) | jpeg_pointer(preview) | {254: (LONG, [1])}
        return tiff([main | {330: [noise | {259: (SHORT, [32767])}]}, small])
    if kind == "RW2":
        main = camera("Panasonic", orientation) | {0x2E: (UNDEFINED, encoded(preview))}
        return tiff([main], b"IIU\0")
    exif = Image.Exif()
    exif[271], exif[274] = "FUJIFILM", orientation
    data = encoded(preview, exif=exif)
    head = b"FUJIFILMCCD-RAW 0201FF383501X-T0".ljust(84, b"\0") + struct.pack(">II", 160, len(data))
    return head.ljust(160, b"\0") + data
