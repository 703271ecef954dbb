"""The film inside a motion photo: where it lies in the file, checked by its first bytes.

Sources: Google's Motion Photo format 1.0 and MicroVideo, in XMP; Samsung's trailer, as ExifTool has it.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.media.told import number_of, text_of
from pipeline.media.xmp import Values

_MOST_ITEMS = 20
_SEF_END, _SEF_VIDEO, _MOST_FIELDS, _LONGEST_NAME = b"SEFT", 0x0A30, 200, 64
_NOT_THERE = "The picture announces a film of the moment, but none is where it says."


def motion_photo(path: Path, values: Values) -> tuple[dict[str, Any] | None, str | None]:
    """The film in the file at ``path`` by its XMP, or by Samsung's trailer; and a warning, or None.

    The film is {"mime_type", "offset", "length"}, in bytes. Of the file, a few hundred bytes are read.
    """
    size = path.stat().st_size
    announced = [place for place in (_by_container(values, size), _by_microvideo(values, size)) if place]
    with path.open("rb") as file:
        for offset, length in [*announced, *_by_samsung(file, size)]:
            if mime_type := _film_at(file, offset, length, size):
                return {"mime_type": mime_type, "offset": offset, "length": length}, None
    return None, _NOT_THERE if announced else None


def _by_container(values: Values, size: int) -> tuple[int, int] | None:
    """Place of the film in the container's directory: items follow one another, to the end of the file."""
    behind = 0
    found = None
    for number in reversed(range(_MOST_ITEMS)):
        item = ("Container:Directory", number, "Container:Item")
        length = int(number_of(values.one(*item, "Item:Length")) or 0)
        behind += length + int(number_of(values.one(*item, "Item:Padding")) or 0)
        if values.one(*item, "Item:Semantic") == "MotionPhoto":
            found = size - behind, length
    return found


def _by_microvideo(values: Values, size: int) -> tuple[int, int] | None:
    length = number_of(values.one("GCamera:MicroVideoOffset"))
    return (size - int(length), int(length)) if length else None


def _by_samsung(file: BinaryIO, size: int) -> list[tuple[int, int]]:
    """Place of the film among the fields before Samsung's trailer: its directory, its length, "SEFT"."""
    tail = _read(file, size - 8, 8)
    if not tail.endswith(_SEF_END):
        return []
    start = size - 8 - int.from_bytes(tail[:4], "little")
    head = _read(file, start, 12)
    if not head.startswith(b"SEFH") or len(head) < 12:  # noqa: PLR2004 - its length
        return []
    count = min(int.from_bytes(head[8:12], "little"), _MOST_FIELDS)
    table = _read(file, start + 12, 12 * count)
    fields = struct.iter_unpack("<HHII", table[: len(table) // 12 * 12])
    places = []
    for _, sort, back, length in fields:
        if sort == _SEF_VIDEO:
            name = int.from_bytes(_read(file, start - back + 4, 4), "little")
            if name <= _LONGEST_NAME:
                places.append((start - back + 8 + name, length - 8 - name))
    return places


def _film_at(file: BinaryIO, offset: int, length: int, size: int) -> str | None:
    """The MIME type of the film at ``offset``; None if there is none, or it would not fit."""
    if length <= 0 or offset + length > size:
        return None
    head = _read(file, offset, 12)
    if head[4:8] != b"ftyp":
        return None
    return "video/quicktime" if text_of(head[8:12]) == "qt" else "video/mp4"


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    if at < 0:
        return b""
    file.seek(at)
    return file.read(size)
