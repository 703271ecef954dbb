"""What headers of pictures say that Pillow tells too late, wrongly, or only after counting without end.

Sources: RFC 9649 (WebP), GIF89a, PNG 3rd edition, AV1 in ISO base media 1.3 and ISO/IEC 23008-12 (AVIF).
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import BinaryIO

from pipeline.media.boxes import boxes, find, payload, whole
from pipeline.media.ifd import IfdError
from pipeline.media.jxl import CODESTREAM, CONTAINER, read_header
from pipeline.media.tiff import Tiff

PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH = 24  # where it stands: after signature, length, name, width and height
_GIF_SCREEN, _GIF_IMAGE = 13, 10  # bytes of its header, and of a frame's
_SCAN = 0xDA  # marker before a JPEG's pixels
_SCAN_MARK = bytes((0xFF, _SCAN))
MOST_BLOCKS = 5_000  #: segments of a JPEG, chunks of a PNG that are not its pixels
_MOST_EXIF = 2_000_000  # bytes in a JPEG: a segment holds 64 KB, and EXIF is one
_MOST_SCANS = 500  # what libjpeg-turbo's own programs advise; encoders write ten or so
_EXTENSION, _FRAME = 0x21, 0x2C


def size_first(path: Path) -> tuple[int, int]:
    """Width and height of a WebP or JPEG XL, whose decoders allocate at once; (0, 0) for all others."""
    with path.open("rb") as file:
        head = file.read(30)
    if head.startswith((CODESTREAM, CONTAINER)):
        header = read_header(path)
        return header.width, header.height
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return 0, 0
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def is_all_header(path: Path) -> bool:
    """Whether a JPEG or PNG has more before its pixels than anyone writes; Pillow would take long."""
    with path.open("rb") as file:
        start = file.read(len(PNG))
        if start == PNG:
            return _is_all_chunks(file)
        file.seek(2)
        return start.startswith(b"\xff\xd8") and _is_all_segments(file)


def _is_all_segments(file: BinaryIO) -> bool:
    exif = 0
    for _ in range(MOST_BLOCKS):
        head = file.read(10)
        length = int.from_bytes(head[2:4], "big")
        if len(head) < 10 or head[0] != 0xFF or head[1] == _SCAN or length < 2:  # noqa: PLR2004
            return False
        exif += length if head[4:] == b"Exif\0\0" else 0
        if exif > _MOST_EXIF:
            return True
        file.seek(length - 8, 1)
    return True


def _is_all_chunks(file: BinaryIO) -> bool:
    for _ in range(MOST_BLOCKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":  # noqa: PLR2004 - length and name
            return False
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return True


def is_all_scans(path: Path) -> bool:
    """Whether a JPEG comes in more scans than anyone writes: each costs a pass over the picture."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = _first_scan(data)
        end = data.find(b"\xff\xd9", at)  # behind the picture may stand anything, such as its film
        for _ in range(_MOST_SCANS):
            at = data.find(_SCAN_MARK, at, end) + 2  # in coded pixels 0xFF comes before 0 alone
            if at < 2:  # noqa: PLR2004 - not found
                return False
    return True


def _first_scan(data: mmap.mmap) -> int:
    """Where the segments before a JPEG's first scan end, which may hold pictures with scans of their own."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != _SCAN_MARK:
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return at


def png_bits(path: Path) -> int:
    """Bits for each channel of a PNG."""
    with path.open("rb") as file:
        return file.read(_PNG_BIT_DEPTH + 1)[_PNG_BIT_DEPTH]


def avif_bits(path: Path) -> int:
    """Bits for each channel of an AVIF; 8 where it does not say."""
    with path.open("rb") as file:
        coding = find(file, whole(path), b"meta", b"iprp", b"ipco", b"av1C")
        data = payload(file, coding, 4) if coding else b""
    if len(data) < 4 or not data[2] & 0x40:  # noqa: PLR2004 - high_bitdepth, in the third of its bytes
        return 8
    return 12 if data[2] & 0x20 else 10


def avif_transfer(path: Path) -> int:
    """The number of an AVIF's transfer characteristics (ITU-T H.273); 2 where it does not say."""
    with path.open("rb") as file:
        properties = find(file, whole(path), b"meta", b"iprp", b"ipco")
        for box in boxes(file, properties.start, properties.end) if properties else ():
            data = payload(file, box, 8) if box.name == b"colr" else b""
            if data.startswith(b"nclx"):
                return int.from_bytes(data[6:8], "big")
    return 2


def gif_frames(path: Path, most: int) -> int:
    """How many frames a GIF has, up to where it breaks off; beyond ``most`` no more are counted."""
    frames = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            at = _GIF_SCREEN + _colours(data[10])
            while frames <= most:
                if data[at] == _FRAME:
                    frames += 1
                    at += _GIF_IMAGE + _colours(data[at + 9]) + 1
                elif data[at] == _EXTENSION:
                    at += 2
                else:
                    break
                while data[at]:  # blocks, each after its length
                    at += data[at] + 1
                at += 1
        except IndexError:
            pass
    return frames


def tiff_pages(path: Path, most: int) -> int:
    """How many pages a TIFF has; beyond ``most`` no more are counted."""
    with path.open("rb") as file:
        try:
            return Tiff(file).pages(most)
        except IfdError:
            return 1


def _colours(flags: int) -> int:
    """Bytes of the table of colours that ``flags`` announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
