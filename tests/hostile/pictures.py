"""Pictures that mean harm."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from PIL import Image

from tests.hostile import good
from tests.hostile.blocks import CORRUPT, MILLION, chunk, png, zeros
from tests.hostile.case import Case
from tests.images import corners, encoded
from tests.raw_files import ASCII, LONG, SHORT, Blob, tiff

_GREY = {256: (LONG, [8]), 257: (LONG, [8]), 258: (SHORT, [8]), 262: (SHORT, [1]), 277: (SHORT, [1])}
_PLAIN = _GREY | {259: (SHORT, [1]), 273: Blob(bytes(64)), 278: (LONG, [8]), 279: (LONG, [64])}


def million_frames(_path: Path) -> bytes:
    """A GIF whose frames have a pixel each."""
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * MILLION + b";"


def frame_beyond_screen(_path: Path) -> bytes:
    """A GIF of ten pixels with a frame of four billion."""
    frame = b",\0\0\0\0" + struct.pack("<HH", 65535, 65535) + b"\0\2\2D\1\0"
    return b"GIF89a\x0a\0\x0a\0\x80\0\0\0\0\0\xff\xff\xff" + frame + b";"


def looping(next_at: str) -> Callable[[Path], bytes]:
    """A TIFF whose directory is followed by itself ("self"), or which loops over two ("pair")."""

    def make(_path: Path) -> bytes:
        body = bytearray(tiff([_PLAIN, _PLAIN]))
        first = struct.unpack_from("<I", body, 4)[0]
        link = first + 2 + 12 * len(_PLAIN)
        second = struct.unpack_from("<I", body, link)[0]
        end = link if next_at == "self" else second + 2 + 12 * len(_PLAIN)
        struct.pack_into("<I", body, end, first)
        return bytes(body)

    return make


def pages(_path: Path) -> bytes:
    """A TIFF of 100,000 directories, each of one entry."""
    count, start = 100_000, len(tiff([_PLAIN]))
    body = bytearray(tiff([_PLAIN]))
    first = struct.unpack_from("<I", body, 4)[0]
    struct.pack_into("<I", body, first + 2 + 12 * len(_PLAIN), start)
    step = 2 + 12 + 4
    for number in range(count):
        after = start + (number + 1) * step if number + 1 < count else 0
        body += struct.pack("<HHHIII", 1, 256, 4, 1, 8, after)
    return bytes(body)


def many_entries(_path: Path) -> bytes:
    """A BigTIFF with a directory of a million."""
    entry = b"".join(struct.pack("<HHQQ", 60_000 + number, 4, 1, 8) for number in range(1000))
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, MILLION) + entry * 1000 + bytes(8)


def far(entry_at: int, at: int = 16) -> Callable[[Path], bytes]:
    """A BigTIFF of 8 x 8 pixels that leads 2^50 bytes on: its directory at ``at``, a value or a strip."""
    sizes = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 271: entry_at, 273: entry_at, 277: 1, 278: 8, 279: 64}
    entries = b"".join(
        struct.pack("<HHQQ", tag, 2 if tag == 271 else 16, 9 if tag == 271 else 1, value)
        for tag, value in sizes.items()
    )
    body = b"II+\0\x08\0\0\0" + struct.pack("<QQ", at, len(sizes)) + entries + bytes(72)
    return lambda _path: body


def below_itself(_path: Path) -> bytes:
    """A TIFF whose SubIFDs, EXIF and GPS are its own first directory."""
    body = bytearray(tiff([_PLAIN | {330: (LONG, [0, 0]), 34665: (LONG, [0]), 34853: (LONG, [0])}]))
    first = struct.unpack_from("<I", body, 4)[0]
    for at in range(first + 2, first + 2 + 12 * (len(_PLAIN) + 3), 12):
        tag, _, count, where = struct.unpack_from("<HHII", body, at)
        if tag in {330, 34665, 34853}:
            struct.pack_into("<I", body, at + 8 if count == 1 else where, first)
    return bytes(body)


def great_webp(_path: Path) -> bytes:
    """A WebP of 15,000 x 15,000 pixels, without most of them."""
    body = bytearray(encoded(corners((32, 18)), "WEBP", lossless=True))
    struct.pack_into("<I", body, 21, 14_999 | 14_999 << 14)
    return bytes(body)


def great_jxl(_path: Path) -> bytes:
    """The head of a JPEG XL with the longest sides there are."""
    side = 0b11 | (2**30 - 1) << 2  # thirty bits, less one
    return b"\xff\x0a" + (side << 1 | side << 36).to_bytes(20, "little")


def claims(extension: str, *sizes: tuple[bytes, bytes]) -> Callable[[Path], bytes]:
    """The sound file of ``extension``, where the first of each pair is replaced by the second."""

    def make(path: Path) -> bytes:
        data = good.made(extension, path)
        for what, by in sizes:
            assert what in data
            data = data.replace(what, by, 1)
        return data

    return make


def ispe(width: int, height: int) -> bytes:
    return b"ispe" + bytes(4) + struct.pack(">II", width, height)


def many_scans(size: tuple[int, int], scans: int) -> bytes:
    """A progressive JPEG whose last scan, which says that nothing changes, comes ``scans`` times."""
    data = encoded(Image.new("L", size, 99), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def of_strips(count: int) -> bytes:
    """A TIFF of 4,294,967,295 strips, or so many as ``count`` says, that holds one."""
    body = bytearray(tiff([_PLAIN | {257: (LONG, [count]), 278: (LONG, [1])}]))
    first = struct.unpack_from("<I", body, 4)[0]
    for at in range(first + 2, first + 2 + 12 * len(_PLAIN), 12):
        if struct.unpack_from("<H", body, at)[0] in {273, 279}:
            struct.pack_into("<I", body, at + 4, count)
    return bytes(body)


def great_tile(_path: Path) -> bytes:
    """A TIFF of 64 pixels in a tile of four billion."""
    tile = Blob(zlib.compress(bytes(64)))
    return tiff(
        [
            _GREY
            | {
                259: (SHORT, [8]), 322: (LONG, [65520]), 323: (LONG, [65520]), 324: tile,
                325: (LONG, [len(tile)]),
            }
        ]
    )  # fmt: skip


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    """The head of a BMP, and little more."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 5000, 0, 0, 1078) + head + bytes(5000)


def large_dng(_path: Path) -> bytes:
    """A DNG that claims 60,000 x 60,000 values of a sensor, and a preview past its end."""
    plain = _PLAIN | {256: (LONG, [60_000]), 257: (LONG, [60_000]), 262: (SHORT, [32803])}
    return tiff([plain | {50706: (1, b"\1\4\0\0"), 271: (ASCII, b"Maker\0"), 513: (LONG, [2**31]),
                          514: (LONG, [2**31])}])  # fmt: skip


def polyglot(first: str, more: bytes) -> Callable[[Path], bytes]:
    """The sound file of the extension ``first`` with something else behind it."""
    return lambda path: good.made(first, path) + more


def zipped(data: bytes) -> bytes:
    """A ZIP archive of one file, which is not compressed."""
    held = BytesIO()
    with ZipFile(held, "w") as archive:
        archive.writestr("a", data)
    return held.getvalue()


def script_in_gif(_path: Path) -> bytes:
    """A GIF that is JavaScript too: its width opens a comment, which ends in its own."""
    script = b"*/=1;alert(1)//"
    return (
        b"GIF89a/*"
        b"\1\0\x80\0\0\0\0\0\xff\xff\xff!\xfe"
        + bytes((len(script),))
        + script
        + (b"\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;")
    )


HTML = b"<html><script>alert(document.cookie)</script></html>"
TOO_LARGE, UNKNOWN = "IMAGE_TOO_LARGE", "UNSUPPORTED_TYPE"
CASES = (
    Case(
        "PNG of 60,000 x 60,000 pixels",
        "a.png",
        lambda _: png(size=(60_000, 60_000), bits=1, pixels=zeros(2)),
        TOO_LARGE,
    ),
    Case(
        "PNG of 2,147,483,647 x 2,147,483,647 pixels",
        "a.png",
        lambda _: png(size=(2**31 - 1,) * 2),
        TOO_LARGE,
    ),
    Case(
        "PNG of 15,000 x 15,000 pixels, all of them there",
        "a.png",
        lambda path: Image.new("L", (15_000, 15_000)).save(path),
        slow=True,
    ),
    Case("PNG whose pixels inflate to more than it has", "a.png", lambda _: png(pixels=zeros(500))),
    Case(
        "PNG that claims 2,147,483,647 frames",
        "a.png",
        lambda _: png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    ),
    Case("GIF of 1,000,000 frames", "a.gif", million_frames, warning="more than 10,000 frames"),
    Case(
        "GIF of 65,535 x 65,535 pixels",
        "a.gif",
        claims("gif", (struct.pack("<HH", *good.SIZE), b"\xff" * 4)),
        TOO_LARGE,
    ),
    Case("GIF of 100 pixels, its frame of 4,294,836,225", "a.gif", frame_beyond_screen, TOO_LARGE),
    Case("TIFF whose directory is followed by itself", "a.tif", looping("self")),
    Case("TIFF with a loop of two directories", "a.tif", looping("pair")),
    Case("TIFF below itself: SubIFDs, EXIF and GPS are its own directory", "a.tif", below_itself),
    Case("TIFF of 100,000 directories", "a.tif", pages, warning="more than 10,000 frames"),
    Case("TIFF whose directory is 2^50 bytes on", "a.tif", far(0, at=1 << 50), CORRUPT),
    Case("TIFF whose pixels and camera are 2^50 bytes on", "a.tif", far(1 << 50), CORRUPT),
    Case("TIFF with a directory of 1,000,000 entries", "a.tif", many_entries, CORRUPT),
    Case("TIFF of 4,294,967,295 strips", "a.tif", lambda _: of_strips(0xFFFFFFFF), CORRUPT),
    Case("TIFF of 20,000,000 strips", "a.tif", lambda _: of_strips(20 * MILLION), CORRUPT),
    Case("TIFF of 64 pixels in a tile of 4,292,870,400", "a.tif", great_tile, CORRUPT),
    Case(
        "JPEG of 65,500 x 65,500 pixels",
        "a.jpg",
        claims("jpg", (struct.pack(">HH", *good.SIZE[::-1]), struct.pack(">HH", 65_500, 65_500))),
        TOO_LARGE,
    ),
    Case(
        "JPEG of no height",
        "a.jpg",
        claims("jpg", (struct.pack(">HH", *good.SIZE[::-1]), b"\0\0\0\xf0")),
        CORRUPT,
    ),
    Case("JPEG of 10,000 scans", "a.jpg", lambda _: many_scans(good.SIZE, 10_000), CORRUPT),
    Case("JPEG of 36 megapixels and 480 scans", "a.jpg", lambda _: many_scans((6000, 6000), 470), slow=True),
    Case(
        "WebP of 16,777,216 x 16,777,216 pixels",
        "a.webp",
        lambda _: b"RIFF\x64\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff" * 6 + bytes(70),
        TOO_LARGE,
    ),
    Case("WebP of 15,000 x 15,000 pixels, which takes 4 GB to decode", "a.webp", great_webp, TOO_LARGE),
    Case(
        "AVIF of 65,535 x 65,535 pixels",
        "a.avif",
        claims("avif", (ispe(*good.SIZE), ispe(65_535, 65_535))),
        CORRUPT,
    ),
    Case(
        "HEIC of 2,147,483,647 x 2,147,483,647 pixels",
        "a.heic",
        claims("heic", (ispe(*good.SIZE), ispe(2**31 - 1, 2**31 - 1))),
        TOO_LARGE,
    ),
    Case("JPEG XL of 1,073,741,824 x 1,073,741,824 pixels", "a.jxl", great_jxl, TOO_LARGE),
    Case(
        "JPEG XL of 10,000 x 10,000 pixels, of few bytes",
        "a.jxl",
        lambda _: encoded(Image.new("RGB", (10_000, 10_000)), "JXL", effort=1),
        slow=True,
    ),
    Case(
        "BMP of 2,147,483,647 x 2,147,483,647 pixels",
        "a.bmp",
        lambda _: bmp(2**31 - 1, -(2**31 - 1)),
        TOO_LARGE,
    ),
    Case(
        "BMP of 10,000 x 10,000 pixels by run lengths, of 5 KB",
        "a.bmp",
        lambda _: bmp(10_000, 10_000, 1),
        CORRUPT,
    ),
    Case("DNG of 60,000 x 60,000 pixels, its preview past its end", "a.dng", large_dng, TOO_LARGE),
    Case("GIF that is JavaScript", "a.gif", script_in_gif),
    Case("JPEG that is a ZIP archive", "a.jpg", polyglot("jpg", zipped(HTML))),
    Case("PNG that is HTML", "a.png", polyglot("png", HTML)),
    Case("HTML that is a PNG", "a.png", lambda path: HTML + good.made("png", path), UNKNOWN),
    Case("PNG named .jpg", "a.jpg", partial(good.made, "png"), warning="The name says image/jpeg"),
    Case("Program named .jpg", "a.jpg", lambda _: b"\x7fELF\2\1\1" + bytes(4000), UNKNOWN),
    Case("MP4 named .jpg", "a.jpg", partial(good.made, "mp4"), warning="The name says image/jpeg"),
    Case("Nothing", "a.jpg", lambda _: b"", "EMPTY_FILE"),
    Case("One byte", "a.jpg", lambda _: b"\xff", UNKNOWN),
    Case("One letter", "a.txt", lambda _: b"a"),
)
