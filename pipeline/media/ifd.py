"""Single values out of a TIFF structure, which EXIF, TIFFs and most raw files are, without reading the rest.

Nothing a file says is believed: no more is read than the wanted tags need, each value up to a limit, and a
directory is visited only by the caller's will, so that no loop can be followed. Source: TIFF 6.0, section 2.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

#: struct's letters for a value of each type
_TYPES = {1: "B", 2: "s", 3: "H", 4: "I", 5: "II", 6: "b", 7: "s", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_TYPES |= {13: "I", 16: "Q", 17: "q", 18: "Q", 129: "s"}  # 129 is UTF-8, EXIF 3.0
_BYTES = frozenset({1, 2, 7, 129})  # kept as they are
_RATIONAL = frozenset({5, 10})
_BIG = 43
_MAGIC = frozenset({42, _BIG, 0x55})  # TIFF, BigTIFF, Panasonic's RW2
_MOST_ENTRIES = 4096
_FURTHEST = 1 << 40  # bytes: what every file system lets a file be asked to seek; ext4 takes up to 1 << 44
LONGEST_VALUE = 65_536  #: bytes read of one value, unless the caller allows more


class IfdError(ValueError):
    """There is no TIFF structure, or it is broken. The message says where."""


class Structure:
    """An open TIFF structure. ``first`` is where its first directory stands."""

    def __init__(self, file: BinaryIO) -> None:
        """Read the header at the start of ``file``. Raises IfdError."""
        file.seek(0)
        head = file.read(16)
        self._file = file
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        magic = struct.unpack_from(f"{self._order}H", head, 2)[0] if self._order and len(head) > 3 else 0  # noqa: PLR2004
        self._big = magic == _BIG
        if magic not in _MAGIC or len(head) < (16 if self._big else 8):
            raise IfdError("it has no TIFF header")
        where = (f"{self._order}Q", head, 8) if self._big else (f"{self._order}I", head, 4)
        self.first: int = struct.unpack_from(*where)[0]

    def directory(
        self, at: Any, wanted: Collection[int], blocks: Mapping[int, int] | None = None
    ) -> dict[int, Any]:
        """The values of the ``wanted`` tags in the directory at byte ``at``; broken ones are left out.

        Text and bytes come as bytes, rationals as floats (NaN for a zero below), several values as a tuple.
        Of text and bytes beyond ``LONGEST_VALUE`` the rest is cut; so many numbers are left out. ``blocks``
        names tags that come as bytes whatever their type, and how many. Raises IfdError if there is none.
        """
        if not isinstance(at, int):
            raise IfdError("it points to no directory")
        width, entry = ("Q", "HHQ8s") if self._big else ("H", "HHI4s")
        before, step = struct.calcsize(f"={width}"), struct.calcsize(f"={entry}")
        count = struct.unpack(self._order + width, self._read(at, before))[0]
        if count > _MOST_ENTRIES:
            raise IfdError(f"a directory claims {count} entries")
        table = self._read(at + before, count * step, short=True)
        blocks = blocks or {}
        values: dict[int, Any] = {}
        for start in range(0, len(table) - step + 1, step):
            tag, sort, number, inline = struct.unpack_from(self._order + entry, table, start)
            if tag in wanted and tag not in values and sort in _TYPES and number:
                data = self._bytes(sort, number, inline, blocks.get(tag, LONGEST_VALUE))
                value = data if tag in blocks or sort in _BYTES else self._numbers(sort, number, data)
                if value:
                    values[tag] = value[0] if isinstance(value, tuple) and len(value) == 1 else value
        return values

    def _bytes(self, sort: int, number: int, inline: bytes, longest: int) -> bytes:
        """The bytes of a value, the first ``longest`` of them, or what there is."""
        size = number * struct.calcsize(f"={_TYPES[sort]}")
        if size <= len(inline):
            return inline[:size]
        at = struct.unpack(self._order + ("Q" if self._big else "I"), inline)[0]
        try:
            return self._read(at, min(size, longest), short=True)
        except IfdError:
            return b""

    def _numbers(self, sort: int, number: int, data: bytes) -> tuple[float, ...]:
        if len(data) < number * struct.calcsize(f"={_TYPES[sort]}"):
            return ()
        numbers = struct.unpack(self._order + _TYPES[sort] * number, data)
        if sort in _RATIONAL:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            return tuple(above / below if below else float("nan") for above, below in pairs)
        return numbers

    def _read(self, at: int, size: int, *, short: bool = False) -> bytes:
        if at > _FURTHEST:
            raise IfdError("it points past its end")
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) < size and not short:
            raise IfdError("it ends too early")
        return data
