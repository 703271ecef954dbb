"""Pictures of the kinds that are measured: camera-like JPEGs, and what else people upload."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from bench import photographs

SMALLER, LARGER = (4000, 3000), (6000, 4000)  #: 12 and 24 megapixels
HUGE = (11600, 8700)  #: 100 megapixels
OTHERS = 4  #: of each other kind
SIDEWAYS = 6  #: EXIF's Orientation

Write = Callable[[Image.Image, Path], None]


def make(folder: Path, count: int) -> dict[str, list[Path]]:
    """Files by kind: ``count`` baseline JPEGs, half of them of each size, and a few of each other kind."""
    found = {
        "JPEG, 12 MP": photographs.make(folder / "12", count // 2, size=SMALLER),
        "JPEG, 24 MP": photographs.make(folder / "24", count - count // 2, size=LARGER),
    }
    for name, (extension, write) in _OTHERS.items():
        found[name] = []
        for source in found["JPEG, 12 MP"][:OTHERS]:
            path = folder / f"{name.replace(' ', '-')}-{source.stem}.{extension}"
            with Image.open(source) as picture:
                write(picture.convert("RGB"), path)
            found[name].append(path)
    return found


def huge(folder: Path) -> Path:
    """A baseline JPEG of 100 megapixels."""
    return photographs.make(folder / "100", 1, size=HUGE)[0]


def _png(picture: Image.Image, path: Path) -> None:
    picture.save(path, "PNG", compress_level=6)


def _cutout(picture: Image.Image, path: Path) -> None:
    mask = Image.new("L", picture.size)
    edge = picture.width // 8
    ImageDraw.Draw(mask).ellipse((edge, edge, picture.width - edge, picture.height - edge), fill=255)
    picture.putalpha(mask.filter(ImageFilter.BoxBlur(20)))
    picture.save(path, "PNG", compress_level=6)


def _webp(picture: Image.Image, path: Path) -> None:
    picture.save(path, "WEBP", quality=85)


def _progressive(picture: Image.Image, path: Path) -> None:
    picture.save(path, "JPEG", quality=90, progressive=True)


def _cmyk(picture: Image.Image, path: Path) -> None:
    picture.convert("CMYK").save(path, "JPEG", quality=90)


def _p3(picture: Image.Image, path: Path) -> None:
    picture.save(path, "JPEG", quality=90, icc_profile=p3_profile())


def _rotated(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = SIDEWAYS
    picture.save(path, "JPEG", quality=90, exif=exif)


_OTHERS: dict[str, tuple[str, Write]] = {
    "PNG": ("png", _png),
    "PNG with alpha": ("png", _cutout),
    "WebP": ("webp", _webp),
    "JPEG, progressive": ("jpg", _progressive),
    "JPEG, CMYK": ("jpg", _cmyk),
    "JPEG, Display P3": ("jpg", _p3),
    "JPEG, sideways": ("jpg", _rotated),
}


def p3_profile() -> bytes:
    """Display P3 as an ICC profile of version 2: its primaries adapted to D50, with a gamma of 2.2."""
    columns = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
        b"wtpt": (0.96420, 1.0, 0.82491),
    }
    tags = {name: b"XYZ \0\0\0\0" + struct.pack(">3i", *map(_fixed, xyz)) for name, xyz in columns.items()}
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) + b"\0\0"
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    name = b"Display P3\0"
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(79)
    tags[b"cprt"] = b"text\0\0\0\0CC0\0"
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for signature, data in tags.items():
        table += signature + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">3i", *map(_fixed, columns[b"wtpt"]))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _fixed(value: float) -> int:
    return round(value * 65536)
