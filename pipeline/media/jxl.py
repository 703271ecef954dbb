"""The header of a JPEG XL file: Pillow's plugin decodes the pixels at once, and says less.

Sources: ISO/IEC 18181-1, annexes A and D (codestream headers), 18181-2 (boxes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pipeline.media.boxes import boxes, payload

CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
CODESTREAM = b"\xff\x0a"
_ENOUGH = 64  # bytes of codestream: the header with everything in it takes fewer
_LARGEST_XMP = 1_000_000
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BITS = ((8, 0), (10, 0), (12, 0), (1, 6))
_FLOAT_BITS = ((32, 0), (16, 0), (24, 0), (1, 6))
#: Ticks a second as a fraction, loops
_ANIMATION = (
    ((100, 0), (1000, 0), (1, 10), (1, 30)),
    ((1, 0), (1001, 0), (1, 8), (1, 10)),
    ((0, 0), (0, 3), (0, 16), (0, 32)),
)
_SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))


@dataclass(frozen=True, slots=True)
class Header:
    """What the codestream says before its pixels."""

    width: int  #: as stored, before orientation
    height: int
    orientation: int  #: as EXIF's, 1 to 8
    bits: int  #: for each channel
    animated: bool
    xmp: bytes | None = None  #: from the container
    is_packed: bool = False  #: there is metadata, packed with Brotli


def read_header(path: Path) -> Header:
    """Read it. Raises ValueError where there is none."""
    with path.open("rb") as file:
        start = file.read(len(CONTAINER))
        if start == CONTAINER:
            return _contained(file, path.stat().st_size)
        file.seek(0)
        return _header(file.read(_ENOUGH))


def _contained(file: BinaryIO, size: int) -> Header:
    """From the boxes: the codestream, which may come in parts, and the XMP."""
    codestream, xmp, is_packed = b"", None, False
    for box in boxes(file, 0, size):
        if box.name in {b"jxlc", b"jxlp"} and len(codestream) < _ENOUGH:
            part = payload(file, box, _ENOUGH + 4)
            codestream += part[4:] if box.name == b"jxlp" else part
        elif box.name == b"xml " and box.end - box.start <= _LARGEST_XMP:
            xmp = payload(file, box, _LARGEST_XMP)
        is_packed |= box.name == b"brob"
    return replace(_header(codestream), xmp=xmp, is_packed=is_packed)


class _Bits:
    """Bits from the least significant one of each byte on. Raises ValueError past the end."""

    def __init__(self, data: bytes) -> None:
        self._left, self._bits = len(data) * 8, int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("the header ends too early")
        taken = self._bits & ((1 << count) - 1)
        self._bits >>= count
        self._left -= count
        return taken

    def choose(self, choices: tuple[tuple[int, int], ...]) -> int:
        """A number in one of four ways: a base and so many bits."""
        base, count = choices[self.take(2)]
        return base + self.take(count)


def _header(codestream: bytes) -> Header:
    bits = _Bits(codestream)
    if bits.take(16) != int.from_bytes(CODESTREAM, "little"):
        raise ValueError("no JPEG XL codestream")
    width, height = _size(bits)
    orientation, animated, depth = 1, False, 8
    if not bits.take(1):  # not all is as usual
        if bits.take(1):
            orientation, animated = _extra(bits)
        depth = bits.choose(_FLOAT_BITS if bits.take(1) else _BITS)
    return Header(width, height, orientation, depth, animated)


def _extra(bits: _Bits) -> tuple[int, bool]:
    """Orientation, and whether there is an animation."""
    orientation = bits.take(3) + 1
    if bits.take(1):
        _size(bits)  # what it is to be shown at
    if bits.take(1):
        _preview(bits)
    if not bits.take(1):
        return orientation, False
    for choices in _ANIMATION:
        bits.choose(choices)
    bits.take(1)  # whether there are time codes
    return orientation, True


def _size(bits: _Bits) -> tuple[int, int]:
    eights = bits.take(1)

    def side() -> int:
        return (bits.take(5) + 1) * 8 if eights else bits.choose(_SIDE)

    height = side()
    ratio = bits.take(3)
    if not ratio:
        return side(), height
    across, down = _RATIOS[ratio - 1]
    return height * across // down, height


def _preview(bits: _Bits) -> None:
    eights = bits.take(1)
    choices = ((16, 0), (32, 0), (1, 5), (33, 9)) if eights else ((1, 6), (65, 8), (321, 10), (1345, 12))
    bits.choose(choices)
    if not bits.take(3):
        bits.choose(choices)
