"""Tiny test pictures of every sort, made on the spot."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)
WIDE = (320, 180)  # the shape of the thumbnails: nothing is cropped
_T = Image.Transpose
#: How upright pixels are stored under each orientation: the inverse of what shows them upright.
STORED = {
    2: _T.FLIP_LEFT_RIGHT,
    3: _T.ROTATE_180,
    4: _T.FLIP_TOP_BOTTOM,
    5: _T.TRANSPOSE,
    6: _T.ROTATE_90,
    7: _T.TRANSVERSE,
    8: _T.ROTATE_270,
}


def corners(size: tuple[int, int] = WIDE) -> Image.Image:
    """Red, green over blue, yellow: every turn and flip shows."""
    quarters = Image.new("RGB", (2, 2))
    for place, colour in zip(((0, 0), (1, 0), (0, 1), (1, 1)), (RED, GREEN, BLUE, YELLOW), strict=True):
        quarters.putpixel(place, colour)
    return quarters.resize(size, Image.Resampling.NEAREST)


def detailed(size: tuple[int, int] = (300, 200)) -> Image.Image:
    """A picture that does not compress to nothing, so that cutting its file cuts into pixels."""
    return Image.effect_mandelbrot(size, (-2, -1.5, 1, 1.5), 100).convert("RGB")


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """The bytes of ``image`` as a file of ``kind``."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation: int, kind: str = "JPEG", size: tuple[int, int] = WIDE) -> bytes:
    """``corners`` stored turned, with the tag that says so. Upright it has ``size``."""
    image = corners(size)
    if orientation in STORED:
        image = image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return encoded(image, kind, exif=exif)


def with_exif(tags: dict[int, Any], gps: dict[int, Any] | None = None, kind: str = "JPEG") -> bytes:
    """A picture with ``tags``: those of the main directory there, all others in the EXIF directory."""
    exif = Image.Exif()
    main = {Base.Make, Base.Model, Base.DateTime, Base.Artist, Base.ImageDescription, Base.Orientation}
    for tag in main & tags.keys():
        exif[tag] = tags[tag]
    exif[IFD.Exif] = {tag: value for tag, value in tags.items() if tag not in main}
    if gps is not None:
        exif[IFD.GPSInfo] = gps
    # As bytes: Pillow writes nested directories into a TIFF only if it has read them from somewhere.
    return encoded(corners((32, 18)), kind, exif=exif.tobytes())


def gps_tags(latitude: float, longitude: float) -> dict[int, Any]:
    """The GPS directory of a position in degrees, as a camera writes it."""
    return {
        GPS.GPSLatitudeRef: "N" if latitude >= 0 else "S",
        GPS.GPSLatitude: _sexagesimal(latitude),
        GPS.GPSLongitudeRef: "E" if longitude >= 0 else "W",
        GPS.GPSLongitude: _sexagesimal(longitude),
    }


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    whole, rest = divmod(abs(degrees) * 3600, 3600)
    minutes, seconds = divmod(rest, 60)
    return whole, minutes, seconds


def display_p3() -> bytes:
    """A matrix profile with the primaries of Display P3 and a plain gamma of 2.2."""
    columns = {b"rXYZ": (0.5151, 0.2412, -0.0011), b"gXYZ": (0.2919, 0.6922, 0.0419)}
    columns |= {b"bXYZ": (0.1572, 0.0666, 0.7841), b"wtpt": (0.9642, 1.0, 0.8249)}
    tags = {name: b"XYZ \0\0\0\0" + _fixed(*values) for name, values in columns.items()}
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(2.2 * 256))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def linear_grey() -> bytes:
    """A profile of grey values that are shares of light: nobody's screen is like that."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + _fixed(0.9642, 1.0, 0.8249), b"kTRC": b"curv" + bytes(8)}
    return _profile(b"mntr", b"GRAY", b"XYZ ", tags)


def cyan_is_grey() -> bytes:
    """A CMYK profile under which full cyan is mid grey: no plain formula does that."""
    white, grey, black = ((round(lightness * 2.55), 128, 128) for lightness in (100, 50, 0))  # L, a, b
    # Two steps of each ink, cyan changing slowest, black fastest.
    inks = (black if node & 1 else grey if node & 8 else white for node in range(16))
    table = b"".join(map(bytes, inks))
    ramp = bytes(range(256))
    identity = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def _profile(sort: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2.4, of ``tags``, named "Test profile"."""
    name = b"Test profile\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78), **tags}
    start = 128 + 4 + 12 * len(tags)
    directory, body = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        directory += tag + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, sort, space, connection)
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _fixed(0.9642, 1.0, 0.8249)
    return head + bytes(128 - len(head)) + directory + body
