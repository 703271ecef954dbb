"""The boxes of ISO base media files (MP4, HEIF, AVIF, JPEG XL), walked within bounds.

Source: ISO/IEC 14496-12, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MOST = 64  # boxes looked at in one parent: real files have a dozen before what is looked for
_MOST_OF_A_FILE = 200_000  # a fragment each second for a day
#: What describes a file, and what holds its samples; and what else stands beside these.
_ENOUGH = (frozenset({b"moov", b"meta", b"JXL "}), frozenset({b"mdat", b"moof", b"jxlc", b"jxlp"}))
_OF_A_FILE = frozenset.union(*_ENOUGH) | {
    *b"mfra free skip wide uuid udta sidx styp ftyp Exif jumb brob jbrd jxll".split(),
    b"xml ",
}
_META_VERSION = 4  # bytes of version and flags before the children of a ``meta`` box


class Box(NamedTuple):
    """A box: its type, and where its payload starts and ends in the file."""

    name: bytes
    start: int
    end: int


def whole(path: Path) -> Box:
    """The file as the parent of its own boxes."""
    return Box(b"", 0, path.stat().st_size)


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[Box]:
    """The first boxes between ``start`` and ``end``, clipped to ``end``; stops at what is no box."""
    at = start
    for _ in range(_MOST):
        if at + 8 > end:
            return
        file.seek(at)
        head = file.read(16)
        size, skip = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, skip = int.from_bytes(head[8:16], "big"), 16
        elif size == 0:  # to the end of the file
            size = end - at
        if len(head) < skip or size < skip:
            return
        yield Box(head[4:8], at + skip, min(at + size, end))
        at += size


def ends_early(file: BinaryIO, size: int) -> bool:
    """Whether the last of the file's own boxes lies past its ``size`` in bytes, or has no whole head.

    Behind a file that has all it needs may stand what is no box: some cameras append data of their own.
    """
    start, seen = 0, set[bytes]()
    for _ in range(_MOST_OF_A_FILE):
        file.seek(start)
        head = file.read(16)
        if _ENOUGH[0] & seen and _ENOUGH[1] & seen and head[4:8] not in _OF_A_FILE:
            return False
        if len(head) < 8:  # noqa: PLR2004 - a box's head
            return len(head) > 0 and start > 0
        seen.add(head[4:8])
        length = int.from_bytes(head[:4])
        if length == 1 and len(head) == 16:  # noqa: PLR2004 - with the long length
            length = int.from_bytes(head[8:16])
        if length == 0:  # to the end
            return False
        if length < 8 or not head[4:8].isascii():  # noqa: PLR2004
            return False  # damaged, not cut: the decoder says so
        start += length
        if start > size:
            return True
    return False


def find(file: BinaryIO, parent: Box, *names: bytes) -> Box | None:
    """The first box below ``parent`` by the path ``names``; None where there is none."""
    for name in names:
        start = parent.start + (_META_VERSION if parent.name == b"meta" else 0)
        found = next((box for box in boxes(file, start, parent.end) if box.name == name), None)
        if found is None:
            return None
        parent = found
    return parent


def payload(file: BinaryIO, box: Box, most: int) -> bytes:
    """The first ``most`` bytes in ``box``."""
    file.seek(box.start)
    return file.read(min(most, box.end - box.start))
