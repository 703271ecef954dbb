"""Pictures that mean harm by what stands beside their pixels."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from pathlib import Path

from tests.hostile.case import Case
from tests.images import corners, encoded
from tests.metadata_files import jpeg

CORRUPT = "CORRUPT_IMAGE"
PNG_HEAD = b"\x89PNG\r\n\x1a\n"

MILLION = 1_000_000


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)


def png(*chunks: bytes, size: tuple[int, int] = (8, 8), bits: int = 8, pixels: bytes | None = None) -> bytes:
    """A grey PNG with ``chunks`` before its pixels."""
    head = struct.pack(">IIBBBBB", *size, bits, 0, 0, 0, 0)
    rows = zlib.compress(bytes(9) * 8) if pixels is None else pixels
    return PNG_HEAD + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IDAT", rows) + chunk(b"IEND")


@lru_cache
def zeros(megabytes: int) -> bytes:
    """So many zero bytes, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MILLION)) for _ in range(megabytes)) + packer.flush()


def segments(marker: int, body: bytes, count: int) -> bytes:
    """A JPEG with ``count`` segments before its pixels."""
    plain = encoded(corners((32, 18)))
    return plain[:2] + (bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2) + body) * count + plain[2:]


def profile(tags: int, table: bytes = b"") -> bytes:
    """An ICC profile that claims ``tags`` tags."""
    body = tags.to_bytes(4) + table
    head = (128 + len(body)).to_bytes(4) + bytes(8) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    return head.ljust(128, b"\0") + body


def icc_segments(data: bytes) -> bytes:
    """A JPEG with the profile ``data``, in as many parts as it takes."""
    parts = [data[at : at + 65_000] for at in range(0, len(data), 65_000)]
    plain, body = encoded(corners((32, 18))), b""
    for number, part in enumerate(parts, 1):
        part = b"ICC_PROFILE\0" + bytes((number, len(parts))) + part  # noqa: PLW2901
        body += b"\xff\xe2" + (len(part) + 2).to_bytes(2) + part
    return plain[:2] + body + plain[2:]


def exif_of(*entries: tuple[int, int, int, int], size: int = 0) -> bytes:
    """EXIF with ``entries`` (tag, type, count, value or offset), ``size`` bytes long."""
    fields = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + fields + bytes(4)).ljust(size, b"\0")


BROKEN_EXIF = exif_of(
    (0x010F, 0, 1, 8), (0x0110, 255, 9, 8), (0x0112, 2, 1, 6), (0x0132, 12, 0xFFFFFFFF, 8),
    (0x011A, 5, 0x7FFFFFFF, 0xFFFFFFF0), (0x8769, 13, 0xFFFFFFFF, 0xFFFFFFFF), (0x8825, 4, 1, 0x7FFFFFFF),
)  # fmt: skip

LOOPING_EXIF = exif_of((0x010F, 2, 4, 0x414141), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8))


def webp_chunk(name: bytes, data: bytes) -> bytes:
    """A WebP in its extended form with one more chunk."""
    body = encoded(corners((32, 18)), "WEBP", exif=b"Exif\0\0" + exif_of())
    body += name + struct.pack("<I", len(data)) + data + bytes(len(data) & 1)
    return body[:4] + struct.pack("<I", len(body) - 8) + body[8:]


def mpf(_path: Path) -> bytes:
    """A JPEG whose index of further pictures tells of four billion."""
    block = b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3)
    block += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, 0xFFFFFFFF)
    block += struct.pack("<HHII", 0xB002, 7, 0xFFFFFFF0, 50) + bytes(64)
    return segments(0xE2, block, 1)


def huge_exif() -> bytes:
    """EXIF of 60 MB, all of which is said to be the camera's name."""
    return exif_of((0x010F, 2, 60 * MILLION - 100, 100), size=60 * MILLION)


_ICC_TABLE = b"".join(b"t%03d" % (number % 1000) + struct.pack(">II", 140, 4) for number in range(100_000))

CASES = (
    Case(
        "PNG with a text of 100 MB, compressed",
        "a.png",
        lambda _: png(chunk(b"zTXt", b"a\0\0" + zeros(100))),
        CORRUPT,
    ),
    Case(
        "PNG with XMP of 100 MB, compressed",
        "a.png",
        lambda _: png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zeros(100))),
        CORRUPT,
    ),
    Case(
        "PNG with a profile of 9 MB, compressed",
        "a.png",
        lambda _: png(chunk(b"iCCP", b"a\0\0" + zeros(9))),
        warning="profile cannot be used",
    ),
    Case("PNG of 1,000,000 chunks", "a.png", lambda _: png(chunk(b"tEXt", b"a\0b") * MILLION), CORRUPT),
    Case(
        "PNG of 1,000,000 chunks behind its pixels",
        "a.png",
        lambda _: png()[:-12] + chunk(b"tEXt", b"a\0b") * MILLION + chunk(b"IEND"),
        CORRUPT,
    ),
    Case(
        "PNG with a profile of a gigabyte, compressed",
        "a.png",
        lambda _: png(chunk(b"iCCP", b"a\0\0" + zeros(1000))),
        CORRUPT,
    ),
    Case("PNG with EXIF of 60 MB", "a.png", lambda _: png(chunk(b"eXIf", huge_exif()))),
    Case("JPEG of 1,000,000 segments", "a.jpg", lambda _: segments(0xFE, b"a", MILLION), CORRUPT),
    Case(
        "JPEG with EXIF of 60 MB, in 930 segments",
        "a.jpg",
        lambda _: segments(0xE1, b"Exif\0\0" + bytes(64_500), 930),
        CORRUPT,
    ),
    Case("JPEG whose index tells of 4,294,967,295 pictures", "a.jpg", mpf),
    Case("JPEG with EXIF of types and lengths that there are not", "a.jpg", lambda _: jpeg(BROKEN_EXIF)),
    Case("JPEG with EXIF that points to itself", "a.jpg", lambda _: jpeg(LOOPING_EXIF)),
    Case(
        "JPEG with a profile of 16 MB", "a.jpg", lambda _: icc_segments(profile(0).ljust(16 * MILLION, b"\0"))
    ),
    Case(
        "JPEG with a profile of 100,000 tags", "a.jpg", lambda _: icc_segments(profile(100_000, _ICC_TABLE))
    ),
    Case(
        "JPEG with a profile that claims 4,294,967,295 tags",
        "a.jpg",
        lambda _: icc_segments(profile(2**32 - 1)),
    ),
    Case(
        "JPEG with a resource of Photoshop's longer than itself",
        "a.jpg",
        lambda _: jpeg(resources=b"8BIM\x04\x04\0\0\xff\xff\xff\xff" * 500),
    ),
    Case("WebP with EXIF of 60 MB", "a.webp", lambda _: webp_chunk(b"EXIF", huge_exif())),
)
