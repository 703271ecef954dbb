"""All the directories of a TIFF, or of a raw file that is one inside, walked within bounds: loops end.

Sources: TIFF 6.0, section 2; TIFF/EP (ISO 12234-2) and DNG 1.7 for directories below directories.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.media.ifd import IfdError, Structure

SUBFILE_TYPE, WIDTH, LENGTH, COMPRESSION, PHOTOMETRIC = 0x00FE, 0x0100, 0x0101, 0x0103, 0x0106
MAKE, STRIPS, ORIENTATION, STRIP_BYTES = 0x010F, 0x0111, 0x0112, 0x0117
SUB_DIRECTORIES, JPEG_START, JPEG_BYTES, DNG_VERSION = 0x014A, 0x0201, 0x0202, 0xC612
REDUCED = 1  #: NewSubfileType of a preview
CFA, LINEAR_RAW = 32803, 34892  #: PhotometricInterpretation of a sensor's values

_MOST = 32  # directories; cameras write up to eight
_DEPTH = 3

Tags = dict[int, Any]


class Tiff(Structure):
    """An open TIFF. Raises IfdError where the header is none; whatever else is wrong ends what is read."""

    def pages(self, most: int) -> int:
        """How many directories the main chain has; beyond ``most`` no more are counted."""
        return sum(1 for _ in self._chain(most + 1))

    def directories(self, wanted: Collection[int], blocks: Mapping[int, int] | None = None) -> Iterator[Tags]:
        """The ``wanted`` tags of each directory, those below it following it; no more than a camera writes.

        Values are as ``Structure.directory`` gives them.
        """
        waiting = [(offset, 1) for offset in self._chain(_MOST)]
        seen: set[int] = set()
        while waiting and len(seen) < _MOST:
            offset, depth = waiting.pop(0)
            if offset in seen:
                continue
            seen.add(offset)
            try:
                tags = self.directory(offset, {*wanted, SUB_DIRECTORIES}, blocks)
            except IfdError:
                continue
            yield tags
            if depth < _DEPTH:
                waiting[:0] = [(below, depth + 1) for below in numbers(tags, SUB_DIRECTORIES)]

    def _chain(self, most: int) -> Iterator[int]:
        count, entry, pointer = ("Q", 20, "Q") if self._big else ("H", 12, "I")
        offset, seen = self.first, set[int]()
        while offset and offset not in seen and len(seen) < most:
            try:
                entries = self._value(offset, count)
                seen.add(offset)
                yield offset
                offset = self._value(offset + struct.calcsize(f"={count}") + entries * entry, pointer)
            except IfdError:
                return

    def _value(self, at: int, letter: str) -> int:
        data = self._read(at, struct.calcsize(f"={letter}"))
        return int.from_bytes(data, "little" if self._order == "<" else "big")


def numbers(tags: Tags, tag: int) -> tuple[int, ...]:
    """The whole numbers of ``tag``; empty where it has none."""
    value = tags.get(tag)
    values = value if isinstance(value, tuple) else (value,)
    return tuple(one for one in values if isinstance(one, int) and one >= 0)


def number(tags: Tags, tag: int) -> int:
    """The first whole number of ``tag``; 0 where it has none."""
    return next(iter(numbers(tags, tag)), 0)


def text(tags: Tags, tag: int) -> str:
    """The text of ``tag``; empty where it has none."""
    value = tags.get(tag)
    return value.split(b"\0")[0].decode("latin-1").strip() if isinstance(value, bytes) else ""
